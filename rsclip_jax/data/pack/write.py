"""Packing a source's records into ArrayRecord shards, with several processes.

sources/packed.py has the format.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from rsclip_jax.data.pack.files import (
    append_line,
    as_text,
    describe,
    find_span,
    labels_beside,
    read_lines,
    write_beside,
)
from rsclip_jax.data.pack.plan import Plan, make_plan, read_progress, write_progress
from rsclip_jax.data.pack.team import ALONE, Team
from rsclip_jax.data.pack.workers import Job, run_workers
from rsclip_jax.data.sources.manifest import HASH_KEYS, load_manifest
from rsclip_jax.data.types import SPLITS, Source, tail_of
from rsclip_jax.io.files import write_json, write_text
from rsclip_jax.io.lock import locked


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
    team: Team = ALONE,
) -> bool:
    """Packs a split into a folder, continuing where a killed run stopped.

    Args:
      source: the split.
      reopen: opens the same source in another process, so it must pickle.
      folder: the pack's folder; made.
      half: the ids of the archive's "[:50%]" of the split; None where it has no parts.
      provenance: copied into the manifest.
      shard_mb: the approximate size of a shard in megabytes.
      compression: "none", "zstd" or "auto", see make_plan.
      on_error: "raise", or "skip" for leaving unreadable records out.
      workers: the number of processes that this one starts.
      progress: whether to show a progress bar.
      team: the processes that call this together; each packs a share of the shards.

    Returns:
      Whether anything was packed; False for a finished pack.

    Raises:
      ValueError: where the folder holds shards of another plan, another process packs
        into it, or a worker died.
      OSError: where a shard cannot be written.
    """

    def begin() -> dict | None:
        plan = make_plan(
            source, shard_mb=shard_mb, compression=compression, on_error=on_error
        )
        return _begin(folder, plan)

    with contextlib.ExitStack() as stack:
        if team.index == 0:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(folder))
        begun = team.first_decides(begin)
        if begun is None:
            return False
        plan, todo = Plan(**begun["plan"]), begun["todo"]
        _write_shards(
            Job(reopen, folder, plan, on_error),
            todo[team.index :: team.count],
            workers,
            tqdm(
                total=plan.records,
                initial=begun["records"],
                desc=f"pack {source.spec}",
                unit="record",
                disable=not progress,
            ),
            team,
        )
        team.wait(f"the shards of {source.spec}")
        if team.index == 0:
            done = read_progress(folder, plan)
            if team.count > 1:
                write_progress(folder, plan, done)  # all in one file
            finish(source, folder, plan, done, half, provenance)
        team.wait(f"the pack of {source.spec}")
    return True


def _begin(folder: Path, plan: Plan) -> dict | None:
    """{"plan", "todo": shards, "records": packed already}; None for a finished pack."""
    for path in folder.glob("*.tmp"):  # left by a killed run
        path.unlink()
    done = read_progress(folder, plan)
    todo = [i for i in range(plan.shards) if i not in done]
    if not todo and (folder / "manifest.json").exists():
        return None
    (folder / "manifest.json").unlink(missing_ok=True)
    write_progress(folder, plan, done)
    packed = sum(len(plan.indices(i)) for i in done)
    return {"plan": dataclasses.asdict(plan), "todo": todo, "records": packed}


def _write_shards(
    job: Job, todo: list[int], workers: int, bar: tqdm, team: Team
) -> None:
    """Writes the shards todo, and adds their notes to this process's progress."""
    name = f"progress-{team.index}.jsonl" if team.index else "progress.jsonl"
    with bar:
        for i, note in run_workers(job, todo, workers, bar):
            append_line(job.folder / name, {"shard": i, **note})


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of the folder; a kill releases the lock."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise ValueError(
                f"{folder}: another process packs into it; wait for it to end"
            ) from error
        yield


def finish(
    source: Source,
    folder: Path,
    plan: Plan,
    done: dict[int, dict],
    half: Sequence[str] | None,
    provenance: dict,
) -> None:
    """Writes the files beside the shards; the manifest last, which makes it a pack."""
    notes = [done[i] for i in range(plan.shards)]
    skipped = [(source.ids[i], reason) for n in notes for i, reason in n["skipped"]]
    if len(skipped) == plan.records:
        name = source.spec
        raise ValueError(f"no record of {name} is readable")
    left_out = {i for n in notes for i, _ in n["skipped"]}
    ids = [id_ for i, id_ in enumerate(source.ids) if i not in left_out]
    write_text(folder / "ids.txt", as_text(ids))
    (folder / "skipped.txt").unlink(missing_ok=True)
    if skipped:
        lines = [f"{id_}\t{' '.join(reason.split())}\n" for id_, reason in skipped]
        write_text(folder / "skipped.txt", "".join(lines))
    files = ("file", "records", "bytes", "sha256")
    keys = [key for i, key in enumerate(source.hash_keys) if i not in left_out]
    beside = labels_beside(source.dataset, notes)
    if keys != [tail_of(id_) for id_ in ids]:
        beside[HASH_KEYS] = as_text(keys).encode()
    manifest = {
        **describe(source, ids, find_span(source, half), provenance),
        "skipped": len(skipped),
        "compression": plan.compression,
        "max_nodata": plan.max_nodata,
        "files": write_beside(folder, beside),
        "shards": [{key: note[key] for key in files} for note in notes],
    }
    write_json(folder / "manifest.json", manifest, sort_keys=False)


def write_all(source: Source, half: Sequence[str] | None, folder: Path) -> bool:
    """Writes <folder>/all: the packed splits' records in the order of the archive.

    Returns False, and writes nothing, where the archive's "all" has records that the
    packed splits neither hold nor left out.
    """
    splits = [s for s in SPLITS if (folder / s / "manifest.json").exists()]
    packed = {s: read_lines(folder / s / "ids.txt") for s in splits}
    skipped = {s: read_lines(folder / s / "skipped.txt") for s in splits}
    held = {id_ for ids in packed.values() for id_ in ids}
    left_out = {x.split("\t")[0] for lines in skipped.values() for x in lines}
    ids = [id_ for id_ in source.ids if id_ in held]
    if any(id_ not in held and id_ not in left_out for id_ in source.ids):
        return False
    provenance = load_manifest(folder / splits[0] / "manifest.json")
    manifest = {
        **describe(source, ids, find_span(source, half), provenance["provenance"]),
        "splits": splits,
    }
    write_text(folder / "all" / "ids.txt", as_text(ids))
    write_json(folder / "all" / "manifest.json", manifest, sort_keys=False)
    return True
