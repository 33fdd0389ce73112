"""Opens weight files: tensor names, shapes, a reader and the config beside them.

Handles containers (safetensors, torch files, shards with an index, folders) and the
wrappers of training scripts; layouts.py interprets the names.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from rsclip_jax.io.files import parse_json, read_object
from rsclip_jax.io.texts import clip, first_of, shown
from rsclip_jax.io.torch_files import load_torch
from rsclip_jax.weights.wrappers import bare_names, unwrap

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar")
WEIGHT_NAMES = (*SUFFIXES, ".index.json")  # endings of weight files' names
# Weight files that a folder may hold, in order of preference: safetensors first.
IN_FOLDER = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# The first of these two that exists describes the model; Hugging Face keeps the image
# mean and std in another file.
_MODEL_CONFIGS = ("open_clip_config.json", "config.json")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
TOKENIZER_FILES = (
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
CONFIGS = (*_MODEL_CONFIGS, *_PROCESSORS, *TOKENIZER_FILES, *ADAPTER_FILES)


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """Tensors by name; read(name) returns one, memory-mapped if the format allows.

    metadata: the metadata of the safetensors header. config: the JSON beside weights of
    a usual name, one of IN_FOLDER (its "kind": "open_clip" or "hf").
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def told(self, key: str) -> dict[str, Any] | None:
        """The JSON object under a key of the metadata; None where there is none.

        Raises ValueError naming the file for anything else.
        """
        if not (text := self.metadata.get(key)):
            return None
        where = f"{self.path}: {key!r} in its header"
        found = parse_json(text, where)
        if not isinstance(found, dict):
            raise ValueError(f"{where} holds {shown(found, 60)}, not a JSON object")
        return found

    def renamed(self, names: Mapping[str, str]) -> "WeightFile":
        """The same tensors under new names: {new: old}."""
        shapes = {new: self.shapes[old] for new, old in names.items()}
        return dataclasses.replace(
            self, shapes=shapes, read=lambda new: self.read(names[new])
        )

    def with_tensors(self, made: Mapping[str, np.ndarray]) -> "WeightFile":
        """The file with tensors added, or in place of those of the same names."""
        shapes = {name: array.shape for name, array in made.items()}
        return dataclasses.replace(
            self,
            shapes={**self.shapes, **shapes},
            read=lambda name: made[name] if name in made else self.read(name),
        )


def open_weights(path: str | Path, ema: bool = True) -> WeightFile:
    """Opens a weight file, an index of shards, or a folder that holds either.

    Prefixes of what held the model in training are removed (wrappers.py). ema: whether
    averaged weights are taken where a checkpoint has raw ones too, as timm does.
    Raises FileNotFoundError or ValueError naming the file and what was expected.
    """
    path = Path(path)
    if path.is_dir():
        path = _find_weights(path)
    elif not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such weight file or folder")
    config = _read_config(path.parent) if path.name in IN_FOLDER else {}
    return dataclasses.replace(_open_file(path, ema), config=config)


def is_weight_folder(path: Path) -> bool:
    """Whether the folder has a weight file that open_weights would read."""
    return usual_file(path) is not None


def usual_file(folder: Path, among: Collection[Path] | None = None) -> Path | None:
    """The weight file of a folder that open_weights reads, among these or on disk."""
    paths = (folder / name for name in IN_FOLDER)
    exists = Path.is_file if among is None else among.__contains__
    return next(filter(exists, paths), None)


def file_digests(path: Path) -> dict[str, str]:
    """{name: sha256} of all files that open_weights reads from a path."""
    file = _find_weights(path) if path.is_dir() else path
    read, folder = [file], file.parent
    if file.name in IN_FOLDER:
        read += filter(Path.is_file, map(folder.joinpath, CONFIGS))
    shards = [folder / name for name in shard_names(read[0])]
    return {
        file.relative_to(folder).as_posix(): _sha256(file) for file in read + shards
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_weights(folder: Path) -> Path:
    found = usual_file(folder)
    if found is None:
        adapter = (folder / ADAPTER_FILES[0]).is_file()
        alone = "an adapter without the weights that it adapts: put them beside it"
        raise FileNotFoundError(
            f"{folder}: {alone if adapter else 'no weight file in this folder'};"
            f" expected one of {', '.join(IN_FOLDER)}"
        )
    return found


def _read_config(folder: Path) -> dict:
    for name in _MODEL_CONFIGS:
        if (folder / name).is_file():
            kind = "hf" if name == "config.json" else "open_clip"
            config = {"kind": kind, **read_object(folder / name)}
            if kind == "hf":
                config["preprocessor"] = _read_preprocessor(folder)
            return config
    return {}


def _read_preprocessor(folder: Path) -> dict:
    """The image processor's settings; transformers 5 takes the first file that is."""
    newer, older = (folder / name for name in _PROCESSORS)
    found = read_object(newer).get("image_processor") if newer.is_file() else None
    if isinstance(found, dict):
        return found
    return read_object(older) if older.is_file() else {}


def _open_file(path: Path, ema: bool = True) -> WeightFile:
    if _is_index(path):
        return _open_shards(path, ema)
    if path.suffix == ".safetensors":
        return _bare(_open_safetensors(path))
    if path.name.endswith(SUFFIXES):
        tensors = unwrap(load_torch(path), path, ema)
        shapes = {name: array.shape for name, array in tensors.items()}
        return _bare(WeightFile(path, shapes, tensors.__getitem__))
    raise ValueError(
        f"{path}: not the name of a weight file; give {', '.join(SUFFIXES)}, an"
        " .index.json of shards, or a folder"
    )


def _open_safetensors(path: Path) -> WeightFile:
    try:
        file = safetensors.safe_open(path, framework="np")
        names = list(file.keys())
        shapes = {n: tuple(file.get_slice(n).get_shape()) for n in names}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({clip(str(error), 200)}); fetch it"
            " again"
        ) from error

    def read(name: str) -> np.ndarray:
        if (kind := file.get_slice(name).get_dtype()) in _FLOAT8:
            return _read_float8(path, name, _FLOAT8[kind])
        try:
            return file.get_tensor(name)
        except (safetensors.SafetensorError, AttributeError, ValueError) as error:
            # AttributeError: numpy has no such dtype; ValueError: no such shape
            raise ValueError(
                f"{path}: tensor {shown(name)} cannot be read"
                f" ({clip(str(error), 200)}); save it in another dtype"
            ) from error

    return WeightFile(path, shapes, read, file.metadata() or {})


# Numbers of 8 bits, which safetensors opens and its numpy reader does not know.
_FLOAT8 = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}


def _read_float8(path: Path, name: str, dtype: type) -> np.ndarray:
    """A tensor of a file that safetensors has checked, by the place in its header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        told = json.loads(file.read(length))[name]
        begin, end = told["data_offsets"]
        file.seek(8 + length + begin)
        return np.frombuffer(file.read(end - begin), dtype).reshape(told["shape"])


def shard_names(path: Path) -> list[str]:
    """The shards that an index names; [] for other files."""
    return sorted(set(_weight_map(path).values())) if _is_index(path) else []


def _is_index(path: Path) -> bool:
    return path.name.endswith(".index.json")


def _weight_map(index: Path) -> dict[str, str]:
    where = read_object(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise ValueError(f"{index}: no 'weight_map' in this index of shards")
    strange = [name for name in where.values() if not _is_shard(name)]
    if strange:
        raise ValueError(
            f"{index}: {shown(strange[0])} is not the name of a weight file beside it,"
            f" as all shards are ({', '.join(SUFFIXES)}); fetch the index again"
        )
    return where


def _is_shard(name: object) -> bool:
    """Whether a name is a file's, without a folder, and of a suffix that has tensors.

    An index thus cannot lead to itself, or out of its folder.
    """
    return (
        isinstance(name, str)
        and name.endswith(SUFFIXES)
        and re.fullmatch(r"[\w.+@ -]{1,200}", name) is not None
    )


def _open_shards(index: Path, ema: bool) -> WeightFile:
    where = _weight_map(index)
    missing = sorted({n for n in where.values() if not (index.parent / n).is_file()})
    if missing:
        raise FileNotFoundError(
            f"{index}: {len(missing)} shards are not there: {first_of(missing)}"
        )
    shards = {n: _open_file(index.parent / n, ema) for n in sorted(set(where.values()))}
    absent = [t for t, n in where.items() if t not in shards[n].shapes]
    if absent:
        raise ValueError(
            f"{index}: {len(absent)} tensor(s) are not in the shards named:"
            f" {first_of(absent)}"
        )
    shapes = {tensor: shards[n].shapes[tensor] for tensor, n in where.items()}
    return WeightFile(index, shapes, lambda t: shards[where[t]].read(t))


def _bare(file: WeightFile) -> WeightFile:
    names = bare_names(file.shapes)
    return file if list(names) == list(names.values()) else file.renamed(names)
