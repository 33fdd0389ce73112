"""One table: 1, 2, 4 and 8 devices, and each stage's equality to one device and time.

python -m tests.bench.devices [--counts 1 2 4 8] [--fsdp 4] [--steps 3]

Toy towers on the embedded world; fake CPU devices in a process for each count, so that
the time says what sharding costs, not what it gains. --fsdp adds a row whose devices
also share the parameters. Exits with 1 if something differs by more than --tolerance.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TRAINED = ("pretrain", "patch", "align")
BATCH = 32
# Leaves whose gradient is below this share of the largest are rounding alone: a key's
# bias changes no loss.
FLOOR = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--fsdp", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--worker", nargs=2, help="not for you: devices, and a file")
    args = parser.parse_args()
    if args.worker:
        measure(*map(int, args.worker[0].split("x")), Path(args.worker[1]), args.steps)
        return 0
    shapes = [(count, 1) for count in args.counts]
    last = max(args.counts)
    if args.fsdp > 1 and last % args.fsdp == 0:
        shapes.append((last // args.fsdp, args.fsdp))
    with tempfile.TemporaryDirectory() as folder:
        found = [run_worker(shape, Path(folder), args.steps) for shape in shapes]
    return print_table(shapes, found, args.tolerance)


def run_worker(shape: tuple[int, int], folder: Path, steps: int) -> dict[str, Any]:
    """What a process with this mesh measures: {name: array}, times among them."""
    path = folder / f"{shape[0]}x{shape[1]}.npz"
    flag = f"--xla_force_host_platform_device_count={shape[0] * shape[1]}"
    command = [sys.executable, "-m", "tests.bench.devices", "--steps", str(steps)]
    command += ["--worker", f"{shape[0]}x{shape[1]}", str(path)]
    environment = {**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    subprocess.run(command, check=True, env=environment)
    with np.load(path) as stored:
        return dict(stored)


def print_table(shapes, found, tolerance: float) -> int:
    """The table; 1 if a difference is above the tolerance."""
    from tests.bench.timing import machine

    stages = [*TRAINED, "evaluate", "search"]
    print(f"{machine()}; largest relative difference to one device; milliseconds")
    print(f"{'devices':12}" + "".join(f"{stage:>20}" for stage in stages))
    worst = 0.0
    for shape, values in zip(shapes, found, strict=True):
        cells = []
        for stage in stages:
            apart = difference(stage, values, found[0])
            worst = max(worst, apart)
            cells.append(f"{apart:.1e} {1e3 * float(values[f'{stage}/seconds']):8.1f}")
        name = f"{shape[0] * shape[1]}" + (f" fsdp {shape[1]}" if shape[1] > 1 else "")
        print(f"{name:12}" + "".join(f"{cell:>20}" for cell in cells))
    print(json.dumps({"worst": worst, "tolerance": tolerance}))
    return int(worst > tolerance)


def difference(stage: str, values: dict, one: dict) -> float:
    """The largest relative difference of a stage's arrays."""
    names = [n for n in one if n.startswith(f"{stage}/") and not n.endswith("seconds")]
    largest = max(np.linalg.norm(one[n]) for n in names)
    gradients = [n for n in names if "/grad/" in n]
    if gradients:
        largest = max(np.linalg.norm(one[n]) for n in gradients)
    apart = [0.0]
    for name in names:
        length = np.linalg.norm(one[name])
        if name in gradients:
            length = max(length, FLOOR * largest)
        apart.append(np.linalg.norm(values[name] - one[name]) / max(length, 1e-30))
    return float(max(apart))


# In a process of its own


def measure(data: int, fsdp: int, path: Path, steps: int) -> None:
    """Writes every stage's arrays and seconds on a mesh of this shape."""
    from configs import align_sar
    from rsclip_jax.stages.registry import find_stages
    from rsclip_jax.stages.shared.run import Run
    from rsclip_jax.train.sharding import make_mesh

    config = align_sar.get_config()
    config.progress = False
    for stage in TRAINED:
        config[stage].batch_size = BATCH
    # so that a batch's examples are compared over devices in align too
    config.align.losses = (("mse", 1.0), ("labels", 0.05), ("info_nce", 0.1))
    run = Run(config, path.parent / "none", make_mesh((data, fsdp)))
    out: dict[str, Any] = {}
    for stage in find_stages(TRAINED):
        assert stage.needs_of is not None
        out |= of_training(run, stage.name, stage.needs_of(run).jobs[0], steps)
    out |= of_evaluation(run, steps)
    out |= of_search(run, steps)
    np.savez(path, **out)


def of_training(run, name: str, job, steps: int) -> dict[str, Any]:
    """Loss and gradients of a batch, and the seconds that they take."""
    import jax

    from rsclip_jax.stages.shared import training
    from rsclip_jax.train import sharding
    from rsclip_jax.train.feed import RECORDS
    from tests.bench.timing import timed

    rng = np.random.default_rng(0)
    params, frozen = (
        sharding.put_params(random_tree(x, rng), run.mesh)
        for x in (job.params, job.frozen)
    )
    batch = dict(next(training.make_batches(run, job.stage, job.settings, job.data)))
    batch.pop(RECORDS, None)
    on_mesh = {**sharding.put_batch(batch, run.mesh), "step": np.int32(0)}
    find = jax.jit(jax.value_and_grad(job.loss_fn, has_aux=True))
    (loss, _), grads = find(params, frozen, on_mesh)

    def again():
        jax.block_until_ready(find(params, frozen, on_mesh))

    seconds = np.median([timed(again) for _ in range(steps)])
    leaves = jax.tree_util.tree_leaves_with_path(grads)
    out = {f"{name}/grad/{jax.tree_util.keystr(k)}": np.asarray(v) for k, v in leaves}
    return {**out, f"{name}/loss": np.asarray(loss), f"{name}/seconds": seconds}


def of_evaluation(run, steps: int) -> dict[str, Any]:
    """Embeddings of a split whose last batch is uneven, and a metric of them."""
    from rsclip_jax.data.sources.wrappers import Subset
    from rsclip_jax.metrics import top_k_accuracy
    from rsclip_jax.models import inference
    from rsclip_jax.models.clip import clip_shapes
    from rsclip_jax.models.variants import get_variant
    from rsclip_jax.train import sharding
    from tests.bench.timing import timed

    variant, rng = get_variant("mini"), np.random.default_rng(1)
    visual = random_tree(clip_shapes(variant)["visual"], rng)
    head = rng.normal(size=(variant.embed_dim, 10)).astype(np.float32)
    placed = sharding.put_params(visual, run.mesh)
    source = Subset(run.open("miniature:test"), range(300))
    fed = {"rgb": lambda b: inference.encode_rgb(placed, b["rgb"], variant=variant)}
    z, labels, _ = run.encode("none", source, fed, {"rgb": variant.image_size})

    def again():
        run.encode("none", source, fed, {"rgb": variant.image_size})

    return {
        "evaluate/z": z["rgb"],
        "evaluate/accuracy": np.asarray(top_k_accuracy(z["rgb"] @ head, labels, 1)),
        "evaluate/seconds": float(np.median([timed(again) for _ in range(steps)])),
    }


def of_search(run, steps: int) -> dict[str, Any]:
    """The nearest rows among embeddings, and their scores."""
    from rsclip_jax.evals.search import nearest
    from tests.bench.timing import timed

    rng = np.random.default_rng(2)
    z = rng.normal(size=(5000, 64)).astype(np.float32)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    queries = z[:777] + 0.05
    scores, rows = nearest(queries, z, 10, mesh=run.mesh)

    def again():
        nearest(queries, z, 10, mesh=run.mesh)

    return {
        "search/scores": scores,
        "search/rows": rows.astype(np.float64),
        "search/seconds": float(np.median([timed(again) for _ in range(steps)])),
    }


def random_tree(shapes, rng: np.random.Generator):
    """Weights of these shapes: the same in every process."""
    import jax

    def make(x):
        if not np.issubdtype(x.dtype, np.floating):
            return np.zeros(x.shape, x.dtype)
        fan = x.shape[0] if x.ndim > 1 else 100
        return (rng.normal(size=x.shape) / np.sqrt(fan)).astype(x.dtype)

    return jax.tree.map(make, shapes)


if __name__ == "__main__":
    sys.exit(main())
