"""The contrastive loss on one device, left to the compiler on eight, and shard_map'd.

python -m tests.bench.clip_loss [--batch 512] [--steps 20]

Eight fake CPU devices share the machine's cores, so it is the memory of one device that
tells; time is that of all eight together.
"""

import argparse
import os
from functools import partial

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from rsclip_jax.losses import clip_loss, normalize
from rsclip_jax.train.sharding import batch_sharding, make_clip_loss, make_mesh
from tests.bench.timing import in_turn, machine, print_table, timed

WIDTH, T = 512, 100.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    print(f"{machine()}, 8 fake devices; batch {args.batch}, d {WIDTH}, with gradient")
    mesh = make_mesh()
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    whole = {
        "one device": (clip_loss, one),
        "eight, the compiler's": (clip_loss, batch_sharding(mesh)),
        "eight, shard_map": (make_clip_loss(mesh), batch_sharding(mesh)),
    }
    clocks, memory, values = {}, {}, {}
    for name, (loss, sharding) in whole.items():
        inputs = jax.device_put(make_inputs(args.batch), sharding)
        step = compile_step(loss, sharding, inputs)
        values[name] = float(step(*inputs)[0])
        memory[name] = step.memory_analysis().temp_size_in_bytes
        clocks[name] = partial(timed, partial(run, step, inputs))
    print_table(in_turn(clocks, args.steps), args.batch)
    for name in whole:
        kib = memory[name] / 1024
        print(f"  {name}: loss {values[name]:.6f}, temporary {kib:,.0f} KiB a device")


def make_inputs(batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit-norm embeddings of pairs that are a little alike; a group for each."""
    rng = np.random.default_rng(0)
    zimg, noise = rng.normal(size=(2, batch, WIDTH)).astype(np.float32)
    ztxt = normalize(zimg + 4 * noise)
    return np.asarray(normalize(zimg)), np.asarray(ztxt), np.arange(batch)


def compile_step(loss, sharding, inputs):
    """Loss and gradients of both sides, which lie as the embeddings do."""

    def value_and_grad(zimg, ztxt, groups):
        def of(zimg, ztxt):
            return loss(zimg, ztxt, np.float32(T), groups)

        return jax.value_and_grad(of, argnums=(0, 1))(zimg, ztxt)

    step = jax.jit(value_and_grad, out_shardings=(None, sharding))
    return step.lower(*inputs).compile()


def run(step, inputs) -> None:
    jax.block_until_ready(step(*inputs))


if __name__ == "__main__":
    main()
