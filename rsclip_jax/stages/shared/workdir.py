"""The workdir of a run: checks it against the config, empties it, begins it."""

import json
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from rsclip_jax.io import run_lock
from rsclip_jax.io.files import read_object, remove_tree, write_json, write_text
from rsclip_jax.io.paths import is_remote
from rsclip_jax.io.store_errors import store_failed
from rsclip_jax.io.texts import first_of
from rsclip_jax.stages.shared.stage import Stage
from rsclip_jax.train.stores import check_processes

# These may change between two runs in one workdir: no number depends on them, or each
# number records them (data and skipped records, by digest).
_FREE = (
    "overwrite",
    "stages",
    "progress",
    "compile_cache",
    "watchdog_minutes",
    "plan",
    "plan_memory_gb",
    "plan_here",
    "plan_topologies",
    "data.threads",
    "data.on_error",  # so that a training that met a bad file can continue
    "data.max_pixels",  # likewise
    "data_root",
    "datasets",  # only new ones are measured
    "eval_batch_size",
    "keep_embeddings",
    "align.cache",  # the same features up to rounding
    "align.cache_dir",
    "evaluate.probes",  # like datasets
    "evaluate.forgetting",
    "ablate.sweep",  # a longer one continues a shorter one
    "models",  # likewise
    "published",
    "dry_run",  # uses a separate folder
    "dry_records",
    "inspect",
    "precision",  # each number's meta records it, and a training refuses to change it
    "mesh",  # these four only round otherwise
    "remat",
    "scan_layers",
    "attention",
)
# Settings of any stage that only allow a run, or say what is kept of it.
_PERMITS = (
    "allow_shared",
    "allow_other_data",
    "keep",
    "keep_best",
    "on_nonfinite",
    "max_skipped",
)
# Settings of any stage that change how, and only by rounding what is computed.
_HOW = ("accumulate", "negatives")
# Newer settings, at the value that does what programs without them did.
_AS_BEFORE = {"grad_dtype": "float32"}


def check_workdir(config: ConfigDict, workdir: Path, stages: Sequence[Stage]) -> bool:
    """Whether the workdir has to be emptied first, as config.overwrite allows.

    stages: all stages. Raises ValueError as check_folder, and for the workdir of
    another config.
    """
    check_folder(workdir)
    stored = workdir / "config.json"
    if not stored.exists():
        return False
    begun = [stage for stage in stages if stage.binds and _has_begun(workdir, stage)]
    if not begun:
        return False
    sections = {name for stage in stages for name in stage.binds}
    bound = {name for stage in begun for name in stage.binds}
    try:
        earlier = read_object(
            stored,
            "restore it from a copy, choose another --workdir, or"
            " --config.overwrite=True to remove its results",
        )
    except ValueError:
        if config.overwrite:
            return True
        raise
    changed = differences(earlier, as_json(config), idle=sections - bound)
    if changed and not config.overwrite:
        raise ValueError(
            f"{workdir} was made with another config:\n  "
            + first_of(changed, "\n  ", most=20)
            + "\nchoose another --workdir, or --config.overwrite=True to remove its"
            " results"
        )
    return bool(changed)


def check_folder(workdir: Path) -> None:
    """Raises ValueError for a file, and for another program's folder.

    Also for several processes and a store that takes one; StoreFailed for a store that
    cannot be reached.
    """
    if is_remote(workdir):
        check_processes(workdir)
        _reach(workdir)
    for path in () if is_remote(workdir) else (workdir, *workdir.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(
                f"--workdir={workdir}: {path} is a file; name a folder, which is"
                " created if it does not exist"
            )
    if not (workdir / "config.json").exists() and _has_others_files(workdir):
        raise ValueError(
            f"{workdir} is not empty and holds no config.json, so it is not the"
            " workdir of a run: choose another --workdir"
        )


def _reach(workdir: Path) -> None:
    try:
        workdir.exists()
    except Exception as error:  # each store's package has its own kinds
        raise store_failed(workdir, error) from error


def _has_begun(workdir: Path, stage: Stage) -> bool:
    """Whether a workdir holds results that a stage made with the stored settings.

    An unfinished evaluation starts over, so its settings may change.
    """
    folder = workdir / stage.name
    return (folder / "meta.json" if stage.resumes else folder).exists()


def _has_others_files(workdir: Path) -> bool:
    """Whether it holds files besides those of a start that failed or was killed."""

    def is_ours(name: str) -> bool:
        # a lock that was being written has more after its name
        return name in ("error.txt", "processes") or name.startswith(run_lock.NAME)

    return workdir.is_dir() and not all(is_ours(p.name) for p in workdir.iterdir())


def differences(
    old: dict, new: dict, prefix: str = "", idle: Collection[str] = ()
) -> list[str]:
    """A line for each changed setting that binds.

    It reads "config.patch.lr: 0.1 in the workdir, 0.2 in this run".

    idle: sections that do not bind.
    """
    lines = []
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        a, b = old.get(key), new.get(key)
        if name in (*_FREE, *idle) or key in (*_PERMITS, *_HOW) or a == b:
            continue
        # a newer setting that is off
        if key not in old and (not b or b == _AS_BEFORE.get(key)):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{name}.")
        else:
            lines.append(f"config.{name}: {a!r} in the workdir, {b!r} in this run")
    return lines


def as_json(config: ConfigDict) -> dict:
    """The config as JSON returns it: tuples become lists."""
    return json.loads(json.dumps(config.to_dict()))


def empty(workdir: Path, stages: Sequence[Stage]) -> None:
    """Removes the files of a run, and no others."""
    for stage in stages:
        remove_tree(workdir / stage.name)
    for name in ("results.jsonl", "report.html"):
        (workdir / name).unlink(missing_ok=True)


def begin(config: ConfigDict, workdir: Path) -> None:
    """Writes config.json, and removes the traceback of a failed start."""
    write_json(workdir / "config.json", as_json(config))
    (workdir / "error.txt").unlink(missing_ok=True)


def keep_traceback(workdir: Path) -> str:
    """Writes the current traceback into the workdir of a run; returns a note on it."""
    trace = workdir / "error.txt"
    try:
        if not (workdir / "config.json").exists() and _has_others_files(workdir):
            return ""
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(trace, traceback.format_exc())
    except Exception:  # the workdir cannot be written; a store has errors of its own
        return ""
    return f"(traceback: {trace})"
