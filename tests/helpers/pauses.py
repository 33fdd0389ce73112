"""Trainings that wait at a step until a test lets them go on.

A test that acts on a running process, by a signal or by a second run, thus knows where
the process is, however busy the machine.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest

VARIABLE = "RSCLIP_TEST_PAUSES"


class Pauses:
    """Pauses of a process before steps; the test's side.

    folder: where the two tell each other. variables: what the process needs in its
    environment; of a job, process 0 pauses.
    """

    def __init__(self, folder: Path, *steps: int):
        folder.mkdir()
        self.folder = folder
        self.variables = {VARIABLE: f"{','.join(map(str, steps))}:{folder}"}

    def reached(self, step: int) -> bool:
        return (self.folder / f"{step}.reached").exists()

    def let_go(self, step: int) -> None:
        (self.folder / f"{step}.go").touch()


@contextlib.contextmanager
def pausing() -> Iterator[None]:
    """The process's side: trainings pause as its environment asks."""
    from rsclip_jax.train import loop

    steps, _, folder = os.environ.get(VARIABLE, "").partition(":")
    step_of = loop._Training._step

    def pause_and_step(self, step, *args, **kwargs):
        if str(step) in steps.split(",") and jax.process_index() == 0:
            _pause(Path(folder), step)
        return step_of(self, step, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Training, "_step", pause_and_step)
        yield


def _pause(folder: Path, step: int) -> None:
    (folder / f"{step}.reached").touch()
    while not (folder / f"{step}.go").exists():
        time.sleep(0.05)


def wait_until(
    found: Callable[[], bool],
    process: subprocess.Popen | None = None,
    timeout: float = 300.0,
) -> None:
    """Waits until found() is true; fails if the process ends before."""
    until = time.monotonic() + timeout
    while not found():
        if process is not None:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)
