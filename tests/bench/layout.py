"""What the vision transformer's two layout choices are worth: gradients of small parts.

python -m tests.bench.layout [--batch 64] [--steps 5]

Transformer blocks on [b * n, width] or on [b, n, width], as one would write them first;
patch embedding as reshape and matmul or as the strided convolution that it equals.
"""

import argparse
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rsclip_jax.models.vit import Block, PatchEmbed, quick_gelu
from tests.bench.timing import Clock, in_turn, machine, print_ratio, print_table, timed

WIDTH, HEADS, LAYERS, TOKENS = 256, 4, 4, 50
PATCH, IMAGE = 16, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    print(f"{machine()}, {jax.default_backend()}, batch {args.batch}")
    print(f"\n{LAYERS} blocks of width {WIDTH} on {TOKENS} tokens, gradient of params")
    compare(block_clocks(args.batch), args)
    print(f"\npatch embedding, {PATCH} of {IMAGE} pixels, gradient of the kernel")
    compare(patch_clocks(args.batch), args)


def compare(clocks: dict[str, Clock], args: argparse.Namespace) -> None:
    times = in_turn(clocks, args.steps)
    print_table(times, args.batch)
    ours, plain = times
    print_ratio(times, plain, ours)


class PlainBlock(nn.Module):
    """models.vit.Block on three dimensions; its parameters are the same."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm(1e-5, name="ln_1")(x)
        x = x + PlainAttention(name="attn")(y)
        y = nn.LayerNorm(1e-5, name="ln_2")(x)
        return x + PlainMlp(name="mlp")(y)


class PlainAttention(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, n, _ = x.shape
        depth = WIDTH // HEADS
        qkv = nn.Dense(3 * WIDTH, name="in_proj")(x).reshape(b, n, 3, HEADS, depth)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        scores = jnp.einsum("bhqd,bhkd->bhqk", q * depth**-0.5, k)
        x = jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores, axis=-1), v)
        x = x.transpose(0, 2, 1, 3).reshape(b, n, WIDTH)
        return nn.Dense(WIDTH, name="out_proj")(x)


class PlainMlp(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = quick_gelu(nn.Dense(4 * WIDTH, name="c_fc")(x))
        return nn.Dense(WIDTH, name="c_proj")(x)


class PlainPatchEmbed(nn.Module):
    """models.vit.PatchEmbed as a convolution; its kernel is the same."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        patch = (PATCH, PATCH)
        init = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
        kernel = self.param("kernel", init, (*patch, image.shape[-1], WIDTH))
        x = jax.lax.conv_general_dilated(
            image, kernel, patch, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x.reshape(len(x), -1, WIDTH)


class Blocks(nn.Module):
    """LAYERS blocks, of either kind."""

    make: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(LAYERS):
            x = self.make(name=f"blocks_{i}")(x)
        return x


def block_clocks(batch: int) -> dict[str, Clock]:
    x = np.random.default_rng(0).normal(size=(batch, TOKENS, WIDTH)).astype(np.float32)
    ours = partial(Block, HEADS, "quick_gelu", 1e-5, WIDTH**-0.5)
    return grad_clocks(
        {"[b * n, width]": Blocks(ours), "[b, n, width]": Blocks(PlainBlock)}, x
    )


def patch_clocks(batch: int) -> dict[str, Clock]:
    shape = (batch, IMAGE, IMAGE, 3)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ours = PatchEmbed(PATCH, WIDTH, use_bias=False)
    return grad_clocks({"matmul": ours, "convolution": PlainPatchEmbed()}, x)


def grad_clocks(modules: dict[str, nn.Module], x: np.ndarray) -> dict[str, Clock]:
    """Clocks of the gradient of every module at the first one's params.

    Raises AssertionError unless all gradients agree.
    """
    image = jnp.asarray(x)
    params = jax.jit(next(iter(modules.values())).init)(jax.random.key(0), image)
    clocks, grads = {}, []
    for name, module in modules.items():
        grad = jax.jit(jax.grad(partial(mean_square, module)))
        grads.append(grad(params, image))
        clocks[name] = partial(timed, partial(run, grad, params, image))
    for other in grads[1:]:
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), grads[0], other
        )
    return clocks


def mean_square(module: nn.Module, params, x: jax.Array) -> jax.Array:
    return jnp.mean(module.apply(params, x) ** 2)


def run(function: Callable, *args) -> None:
    jax.block_until_ready(function(*args))


if __name__ == "__main__":
    main()
