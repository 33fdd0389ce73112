"""The plan of a pack: what each shard holds, and which shards are finished.

A record's shard follows from its index in the source alone. A finished shard gets its
final name, and progress.jsonl its size and checksum, so a run that was killed continues
with the next shard.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

from rsclip_jax.data.bad_records import first_record
from rsclip_jax.data.codecs.records import encode_record
from rsclip_jax.data.sources.manifest import describe_own, entries_of, ids_digest
from rsclip_jax.data.sources.packed import check_shard
from rsclip_jax.data.types import Source
from rsclip_jax.io.files import write_text

COMPRESSIONS = ("auto", "none", "zstd")
# Field of a plan -> what to blame where it differs.
_PLANNED_BY = {
    "source": "the archive (its records, or the files that describe them)",
    "records": "the archive (its records, or the files that describe them)",
    "shards": "shard_mb, or the size of the archive's first record",
    "compression": "compression",
    "max_nodata": "max_nodata",
    "entries": "the version of this package",
}
# At least as many shards, so that all workers have work and a kill costs little.
_LEAST_SHARDS = 8


@dataclasses.dataclass(frozen=True)
class Plan:
    """The contents of a split's shards; equal plans make equal shards.

    Attributes:
      source: the source_digest of all records, packed or not.
      records: the number of records in the source; shards take them in order, in equal
        numbers.
      shards: the number of shards.
      compression: "none" or "zstd".
      max_nodata: the source's, see fill_missing.
      entries: the number of entries of a record, see codecs/records.py.
    """

    source: str
    records: int
    shards: int
    compression: str
    max_nodata: float
    entries: int

    def file(self, shard: int) -> str:
        """The shard's file name."""
        return f"part-{shard:05d}-of-{self.shards:05d}.array_record"

    def indices(self, shard: int) -> range:
        """The indices of the shard's records in the source."""
        n, k = self.records, self.shards
        return range(n * shard // k, n * (shard + 1) // k)


def make_plan(
    source: Source, *, shard_mb: float, compression: str, on_error: str
) -> Plan:
    """Plans shards of about shard_mb megabytes, from the size of the first record.

    compression "auto" is zstd where all arrays are 8-bit, otherwise none. Raises
    ValueError where no record can be read or two records have the same id.
    """
    _check_ids(source)
    first = first_record(source, on_error)
    arrays = [first[key] for key in source.dataset.sensors]
    if compression == "auto":
        compression = "zstd" if all(a.dtype.itemsize == 1 for a in arrays) else "none"
    total = len(source) * len(encode_record(first))
    shards = max(
        1, round(total / (1e6 * shard_mb)), min(_LEAST_SHARDS, len(source) // 64)
    )
    shards = min(shards, len(source))
    return Plan(
        source_digest(source),
        len(source),
        shards,
        compression,
        source.max_nodata,
        max(1, len(entries_of(source.dataset))),
    )


def source_digest(source: Source) -> str:
    """Digest of all ids and, for a custom dataset, of the files that define them."""
    own = describe_own(source.dataset)
    return ids_digest([*source.ids, *([json.dumps(own)] if own else [])])


def _check_ids(source: Source) -> None:
    """Raises ValueError for repeated ids, and for those that break a line."""
    seen: set[str] = set()
    for id_ in source.ids:
        if id_ in seen or "\n" in id_:
            fault = "occurs twice" if id_ in seen else "has a line break"
            raise ValueError(
                f"{source.spec}: the id {id_!r} {fault}; rename"
                " or remove its file, so that all ids differ"
            )
        seen.add(id_)


def read_progress(folder: Path, plan: Plan) -> dict[int, dict]:
    """{shard: its note} of the finished shards in a folder.

    Raises ValueError where the folder was begun with another plan.
    """
    path = folder / "progress.jsonl"
    lines = list(_json_lines(path)) if path.exists() else []
    if not lines:
        return {}
    now = dataclasses.asdict(plan)
    if changed := [key for key in now if lines[0].get(key) != now[key]]:
        differences = ", ".join(
            f"{key} {lines[0].get(key)}, now {now[key]}" for key in changed
        )
        causes = dict.fromkeys(_PLANNED_BY[key] for key in changed)
        raise ValueError(
            f"{folder} was begun with {differences}: {' and '.join(causes)} changed;"
            " undo the change, pack into another folder, or remove this folder to pack"
            " anew"
        )
    for other in sorted(folder.glob("progress-*.jsonl")):  # of other processes
        lines += _json_lines(other)
    notes = {line.pop("shard"): line for line in lines[1:]}
    return {i: note for i, note in notes.items() if _is_whole(folder, note, plan)}


def _json_lines(path: Path) -> Iterator[dict]:
    for line in path.read_text().split("\n"):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # cut by a kill, or the end of the file
            return


def _is_whole(folder: Path, note: dict, plan: Plan) -> bool:
    try:
        check_shard(folder, note)
        reader = ArrayRecordReader(str(folder / note["file"]))
        return reader.num_records() == note["records"] * plan.entries
    except (OSError, ValueError, RuntimeError):
        return False


def write_progress(folder: Path, plan: Plan, done: dict[int, dict]) -> None:
    """Writes progress.jsonl: a line for the plan, one for each finished shard.

    It replaces the progress of all processes.
    """
    lines = [dataclasses.asdict(plan), *({"shard": i, **n} for i, n in done.items())]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_text(folder / "progress.jsonl", text)
    for other in folder.glob("progress-*.jsonl"):
        other.unlink()
