"""Packed datasets: ArrayRecord shards with a manifest, written by data/pack/.

<root>/<dataset>/<split>/manifest.json     describes the shards
                        /ids.txt           the ids in order, one per line
                        /hash_keys.txt     Source.hash_keys, unless the ids' tails
                        /labels.npy        the labels: int64 or multi-hot uint8
                        /captions.jsonl    the captions, one record per line
                        /part-00000-of-00012.array_record ...
                        /skipped.txt       id and reason of each unreadable record
<root>/<dataset>/all/{manifest.json,ids.txt}   the order of all ids in the archive

codecs/records.py describes the bytes of a record. In the second format a record of
several sensors has an entry for each.
"""

import functools
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from rsclip_jax.data.catalog.custom import with_classes
from rsclip_jax.data.codecs.records import decode_record
from rsclip_jax.data.readers.folders import HASH_SPLITS, hash_percent, parse_split
from rsclip_jax.data.readers.sen12ms import LIST_SPANS
from rsclip_jax.data.sources.manifest import (
    CAPTIONS,
    FORMATS,
    HASH_KEYS,
    LABELS,
    check_nodata,
    load_manifest,
    pack_folder,
    read_beside,
    read_ids,
    read_manifest,
)
from rsclip_jax.data.types import (
    DEFAULTS,
    Dataset,
    OpenOptions,
    Record,
    Source,
    tail_of,
)

# No read-ahead and no threads: records are read one by one, in any order.
_READING = "readahead_buffer_size:0,max_parallelism:0"
_OPEN_SHARDS = 256  # open files


def open_packed(
    dataset: Dataset, root: str | Path, split: str, options: OpenOptions = DEFAULTS
) -> "PackedSource | Selection | None":
    """Opens a packed split under a data root; None if the dataset is not packed there.

    Raises FileNotFoundError for a split that is not packed, listing those that are;
    ValueError where manifest and dataset differ, naming both sides.
    """
    folder = pack_folder(root, dataset.name)
    packed = sorted(p.parent.name for p in folder.glob("*/manifest.json"))
    if not str(root) or not packed:
        return None
    if dataset.custom and dataset.task != "none" and not dataset.classes:
        manifest = load_manifest(folder / packed[0] / "manifest.json")
        dataset = with_classes(dataset, manifest["classes"])
    name, low, high = parse_split(split)
    if name not in packed:
        raise FileNotFoundError(
            f"{folder}: split {name!r} is not packed; {', '.join(packed)} are."
            " Pack it with configs/pack.py, or give the archive's own folder as root"
        )
    whole = (
        _open_all(dataset, folder, options)
        if name == "all"
        else PackedSource(dataset, folder, name, options)
    )
    return whole if (low, high) == (0, 100) else _part(whole, split, low, high)


def _open_all(dataset: Dataset, folder: Path, options: OpenOptions) -> "Selection":
    """The records of all splits in the archive's order."""
    manifest = read_manifest(dataset, folder / "all")
    sources = [PackedSource(dataset, folder, s, options) for s in manifest["splits"]]
    found = {id_: (s, i) for s in sources for i, id_ in enumerate(s.ids)}
    ids = read_ids(folder / "all", manifest)
    if lost := [id_ for id_ in ids if id_ not in found]:
        raise ValueError(
            f"{folder / 'all'}: {len(lost)} of {len(ids)} records are in none of"
            f" {manifest['splits']}, such as {lost[0]}; run configs/pack.py again"
        )
    return Selection(dataset, "all", manifest, [found[id_] for id_ in ids])


def _part(
    whole: "PackedSource | Selection", split: str, low: float, high: float
) -> "Selection":
    """A part such as train[:90%], with the same records as the archive's part."""
    if whole.manifest["parts"] is None:
        raise ValueError(
            f"packed {whole.dataset.name}: {split!r} cannot be read, since the archive"
            f" did not make parts of {whole.split} by a hash when it was packed. Use"
            " the whole split; or, if another version packed it, pack it again into"
            " another folder"
        )
    kept = part_of(whole.hash_keys, whole.manifest["parts"], low, high)
    if not kept:
        raise FileNotFoundError(
            f"packed {whole.dataset.name}: no records in split {split!r}"
        )
    records = [(whole, i) for i in kept]
    return Selection(whole.dataset, split, whole.manifest, records)


def part_of(keys: list[str], span: list[float], low: float, high: float) -> list[int]:
    """Indices of the keys in [low %, high %) of a split whose hash range is `span`."""
    width = (span[1] - span[0]) / 100
    first, last = span[0] + low * width, span[0] + high * width
    return [i for i, key in enumerate(keys) if first <= hash_percent(key) < last]


def hash_spans(split: str) -> list[list[float]]:
    """The possible hash ranges of a split, in percent.

    They are the whole range (for a split folder), the fixed range, and SEN12MS's range.
    """
    fixed = (spans.get(split, (0, 100)) for spans in ({}, HASH_SPLITS, LIST_SPANS))
    return [[float(x) for x in span] for span in fixed]


class PackedSource(Source):
    """Reads the records of a packed split, in any order and from any thread."""

    is_packed = True

    def __init__(
        self,
        dataset: Dataset,
        folder: Path,
        split: str,
        options: OpenOptions = DEFAULTS,
    ):
        self.dataset, self.split = dataset, split
        self.max_nodata = options.max_nodata
        self._folder = folder / split
        self.manifest = read_manifest(dataset, self._folder)
        check_nodata(
            self._folder / "manifest.json", dataset, self.manifest, self.max_nodata
        )
        self.split_rule = self.manifest.get("split_rule", "")
        self.ids = read_ids(self._folder, self.manifest)
        self._shards = self.manifest["shards"]
        self._ends = np.cumsum([s["records"] for s in self._shards])
        for shard in self._shards:
            check_shard(self._folder, shard)
        # sensors with an entry each; in the first format a record is one entry
        is_first = self.manifest["format"] == FORMATS[0]
        self._entries = () if is_first else tuple(self.manifest["sensors"])
        self._reader = functools.lru_cache(_OPEN_SHARDS)(self._open_shard)

    @functools.cached_property
    def hash_keys(self) -> list[str]:
        if data := read_beside(self._folder, self.manifest, HASH_KEYS):
            return data.decode().split("\n")[:-1]
        keys = [tail_of(id_) for id_ in self.ids]
        if "files" not in self.manifest and self.dataset.kind == "fmow":
            # a pack from before hash_keys.txt: images of a location stay together
            return [key.rpartition("/")[0] for key in keys]
        return keys

    def _read_entries(self, index: int, entries: Sequence[int]) -> Record:
        """The record of these of its entries."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        in_shard = index - int(self._ends[shard]) + self._shards[shard]["records"]
        first = in_shard * max(1, len(self._entries))
        try:
            parts = self._reader(shard).read([first + i for i in entries])
            return {k: v for part in parts for k, v in decode_record(part).items()}
        except RuntimeError as error:  # the file has a hash of each record
            path = self._folder / self._shards[shard]["file"]
            raise ValueError(
                f"{path}: record {in_shard} ({self.ids[index]}) is damaged ({error});"
                " remove this file and run configs/pack.py again, which writes it again"
            ) from error

    def read(self, index: int, keys: Collection[str]) -> Record:
        """Reads a record's id, label, captions and, of its sensors, only the keys.

        A pack of the first format reads all sensors, unless there are no keys.
        """
        index = range(len(self))[index]
        wanted = [i for i, key in enumerate(self._entries) if key in keys]
        if (keys and not self._entries) or (self._labels is None and 0 not in wanted):
            wanted = [0, *wanted]
        found = self._described(index)
        return {**found, **self._read_entries(index, wanted)} if wanted else found

    def _described(self, index: int) -> Record:
        """The record without its sensors; {} where only its entries know its label."""
        if self._labels is None:
            return {}
        label = self._labels[index]
        record = {"id": self.ids[index], "label": label if label.ndim else int(label)}
        if self._captions is not None:
            record["captions"] = self._captions[index]
        return record

    @functools.cached_property
    def _labels(self) -> np.ndarray | None:
        data = read_beside(self._folder, self.manifest, LABELS)
        if data is None:
            return None
        labels = np.load(io.BytesIO(data))
        labels.setflags(write=False)  # like the arrays of a record
        return labels

    @functools.cached_property
    def _captions(self) -> list[tuple[str, ...]] | None:
        data = read_beside(self._folder, self.manifest, CAPTIONS)
        if data is None:
            return None
        return [tuple(json.loads(line)) for line in data.splitlines()]

    def _open_shard(self, shard: int) -> ArrayRecordReader:
        path = self._folder / self._shards[shard]["file"]
        return ArrayRecordReader(str(path), _READING)


def check_shard(folder: Path, shard: dict) -> None:
    """Raises ValueError or FileNotFoundError unless the shard exists and is whole."""
    path = folder / shard["file"]
    again = "run configs/pack.py again, which writes it again"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; {again}")
    if path.stat().st_size != shard["bytes"]:
        raise ValueError(
            f"{path}: {path.stat().st_size:,} bytes, but {shard['bytes']:,} were"
            f" written; {again}"
        )


class Selection(Source):
    """Some records of packed splits, in a given order."""

    is_packed = True

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        manifest: dict,
        records: Sequence[tuple[Source, int]],
    ):
        self.dataset, self.split, self.manifest = dataset, split, manifest
        self.split_rule = manifest.get("split_rule", "")
        self.max_nodata = records[0][0].max_nodata if records else 0.0
        self.ids = [source.ids[i] for source, i in records]
        self._records = records

    @functools.cached_property
    def hash_keys(self) -> list[str]:
        return [source.hash_keys[i] for source, i in self._records]

    def read(self, index: int, keys: Collection[str]) -> Record:
        source, i = self._records[index]
        return source.read(i, keys)
