"""WebDatasets in the layout of CLIP_benchmark and of the code of Zavras et al.

<dataset>/classnames.txt, zeroshot_classification_templates.txt  one per line, with {c}
         /<split>/nshards.txt, nsamples.txt (optional), 0.tar, 1.tar, ...
                  (or 00000.tar, 00001.tar, ...)
A sample is the consecutive members with one key: <key>.webp (or jpg, png), <key>.cls
(the label's number), <key>.s2_patch.pth ([bands, h, w] in DN), <key>.labels_19.pth
(multi-hot), <key>.txt (captions, one per line).

13 bands are expected in SENSORS' order, unless a bands.txt beside classnames.txt names
another one. 12 bands need that file: nothing in them shows their order.
"""

import array
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from rsclip_jax.data.bad_records import leave_out
from rsclip_jax.data.codecs.images import decode_image
from rsclip_jax.data.codecs.patches import as_sensor, make_picture
from rsclip_jax.data.codecs.tars import Member
from rsclip_jax.data.readers.folders import hash_percent, split_folders
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sources.shards import (
    entries_of,
    first_sample,
    first_shard,
    list_shards,
    read_count,
    samples_of,
)
from rsclip_jax.data.types import (
    SPLIT_NAMES,
    Dataset,
    LeftOut,
    OpenOptions,
    Record,
    Source,
)
from rsclip_jax.io.texts import first_of, read_lines, read_text, shown
from rsclip_jax.io.torch_files import read_torch

IMAGES = ("webp", "jpg", "jpeg", "png")
PATCH = "s2_patch.pth"
_LABELS = re.compile(r"cls|labels_\d+\.pth")
# Number of bands -> sensor, composite.
_S2 = {13: ("s2_l1c", "s2_l1c_rgb"), 12: ("s2_l2a", "s2_l2a_rgb")}


def describe(name: str, folder: Path, path: str) -> Dataset:
    """Describes a dataset by its text files and its first sample.

    name: "wds:<path>", followed by "#cls" or "#labels_19" to choose among labels.
    Raises ValueError or FileNotFoundError naming what is missing or ambiguous.
    """
    shard = first_shard(folder)
    key, sample = first_sample(shard)
    sensors, composites, bands = _sensors(folder, shard, key, sample)
    label = _choose_label(name, key, sample)
    classes: tuple[str, ...] = ()
    task, templates = ("captions" if "txt" in sample else "none"), classes
    if label:
        task = "single" if label == "cls" else "multi"
        classes = _class_names(folder, label)
        templates = entries_of(folder / "zeroshot_classification_templates.txt")
        if wrong := [t for t in templates if "{c}" not in t]:
            raise ValueError(
                f"{folder / 'zeroshot_classification_templates.txt'}: template"
                f" {wrong[0]!r} has no {{c}} for the class name"
            )
    return Dataset(
        name,
        "wds",
        task,
        sensors,
        classes,
        classes,
        templates,
        (path,),
        file_bands=bands,
        composites=composites,
    )


def _class_names(folder: Path, label: str) -> tuple[str, ...]:
    """Reads classnames_19.txt for labels_19.pth if it exists, else classnames.txt."""
    number = re.sub(r"\D", "", label)
    numbered = folder / f"classnames_{number}.txt"
    is_there = number and numbered.exists()
    path = numbered if is_there else folder / "classnames.txt"
    names = entries_of(path)
    for i, (line, name) in enumerate(read_lines(path)):
        if line != i + 1:
            raise ValueError(
                f"{path}: line {i + 1} is empty, so it names no class, and the labels"
                " after it would have others; name the class, or remove the line"
            )
        if name in names[:i]:
            raise ValueError(
                f"{path}: lines {names.index(name) + 1} and {line} are both"
                f" {shown(name)}; give each class its own name"
            )
    return names


def _choose_label(name: str, key: str, sample: Mapping[str, Member]) -> str:
    """The member that holds the label; "" without labels."""
    found = sorted(member for member in sample if _LABELS.fullmatch(member))
    wanted = name.partition("#")[2]
    names = {member.removesuffix(".pth"): member for member in found}
    if wanted:
        if wanted not in names:
            raise ValueError(
                f"dataset {name!r}: sample {key} has no {wanted!r}; its labels are"
                f" {', '.join(names) or 'none'}"
            )
        return names[wanted]
    if len(found) > 1:
        raise ValueError(
            f"dataset {name!r}: sample {key} has the labels {', '.join(names)}; choose"
            f" one, such as {name}#{next(iter(names))}"
        )
    return found[0] if found else ""


def _sensors(folder: Path, shard: Path, key: str, sample: Mapping[str, Member]):
    """(sensors, composites, file bands) of a dataset, by its first sample."""
    sensors, composites, bands = {}, {}, {}
    if any(image in sample for image in IMAGES):
        sensors["rgb"] = "rgb"
    if PATCH in sample:
        where = f"{shard}: {key}.{PATCH}"
        with shard.open("rb") as file:
            data = os.pread(file.fileno(), sample[PATCH].size, sample[PATCH].offset)
        patch = _tensor(data, where)
        shape = patch.shape
        if len(shape) != 3 or shape[0] not in _S2:
            raise ValueError(
                f"{where}: a tensor of shape {shape}, expected [bands, h, w] with 13"
                " bands (L1C) or 12 (L2A)"
            )
        sensors["s2"], made = _S2[shape[0]]
        if "rgb" not in sensors:
            sensors, composites = {"rgb": "rgb", **sensors}, {"rgb": ("s2", made)}
        if (path := folder / "bands.txt").exists():
            bands = {"s2": entries_of(path)}
            wanted = get_sensor(sensors["s2"]).bands
            if sorted(bands["s2"]) != sorted(wanted):
                held = shown(bands["s2"], 300)
                raise ValueError(f"{path}: {held} are not the bands {wanted}")
        elif shape[0] == 12:
            order = " ".join(get_sensor(sensors["s2"]).bands)
            raise FileNotFoundError(
                f"{path} is missing, and nothing in the 12 bands of {where} shows their"
                " order; write their names in the file's order into it, one per line:"
                f" {order}, if they are in this order"
            )
        else:
            _check_order(patch, where, path)
    if not sensors:
        raise ValueError(
            f"{shard}: its first sample, {key!r}, has the members"
            f" {first_of(list(sample)) or 'none'}, but neither an image"
            f" ({', '.join(IMAGES)}) nor {PATCH}"
        )
    return sensors, composites, bands


def _check_order(patch: np.ndarray, where: str, path: Path) -> None:
    """Raises ValueError if B10, nearly black in L1C, seems to be where B09 should be.

    EuroSAT's files are in such an order, with B8A last. In 140 of them B10 / B11 is at
    most 0.41; in SENSORS' order B09 / B10 is at least 7.7.
    """
    ninth, tenth = patch[9].mean(dtype=float), patch[10].mean(dtype=float)
    if 2 * ninth < tenth:
        raise ValueError(
            f"{where}: band 9, counted from 0, is darker than band 10 ({ninth:.0f},"
            f" {tenth:.0f}), as in EuroSAT's files, where B8A is last. Write the names"
            f" of the bands in the file's order, one per line, into {path}"
        )


def _tensor(data: bytes, where: str) -> np.ndarray:
    array = read_torch(data, where)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{where}: a {type(array).__name__}, expected one tensor")
    return array


def open_webdataset(
    dataset: Dataset, folder: Path, split: str, options: OpenOptions
) -> "WebDataset":
    """Opens a split; its samples are found by walking over the tars' headers.

    Raises ValueError for a cut tar, a sample with a missing member, or a number of
    samples that differs from nsamples.txt; on_error "skip" leaves these out.
    """
    wanted = _wanted(dataset, folder)
    source = WebDataset(dataset, split, tuple(wanted), options)
    for base, low, high, tops in split_folders(folder, split, SPLIT_NAMES):
        faults: list[str] = []
        count = 0
        for shard in list_shards(base):
            source.shards.append(shard)
            for key, spans in _index(shard, wanted, faults):
                count += 1
                key = f"{shard.stem}/{key}"
                if spans and low <= hash_percent(key) < high:
                    source.add("/".join([*tops, key]), spans)
        stated = base / "nsamples.txt"
        if stated.exists() and read_count(stated, "the number of its samples") != count:
            number = read_text(stated).strip()
            faults.append(f"{stated} says {number} samples, but its tars hold {count}")
        if faults:
            text = f"{base}: {len(faults)} fault(s): {first_of(faults, '; ')}"
            leave_out(text, "correct the tars", options.on_error)
            source.left_out += [(str(base), fault) for fault in faults]
    return source


def _wanted(dataset: Dataset, folder: Path) -> dict[str, tuple[str, ...]]:
    """Record key -> the members that can hold it, by the first sample."""
    key, sample = first_sample(first_shard(folder))
    held = {"rgb": IMAGES, "s2": (PATCH,)}
    wanted = {k: held[k] for k in dataset.sensors if k not in dataset.composites}
    if dataset.task == "captions":
        return {**wanted, "captions": ("txt",)}
    label = _choose_label(dataset.name, key, sample)
    return {**wanted, "label": (label,)} if label else wanted


def _index(
    shard: Path, wanted: Mapping[str, tuple[str, ...]], faults: list[str]
) -> Iterator[tuple[str, list[int]]]:
    """Yields (key, offset and size of each wanted member); [] if one is missing.

    Missing members, keys that occur again and cut tars are added to faults.
    """
    seen: set[str] = set()
    try:
        for key, sample in samples_of(shard):
            if key in seen:
                faults.append(f"{shard}: the key {key!r} occurs twice")
                yield key, []
                continue
            seen.add(key)
            found = [[m for m in names if m in sample] for names in wanted.values()]
            lost = [n[0] for n, f in zip(wanted.values(), found, strict=True) if not f]
            if lost:
                faults.append(
                    f"{shard}: sample {key!r} has no {', '.join(lost)}, only"
                    f" {first_of(list(sample))}"
                )
            yield key, [] if lost else [n for f in found for n in sample[f[0]][1:]]
    except ValueError as error:
        faults.append(str(error))


class WebDataset(Source):
    """Reads samples from their tars, in any order and from any thread."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        columns: tuple[str, ...],
        options: OpenOptions,
    ):
        self.dataset, self.split, self.ids = dataset, split, list[str]()
        self.max_nodata, self.max_pixels = options.max_nodata, options.max_pixels
        self.shards: list[Path] = []
        self.left_out: list[LeftOut] = []
        self._columns = columns
        # For each sample, of which there can be millions: the index of its tar in
        # shards, then offset and size of each column.
        self._table = array.array("q")

    def add(self, id_: str, spans: list[int]) -> None:
        """Adds a sample of the last shard."""
        self.ids.append(id_)
        self._table.extend([len(self.shards) - 1, *spans])

    def read(self, index: int, keys: Collection[str]) -> Record:
        """Reads a record with at least these sensors."""
        dataset, index = self.dataset, range(len(self))[index]
        made = [k for k in dataset.composites if k in keys]
        read = {"label", "captions", *keys, *(dataset.composites[k][0] for k in made)}
        width = 1 + 2 * len(self._columns)
        shard, *spans = self._table[index * width : (index + 1) * width]
        held, path = {}, self.shards[shard]
        # opened on each access, so threads share no position and the source pickles
        with path.open("rb", buffering=0) as file:
            for i, column in enumerate(self._columns):
                if column in read:
                    offset, size = spans[2 * i : 2 * i + 2]
                    held[column] = os.pread(file.fileno(), size, offset)
        return self._decode(self.ids[index], held, f"{path}: {self.ids[index]}", keys)

    def _decode(self, id_: str, held: dict[str, bytes], where: str, keys) -> Record:
        dataset = self.dataset
        record: Record = {"id": id_, "label": -1}
        if "label" in held:
            count = len(dataset.classes)
            decode = _class_number if dataset.task == "single" else _many_hot
            record["label"] = decode(held["label"], count, where)
        if "captions" in held:
            record["captions"] = _captions(held["captions"], where)
        if "rgb" in held:
            record["rgb"] = decode_image(held["rgb"], where, max_pixels=self.max_pixels)
        if "s2" in held:
            sensor = get_sensor(dataset.sensors["s2"])
            patch = _tensor(held["s2"], where)
            bands = dataset.file_bands.get("s2", ())
            moved = np.moveaxis(patch, 0, -1) if patch.ndim == 3 else patch
            s2 = as_sensor(moved, sensor, bands, where, self.max_nodata)
            for key in (k for k in dataset.composites if k in keys):
                record[key] = make_picture(dataset, key, s2)
            if "s2" in keys:
                record["s2"] = s2
        return record


def _class_number(data: bytes, count: int, where: str) -> int:
    text = data.decode("ascii", "replace").strip()
    if not text.isdigit() or int(text) >= count:
        raise ValueError(
            f"{where}: label {text!r:.40} is not a number from 0 to {count - 1}, an"
            " index into classnames.txt"
        )
    return int(text)


def _many_hot(data: bytes, count: int, where: str) -> np.ndarray:
    """uint8 [count] from a tensor of zeros and ones."""
    hot = _tensor(data, where)
    if hot.shape != (count,) or not np.isin(hot, (0, 1)).all():
        raise ValueError(
            f"{where}: labels of shape {hot.shape} and values {np.unique(hot)[:5]},"
            f" expected {count} of 0 and 1: one for each line of classnames.txt"
            " (or of classnames_19.txt for labels_19)"
        )
    return hot.astype(np.uint8)


def _captions(data: bytes, where: str) -> tuple[str, ...]:
    """The non-empty lines of a text."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: its captions are not UTF-8 ({error})") from error
    captions = tuple(line.strip() for line in lines if line.strip())
    if not captions:
        raise ValueError(f"{where}: it has no caption")
    return captions
