"""Step time of stages patch and align, beside the same step in torch.

python -m tests.bench.steps [--variant ViT-B/32] [--batch 8] [--steps 5]
    [--stage patch|align|both] [--threads N]

Both sides start from the same random weights, take the same batches in turn, and so
their losses agree. The torch side runs in a process of its own, under the Python that
RSCLIP_TORCH_PYTHON names (default: this one), and is left out where that Python has no
torch or no open_clip.
"""

import argparse
import dataclasses
import json
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
from rsclip_jax.models.compute import FLOAT32, Compute
from rsclip_jax.models.sensor import (
    SensorSpec,
    clip_spec,
    init_sensor,
    sensor_features,
)
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.train import host_memory, objectives, sharding
from rsclip_jax.train.loop import make_step
from rsclip_jax.train.optim import make_optimizer
from rsclip_jax.train_step import make_state
from rsclip_jax.weights.layouts import OPEN_CLIP
from rsclip_jax.weights.rules import export_names
from tests.bench.timing import in_turn, machine, print_ratio, print_table
from tests.bench.worker import Worker

PyTree = Any
LR, WEIGHT_DECAY, CLIP_NORM = 1e-5, 0.01, 1.0
CLASSES, BATCHES, WARMUP = 10, 4, 2


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a step works on: weights, loss and a few random batches."""

    stage: str
    variant: Variant
    params: PyTree
    frozen: PyTree
    loss_fn: Callable
    batches: list[dict[str, np.ndarray]]

    @property
    def spec(self) -> SensorSpec:
        """Of stage align's student."""
        return clip_spec(get_sensor("s1_grd"), self.variant)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="ViT-B/32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--stage", choices=("patch", "align", "both"), default="both")
    parser.add_argument("--threads", type=int, default=0, help="of each side; 0: all")
    parser.add_argument("--torch_huge", action="store_true", help="huge pages, too")
    args = parser.parse_args()
    host_memory.use_huge_pages()  # as main does
    if args.threads:  # before either side starts any; the worker inherits it
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: args.threads]))
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    if not args.torch_huge and os.environ.get(host_memory.VARIABLE) == host_memory.HUGE:
        del os.environ[
            host_memory.VARIABLE
        ]  # read at our start; torch has its defaults
    cores = len(os.sched_getaffinity(0))
    print(f"{machine()}, {device}, {cores} core(s) for each side")
    print(f"{args.variant} float32, batch {args.batch}")
    for stage in ("patch", "align") if args.stage == "both" else (args.stage,):
        print(f"\n{stage}", flush=True)
        compare(make_problem(stage, args.batch, args.variant), args.steps)


def make_problem(
    stage: str, batch: int, name: str = "ViT-B/32", compute: Compute = FLOAT32
) -> Problem:
    """The stage's loss at random init; teacher and head frozen, as the stage has it."""
    rng, variant = np.random.default_rng(0), get_variant(name)
    head = rng.normal(size=(CLASSES, variant.embed_dim)).astype(np.float32)
    head = 100 * losses.normalize(head).T
    side = variant.image_size
    batches = [make_batch(rng, batch, side, stage) for _ in range(BATCHES)]
    visual = init_visual(variant)

    def rgb_features(params, batch):
        return image_features(params, batch["rgb"], variant, compute=compute)

    if stage == "patch":
        loss_fn = objectives.make_patch_loss(rgb_features, "single")
        return Problem(stage, variant, visual, {"head": head}, loss_fn, batches)
    spec = clip_spec(get_sensor("s1_grd"), variant)
    loss_fn = objectives.make_align_loss(
        lambda p, b: sensor_features(p, b["s1"], spec, compute=compute),
        rgb_features,
        task="single",
        terms={"mse": 1.0, "labels": 0.05},
    )
    student = init_sensor(spec, jax.random.key(1))
    frozen = {"teacher": visual, "head": head}
    return Problem(stage, variant, student, frozen, loss_fn, batches)


def init_visual(variant: Variant) -> PyTree:
    image = np.zeros((1, variant.image_size, variant.image_size, 3), np.float32)
    return jax.jit(make_visual(variant).init)(jax.random.key(0), image)["params"]


def make_batch(
    rng: np.random.Generator, batch: int, side: int, stage: str
) -> dict[str, np.ndarray]:
    out = {
        "rgb": rng.integers(0, 256, (batch, side, side, 3), np.uint8),
        "label": rng.integers(0, CLASSES, batch, np.int32),
    }
    if stage == "align":
        out["s1"] = rng.normal(-15, 5, (batch, side, side, 2)).astype(np.float32)
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
        how = [str(path), problem.stage, device, "plain"]
        super().__init__("torch_worker.py", *how)
        self.losses: list[float] = []

    def step(self) -> float:
        """Seconds of one step, as the worker has them."""
        seconds, loss = map(float, self.ask(f"{len(self.losses) % BATCHES}").split())
        self.losses.append(loss)
        return seconds


def torch_arrays(problem: Problem) -> dict[str, np.ndarray]:
    """The problem for the worker, weights under open_clip's names."""
    variant, spec = problem.variant, problem.spec
    out = {
        "head": problem.frozen["head"],
        "vision": json.dumps(vision_config(variant)),
        "quick_gelu": variant.activation == "quick_gelu",
        "lr": LR,
        "weight_decay": WEIGHT_DECAY,
        "rgb_mean": 255 * np.float32(variant.image_mean),
        "rgb_std": 255 * np.float32(variant.image_std),
        "s1_mean": np.float32(spec.mean),
        "s1_std": np.float32(spec.std),
        "s1_limit": spec.clip_sigma,
    }
    towers = {"params": problem.params, "teacher": problem.frozen.get("teacher")}
    for name, tower in towers.items():
        if tower is not None:
            weights = export_names({"visual": jax.device_get(tower)}, OPEN_CLIP)
            out |= {f"{name}/{k}": v for k, v in weights.items()}
    for i, batch in enumerate(problem.batches):
        out |= {f"{i}/{k}": v for k, v in batch.items()}
    return {k: np.asarray(v) for k, v in out.items()}


def vision_config(variant: Variant) -> dict[str, int]:
    """The visual tower and its output in open_clip's words."""
    return {
        "embed_dim": variant.embed_dim,
        "image_size": variant.image_size,
        "patch_size": variant.patch_size,
        "width": variant.vision_width,
        "layers": variant.vision_layers,
        "head_width": variant.vision_width // variant.vision_heads,
    }


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
