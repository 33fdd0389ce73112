"""Packing: a source's records into ArrayRecord shards, by several processes.

The format is readers/packed.py's. Which shard a record goes to follows from its place
in the source alone, a shard gets its name when it is whole, and progress.jsonl then
notes its size and checksum: so a run that was killed goes on with the next shard.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import (
    ArrayRecordReader,
    ArrayRecordWriter,
)
from tqdm import tqdm

from rsclip_jax.data.checks import check_array
from rsclip_jax.data.readers.folders import SPLITS, tail_of
from rsclip_jax.data.readers.packed import (
    CAPTIONS,
    FORMAT,
    HASH_KEYS,
    LABELS,
    check_shard,
    describe_own,
    describe_sensors,
    encode_record,
    hash_spans,
    ids_digest,
    part_of,
)
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.skipped import suggest_skip
from rsclip_jax.data.sources import Dataset, Record, Source, first_record, hash_keys

COMPRESSIONS = ("auto", "none", "zstd")
# Zstandard at level 1 takes 8-bit images to 0.68 of their size and reads them faster
# than a JPEG is decoded. 13 bands of uint16 it takes to 0.76, and then reads a quarter
# as many a second: disk is cheaper. Higher levels gain 0.04 at a third of the speed.
_WRITING = {"none": "group_size:1,uncompressed", "zstd": "group_size:1,zstd:1"}
# What a difference in a plan comes from, in words.
_PLANNED_BY = {
    "source": "the archive (its records, or the files that describe them)",
    "records": "the archive (its records, or the files that describe them)",
    "shards": "--config.pack.shard_mb or the size of the archive's first record",
    "compression": "--config.pack.compression",
    "max_nodata": "--config.data.max_nodata",
}
# Of a small set too, so that all workers have something to do and a kill costs little.
_SHARDS = 8


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a split's shards hold. Same plan, same shards: so a run can be continued.

    source: its source_digest, of records packed or not. records: of the source.
    shards: their number, the records being dealt out evenly in order.
    """

    source: str
    records: int
    shards: int
    compression: str  # none | zstd
    max_nodata: float  # as the source was read with; see fill_missing

    def file(self, shard: int) -> str:
        """The shard's file name."""
        return f"part-{shard:05d}-of-{self.shards:05d}.array_record"

    def places(self, shard: int) -> range:
        """The shard's records, by their place in the source."""
        n, k = self.records, self.shards
        return range(n * shard // k, n * (shard + 1) // k)


def make_plan(
    source: Source, *, shard_mb: float, compression: str, on_error: str
) -> Plan:
    """Shards of about shard_mb million bytes, by the size of the first record.

    compression "auto": zstd where all arrays are 8-bit. Raises ValueError where no
    record can be read, or two have one id.
    """
    _check_ids(source)
    first = first_record(source, on_error)
    arrays = [first[key] for key in source.dataset.sensors]
    if compression == "auto":
        compression = "zstd" if all(a.dtype.itemsize == 1 for a in arrays) else "none"
    total = len(source) * len(encode_record(first))
    shards = max(1, round(total / (1e6 * shard_mb)), min(_SHARDS, len(source) // 64))
    shards = min(shards, len(source))
    max_nodata = source.dataset.max_nodata
    return Plan(source_digest(source), len(source), shards, compression, max_nodata)


def source_digest(source: Source) -> str:
    """Digest of all ids and, of a set of the user's own, of the files that say them."""
    own = describe_own(source.dataset)
    return ids_digest([*source.ids, *([json.dumps(own)] if own else [])])


def _check_ids(source: Source) -> None:
    """Raises ValueError for what ids.txt cannot hold: an id twice, or a line break."""
    seen: set[str] = set()
    for id_ in source.ids:
        if id_ in seen or "\n" in id_:
            fault = "is there twice" if id_ in seen else "has a line break"
            raise ValueError(
                f"{source.dataset.name}:{source.split}: the id {id_!r} {fault}; rename"
                " or remove its file, so that every record has an id of its own"
            )
        seen.add(id_)


def pack_source(
    source: Source,
    reopen: Callable[[], Source],
    folder: Path,
    *,
    half: Sequence[str] | None,
    provenance: dict,
    shard_mb: float = 256,
    compression: str = "auto",
    on_error: str = "raise",
    workers: int = 2,
    progress: bool = False,
) -> bool:
    """Packs a split into folder; False if that was done before.

    reopen: gives the same source in another process, so it must pickle. half: the ids
    that the archive gives for "[:50%]" of the split, None where it takes no parts.
    provenance: put into the manifest as it is. Goes on where a killed run stopped.
    Raises ValueError where the folder holds another source's shards, another process
    packs there, or a worker died; OSError where a shard cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        for path in folder.glob("*.tmp"):  # what a killed run left
            path.unlink()
        plan = make_plan(
            source, shard_mb=shard_mb, compression=compression, on_error=on_error
        )
        done = read_progress(folder, plan)
        todo = [i for i in range(plan.shards) if i not in done]
        if not todo and (folder / "manifest.json").exists():
            return False
        (folder / "manifest.json").unlink(missing_ok=True)
        write_progress(folder, plan, done)
        with tqdm(
            total=plan.records,
            initial=sum(len(plan.places(i)) for i in done),
            desc=f"pack {source.dataset.name}:{source.split}",
            unit="record",
            disable=not progress,
        ) as bar:
            written = run_workers(
                Job(reopen, folder, plan, on_error), todo, workers, bar
            )
            for i, note in written:
                done[i] = note
                append_line(folder / "progress.jsonl", {"shard": i, **note})
        finish(source, folder, plan, done, half, provenance)
    return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two runs in one folder would write each other's files; a kill frees the lock."""
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"{folder}: another process packs into it; wait for it to end"
            ) from error
        yield


# Progress: which shards are whole.


def read_progress(folder: Path, plan: Plan) -> dict[int, dict]:
    """{shard: its note} of the shards that lie there whole.

    Raises ValueError where the folder was begun with another plan.
    """
    path = folder / "progress.jsonl"
    lines = list(_json_lines(path)) if path.exists() else []
    if not lines:
        return {}
    now = dataclasses.asdict(plan)
    if changed := [key for key in now if lines[0].get(key) != now[key]]:
        said = ", ".join(
            f"{key} {lines[0].get(key)}, now {now[key]}" for key in changed
        )
        of = dict.fromkeys(_PLANNED_BY[key] for key in changed)
        raise ValueError(
            f"{folder} was begun with {said}: changed is {' and '.join(of)}; change it"
            " back, choose another --config.pack.out, or remove this folder to pack"
            " anew"
        )
    notes = {line.pop("shard"): line for line in lines[1:]}
    return {i: note for i, note in notes.items() if _is_whole(folder, note)}


def _json_lines(path: Path) -> Iterator[dict]:
    for line in path.read_text().split("\n"):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # cut by a kill, or the empty end
            return


def _is_whole(folder: Path, note: dict) -> bool:
    try:
        check_shard(folder, note)
        reader = ArrayRecordReader(str(folder / note["file"]))
        return reader.num_records() == note["records"]
    except (OSError, ValueError, RuntimeError):
        return False


def write_progress(folder: Path, plan: Plan, done: dict[int, dict]) -> None:
    """progress.jsonl: a line for the plan, one for each whole shard."""
    lines = [dataclasses.asdict(plan), *({"shard": i, **n} for i, n in done.items())]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_text(folder / "progress.jsonl", text)


def append_line(path: Path, line: dict) -> None:
    """One more line of JSON; a kill leaves it whole, cut or absent."""
    with _naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file so that a kill leaves the old one or the new one, never half."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """As write_text."""
    temporary = path.with_name(path.name + ".tmp")
    with _naming(path):
        temporary.write_bytes(data)
        temporary.replace(path)


def write_beside(folder: Path, files: dict[str, bytes]) -> dict[str, str]:
    """Writes the files; {name: SHA-256}, as read_beside wants it."""
    for name, data in files.items():
        write_bytes(folder / name, data)
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An error of writing says which file it was."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} could not be written: {error}") from error


def finish(
    source: Source,
    folder: Path,
    plan: Plan,
    done: dict[int, dict],
    half: Sequence[str] | None,
    provenance: dict,
) -> None:
    """Writes ids.txt and what lies beside it; last the manifest: now it is a pack."""
    notes = [done[i] for i in range(plan.shards)]
    skipped = [(source.ids[place], why) for n in notes for place, why in n["skipped"]]
    if len(skipped) == plan.records:
        name = f"{source.dataset.name}:{source.split}"
        raise ValueError(f"no record of {name} is readable")
    left_out = {place for n in notes for place, _ in n["skipped"]}
    ids = [id_ for i, id_ in enumerate(source.ids) if i not in left_out]
    write_text(folder / "ids.txt", _text(ids))
    (folder / "skipped.txt").unlink(missing_ok=True)
    if skipped:
        lines = [f"{id_}\t{' '.join(why.split())}\n" for id_, why in skipped]
        write_text(folder / "skipped.txt", "".join(lines))
    files = ("file", "records", "bytes", "sha256")
    keys = [key for i, key in enumerate(hash_keys(source)) if i not in left_out]
    beside = _labels_beside(source.dataset, notes)
    if keys != [tail_of(id_) for id_ in ids]:
        beside[HASH_KEYS] = _text(keys).encode()
    manifest = {
        **describe(source, ids, find_span(source, half), provenance),
        "skipped": len(skipped),
        "compression": plan.compression,
        "max_nodata": plan.max_nodata,
        "files": write_beside(folder, beside),
        "shards": [{key: note[key] for key in files} for note in notes],
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def _labels_beside(row: Dataset, notes: list[dict]) -> dict[str, bytes]:
    """labels.npy and captions.jsonl, by what the shards' notes say of their records."""
    if not all("labels" in note for note in notes):  # shards of an older version
        return {}
    labels = [label for note in notes for label in note["labels"]]
    if row.task == "multi":
        array = np.zeros((len(labels), len(row.classes)), np.uint8)
        for hot, some in zip(array, labels, strict=True):
            hot[some] = 1
    else:
        array = np.array(labels, np.int64)
    file = io.BytesIO()
    np.save(file, array)
    found = {LABELS: file.getvalue()}
    if row.task == "captions":
        lines = [json.dumps(texts) for note in notes for texts in note["captions"]]
        found[CAPTIONS] = _text(lines).encode()
    return found


def describe(
    source: Source, ids: list[str], span: list[float] | None, provenance: dict
) -> dict:
    """What a manifest says of a dataset's split, without its files."""
    row = source.dataset
    return {
        "format": FORMAT,
        "dataset": row.name,
        "split": source.split,
        "split_rule": getattr(source, "split_rule", ""),
        "task": row.task,
        "sensors": describe_sensors(row.sensors),
        "classes": list(row.classes),
        "classnames": list(row.classnames),
        "own": describe_own(row),
        "templates": list(row.templates),
        "records": len(ids),
        "ids_sha256": ids_digest(ids),
        "parts": span,  # percent range of the ids' hash that this split is
        "provenance": provenance,
    }


def find_span(source: Source, half: Sequence[str] | None) -> list[float] | None:
    """The range of the hash by which parts of this split agree with the archive's."""
    whole, *fixed = hash_spans(source.split)
    in_folders = source.ids[0].startswith(f"{source.split}/")
    keys = hash_keys(source)
    for span in (whole, *fixed) if in_folders else (*fixed, whole):
        places = part_of(keys, span, 0, 50)
        agree = half is not None and [source.ids[i] for i in places] == list(half)
        if agree and len(part_of(keys, span, 0, 100)) == len(keys):
            return span
    return None


def write_all(source: Source, half: Sequence[str] | None, folder: Path) -> bool:
    """<folder>/all: the archive's order of the packed splits' records.

    False, and nothing written, where the archive's "all" has records that the packed
    splits neither hold nor left out.
    """
    splits = [s for s in SPLITS if (folder / s / "manifest.json").exists()]
    packed = {s: _lines(folder / s / "ids.txt") for s in splits}
    skipped = {s: _lines(folder / s / "skipped.txt") for s in splits}
    held = {id_ for ids in packed.values() for id_ in ids}
    left_out = {x.split("\t")[0] for lines in skipped.values() for x in lines}
    ids = [id_ for id_ in source.ids if id_ in held]
    if any(id_ not in held and id_ not in left_out for id_ in source.ids):
        return False
    provenance = json.loads((folder / splits[0] / "manifest.json").read_text())
    manifest = {
        **describe(source, ids, find_span(source, half), provenance["provenance"]),
        "splits": splits,
    }
    (folder / "all").mkdir(exist_ok=True)
    write_text(folder / "all" / "ids.txt", _text(ids))
    text = json.dumps(manifest, indent=1) + "\n"
    write_text(folder / "all" / "manifest.json", text)
    return True


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]


# Workers: each writes whole shards.


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker is told once."""

    reopen: Callable[[], Source]
    folder: Path
    plan: Plan
    on_error: str


def run_workers(
    job: Job, todo: list[int], workers: int, bar: tqdm
) -> Iterator[tuple[int, dict]]:
    """(shard, note) as each gets whole; on an error the other workers stop, too."""
    seen = 0
    context = multiprocessing.get_context("spawn")  # fork does not go with threads
    count, stop = context.Value("q", 0), context.Value("b", 0)
    pool = ProcessPoolExecutor(
        min(workers, max(1, len(todo))),
        mp_context=context,
        initializer=_start_worker,
        initargs=(job, count, stop),
    )
    try:
        shards = {pool.submit(write_shard, i): i for i in todo}
        pending: set[Future] = set(shards)
        while pending:
            ready, pending = wait(pending, 0.5, FIRST_COMPLETED)
            now = count.value
            bar.update(now - seen)
            seen = now
            for future in ready:
                yield shards[future], future.result()
    except BrokenProcessPool as error:
        raise ValueError(
            f"{job.folder}: a packing process died (killed, or out of memory); the same"
            " command goes on from the whole shards; --config.pack.workers=1 needs less"
            " memory"
        ) from error
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)
        for path in job.folder.glob("*.tmp"):
            path.unlink()


_worker: dict[str, Any] = {}  # of this process: its job, its open source


def _start_worker(job: Job, count: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells us to stop
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker.update(job=job, count=count, stop=stop)


def _open_source(job: Job) -> Source:
    with contextlib.redirect_stdout(None):  # the parent has said it
        source = job.reopen()
    if source_digest(source) != job.plan.source:
        raise ValueError(
            f"{source.dataset.name}:{source.split}: {len(source)} records now, and not"
            f" the {job.plan.records} of before: do not change an archive while it is"
            " packed"
        )
    return source


def _die_with_parent() -> None:
    """A killed run's worker would wait for ever, or write beside the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def write_shard(shard: int) -> dict:
    """Writes one shard; its note: file, records, bytes, sha256, skipped places, labels
    (of several, the places of the ones) and captions.
    """
    job: Job = _worker["job"]
    if "source" not in _worker:  # here, where an error reaches the parent
        _worker["source"] = _open_source(job)
    path = job.folder / job.plan.file(shard)
    temporary = path.with_name(path.name + ".tmp")
    said = _write_records(job, shard, temporary)
    note = _note(temporary)
    temporary.replace(path)
    return {"file": path.name, "records": len(said["labels"]), **note, **said}


def _write_records(job: Job, shard: int, path: Path) -> dict[str, list]:
    """Writes the shard's readable records; their labels, the others' places and why."""
    source, count = _worker["source"], _worker["count"]
    said: dict[str, list] = {"skipped": [], "labels": []}
    if source.dataset.task == "captions":
        said["captions"] = []
    with _naming_full_disk(job, path):
        writer = ArrayRecordWriter(str(path), _WRITING[job.plan.compression])
    try:
        for place in job.plan.places(shard):
            if _worker["stop"].value:
                raise InterruptedError("packing was stopped")
            record = _read(source, place, job.on_error)
            if isinstance(record, str):
                said["skipped"].append((place, record))
            else:
                with _naming_full_disk(job, path):
                    writer.write(encode_record(record))
                said["labels"].append(_plain_label(record["label"]))
                if "captions" in said:
                    said["captions"].append(record["captions"])
            with count.get_lock():
                count.value += 1
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    with _naming_full_disk(job, path):
        writer.close()
    return said


def _plain_label(label: Any) -> int | list[int]:
    many = isinstance(label, np.ndarray)
    return np.flatnonzero(label).tolist() if many else int(label)


def _read(source: Source, place: int, on_error: str) -> Record | str:
    """The record; with on_error "skip", why there is none."""
    try:
        record = source[place]
        for key, sensor in source.dataset.sensors.items():
            # Checked now, so that reading the pack need not.
            check_array(record[key], get_sensor(sensor), f"{record['id']} ({key})")
    except (ValueError, OSError) as error:
        if on_error != "skip":
            with suggest_skip():
                raise
        return str(error)
    return record


def _note(path: Path) -> dict:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


@contextlib.contextmanager
def _naming_full_disk(job: Job, path: Path) -> Iterator[None]:
    """ArrayRecord says RuntimeError where the disk is full, or anything else is wrong.

    It writes in the background, so the error can come some records later.
    """
    try:
        yield
    except RuntimeError as error:
        size = len(encode_record(first_record(_worker["source"], job.on_error)))
        need = size * job.plan.records / 1e9
        disk = os.statvfs(job.folder)
        free = disk.f_bavail * disk.f_frsize / 1e9
        raise OSError(
            f"{path} could not be written ({error}): this split needs up to"
            f" {need:.3g} GB in all, and {free:.3g} GB are free there; make room, or"
            " choose another config.pack.out (the same command goes on from the whole"
            " shards)"
        ) from error
