"""Worker processes of a pack: each reads records and writes whole shards."""

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

from rsclip_jax.data.bad_records import first_record, suggest_skip
from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.codecs.records import encode_entries, encode_record
from rsclip_jax.data.pack.plan import Plan, source_digest
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sources.manifest import entries_of
from rsclip_jax.data.types import Record, Source, check_held
from rsclip_jax.io.files import replacing

# Zstandard at level 1 compresses 8-bit images to 0.68 of their size, and reads faster
# than JPEG. 13 bands of uint16 compress to 0.76 but then read at a quarter of
# the speed: disk is cheaper. Higher levels gain 0.04 at a third of the speed.
_WRITING = {"none": "group_size:1,uncompressed", "zstd": "group_size:1,zstd:1"}


@dataclasses.dataclass(frozen=True)
class Job:
    """The task of a worker, sent to it once."""

    reopen: Callable[[], Source]
    folder: Path
    plan: Plan
    on_error: str


def run_workers(
    job: Job, todo: list[int], workers: int, bar: tqdm
) -> Iterator[tuple[int, dict]]:
    """Yields (shard, note) as each is finished; an error stops all workers.

    Raises ValueError where a worker died.
    """
    seen = 0
    context = multiprocessing.get_context("spawn")  # fork does not work with threads
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
            " command continues from the finished shards, and workers = 1 needs less"
            " memory"
        ) from error
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)
        for i in todo:  # of other processes there may be more
            path = job.folder / job.plan.file(i)
            path.with_name(f"{path.name}.tmp").unlink(missing_ok=True)


_worker: dict[str, Any] = {}  # this process's job and its open source


def _start_worker(job: Job, count: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker.update(job=job, count=count, stop=stop)


def _open_source(job: Job) -> Source:
    with contextlib.redirect_stdout(None):  # the parent has printed it
        source = job.reopen()
    if source_digest(source) != job.plan.source:
        raise ValueError(
            f"{source.spec}: {len(source)} records now,"
            f" {job.plan.records} when packing began: do not change an archive while"
            " it is packed"
        )
    return source


def _die_with_parent() -> None:
    """Ends this worker with its parent.

    It would otherwise wait forever, or write into the folder of the next run.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def write_shard(shard: int) -> dict:
    """Writes one shard and returns its note.

    The note has file, records, bytes, sha256, skipped ((index, reason) of each), labels
    (for multi-hot ones the indices of the ones) and, for captioned datasets, captions.
    """
    job: Job = _worker["job"]
    if "source" not in _worker:  # here, where an error reaches the parent
        _worker["source"] = _open_source(job)
    path = job.folder / job.plan.file(shard)
    with replacing(path) as temporary:
        written = _write_records(job, shard, temporary)
        size = _describe_file(temporary)
    return {"file": path.name, "records": len(written["labels"]), **size, **written}


def _write_records(job: Job, shard: int, path: Path) -> dict[str, list]:
    """Writes the shard's readable records; returns skipped, labels and captions."""
    source, count = _worker["source"], _worker["count"]
    entries = entries_of(source.dataset)
    written: dict[str, list] = {"skipped": [], "labels": []}
    if source.dataset.task == "captions":
        written["captions"] = []
    with _naming_full_disk(job, path):
        writer = ArrayRecordWriter(str(path), _WRITING[job.plan.compression])
    try:
        for index in job.plan.indices(shard):
            if _worker["stop"].value:
                raise InterruptedError("packing was stopped")
            record = _read(source, index, job.on_error)
            if isinstance(record, str):
                written["skipped"].append((index, record))
            else:
                with _naming_full_disk(job, path):
                    for data in encode_entries(record, entries):
                        writer.write(data)
                written["labels"].append(_plain_label(record["label"]))
                if "captions" in written:
                    written["captions"].append(record["captions"])
            with count.get_lock():
                count.value += 1
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    with _naming_full_disk(job, path):
        writer.close()
    return written


def _plain_label(label: Any) -> int | list[int]:
    multi_hot = isinstance(label, np.ndarray)
    return np.flatnonzero(label).tolist() if multi_hot else int(label)


def _read(source: Source, index: int, on_error: str) -> Record | str:
    """The record, or with on_error "skip" the reason why it cannot be read."""
    try:
        record = source[index]
        check_held(record, source.dataset.sensors)
        for key, sensor in source.dataset.sensors.items():
            # checked here, so that reading the pack needs no check
            check_array(record[key], get_sensor(sensor), f"{record['id']} ({key})")
    except (ValueError, OSError) as error:
        if on_error != "skip":
            with suggest_skip():
                raise
        return str(error)
    return record


def _describe_file(path: Path) -> dict:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


@contextlib.contextmanager
def _naming_full_disk(job: Job, path: Path) -> Iterator[None]:
    """Turns ArrayRecord's RuntimeError into an OSError with the space that is needed.

    ArrayRecord raises it for a full disk and any other fault. It writes in the
    background, so the error may come some records later.
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
            " pack into another folder (the same command continues from the finished"
            " shards)"
        ) from error
