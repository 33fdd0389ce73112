"""GEO-Bench's classification sets (Lacoste et al. 2023) in their WebDataset mirror.

<folder>/default_partition.json  {"train", "valid", "test": ids}
        /shard_00000.tar, ...    <id>.bands.npz: an array a band, by the band's name
                                 <id>.meta.json: {"label": number, or list of 0 and 1}

m-eurosat has two copies. Its converter, make_benchmark/dataset_converters/eurosat.py,
gave the names B8A, B09, ..., B12 to the bands of EuroSAT's files, in which B8A is last:
"10 - SWIR - Cirrus" was B11. Since the mending of issue 28 of GEO-Bench's repository
the names are right. B10 is nearly black, which tells the copies apart.
"""

import contextlib
import functools
import io
import os
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax.data.bad_records import leave_out
from rsclip_jax.data.codecs.patches import as_sensor, make_picture
from rsclip_jax.data.codecs.tars import Member, walk_tar
from rsclip_jax.data.readers.folders import in_split, no_split, parse_split
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.types import SPLITS, Dataset, LeftOut, OpenOptions, Record, Source
from rsclip_jax.io.files import parse_json, read_object
from rsclip_jax.io.texts import clip, first_of, shown

# Errors of a damaged npz: MemoryError for a shape, RuntimeError for a way of packing.
_DAMAGE = (
    *(ValueError, OSError, KeyError, EOFError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
_LOOKED = 16  # samples that tell a copy's names
_PARTITION = "default_partition.json"
_THEIRS = {"train": "train", "val": "valid", "test": "test"}
_BANDS, _META, _OLD = ".bands.npz", ".meta.json", ".meta.pkl"
# Sentinel-2's bands as GEO-Bench names them, by ours.
_S2 = {
    "B01": "01 - Coastal aerosol",
    "B02": "02 - Blue",
    "B03": "03 - Green",
    "B04": "04 - Red",
    "B05": "05 - Vegetation Red Edge",
    "B06": "06 - Vegetation Red Edge",
    "B07": "07 - Vegetation Red Edge",
    "B08": "08 - NIR",
    "B8A": "08A - Vegetation Red Edge",
    "B09": "09 - Water vapour",
    "B10": "10 - SWIR - Cirrus",
    "B11": "11 - SWIR",
    "B12": "12 - SWIR",
}
_SHIFTED = dict(zip("B09 B10 B11 B12 B8A".split(), list(_S2.values())[8:], strict=True))
_S1 = {
    "VH_re": "01 - VH.Real",
    "VH_im": "02 - VH.Imaginary",
    "VV_re": "03 - VV.Real",
    "VV_im": "04 - VV.Imaginary",
    "VH_lee": "05 - VH.LEE Filtered",
    "VV_lee": "06 - VV.LEE Filtered",
    "C_re": "07 - VH.LEE Filtered.Real",
    "C_im": "08 - VV.LEE Filtered.Imaginary",
}
_RGB = {"R": "Red", "G": "Green", "B": "Blue"}
_NAMES: Mapping[str, Mapping[str, str]] = {"s1": _S1, "s2": _S2, "rgb": _RGB}


class GeoBench(Source):
    """Reads samples from their tars, in any order and from any thread.

    Raises FileNotFoundError for a missing split or file, ValueError for a cut tar, and
    for a listed sample that is in no tar.
    """

    def __init__(
        self, dataset: Dataset, folder: Path, split: str, options: OpenOptions
    ):
        self.dataset, self.split, self.split_rule = dataset, split, _PARTITION
        self.max_nodata, self.left_out = options.max_nodata, list[LeftOut]()
        listed = _read_partition(folder / _PARTITION, split)
        members = _index(folder)
        lost = [sid for _, sid in listed if len(members.get(sid, ())) < 2]
        if lost:
            text = (
                f"{folder}: {len(lost)} listed samples are in no tar: {first_of(lost)}"
            )
            leave_out(text, "fetch the tars again", options.on_error)
            self.left_out = [(sid, "in no tar") for sid in lost]
        part, gone = in_split(split, made=True), set(lost)
        kept = [(s, sid) for s, sid in listed if sid not in gone and part(sid)]
        self.ids = [f"{s}/{sid}" for s, sid in kept]
        self._members = [members[sid] for _, sid in kept]

    def read(self, index: int, keys: Collection[str]) -> Record:
        """Reads a record with at least these sensors."""
        dataset, index = self.dataset, range(len(self))[index]
        made = [key for key in dataset.composites if key in keys]
        wanted = {*keys, *(dataset.composites[key][0] for key in made)}
        held = self._members[index]
        where = f"{held[_BANDS][0]}: {self.ids[index]}"
        label = _label(_read(held[_META]), len(dataset.classes), dataset.task, where)
        record: Record = {"id": self.ids[index], "label": label}
        arrays: dict[str, np.ndarray] = {}
        for key in dataset.sensors:
            if key in wanted and key not in dataset.composites:
                arrays[key] = self._array(_read(held[_BANDS]), key, where)
        record |= {key: make_picture(dataset, key, arrays["s2"]) for key in made}
        return record | {key: array for key, array in arrays.items() if key in keys}

    @functools.cached_property
    def _is_shifted(self) -> bool:
        """Whether the names are those before the mending: B09 is called B8A, and so on.

        In 140 files of EuroSAT B10 / B11 is at most 0.41, and B09 / B10 at least 7.7.
        Raises ValueError where the samples show neither.
        """
        ratios = []
        for held in self._members[:: len(self) // _LOOKED + 1]:
            with contextlib.suppress(*_DAMAGE):  # raised when the sample is read
                ratios.append(_ninth_to_tenth(_read(held[_BANDS])))
        ratio = float(np.median(ratios or [0.0]))
        if 0.5 <= ratio <= 2:
            raise ValueError(
                f"{self._members[0][_BANDS][0].parent}: {_S2['B09']!r} is {ratio:.2g}"
                f" times as bright as {_S2['B10']!r} (median of {len(ratios)} samples),"
                " but one of them should be B10, which is nearly black; fetch the set"
                " again"
            )
        return ratio < 1

    def _array(self, data: bytes, key: str, where: str) -> np.ndarray:
        sensor = get_sensor(self.dataset.sensors[key])
        names = _NAMES[key]
        if key == "s2" and "B10" in sensor.bands and self._is_shifted:
            names = {**names, **_SHIFTED}
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as bands:
                array = np.stack([bands[names[band]] for band in sensor.bands], -1)
        except _DAMAGE as error:
            raise ValueError(
                f"{where}: its bands are unreadable ({clip(str(error), 200)}); fetch"
                " the tar again"
            ) from error
        if sensor.dtype == "uint8" and np.array_equal(array, array.astype(np.uint8)):
            array = array.astype(np.uint8)  # some copies hold them as int16 or floats
        if sensor.dtype == "float32":
            array = array.astype(np.float32)
        return as_sensor(array, sensor, (), where, self.max_nodata)


def _ninth_to_tenth(data: bytes) -> float:
    """The mean of the band called B09 over the mean of the one called B10."""
    with np.load(io.BytesIO(data), allow_pickle=False) as bands:
        ninth, tenth = (bands[_S2[b]].mean(dtype=float) for b in ("B09", "B10"))
    return ninth / max(tenth, 1.0)


def _read(held: tuple[Path, Member]) -> bytes:
    path, member = held
    # opened on each access, so threads share no position and the source pickles
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), member.size, member.offset)


def _read_partition(path: Path, split: str) -> list[tuple[str, str]]:
    """(split, id) of each listed sample of a split."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it has the splits; fetch it")
    told = read_object(path, "fetch it again")
    there = [s for s in SPLITS if told.get(_THEIRS[s])]
    name, _, _ = parse_split(split)
    if name not in (*there, "all"):
        raise no_split(path, name, there or ["no split"])
    wanted = [s for s in there if name in (s, "all")]
    listed = [(s, sid) for s in wanted for sid in told[_THEIRS[s]]]
    if len({sid for _, sid in listed}) < len(listed):
        raise ValueError(f"{path}: a sample is listed twice; fetch the file again")
    return listed


def _index(folder: Path) -> dict[str, dict[str, tuple[Path, Member]]]:
    """{sample: {".bands.npz" and ".meta.json": where it is}} over all tars."""
    shards = sorted(folder.glob("shard_*.tar"))
    if not shards:
        raise FileNotFoundError(f"{folder}: no shard_00000.tar, ... in it")
    found: dict[str, dict[str, tuple[Path, Member]]] = {}
    for path in shards:
        for member in walk_tar(path):
            for end in (_BANDS, _META):  # an id may hold dots
                if member.name.endswith(end):
                    sid = member.name.removesuffix(end).removeprefix("./")
                    held = found.setdefault(sid, {})
                    if end in held:
                        raise ValueError(
                            f"{path}: {member.name} is also in {held[end][0]}, or"
                            " twice in it; fetch the tars again"
                        )
                    held[end] = path, member
            if member.name.endswith(_OLD):
                raise ValueError(
                    f"{path}: {member.name} is a pickle, which can run any code; fetch"
                    " the mirror whose labels are in .meta.json files"
                )
    return found


def _label(data: bytes, count: int, task: str, where: str) -> Any:
    """A class's number, or uint8 [count]."""
    try:
        label = np.asarray(parse_json(data, "it")["label"])
        good = label.dtype.kind in "iuf" and np.array_equal(label, label.astype(int))
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{where}: its .meta.json has no label ({error})") from error
    if (
        task == "multi"
        and good
        and label.shape == (count,)
        and set(label.flat) <= {0, 1}
    ):
        return label.astype(np.uint8)
    if task == "single" and good and label.shape == () and 0 <= label < count:
        return int(label)
    wanted = (
        f"{count} numbers 0 and 1" if task == "multi" else f"a number below {count}"
    )
    raise ValueError(f"{where}: label {shown(label.tolist())}, expected {wanted}")
