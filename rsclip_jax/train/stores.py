"""Orbax in workdirs of any kind; where it cannot write, through a local folder.

Orbax writes local folders and gs:// by itself, by any number of processes. It refuses
s3:// and az://: there one process saves into a temporary local folder, and its files
are uploaded, a mark last.
"""

import contextlib
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rsclip_jax.io.files import (
    local_copy,
    remove_tree,
    upload_tree,
    write_text,
)
from rsclip_jax.io.paths import is_remote
from rsclip_jax.train import processes, sharding, watchdog

PyTree = Any
# The file that Orbax writes last into a folder on gs://, which has no renames.
WRITTEN = "commit_success.txt"


def is_whole(folder: Path) -> bool:
    """Whether a folder has been written to its end; a local one is renamed last."""
    return (folder / WRITTEN).exists() if is_remote(folder) else folder.is_dir()


def steps_in(folder: Path) -> list[int]:
    """The steps whose checkpoints are in a folder, sorted."""
    folders = (p for p in folder.glob("*") if p.name.isdigit())
    return sorted(int(p.name) for p in folders if not is_remote(p) or is_whole(p))


def save_tree(folder: Path, tree: PyTree, *, replace: bool = False) -> None:
    """Writes a tree; replace: also where there is one.

    Raises ValueError if the store takes one process only and there are several.
    """
    if not _is_staged(folder):
        force = replace or is_remote(folder)  # where a kill can leave a part
        saving = watchdog.during(f"saving {folder}")
        with saving, ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder.resolve(), _savable(tree), force=force)
        return
    check_processes(folder)
    if replace or not is_whole(folder):  # left by a kill
        remove_tree(folder)
    with (
        tempfile.TemporaryDirectory() as local,
        ocp.StandardCheckpointer() as checkpointer,
    ):
        checkpointer.save(local, tree, force=True)
        checkpointer.wait_until_finished()
        _upload(Path(local), folder)


def _savable(tree: PyTree) -> PyTree:
    """In numpy with several processes: Orbax refuses arrays of one process's devices.

    Of numpy arrays it saves process 0's.
    """
    if processes.count() == 1:
        return tree
    return jax.tree.map(np.asarray, sharding.on_host(tree))


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[Path]:
    """A folder that Orbax can read: itself, or a local copy."""
    if _is_staged(folder):
        with local_copy(folder) as local:
            yield local.resolve()
    else:
        yield folder.resolve()


def make_manager(
    folder: Path, options: ocp.CheckpointManagerOptions
) -> "ocp.CheckpointManager | StagedManager":
    """A manager of the checkpoints of a folder."""
    if _is_staged(folder):
        return StagedManager(folder, options)
    return _Manager(folder, options=options)


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which leaves it to train/stopping.py to hear of a preemption.

    JAX agrees with all processes on the point after the last one that any has asked
    about. Orbax would ask about training steps, which count otherwise: the agreed point
    would then never be reached.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class StagedManager:
    """What train/resume.py uses of Orbax's manager, for s3:// and az://.

    A save ends when its files are in the store, so it blocks.
    """

    def __init__(self, folder: Path, options: ocp.CheckpointManagerOptions):
        check_processes(folder)
        self._folder, self._policy = folder, options.preservation_policy
        self._temporary = tempfile.TemporaryDirectory()
        self._local = _Manager(self._temporary.name, options=options)

    def all_steps(self) -> list[int]:
        return steps_in(self._folder)

    def latest_step(self) -> int | None:
        return max(self.all_steps(), default=None)

    def save(self, step: int, args: Any) -> None:
        """Saves a step, then removes those that the policy does not keep."""
        self._local.save(step, args=args)
        self._local.wait_until_finished()
        target = self._folder / str(step)
        remove_tree(target)  # part of it, left by a kill
        _upload(Path(self._temporary.name) / str(step), target)
        steps = [types.SimpleNamespace(step=step) for step in self.all_steps()]
        kept = self._policy.should_preserve(steps, context=None)
        for info, keep in zip(steps, kept, strict=True):
            if not keep:
                (self._folder / str(info.step) / WRITTEN).unlink(missing_ok=True)
                remove_tree(self._folder / str(info.step))

    def is_saving_in_progress(self) -> bool:
        """False: save has waited, and has raised its errors."""
        return False

    def wait_until_finished(self) -> None:
        """Nothing: save has waited."""

    def close(self) -> None:
        self._local.close()
        self._temporary.cleanup()


def check_processes(folder: Path) -> None:
    """Raises ValueError for several processes and a store that takes one only."""
    if _is_staged(folder) and processes.count() > 1:
        raise ValueError(
            f"{folder}: Orbax saves there from one process only, and there are"
            f" {processes.count()}: use gs://, or a folder that all processes share"
        )


def _upload(local: Path, folder: Path) -> None:
    upload_tree(local, folder, but=WRITTEN)  # which Orbax writes locally, too
    write_text(folder / WRITTEN, "")


def _is_staged(folder: Path) -> bool:
    return is_remote(folder) and not str(folder).startswith("gs://")
