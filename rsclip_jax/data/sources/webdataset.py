"""WebDatasets in the layout of CLIP_benchmark and of the code of Zavras et al.

<dataset>/classnames.txt, zeroshot_classification_templates.txt  one per line, with {c}
         /<split>/nshards.txt, nsamples.txt (optional), 0.tar, 1.tar, ...
A sample is the consecutive members with one key: <key>.webp (or jpg, png), <key>.cls
(the label's number), <key>.s2_patch.pth ([bands, h, w] in DN), <key>.labels_19.pth
(multi-hot), <key>.txt (captions, one per line).

Bands are expected in SENSORS' order, as the encoder of Zavras et al. expects them: red,
green and blue are bands 3, 2 and 1. A bands.txt beside classnames.txt can name another
order.
"""

import array
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from rsclip_jax.data.bad_records import leave_out
from rsclip_jax.data.codecs.images import decode_image
from rsclip_jax.data.codecs.patches import as_sensor, make_picture
from rsclip_jax.data.codecs.tars import Member, walk_tar
from rsclip_jax.data.readers.folders import first_of, hash_percent, split_folders
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.types import (
    SPLIT_NAMES,
    Dataset,
    LeftOut,
    OpenOptions,
    Record,
    Source,
)
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
    shard = _first_shard(folder)
    key, sample = _first_sample(shard)
    sensors, composites, bands = _sensors(folder, shard, key, sample)
    label = _choose_label(name, key, sample)
    classes: tuple[str, ...] = ()
    task, templates = ("captions" if "txt" in sample else "none"), classes
    if label:
        task = "single" if label == "cls" else "multi"
        classes = _class_names(folder, label)
        templates = _lines(folder / "zeroshot_classification_templates.txt")
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


def _first_shard(folder: Path) -> Path:
    for split in ("test", "val", "train", ""):
        if (folder / split).is_dir() and (shards := _shards(folder / split)):
            return shards[0]
    raise FileNotFoundError(
        f"{folder}: no train, val or test with 0.tar, 1.tar, ... in it"
    )


def _shards(folder: Path) -> list[Path]:
    """A split's tars, whose number is in nshards.txt; [] for a folder without tars."""
    names = [p.name for p in folder.iterdir()]
    found = {name for name in names if re.fullmatch(r"\d+\.tar", name)}
    for name in sorted(n for n in names if re.fullmatch(r"\d+\.(tar\.gz|tgz)", n)):
        stem, _, suffix = name.partition(".")
        if f"{stem}.tar" not in found:
            raise ValueError(
                f"{folder / name}: compressed tars have no random access; unpack all"
                f" of them once: gunzip {shlex.quote(str(folder))}/*.{suffix}"
            )
    if not found and not (folder / "nshards.txt").exists():
        return []
    count = _count(folder / "nshards.txt", "the number of its tars")
    missing = [name for i in range(count) if (name := f"{i}.tar") not in found]
    if missing or not count:
        raise FileNotFoundError(
            f"{folder}: nshards.txt says {count} tars, but {first_of(missing)}"
            f" ({len(missing)}) do not exist; fetch them, or correct nshards.txt"
        )
    return [folder / f"{i}.tar" for i in range(count)]


def _count(path: Path, what: str) -> int:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; write {what} into it")
    text = path.read_text().strip()
    if not text.isdigit():
        raise ValueError(f"{path}: {text!r:.40} is not {what}")
    return int(text)


def _lines(path: Path) -> tuple[str, ...]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; write it with one entry per line")
    lines = tuple(filter(None, map(str.strip, path.read_text("utf-8").splitlines())))
    if not lines:
        raise ValueError(f"{path} is empty; write one entry per line into it")
    return lines


def _class_names(folder: Path, label: str) -> tuple[str, ...]:
    """Reads classnames_19.txt for labels_19.pth if it exists, else classnames.txt."""
    number = re.sub(r"\D", "", label)
    numbered = folder / f"classnames_{number}.txt"
    is_there = number and numbered.exists()
    return _lines(numbered if is_there else folder / "classnames.txt")


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
            bands = {"s2": _lines(path)}
            wanted = get_sensor(sensors["s2"]).bands
            if sorted(bands["s2"]) != sorted(wanted):
                raise ValueError(f"{path}: {bands['s2']} are not the bands {wanted}")
        elif shape[0] == 13:
            _check_order(patch, where, path)
    if not sensors:
        raise ValueError(
            f"{shard}: its first sample, {key!r}, has the members"
            f" {', '.join(sample) or 'none'}, but neither an image"
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


def _first_sample(shard: Path) -> tuple[str, dict[str, Member]]:
    samples = _samples(shard)
    first = next(samples, ("", dict[str, Member]()))
    next(samples, None)  # raises if the tar is cut within the first sample
    return first


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yields (key, {extension: member}) for consecutive members that share a key.

    Ends in walk_tar's ValueError if the tar is cut, after the last whole sample.
    """
    last, sample, fault = "", dict[str, Member](), None
    try:
        for member in walk_tar(shard):
            top, _, base = member.name.removeprefix("./").rpartition("/")
            key, _, extension = base.partition(".")
            key = f"{top}/{key}" if top else key
            if sample and key != last:
                yield last, sample
                sample = {}
            # Zavras et al. write the key ".cls", which gives "<key>..cls"
            last, sample[extension.lower().lstrip(".")] = key, member
    except ValueError as error:
        fault = error
    if sample:
        yield last, sample
    if fault:
        raise fault


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
        for shard in _shards(base):
            source.shards.append(shard)
            for key, spans in _index(shard, wanted, faults):
                count += 1
                key = f"{shard.stem}/{key}"
                if spans and low <= hash_percent(key) < high:
                    source.add("/".join([*tops, key]), spans)
        stated = base / "nsamples.txt"
        if stated.exists() and _count(stated, "the number of its samples") != count:
            number = stated.read_text().strip()
            faults.append(f"{stated} says {number} samples, but its tars hold {count}")
        if faults:
            text = f"{base}: {len(faults)} fault(s): {first_of(faults, '; ')}"
            leave_out(text, "correct the tars", options.on_error)
            source.left_out += [(str(base), fault) for fault in faults]
    return source


def _wanted(dataset: Dataset, folder: Path) -> dict[str, tuple[str, ...]]:
    """Record key -> the members that can hold it, by the first sample."""
    key, sample = _first_sample(_first_shard(folder))
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

    Missing members and cut tars are added to faults.
    """
    try:
        for key, sample in _samples(shard):
            found = [[m for m in names if m in sample] for names in wanted.values()]
            lost = [n[0] for n, f in zip(wanted.values(), found, strict=True) if not f]
            if lost:
                faults.append(
                    f"{shard}: sample {key!r} has no {', '.join(lost)}, only"
                    f" {', '.join(sample)}"
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
        self.max_nodata = options.max_nodata
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
            record["rgb"] = decode_image(held["rgb"], where)
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
