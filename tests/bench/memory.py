"""Memory of stages patch and align, from shapes alone: no weights are made or run.

python -m tests.bench.memory [--variants ViT-B/32 ViT-L/14] [--batch 8 16]

The state and the frozen weights are exact. XLA's temporary memory (activations,
gradients and workspace of the compiled step) is that of the device that the command
runs on; two batch sizes give what an example adds.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.models.clip import clip_shapes, image_features
from rsclip_jax.models.sensor import clip_spec, sensor_features, sensor_shapes
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.train import objectives, sharding
from rsclip_jax.train.loop import make_step
from rsclip_jax.train.optim import make_optimizer
from rsclip_jax.train_step import make_state

PyTree = Any
CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=["ViT-B/32", "ViT-L/14"])
    parser.add_argument("--batch", nargs=2, type=int, default=[8, 16])
    args = parser.parse_args()
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(f"MiB, float32, {device}; temporary memory at batch {args.batch}")
    for name in args.variants:
        variant = get_variant(name)
        shapes = clip_shapes(variant)
        towers = {tower: tree_mib(shapes[tower]) for tower in ("visual", "text")}
        print(f"\n{name}: whole CLIP {tree_mib(shapes):,.0f}", end="")
        print("".join(f", {tower} {size:,.0f}" for tower, size in towers.items()))
        for stage in ("patch", "align"):
            print_stage(stage, variant, args.batch)


def print_stage(stage: str, variant: Variant, batches: list[int]) -> None:
    """The stage's state, frozen weights and temporary memory at both batch sizes."""
    parts = [step_memory(stage, variant, batch) for batch in batches]
    (state, frozen, first), (*_, second) = parts
    each = (second - first) / (batches[1] - batches[0])
    print(
        f"  {stage}: state {state:,.0f}, frozen {frozen:,.0f}, temporary"
        f" {first:,.0f} and {second:,.0f}: {each:,.1f} an example"
    )


def step_memory(stage: str, variant: Variant, batch: int) -> tuple[float, float, float]:
    """MiB of the state, of the frozen weights, and of the step's temporary memory."""
    visual = clip_shapes(variant)["visual"]
    size = variant.image_size
    head = jax.ShapeDtypeStruct((variant.embed_dim, CLASSES), jnp.float32)
    examples = {
        "rgb": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((batch,), jnp.int32),
    }

    def see(params: PyTree, batch: PyTree) -> jax.Array:
        return image_features(params, batch["rgb"], variant)

    if stage == "patch":
        params, frozen = visual, {"head": head}
        loss_fn = objectives.make_patch_loss(see, "single")
    else:
        spec = clip_spec(get_sensor("s1_grd"), variant)
        params, frozen = sensor_shapes(spec), {"teacher": visual, "head": head}
        examples["s1"] = jax.ShapeDtypeStruct((batch, size, size, 2), jnp.float32)
        loss_fn = objectives.make_align_loss(
            lambda p, b: sensor_features(p, b["s1"], spec),
            see,
            task="single",
            terms={"mse": 1.0, "labels": 0.05},
        )
    schedule = optax.constant_schedule(1e-5)
    tx = make_optimizer(schedule, weight_decay=0.01, clip_norm=1.0)
    state = jax.eval_shape(lambda p: make_state(p, tx), params)
    mesh = sharding.make_mesh()
    step = make_step(state, frozen, loss_fn=loss_fn, tx=tx, mesh=mesh)
    compiled = step.lower(state, frozen, examples).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return tree_mib(state), tree_mib(frozen), temporary


def tree_mib(tree: PyTree) -> float:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) / 2**20


if __name__ == "__main__":
    main()
