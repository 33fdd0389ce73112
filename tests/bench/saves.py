"""What a checkpoint costs a training of a ViT-B/32, on this machine.

    python -m tests.bench.saves [--variant ViT-B-32] [--saves 3]

Saves a CLIP's params with AdamW's moments, as train/loop.py does. Prints the time that
the training waits for a save, most of it for the digests; the time until the save is on
disk; and the time to read and verify it, and a product.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.train import checkpoint, resume, sharding
from rsclip_jax.train_step import TrainState, make_state


def timed(name: str, function, *args):
    start = time.perf_counter()
    result = function(*args)
    print(f"  {name:42} {time.perf_counter() - start:8.3f} s", flush=True)
    return result


def bench(folder: Path, variant: str, saves: int) -> None:
    params = init_clip(get_variant(variant), jax.random.key(0))
    state = sharding.put_params(
        make_state(params, optax.adamw(1e-4)), sharding.make_mesh()
    )
    size = sum(x.nbytes for x in jax.tree.leaves((state.params, state.opt_state)))
    print(f"{variant}: params and moments, {size / 1e6:,.0f} MB")
    advance = jax.jit(
        lambda s: TrainState(
            s.step + 1,
            jax.tree.map(lambda x: x + jnp.asarray(1e-6, x.dtype), s.params),
            s.opt_state,
        ),
        donate_argnums=0,
    )
    timed(
        "digest of params and moments",
        resume.tree_digest,
        (state.params, state.opt_state),
    )
    timed("digest of a product (SHA-256)", checkpoint.params_digest, state.params)
    meta = {"sources": {}}
    with resume.Saves(folder / "checkpoints") as kept:
        for _ in range(saves):
            state = jax.block_until_ready(advance(state))
            timed("save: the training waits", kept.save, state, {"next_index": 1}, meta)
            timed("save: until it is on disk", kept.wait)
    params = jax.device_get(state.params)
    timed("resume: read, verify", resume.use_newest_whole, folder / "checkpoints")
    timed("product: write", checkpoint.save_product, folder / "s", params, StageMeta())
    timed("product: read, verify", checkpoint.load_product, folder / "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="ViT-B-32")
    parser.add_argument("--saves", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench(Path(folder), args.variant, args.saves)


if __name__ == "__main__":
    main()
