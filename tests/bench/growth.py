"""Cost as work grows: CPU time and memory an example, by records and by devices.

python -m tests.bench.growth [--records 1000 10000 100000 1000000] [--devices 1 2 4 8]

A process for each column, so that each starts with no memory. A row is flat where the
cost is linear. Records are tiny (8 x 8 pixels, from memory), so that what is measured
is what a record costs beside its pixels; devices are fake ones that share the cores,
with 16 examples each, so CPU time says what sharding costs. Linux only.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax.data.bad_records import SkippedList
from rsclip_jax.data.inspect.scan import scan
from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.batches import train_batches
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.sources.wrappers import TiledSource
from rsclip_jax.data.types import Dataset, ReadOptions, Source
from tests.bench.timing import machine

LABELS, WIDTH, SIDE, TILES = 4, 64, 8, 4
BATCH, BATCHES, SAMPLES, QUERIES = 64, 200, 12, 256
EACH = 16  # examples a device
Found = dict[str, tuple[float, float]]  # row -> (us, bytes), an example


class Made(Source):
    """n records of one picture and of a label that follows from the index."""

    split = "train"

    def __init__(self, n: int):
        names = tuple(f"class {i}" for i in range(LABELS))
        told = ("made", "folders", "single", {"rgb": "rgb"}, names, names, ("{c}",))
        self.dataset = Dataset(*told)
        self.ids = [f"train/{i}" for i in range(n)]
        self._rgb = np.arange(SIDE * SIDE * 3, dtype=np.uint8).reshape(SIDE, SIDE, 3)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"id": self.ids[index], "label": index % LABELS, "rgb": self._rgb}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--records", nargs="*", type=int, default=[10**k for k in (3, 4, 5, 6)]
    )
    parser.add_argument("--devices", nargs="*", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--worker", nargs=2, help="not for you: what, and how many")
    args = parser.parse_args()
    if args.worker:
        kind, count = args.worker[0], int(args.worker[1])
        print(json.dumps({"records": of_records, "devices": of_devices}[kind](count)))
        return
    print(f"{machine()}; CPU us and bytes an example")
    for kind in ("records", "devices"):
        if counts := getattr(args, kind):
            print_table(kind, counts, [run_worker(kind, count) for count in counts])


def run_worker(kind: str, count: int) -> Found:
    """What a process of its own measures."""
    devices = count if kind == "devices" else 1
    flag = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.bench.growth", "--worker", kind, str(count)]
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def print_table(kind: str, counts: list[int], found: list[Found]) -> None:
    """A row for each kind of work, a column for each count."""
    print(f"\n| {kind} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    print("|---" * (1 + len(counts)) + "|")
    for row in found[0]:
        cells = (f"{us:.2f}, {size:,.0f}" for us, size in (f[row] for f in found))
        print(f"| {row} | " + " | ".join(cells) + " |", flush=True)


# In a process of its own


def of_records(n: int) -> Found:
    """The costs of n records, each work after a small run that compiles and imports."""
    with tempfile.TemporaryDirectory() as folder:
        small = works(min(n, 100), Path(folder) / "small")
        large = works(n, Path(folder) / "large")
        found: Found = {}
        for row, (work, count) in large.items():
            small[row][0]()
            found[row] = cost(work, count)
    return found


def works(n: int, folder: Path) -> dict[str, tuple[Callable[[], object], int]]:
    """Row -> (the work, the number of examples that share its cost)."""
    source, rng = Made(n), np.random.default_rng(0)
    targets = rng.integers(0, 2, (n, LABELS))
    scores = targets + rng.normal(size=targets.shape)
    scenes, trained = Made(max(1, n // TILES)), BATCH * BATCHES
    tiles = TiledSource(scenes, SIDE // 2)
    return {
        "list records, digest of a split": (lambda: split_digest(Made(n)), n),
        "read all labels": (lambda: scan(source, (), ReadOptions()), n),
        "train, an example of 12,800": (lambda: train(source), trained),
        "list tiles": (lambda: TiledSource(scenes, SIDE // 2), n),
        "train on tiles, an example of 12,800": (
            lambda: train(tiles, SIDE // 2),
            trained,
        ),
        "evaluate: batches and embeddings": (lambda: evaluate(source), n),
        "list of skipped records": (lambda: skip(n // 10, folder), max(1, n // 10)),
        "bootstrap of mAP, 4 labels, 12 samples": (
            lambda: bootstrap(scores, targets),
            n * SAMPLES * LABELS,
        ),
        "search of 256 queries, width 64": (lambda: search(n), n),
    }


def cost(work: Callable[[], object], count: int) -> tuple[float, float]:
    """(us of CPU time, peak bytes above what was there before), an example."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before, start = memory("VmRSS"), time.process_time()
    kept = work()
    seconds = time.process_time() - start
    peak = max(0, memory("VmHWM") - before)
    del kept
    return 1e6 * seconds / count, peak / count


def memory(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(name)


def train(source: Source, side: int = SIDE) -> None:
    options = ReadOptions(min(BATCH, len(source)))
    read = train_batches(
        [source], sizes={"rgb": side}, augment=Augment(), seed=0, options=options
    )
    for _ in range(BATCHES):
        next(read)
    read.close()


def evaluate(source: Source) -> object:
    from rsclip_jax.evals.encode import encode_source
    from rsclip_jax.train.sharding import make_mesh

    return encode_source(
        source,
        {"rgb": lambda batch: batch["rgb"].astype("float32").mean((1, 2))},
        sizes={"rgb": SIDE},
        mesh=make_mesh(),
        options=ReadOptions(256),
    )


def skip(n: int, folder: Path) -> None:
    listed = SkippedList(folder / "skipped.txt")
    for i in range(n):
        listed.add("made:train", f"train/{i}", "cut short")


def bootstrap(scores: np.ndarray, targets: np.ndarray) -> object:
    from rsclip_jax.stats.draws import bootstrap_map, draw_many

    draw = bootstrap_map({0.0: scores}, targets)
    return draw_many(draw, SAMPLES, np.random.default_rng(0))


def search(n: int) -> object:
    from rsclip_jax.evals.search import nearest
    from rsclip_jax.train.sharding import make_mesh

    rng = np.random.default_rng(2)
    z = rng.normal(size=(n, WIDTH)).astype(np.float32)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    return nearest(z[:1].repeat(QUERIES, 0), z, 10, mesh=make_mesh())


def of_devices(count: int) -> Found:
    """The costs of a step's loss and gradients on so many devices."""
    import jax

    from configs import align_sar
    from rsclip_jax.stages.registry import find_stages
    from rsclip_jax.stages.shared import training
    from rsclip_jax.stages.shared.run import Run
    from rsclip_jax.train import sharding
    from rsclip_jax.train.feed import RECORDS
    from tests.bench.devices import TRAINED, random_tree

    config = align_sar.get_config()
    config.progress = False
    for stage in TRAINED:
        config[stage].batch_size = EACH * count
    run = Run(config, Path("none"), sharding.make_mesh())
    found: Found = {}
    for stage in find_stages(TRAINED):
        assert stage.needs_of is not None
        job, rng = stage.needs_of(run).jobs[0], np.random.default_rng(0)
        params, frozen = (
            sharding.put_params(random_tree(x, rng), run.mesh)
            for x in (job.params, job.frozen)
        )
        made = training.make_batches(run, job.stage, job.settings, job.data)
        batch = dict(next(made))
        batch.pop(RECORDS, None)
        on_mesh = {**sharding.put_batch(batch, run.mesh), "step": np.int32(0)}
        find = jax.jit(jax.grad(job.loss_fn, has_aux=True))
        step = find.lower(params, frozen, on_mesh).compile()
        size = step.memory_analysis().temp_size_in_bytes / EACH  # of a device
        jax.block_until_ready(step(params, frozen, on_mesh))
        start = time.process_time()
        jax.block_until_ready(step(params, frozen, on_mesh))
        us = 1e6 * (time.process_time() - start) / (EACH * count)
        found[f"{stage.name}: loss and gradients"] = us, size
        with contextlib.suppress(AttributeError):
            made.close()
    return found


if __name__ == "__main__":
    main()
