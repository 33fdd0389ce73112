"""Runs of main in several real processes with fake devices each, connected by gloo.

As a program, `python -m tests.helpers.processes [flags of main]`, it is main with few
scenes in the miniature, the variant "toy" and steady probes; it pauses where it is told
to (pauses.py). start() starts several of it as one job, start_alone() one.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.helpers import xla

# not conftest's, whose import would give the processes its fake devices
REPO = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Job:
    """The processes of one job; their output is in <logs>/<i>.txt, both streams."""

    def __init__(self, processes: Sequence[subprocess.Popen], logs: Path):
        self.processes, self.logs = list(processes), logs

    def wait(self, timeout: float = 120.0) -> list[int]:
        """The exit statuses. Fails, with all output, where one does not end."""
        until = time.monotonic() + timeout
        try:
            return [p.wait(max(until - time.monotonic(), 0.1)) for p in self.processes]
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not ended in {timeout} s:\n{self.text()}") from None

    def kill(self, index: int | None = None, signum: int = signal.SIGKILL) -> None:
        """Sends a signal to one process, or to all that are left."""
        chosen = self.processes if index is None else [self.processes[index]]
        for process in chosen:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signum)

    def output(self, index: int) -> str:
        return (self.logs / f"{index}.txt").read_text(errors="replace")

    def text(self) -> str:
        """The output of all processes, each under its number."""
        parts = [f"-- {i}:\n{self.output(i)}" for i in range(len(self.processes))]
        return "\n".join(parts)

    def wait_until(self, found, timeout: float = 300.0) -> None:
        """Waits until found() is true. Fails if the job ends or time is over before."""
        until = time.monotonic() + timeout
        while not found():
            over = time.monotonic() > until
            if over or any(p.poll() is not None for p in self.processes):
                self.kill()
                raise AssertionError(f"it did not happen:\n{self.text()}")
            time.sleep(0.05)


def environment(devices: int = 2, **more: str) -> dict[str, str]:
    """What a process of a job gets: its fake devices, and none of a launcher's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OMPI"))}
    return {**kept, "XLA_FLAGS": xla.flags(devices), "JAX_PLATFORMS": "cpu", **more}


@contextlib.contextmanager
def start(
    logs: Path,
    *flags: str,
    processes: int = 2,
    devices: int = 2,
    module: str = "tests.helpers.processes",
    env: dict[str, str] | None = None,
    each: Callable[[int], list[str]] = lambda process: [],
) -> Iterator[Job]:
    """Starts main with these flags in several processes; kills what is left at the end.

    logs: the folder of their output. module: what runs, by default main on few scenes.
    each: more flags of one process, by its number.
    """
    logs.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    started = []
    for i in range(processes):
        command = [sys.executable, "-m", module, *flags, *each(i)]
        command += [f"--coordinator={address}"]
        command += [f"--processes={processes}", f"--process={i}"]
        with open(logs / f"{i}.txt", "w") as file:
            started.append(
                subprocess.Popen(
                    command,
                    cwd=REPO,
                    env=environment(devices, **(env or {})),
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    job = Job(started, logs)
    try:
        yield job
    finally:
        job.kill()
        for process in started:
            process.wait()


@contextlib.contextmanager
def start_alone(
    config: Path, workdir: Path | str, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """Starts main in one process with one device; kills it at the end."""
    flags = f"--config={config}", f"--workdir={workdir}"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.processes", *flags],
        cwd=REPO,
        env={**os.environ, "XLA_FLAGS": xla.flags(), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def write_config(path: Path, text: str = "", stages: str = "") -> Path:
    """A config file like tests.helpers.runs.tiny_config, changed by lines of Python.

    text: lines that change `config`. stages: a tuple, as code.
    """
    lines = [
        "from tests.helpers.runs import tiny_config",
        "def get_config():",
        f"    config = tiny_config({stages})",
        "    with config.unlocked():",
        "        pass",
        *(f"        {line}" for line in text.splitlines()),
        "    return config",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@contextlib.contextmanager
def toy_variant() -> Iterator[None]:
    """Adds "toy" to the variants: one block a tower, quick to compile."""
    from rsclip_jax.models.variants import VARIANTS, Variant

    sizes = (16, 32, 16, 16, 1, 1, 16, 1, 1)
    VARIANTS["toy"] = Variant("toy", *sizes, "quick_gelu", context_length=24)
    try:
        yield
    finally:
        del VARIANTS["toy"]


@contextlib.contextmanager
def steady_probes() -> Iterator[None]:
    """Linear probes up to C = 1, which stay the same where embeddings differ by 3e-6.

    With C of 100 and more, a difference of 1e-7 changes what a probe of the few scenes
    finds, and so which C is best.
    """
    from rsclip_jax.evals import probe

    before, probe.DECADES = probe.DECADES, (-6.0, 0.0)
    try:
        yield
    finally:
        probe.DECADES = before


if __name__ == "__main__":
    from rsclip_jax.main import run_command
    from tests.helpers.pauses import pausing
    from tests.helpers.runs import few_scenes

    with few_scenes(), toy_variant(), steady_probes(), pausing():
        run_command()
