"""Web-datasets as CLIP_benchmark and the code of Zavras et al. lay them out.

<set>/classnames.txt, zeroshot_classification_templates.txt      a line each, {c}
     /<split>/nshards.txt, nsamples.txt (optional), 0.tar, 1.tar, ...
A sample is the members of one key, side by side: <key>.webp (or jpg, png), <key>.cls
(the label's number), <key>.s2_patch.pth ([bands, h, w] of DN), <key>.labels_19.pth
(multi-hot), <key>.txt (captions, a line each).

Zavras et al. feed 13 bands as they lie to an encoder that wants SENSORS' order, and put
B10 among 12 at its place there; red, green and blue are bands 3, 2 and 1. That is the
order taken here; a bands.txt beside classnames.txt names another one.
"""

import array
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from rsclip_jax.data.codecs.images import decode_image
from rsclip_jax.data.codecs.patches import as_sensor, make_picture
from rsclip_jax.data.codecs.tars import Member, walk_tar
from rsclip_jax.data.readers.folders import first_of, hash_percent, split_folders
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sources.files import leave_out
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
_S2 = {13: ("s2_l1c", "s2_l1c_rgb"), 12: ("s2_l2a", "s2_l2a_rgb")}  # by the bands


def describe(name: str, folder: Path, path: str) -> Dataset:
    """The row of a set, told by its text files and its first sample.

    name: "wds:<path>", or "wds:<path>#cls" or "#labels_19" where there are several
    labels. Raises ValueError or FileNotFoundError naming what is missing or unclear.
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
    """A split's tars, as many as nshards.txt says; [] where it holds none at all."""
    names = [p.name for p in folder.iterdir()]
    found = {name for name in names if re.fullmatch(r"\d+\.tar", name)}
    for name in sorted(n for n in names if re.fullmatch(r"\d+\.(tar\.gz|tgz)", n)):
        stem, _, suffix = name.partition(".")
        if f"{stem}.tar" not in found:
            raise ValueError(
                f"{folder / name}: a compressed tar cannot be read at any place; unpack"
                f" all of them once: gunzip {shlex.quote(str(folder))}/*.{suffix}"
            )
    if not found and not (folder / "nshards.txt").exists():
        return []
    count = _count(folder / "nshards.txt", "the number of its tars")
    missing = [name for i in range(count) if (name := f"{i}.tar") not in found]
    if missing or not count:
        raise FileNotFoundError(
            f"{folder}: nshards.txt says {count} tars, but {first_of(missing)}"
            f" ({len(missing)}) are not there; fetch them, or correct nshards.txt"
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
        raise FileNotFoundError(f"{path} is missing; write one a line into it")
    lines = tuple(filter(None, map(str.strip, path.read_text("utf-8").splitlines())))
    if not lines:
        raise ValueError(f"{path} is empty; write one a line into it")
    return lines


def _class_names(folder: Path, label: str) -> tuple[str, ...]:
    """classnames_19.txt of labels_19.pth, or what there is for all: classnames.txt."""
    number = re.sub(r"\D", "", label)
    own = folder / f"classnames_{number}.txt"
    return _lines(own if number and own.exists() else folder / "classnames.txt")


def _choose_label(name: str, key: str, sample: Mapping[str, Member]) -> str:
    """The member that holds the label, "" without one."""
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
    """(sensors, composites, file bands) of a set whose first sample this is."""
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
    """Raises ValueError where B10, nearly black in L1C, stands in the place of B09.

    So it does in EuroSAT's own files, where B8A is last. Of 140 of them, B10 / B11 is
    at most 0.41 there; in SENSORS' order, B09 / B10 is at least 7.7.
    """
    ninth, tenth = patch[9].mean(dtype=float), patch[10].mean(dtype=float)
    if 2 * ninth < tenth:
        raise ValueError(
            f"{where}: band 9, counted from 0, is darker than band 10 ({ninth:.0f},"
            f" {tenth:.0f}), as in EuroSAT's files, where B8A stands last. Write the"
            f" bands' names in the order of the file, one a line, into {path}"
        )


def _first_sample(shard: Path) -> tuple[str, dict[str, Member]]:
    samples = _samples(shard)
    first = next(samples, ("", dict[str, Member]()))
    next(samples, None)  # raises where the tar is cut within the first
    return first


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """(key, {extension: member}) of the members side by side that share a key.

    Ends in walk_tar's ValueError where the tar is cut, after the sample before it.
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
            # Zavras et al. ask for ".cls", which a writer puts down as "<key>..cls"
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


# Opening and reading


def open_webdataset(
    row: Dataset, folder: Path, split: str, options: OpenOptions
) -> "WebDataset":
    """The split's samples, found by a walk over the headers of its tars.

    Raises ValueError for a tar that is cut, a sample without one of its members, and a
    number of samples that is not nsamples.txt's; on_error "skip" reads what is whole.
    """
    wanted = _wanted(row, folder)
    source = WebDataset(row, split, tuple(wanted), options)
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
        told = base / "nsamples.txt"
        if told.exists() and _count(told, "the number of its samples") != count:
            said = told.read_text().strip()
            faults.append(f"{told} says {said} samples, but its tars hold {count}")
        if faults:
            text = f"{base}: {len(faults)} fault(s): {first_of(faults, '; ')}"
            leave_out(text, "correct the tars", options.on_error)
            source.left_out += [(str(base), fault) for fault in faults]
    return source


def _wanted(row: Dataset, folder: Path) -> dict[str, tuple[str, ...]]:
    """Record key -> the members that can hold it, by the set's first sample."""
    key, sample = _first_sample(_first_shard(folder))
    held = {"rgb": IMAGES, "s2": (PATCH,)}
    wanted = {k: held[k] for k in row.sensors if k not in row.composites}
    if row.task == "captions":
        return {**wanted, "captions": ("txt",)}
    label = _choose_label(row.name, key, sample)
    return {**wanted, "label": (label,)} if label else wanted


def _index(
    shard: Path, wanted: Mapping[str, tuple[str, ...]], faults: list[str]
) -> Iterator[tuple[str, list[int]]]:
    """(key, offset and size of each wanted member) of a tar; [] where one is missing.

    What is missing, and where the tar is cut, is added to faults.
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
    """A split's samples, read from their tars at any place and by any thread."""

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
        # a sample: its tar's place in shards, then offset and size of each column;
        # there can be millions
        self._table = array.array("q")

    def add(self, id_: str, spans: list[int]) -> None:
        """One more sample, of the last of the shards."""
        self.ids.append(id_)
        self._table.extend([len(self.shards) - 1, *spans])

    def read(self, index: int, keys: Collection[str]) -> Record:
        """The record with at least these of its sensors."""
        row, index = self.dataset, range(len(self))[index]
        made = [k for k in row.composites if k in keys]
        read = {"label", "captions", *keys, *(row.composites[k][0] for k in made)}
        width = 1 + 2 * len(self._columns)
        shard, *spans = self._table[index * width : (index + 1) * width]
        held, path = {}, self.shards[shard]
        # a file for each reading: threads share no position, and the source pickles
        with path.open("rb", buffering=0) as file:
            for i, column in enumerate(self._columns):
                if column in read:
                    offset, size = spans[2 * i : 2 * i + 2]
                    held[column] = os.pread(file.fileno(), size, offset)
        return self._decode(self.ids[index], held, f"{path}: {self.ids[index]}", keys)

    def _decode(self, id_: str, held: dict[str, bytes], where: str, keys) -> Record:
        row = self.dataset
        record: Record = {"id": id_, "label": -1}
        if "label" in held:
            count = len(row.classes)
            decode = _class_number if row.task == "single" else _many_hot
            record["label"] = decode(held["label"], count, where)
        if "captions" in held:
            record["captions"] = _captions(held["captions"], where)
        if "rgb" in held:
            record["rgb"] = decode_image(held["rgb"], where)
        if "s2" in held:
            sensor = get_sensor(row.sensors["s2"])
            patch = _tensor(held["s2"], where)
            bands = row.file_bands.get("s2", ())
            moved = np.moveaxis(patch, 0, -1) if patch.ndim == 3 else patch
            s2 = as_sensor(moved, sensor, bands, where, self.max_nodata)
            for key in (k for k in row.composites if k in keys):
                record[key] = make_picture(row, key, s2)
            if "s2" in keys:
                record["s2"] = s2
        return record


def _class_number(data: bytes, count: int, where: str) -> int:
    text = data.decode("ascii", "replace").strip()
    if not text.isdigit() or int(text) >= count:
        raise ValueError(
            f"{where}: label {text!r:.40} is not a number from 0 to {count - 1}, the"
            " places of classnames.txt"
        )
    return int(text)


def _many_hot(data: bytes, count: int, where: str) -> np.ndarray:
    """uint8 [count] of a tensor of zeros and ones."""
    hot = _tensor(data, where)
    if hot.shape != (count,) or not np.isin(hot, (0, 1)).all():
        raise ValueError(
            f"{where}: labels of shape {hot.shape} and values {np.unique(hot)[:5]},"
            f" expected {count} of 0 and 1: one for each line of classnames.txt"
            " (or of classnames_19.txt beside it, for labels_19 alone)"
        )
    return hot.astype(np.uint8)


def _captions(data: bytes, where: str) -> tuple[str, ...]:
    """The lines of a text that are not empty."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: its captions are not UTF-8 ({error})") from error
    captions = tuple(line.strip() for line in lines if line.strip())
    if not captions:
        raise ValueError(f"{where}: it has no caption")
    return captions
