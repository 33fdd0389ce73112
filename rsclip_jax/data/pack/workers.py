"""The processes that pack: each reads records and writes whole shards."""

import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from rsclip_jax.data.bad_records import suggest_skip
from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.pack.plan import Plan, source_digest
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sources.files import first_record
from rsclip_jax.data.sources.packed import encode_record
from rsclip_jax.data.types import Record, Source
from rsclip_jax.io.files import replacing

# Zstandard at level 1 takes 8-bit images to 0.68 of their size and reads them faster
# than a JPEG is decoded. 13 bands of uint16 it takes to 0.76, and then reads a quarter
# as many a second: disk is cheaper. Higher levels gain 0.04 at a third of the speed.
_WRITING = {"none": "group_size:1,uncompressed", "zstd": "group_size:1,zstd:1"}


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
    with replacing(path) as temporary:
        said = _write_records(job, shard, temporary)
        note = _note(temporary)
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
