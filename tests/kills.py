"""Kills a shortened job over and over; what it ends with equals an unkilled run's.

    python -m tests.kills [--kills 40] [--seed 0] [--processes 1]

The job trains, caches, evaluates, reports and packs at toy size. It is started, killed
(SIGKILL) at a point drawn at random, and started again with the same command, until it
ends; then its products, results and curves are compared bit for bit with those of a run
that was never killed, and the next job begins. Prints how often each point was hit.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers import xla

MARK = "@@ "
STAGES = ("pretrain", "patch", "align", "evaluate", "pack")
# A point -> (how often a run reaches it, at most; for how long after its start, in
# seconds, a kill may come).
POINTS = {
    "start": (1, 0.5),
    "step": (5, 0.05),
    "save": (3, 0.3),
    "evaluation": (6, 0.4),
    "cache": (1, 0.4),
    "product": (1, 0.3),
    "report": (1, 0.3),
    "packing": (1, 0.8),
}


# The job, in its own process


def run_job(workdir: Path, stages: Sequence[str]) -> None:
    """The job, with these stages; prints a line at the start of each point."""
    from configs import pack
    from rsclip_jax.main import run_stages
    from tests.helpers.processes import toy_variant
    from tests.helpers.runs import few_scenes, tiny_config

    config = tiny_config(tuple(x for x in stages if x != "pack"))
    with config.unlocked():
        config.variant = "toy"
        for stage in ("pretrain", "patch", "align"):
            config[stage].checkpoint_every = 2
        config.align.cache = "exact"
        config.datasets = ("miniature:test",)
        config.evaluate.probes = ()
    packing = pack.get_config()
    packing.dataset = "miniature"
    packing.pack.update(out=str(workdir / "packed"), splits=("val",), shard_mb=4.0)
    packing.progress = False
    with _marks():
        mark("start")
        with few_scenes(), toy_variant():
            run_stages(config, workdir / "run")
        if "pack" in stages:
            run_stages(packing, workdir / "pack")


def mark(point: str) -> None:
    print(f"{MARK}{point}", flush=True)


@contextlib.contextmanager
def _marks() -> Iterator[None]:
    """Marks the points of POINTS by the functions that they begin with."""
    from rsclip_jax.evals import encode
    from rsclip_jax.stages import pack
    from rsclip_jax.stages.shared import closing
    from rsclip_jax.train import checkpoint, feature_cache, loop, resume

    with contextlib.ExitStack() as stack:
        for owner, name, point in (
            (loop._Training, "_step", "step"),
            (resume.Saves, "save", "save"),
            (encode, "encode_batches", "evaluation"),
            (feature_cache, "make", "cache"),
            (checkpoint, "save_product", "product"),
            (closing, "write_report", "report"),
            (pack, "pack_source", "packing"),
        ):
            stack.enter_context(_marked(owner, name, point))
        yield


@contextlib.contextmanager
def _marked(owner: Any, name: str, point: str) -> Iterator[None]:
    function = getattr(owner, name)

    def marked(*args, **kwargs):
        mark(point)
        return function(*args, **kwargs)

    setattr(owner, name, marked)
    try:
        yield
    finally:
        setattr(owner, name, function)


# Kills


@dataclasses.dataclass
class Kill:
    """A kill `delay` seconds after the count-th time that a job reaches a point."""

    point: str
    count: int
    delay: float


def draw(rng: np.random.Generator) -> Iterator[Kill]:
    """Kills at all points in turn, in an order that changes each time."""
    while True:
        for name in rng.permutation(list(POINTS)):
            most, seconds = POINTS[str(name)]
            delay = float(rng.uniform(0, seconds))
            yield Kill(str(name), int(rng.integers(1, most + 1)), delay)


class Job:
    """The processes of one job."""

    def __init__(
        self, workdir: Path, processes: int, log: Path, stages: Sequence[str] = STAGES
    ):
        self.log = log.open("a")
        command = [sys.executable, "-m", "tests.kills", "--job", str(workdir)]
        command += ["--stages", ",".join(stages)]
        peers: list[list[str]] = [[]]
        if processes > 1:
            at = f"127.0.0.1:{free_port()}"
            peers = [["--peer", at, str(processes), str(i)] for i in range(processes)]
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla.flags()}
        self.running = [
            subprocess.Popen(
                [*command, *peer],
                env=env,
                stdout=self.log if i else subprocess.PIPE,
                stderr=self.log,
                text=True,
            )
            for i, peer in enumerate(peers)
        ]

    def points(self) -> Iterator[str]:
        """The points as the first process reaches them."""
        assert self.running[0].stdout is not None
        for line in self.running[0].stdout:
            if line.startswith(MARK):
                yield line.removeprefix(MARK).strip()
            else:
                self.log.write(line)

    def kill(self, one: int) -> None:
        """Kills one process, and those that wait for it."""
        self.running[one].kill()
        for other in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                other.wait(3)
            other.kill()
            other.wait()
        self.close()

    def close(self) -> list[int]:
        codes = [process.wait() for process in self.running]
        for process in self.running:
            if process.stdout:
                process.stdout.close()
        self.log.close()
        return codes


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_until(job: Job, kill: Kill | None, victim: int) -> str:
    """Runs a job until its kill; the last point before it, or "" if it ended."""
    count, last = 0, "start"
    for point in job.points():
        last = point
        count += kill is not None and point == kill.point
        if kill is not None and count >= kill.count:
            time.sleep(kill.delay)
            ended = job.running[victim].poll() is not None
            job.kill(victim)
            return "" if ended else last
    codes = job.close()
    if any(codes):
        raise RuntimeError(f"the job ended with {codes}: see {job.log.name}")
    return ""


def run_kills(
    folder: Path,
    kills: Iterator[Kill],
    total: int,
    *,
    processes: int = 1,
    stages: Sequence[str] = STAGES,
    log: Callable[[str], None] = print,
) -> collections.Counter:
    """Kills jobs `total` times; the number of kills at each point.

    kills: where; a job that ends before its kill's point leaves that kill to the next
    job, once. Raises AssertionError naming what differs at the end of a job from a job
    that was never killed.
    """
    whole = folder / "whole"
    text = folder / "log.txt"
    run_until(Job(whole, processes, text, stages), None, 0)
    expected = contents(whole)
    log(f"unkilled: {len(expected)} facts")
    hit: collections.Counter = collections.Counter()
    jobs, begun = 0, False
    kill: Kill | None = next(kills)
    while sum(hit.values()) < total or begun:
        workdir = folder / f"job{jobs}"
        due = kill if sum(hit.values()) < total else None
        victim = sum(hit.values()) % processes
        if point := run_until(Job(workdir, processes, text, stages), due, victim):
            hit[point] += 1
            log(f"kill {sum(hit.values())}: {point} ({kill})")
            kill, begun = next(kills), True
            continue
        compare(expected, contents(workdir))
        log(f"job {jobs} equals the unkilled one, {sum(hit.values())} kills so far")
        if due and not begun:  # these stages never reach it
            kill = next(kills)
        jobs, begun = jobs + 1, False
    return hit


# What is compared


def contents(workdir: Path) -> dict[str, Any]:
    """All numbers that a job ends with: name -> value or digest."""
    from rsclip_jax.train import checkpoint, resume

    found: dict[str, Any] = {}
    run = workdir / "run"
    for stage in ("pretrain", "patch", "align"):
        if not (run / stage).is_dir():
            continue
        tree = checkpoint.read_tree(run / stage / "params")
        found[f"{stage}/params"] = checkpoint.params_digest(tree)
        last = checkpoint.last_checkpoint(run / stage)
        stored = resume.read_checkpoint(last)
        for name in ("params", "train"):
            digest = resume.tree_digest(getattr(stored, name))
            found[f"{stage}/last {name}"] = f"{stored.step} {digest}"
        found[f"{stage}/position"] = stored.position
        found[f"{stage}/curve"] = _lines(run / stage / "metrics.jsonl")
    found["results"] = _lines(run / "results.jsonl")
    found["report"] = (run / "report.html").is_file()
    for path in sorted((workdir / "packed").rglob("*")):
        if path.is_file() and path.name not in ("manifest.json", "lock.json"):
            lines = path.read_bytes().splitlines()
            in_any_order = path.name == "progress.jsonl"  # as the workers end
            name = str(path.relative_to(workdir))
            found[name] = sorted(lines) if in_any_order else lines
    left = [str(p.relative_to(workdir)) for p in workdir.rglob("*.tmp")]
    found["temporary files"] = [x for x in left if "checkpoint-tmp" not in x]
    return found


def _lines(path: Path) -> list[str]:
    """The lines without the times in them."""
    times = r'"(seconds|examples_per_second|input_wait)": [-+.e0-9]+,? ?'
    return [re.sub(times, "", line) for line in path.read_text().splitlines()]


def compare(expected: dict[str, Any], found: dict[str, Any]) -> None:
    names = expected.keys() | found.keys()
    differing = sorted(x for x in names if expected.get(x) != found.get(x))
    shown = {
        x: (str(expected.get(x))[:500], str(found.get(x))[:500]) for x in differing
    }
    assert not differing, json.dumps(shown, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--job", type=Path, help="run the job itself, in this folder")
    parser.add_argument("--peer", nargs=3, default=("", "0", "-1"))
    args = parser.parse_args()
    from rsclip_jax.train import processes

    if args.job:
        coordinator, count, index = args.peer
        processes.initialize(coordinator, int(count), int(index))
        run_job(args.job, args.stages.split(","))
        return
    rng = np.random.default_rng(args.seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            hit = run_kills(
                Path(folder),
                draw(rng),
                args.kills,
                processes=args.processes,
                stages=args.stages.split(","),
            )
        except RuntimeError:
            print((Path(folder) / "log.txt").read_text()[-3000:], file=sys.stderr)
            raise
    print(
        f"{sum(hit.values())} kills in {time.monotonic() - started:.0f} s, all equal:"
    )
    for point in POINTS:
        print(f"  {point:12} {hit[point]:3}")


if __name__ == "__main__":
    main()
