"""Where the CPU seconds of the embedded run go.

python -m tests.bench.embedded [--config configs/align_sar.py] [--config.key=value ...]

Runs rsclip_jax.main in this process, in a workdir that is removed. A thread looks 50
times a second at what the main thread does, and books on it the CPU seconds that all
threads have used since the last look. Settings are the product's, such as
--config.compile_cache= for a run that compiles everything.
"""

import argparse
import collections
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from types import FrameType

from rsclip_jax.train import host_memory
from tests.bench.timing import machine

PERIOD = 0.02  # seconds between two looks
# What the main thread does: the first row with a frame in the file it names, from the
# innermost frame outwards within a row.
WORK = (
    ("imports", ("importlib._bootstrap",)),
    ("compiling", ("jax/_src/compiler.py", "jax/_src/compilation_cache.py")),
    (
        "tracing and lowering",
        ("partial_eval.py", "interpreters/mlir.py", "_src/pjit.py: _infer_params"),
    ),
    ("pictures and report", ("rsclip_jax/report/",)),
    ("bootstraps and tests", ("rsclip_jax/stats/",)),
    ("checkpoints and digests", ("train/checkpoint.py", "train/resume.py")),
    ("probes", ("evals/probe.py",)),
    ("training steps", ("train/loop.py",)),
    ("drawing and reading data", ("rsclip_jax/data/",)),
    ("encoding", ("evals/encode.py", "models/inference.py")),
    ("scores of embeddings", ("rsclip_jax/evals/", "stages/shared/scoring.py")),
)
OTHER = "other"


class Sampler:
    """Books CPU seconds on (stage, what the main thread does)."""

    def __init__(self, stage: Callable[[], str]):
        self.booked: collections.Counter[tuple[str, str]] = collections.Counter()
        self._stage = stage
        self._main = threading.main_thread().ident
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.process_time()
        while not self._done.wait(PERIOD):
            frame = sys._current_frames().get(self._main)
            now = time.process_time()
            self.booked[self._stage(), name_work(frame)] += now - last
            last = now


def name_work(frame: FrameType | None) -> str:
    """What a stack is at work on, by the files of its frames."""
    stack = []
    while frame is not None:
        code = frame.f_code
        stack.append(f"{code.co_filename}: {code.co_name}")
        frame = frame.f_back
    for name, parts in WORK:
        if any(part in entry for entry in stack for part in parts):
            return name
    return OTHER


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--config", default="configs/align_sar.py")
    args, rest = parser.parse_known_args()
    host_memory.use_huge_pages()  # as main does; it starts this command again
    print(machine(), flush=True)
    stage, started = ["start"], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Sampler(lambda: stage[0]) as sampler:
        run(["main", f"--config={args.config}", f"--workdir={folder}", *rest], stage)
    wall = time.perf_counter() - started
    print_booked(sampler.booked, sum(os.times()[:4]), wall)


def run(argv: list[str], stage: list[str]) -> None:
    """Runs the product; stage[0] is what it is at."""
    sys.argv = argv  # ml_collections reads it
    from rsclip_jax import main as product

    run_stage = product.run_stage

    def watched(run, one) -> None:
        stage[0] = one.name
        try:
            run_stage(run, one)
        finally:
            stage[0] = "end"

    product.run_stage = watched
    try:
        product.run_command()
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        product.run_stage = run_stage


def print_booked(
    booked: collections.Counter[tuple[str, str]], cpu: float, wall: float
) -> None:
    """The table: a line for each work, a column for each stage."""
    stages = list(dict.fromkeys(stage for stage, _ in booked))
    totals: collections.Counter[str] = collections.Counter()
    for (_, work), seconds in booked.items():
        totals[work] += seconds
    head = "".join(f"{name:>10}" for name in (*stages, "all"))
    print(f"\n{'CPU seconds':26}{head}")
    for work, total in totals.most_common():
        cells = [booked[stage, work] for stage in stages]
        print(f"{work:26}{''.join(f'{x:10.1f}' for x in (*cells, total))}")
    sums = [sum(booked[s, w] for w in totals) for s in stages]
    print(f"{'all':26}{''.join(f'{x:10.1f}' for x in (*sums, sum(sums)))}")
    print(f"{cpu:.1f} CPU seconds in {wall:.1f} s")


if __name__ == "__main__":
    main()
