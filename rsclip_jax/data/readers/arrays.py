"""CIFAR-10, CIFAR-100 and STL-10 as downloaded: arrays in files.

cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}    pickles
cifar-100-python/{train,test,meta}                               pickles, fine labels
cifar-10-batches-bin/{data_batch_1..5.bin,test_batch.bin,batches.meta.txt}
cifar-100-binary/{train.bin,test.bin,fine_label_names.txt}
stl10_binary/{train,test}_{X,y}.bin, class_names.txt

CIFAR's images are 3 x 32 x 32, row by row; STL-10's are 3 x 96 x 96, column by column,
with labels from 1. A pickle can run any code, so only the calls that these files need
are allowed.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rsclip_jax.data.readers.folders import in_split, no_split, parse_split
from rsclip_jax.data.types import SPLITS
from rsclip_jax.io.texts import clip, read_lines


class Arrays(NamedTuple):
    """A split: the id, class and pixels (uint8 [h, w, 3]) of each image."""

    ids: list[str]
    labels: list[str]
    images: list[np.ndarray]


class Layout(NamedTuple):
    """A file format. read: file -> (images [n, h, w, 3], labels [n] from 0)."""

    files: dict[str, tuple[str, ...]]
    names: str  # the file with the class names
    read_names: Callable[[Path], list[str]]
    read: Callable[[Path], tuple[np.ndarray, np.ndarray]]


def find_arrays(name: str, folder: Path) -> tuple[Path, Layout] | None:
    """Finds (folder, layout) of a dataset's arrays in or below a folder, or None."""
    for below, layout in _LAYOUTS[name].items():
        for base in (folder / below, folder):
            if (base / layout.names).is_file():
                return base, layout
    return None


def read_arrays(
    base: Path, layout: Layout, split: str, classes: tuple[str, ...]
) -> Arrays:
    """Reads a split in the files' order; the ids are "<split>/<class>/<number>".

    Raises FileNotFoundError for a missing file or split, ValueError naming a file that
    is damaged or has other classes.
    """
    name, _, _ = parse_split(split)
    names = layout.read_names(base / layout.names)
    if sorted(names) != sorted(classes):
        raise ValueError(
            f"{base / layout.names}: classes {clip(', '.join(names), 400)};"
            f" expected {clip(', '.join(classes), 400)}"
        )
    wanted = [s for s in SPLITS if s in layout.files] if name == "all" else [name]
    if wanted[0] not in layout.files:
        raise no_split(base, name, list(layout.files))
    in_part = in_split(split, made=True)
    out = Arrays([], [], [])
    for one in wanted:
        images, labels = _read_files(base, layout, one, names)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            key = f"{label}/{i:05d}"
            if in_part(key):
                out.ids.append(f"{one}/{key}")
                out.labels.append(label)
                out.images.append(image)
    return out


def _read_files(base: Path, layout: Layout, split: str, names: list[str]):
    images: list[np.ndarray] = []
    labels: list[str] = []
    for file in layout.files[split]:
        if not (base / file).is_file():
            raise FileNotFoundError(
                f"{base}: {file} is missing; unpack the archive again"
            )
        pixels, numbers = layout.read(base / file)
        if len(pixels) != len(numbers) or not np.isin(numbers, range(len(names))).all():
            raise ValueError(
                f"{base / file}: {len(pixels)} images with {len(numbers)} labels from"
                f" {min(numbers, default=0)} to {max(numbers, default=0)}; expected"
                f" one label for each image, of {len(names)} classes"
            )
        images += list(pixels)
        labels += [names[n] for n in numbers]
    return images, labels


def _read_lines(path: Path) -> list[str]:
    return [line for _, line in read_lines(path)]


def _read_bytes(path: Path, record: int) -> np.ndarray:
    """Maps a file as bytes [n, record]."""
    size = path.stat().st_size
    if not size or size % record:
        raise ValueError(
            f"{path}: {size:,} bytes are not records of {record:,}: the file is cut;"
            " fetch it again"
        )
    return np.asarray(np.memmap(path, np.uint8, "r")).reshape(-1, record)


def _cifar_images(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _read_cifar_bin(path: Path, labels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """labels: the number of labels in a record; the last one is used."""
    rows = _read_bytes(path, labels + 3072)
    return _cifar_images(rows[:, labels:]), rows[:, labels - 1]


def _read_stl10(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = _read_bytes(path, 3 * 96 * 96)
    labels = _read_bytes(path.with_name(path.name.replace("_X", "_y")), 1)[:, 0]
    # stored column by column: [channel, x, y]
    return rows.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1), labels.astype(int) - 1


def _read_cifar_py(path: Path, key: str = "labels") -> tuple[np.ndarray, np.ndarray]:
    batch = _load_pickle(path)
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or key not in batch:
        held = clip(", ".join(batch), 300)
        raise ValueError(f"{path}: holds {held}; expected uint8 data and {key}")
    if data.ndim != 2 or data.shape[1] != 3072:
        raise ValueError(f"{path}: data of shape {data.shape}, expected [n, 3072]")
    return _cifar_images(data), np.asarray(batch[key])


def _names_in(key: str) -> Callable[[Path], list[str]]:
    return lambda path: list(map(str, _load_pickle(path).get(key, [])))


def _make_dtype(name: str, align: object = 0, copy: object = 0) -> np.dtype:
    del align, copy  # NumPy 2.4 warns of the numbers in old pickles
    return np.dtype(name)


_ALLOWED = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": _make_dtype,
    "numpy.core.multiarray._reconstruct": np.zeros(0).__reduce__()[0],
    "numpy._core.multiarray._reconstruct": np.zeros(0).__reduce__()[0],
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it calls {module}.{name}, which arrays do not need and which could"
                " run any code; it was not run"
            )
        return _ALLOWED[f"{module}.{name}"]


def _load_pickle(path: Path) -> dict[str, Any]:
    """Loads a dict of arrays, lists, texts and numbers; refuses anything else."""
    with path.open("rb") as file:
        try:
            # written by Python 2, where text is bytes
            batch = _Unpickler(file, encoding="latin1").load()
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(
                f"{path}: cannot be read ({error}); fetch it again"
            ) from error
    if not isinstance(batch, dict):
        raise ValueError(f"{path}: a {type(batch).__name__}, expected a dict of arrays")
    return {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}


def _batches(suffix: str) -> dict[str, tuple[str, ...]]:
    train = tuple(f"data_batch_{i}{suffix}" for i in range(1, 6))
    return {"train": train, "test": (f"test_batch{suffix}",)}


def _two(suffix: str) -> dict[str, tuple[str, ...]]:
    return {"train": (f"train{suffix}",), "test": (f"test{suffix}",)}


_LAYOUTS = {
    "cifar10": {
        "cifar-10-batches-py": Layout(
            _batches(""), "batches.meta", _names_in("label_names"), _read_cifar_py
        ),
        "cifar-10-batches-bin": Layout(
            _batches(".bin"), "batches.meta.txt", _read_lines, _read_cifar_bin
        ),
    },
    "cifar100": {
        "cifar-100-python": Layout(
            _two(""),
            "meta",
            _names_in("fine_label_names"),
            lambda path: _read_cifar_py(path, "fine_labels"),
        ),
        "cifar-100-binary": Layout(
            _two(".bin"),
            "fine_label_names.txt",
            _read_lines,
            lambda path: _read_cifar_bin(path, labels=2),
        ),
    },
    "stl10": {
        "stl10_binary": Layout(
            _two("_X.bin"), "class_names.txt", _read_lines, _read_stl10
        )
    },
}
