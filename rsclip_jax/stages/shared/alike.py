"""Checks that the processes of one job run the same thing in the same workdir."""

import functools
import time
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.io.commit import git_commit
from rsclip_jax.io.files import write_text
from rsclip_jax.io.paths import as_path
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.stages.shared.workdir import as_json
from rsclip_jax.train import processes
from rsclip_jax.version import __version__

# Each host may have its own: no number depends on them.
_OWN = ("data_root", "data.threads", "progress", "compile_cache")
_WAIT = 60.0  # seconds that a network file system may hide a new file


def check_alike(config: ConfigDict) -> None:
    """Raises ValueError, naming what differs, unless all processes run the same."""
    settings = flatten(as_json(config), "config.")
    own = {f"config.{name}" for name in _OWN}
    facts = {name: x for name, x in settings.items() if name not in own}
    facts |= {
        "the version": __version__,
        "the commit": git_commit(),
        "jax": jax.__version__,
        "the kind of device": jax.local_devices()[0].device_kind,
        "the number of local devices": jax.local_device_count(),
    }
    processes.check_same(facts, "settings or code")


def flatten(section: dict, prefix: str) -> dict[str, Any]:
    """{"config.align.lr": value} of nested settings."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_data_alike(run: Run) -> None:
    """Raises ValueError, naming the datasets, unless all processes read the same."""
    if processes.count() == 1:
        return
    # process 0 alone has opened what it asked for finished stages
    opened = [set(x.split("\n")) for x in processes.gather_texts("\n".join(run.opened))]
    shared = set.intersection(*opened) - {""}
    digests = {spec: split_digest(run.opened[spec]) for spec in sorted(shared)}
    processes.check_same(digests, "data")


def check_shared(workdir: Path) -> None:
    """Raises ValueError unless all processes see what process 0 writes."""
    if processes.count() == 1:
        return
    path = workdir / "processes" / "shared.txt"
    if processes.is_first():  # of a job that failed
        for old in path.parent.glob("*.json"):
            old.unlink()
    token = processes.from_first(uuid.uuid4().hex)
    if processes.is_first():
        write_text(path, token)
    processes.wait_for_all("the workdir")
    _see(path, token, f"--workdir={workdir}")


def check_folders_shared(config: ConfigDict, stages: Collection[str]) -> None:
    """Raises ValueError unless all processes see the folders that they write together.

    stages: the names of those that will run. A folder that process 0 cannot write is
    left alone: finished features may be read from it.
    """
    if processes.count() == 1:
        return
    for setting, folder in written_together(config, stages).items():
        token = processes.from_first(uuid.uuid4().hex)
        path = folder / f".shared-{token}"  # other runs may use the folder now
        if processes.first_decides(functools.partial(_can_write, path, token)):
            _see(path, token, f"{setting} = {folder}")


def written_together(config: ConfigDict, stages: Collection[str]) -> dict[str, Path]:
    """{setting: folder} outside the workdir that several processes write."""
    found = {}
    if not {"align", "ablate"}.isdisjoint(stages):
        c = config.align
        if c.cache != "off" and c.cache_dir:
            found["config.align.cache_dir"] = as_path(c.cache_dir)
    if "pack" in stages:
        found["config.pack.out"] = as_path(config.pack.out)
    return found


def _can_write(path: Path, text: str) -> bool:
    try:
        write_text(path, text)
    except OSError:
        return False
    return True


def _see(path: Path, token: str, name: str) -> None:
    """Raises ValueError unless all processes see process 0's file, which it removes.

    name: the setting of its folder, and the folder.
    """
    try:
        with processes.together():
            if not _shows(path, token):
                raise ValueError(
                    f"{name} is not shared: {processes.name_self()}does not see what"
                    " process 0 writes there; name a folder that all hosts mount"
                )
    finally:
        if processes.is_first():
            path.unlink(missing_ok=True)


def _shows(path: Path, token: str) -> bool:
    """Whether a file has this content, now or soon."""
    until = time.monotonic() + _WAIT
    while True:
        if path.exists() and path.read_text() == token:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
