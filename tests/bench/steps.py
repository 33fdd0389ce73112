"""Step time of stages patch and align at ViT-B/32, beside the same step in torch.

python -m tests.bench.steps [--batch 8] [--steps 5] [--stage patch|align|both]

Both sides start from the same random weights, take the same batches in turn, and so
their losses agree. The torch side runs in a process of its own, under the Python that
RSCLIP_TORCH_PYTHON names (default: this one), and is left out where that Python has no
torch or no open_clip.
"""

import argparse
import dataclasses
import os
import re
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch wants some too

import jax
import numpy as np
import optax

from rsclip_jax import losses
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.models.clip import image_features, make_visual
from rsclip_jax.models.sensor import clip_spec, init_sensor, sensor_features
from rsclip_jax.models.variants import get_variant
from rsclip_jax.train import objectives, sharding
from rsclip_jax.train.loop import make_step
from rsclip_jax.train.optim import make_optimizer
from rsclip_jax.train_step import make_state
from rsclip_jax.weights.layouts import OPEN_CLIP
from rsclip_jax.weights.rules import export_names
from tests.bench.timing import in_turn, machine, print_ratio, print_table
from tests.bench.worker import Worker

PyTree = Any
VARIANT = get_variant("ViT-B/32")
SPEC = clip_spec(get_sensor("s1_grd"), VARIANT)
LR, WEIGHT_DECAY, CLIP_NORM = 1e-5, 0.01, 1.0
CLASSES, BATCHES, WARMUP = 10, 4, 2


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a step works on: weights, loss and a few random batches."""

    stage: str
    params: PyTree
    frozen: PyTree
    loss_fn: Callable
    batches: list[dict[str, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--stage", choices=("patch", "align", "both"), default="both")
    args = parser.parse_args()
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(f"{machine()}, {device}, ViT-B/32 float32, batch {args.batch}")
    for stage in ("patch", "align") if args.stage == "both" else (args.stage,):
        print(f"\n{stage}", flush=True)
        compare(make_problem(stage, args.batch), args.steps)


def make_problem(stage: str, batch: int) -> Problem:
    """The stage's loss at random init; teacher and head frozen, as the stage has it."""
    rng = np.random.default_rng(0)
    head = 100 * losses.normalize(rng.normal(size=(CLASSES, 512)).astype(np.float32)).T
    batches = [make_batch(rng, batch, stage) for _ in range(BATCHES)]
    visual = init_visual()
    if stage == "patch":
        loss_fn = objectives.make_patch_loss(
            lambda p, b: image_features(p, b["rgb"], VARIANT), "single"
        )
        return Problem(stage, visual, {"head": head}, loss_fn, batches)
    loss_fn = objectives.make_align_loss(
        lambda p, b: sensor_features(p, b["s1"], SPEC),
        lambda p, b: image_features(p, b["rgb"], VARIANT),
        task="single",
        terms={"mse": 1.0, "labels": 0.05},
    )
    student = init_sensor(SPEC, jax.random.key(1))
    return Problem(stage, student, {"teacher": visual, "head": head}, loss_fn, batches)


def init_visual() -> PyTree:
    image = np.zeros((1, 224, 224, 3), np.float32)
    return jax.jit(make_visual(VARIANT).init)(jax.random.key(0), image)["params"]


def make_batch(
    rng: np.random.Generator, batch: int, stage: str
) -> dict[str, np.ndarray]:
    out = {
        "rgb": rng.integers(0, 256, (batch, 224, 224, 3), np.uint8),
        "label": rng.integers(0, CLASSES, batch, np.int32),
    }
    if stage == "align":
        out["s1"] = rng.normal(-15, 5, (batch, 224, 224, 2)).astype(np.float32)
    return out


def compare(problem: Problem, steps: int) -> None:
    """Times both sides in turn and prints what is known of the compiled step."""
    ours = JaxSide(problem)
    with tempfile.TemporaryDirectory() as folder:
        theirs = TorchSide(problem, Path(folder) / "problem.npz")
        clocks = {"rsclip_jax": ours.step}
        if theirs.missing:
            print(f"  torch's half is left out: {theirs.missing}")
        else:
            clocks["torch"] = theirs.step
        times = in_turn(clocks, steps, warmup=WARMUP)
        torch_peak = int(theirs.stop() or 0)  # nothing of one without torch
    print_table(times, len(problem.batches[0]["label"]))
    facts = ours.facts()
    if not theirs.missing:
        print_ratio(times, "rsclip_jax", "torch")
        apart = np.abs(np.subtract(ours.losses, theirs.losses)).max()
        facts["losses"] = (
            f"{ours.losses[0]:.4f} to {ours.losses[-1]:.4f}; torch's differ by at most"
            f" {apart:.0e}"
        )
        facts["peak memory"] += f"; torch's process {mib(torch_peak)}"
    for name, text in facts.items():
        print(f"  {name}: {text}")


class JaxSide:
    """The project's own step, compiled and called as loop.train does."""

    def __init__(self, problem: Problem):
        self.mesh = sharding.make_mesh()
        self.batches, self.losses = problem.batches, []
        tx = make_optimizer(
            optax.constant_schedule(LR), weight_decay=WEIGHT_DECAY, clip_norm=CLIP_NORM
        )
        # the step donates its state, and the problem's arrays outlive it
        params = jax.tree.map(lambda x: x.copy(), problem.params)
        self.state = sharding.put_params(make_state(params, tx), self.mesh)
        self.frozen = sharding.put_params(problem.frozen, self.mesh)
        self.step_fn = make_step(
            self.state, self.frozen, loss_fn=problem.loss_fn, tx=tx, mesh=self.mesh
        )
        batch = sharding.put_batch(self.batches[0], self.mesh)
        start = time.perf_counter()
        lowered = self.step_fn.lower(self.state, self.frozen, batch)
        self.trace_seconds = time.perf_counter() - start
        self.compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - start - self.trace_seconds
        self.donated = True

    def step(self) -> float:
        """Seconds of one step, from the batch on the host to the new state."""
        old, batch = self.state, self.batches[len(self.losses) % BATCHES]
        start = time.perf_counter()
        on_mesh = sharding.put_batch(batch, self.mesh)
        self.state, metrics = self.step_fn(self.state, self.frozen, on_mesh)
        jax.block_until_ready((self.state, metrics))
        seconds = time.perf_counter() - start
        self.losses.append(float(metrics["loss"]))
        self.donated &= all(x.is_deleted() for x in jax.tree.leaves(old))
        return seconds

    def facts(self) -> dict[str, str]:
        """Compilation, donation, copies of the frozen weights, memory."""
        memory = self.compiled.memory_analysis()
        state, frozen = tree_bytes(self.state), tree_bytes(self.frozen)
        batch = tree_bytes(self.batches[0]) // self.mesh.size
        arguments = memory.argument_size_in_bytes
        temporary = memory.temp_size_in_bytes
        return {
            "compilation": f"traced in {self.trace_seconds:.1f} s, compiled in"
            f" {self.compile_seconds:.1f} s",
            "programs": f"{self.step_fn._cache_size()} after {len(self.losses)} steps",
            "state": f"{mib(state)}, donated: {'yes' if self.donated else 'NO'}"
            f" ({mib(memory.alias_size_in_bytes)} reused in place)",
            "frozen weights": f"{mib(frozen)}; arguments beside state and batch:"
            f" {mib(arguments - state - batch)}; largest constant:"
            f" {largest_constant(self.compiled.as_text()):,} bytes",
            "program memory": f"arguments {mib(arguments)}, temporary {mib(temporary)}",
            "peak memory": mib(peak_memory()),
        }


class TorchSide(Worker):
    """The same step in torch."""

    def __init__(self, problem: Problem, path: Path):
        np.savez(path, **torch_arrays(problem))
        device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        super().__init__("torch_worker.py", str(path), problem.stage, device)
        self.losses: list[float] = []

    def step(self) -> float:
        """Seconds of one step, as the worker has them."""
        seconds, loss = map(float, self.ask(f"{len(self.losses) % BATCHES}").split())
        self.losses.append(loss)
        return seconds


def torch_arrays(problem: Problem) -> dict[str, np.ndarray]:
    """The problem for the worker, weights under open_clip's names."""
    out = {
        "head": problem.frozen["head"],
        "lr": LR,
        "weight_decay": WEIGHT_DECAY,
        "rgb_mean": 255 * np.float32(VARIANT.image_mean),
        "rgb_std": 255 * np.float32(VARIANT.image_std),
        "s1_mean": np.float32(SPEC.mean),
        "s1_std": np.float32(SPEC.std),
        "s1_limit": SPEC.clip_sigma,
    }
    towers = {"params": problem.params, "teacher": problem.frozen.get("teacher")}
    for name, tower in towers.items():
        if tower is not None:
            weights = export_names({"visual": jax.device_get(tower)}, OPEN_CLIP)
            out |= {f"{name}/{k}": v for k, v in weights.items()}
    for i, batch in enumerate(problem.batches):
        out |= {f"{i}/{k}": v for k, v in batch.items()}
    return {k: np.asarray(v) for k, v in out.items()}


def tree_bytes(tree: PyTree) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def mib(n: int) -> str:
    return f"{n / 2**20:,.1f} MiB"


def largest_constant(hlo: str) -> int:
    """Bytes of the largest constant in a compiled program's text."""
    found = re.findall(r"= \w*?(\d+)\[([\d,]*)\]\S* constant\(", hlo)
    sizes = [
        int(bits) // 8 * int(np.prod([int(n) for n in shape.split(",") if n]))
        for bits, shape in found
    ]
    return max(sizes, default=0)


def peak_memory() -> int:
    """Bytes: the accelerator's where it counts them, else the process's."""
    stats = jax.devices()[0].memory_stats() or {}
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return stats.get("peak_bytes_in_use", process)


if __name__ == "__main__":
    main()
