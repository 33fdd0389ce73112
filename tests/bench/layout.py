"""What the vision transformer's two layout choices are worth: gradients of small parts.

python -m tests.bench.layout [--batch 128] [--steps 9]

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

from rsclip_jax.models.activations import quick_gelu
from rsclip_jax.models.patches import PatchEmbed
from rsclip_jax.models.vit import Block
from tests.bench.timing import Clock, in_turn, machine, print_ratio, print_table, timed

WIDTH, HEADS, LAYERS, TOKENS = 128, 4, 6, 64
PATCHES = ((8, 64, 128), (32, 224, 768))  # side, image side, width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=9)
    args = parser.parse_args()
    print(f"{machine()}, {jax.default_backend()}, batch {args.batch}")
    print(f"\n{LAYERS} blocks of width {WIDTH} on {TOKENS} tokens, gradient of params")
    compare(block_clocks(args.batch), args.batch, args.steps)
    for patch, image, width in PATCHES:
        print(f"\n{patch}-pixel patches of {image} pixels, gradient of the kernel")
        batch = max(1, args.batch // 8)
        compare(patch_clocks(batch, patch, image, width), batch, args.steps)


def compare(clocks: dict[str, Clock], batch: int, steps: int) -> None:
    times = in_turn(clocks, steps)
    print_table(times, batch)
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
    """models.patches.PatchEmbed as a convolution; its kernel is the same."""

    patch_size: int
    width: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        patch = (self.patch_size, self.patch_size)
        init = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
        kernel = self.param("kernel", init, (*patch, image.shape[-1], self.width))
        x = jax.lax.conv_general_dilated(
            image, kernel, patch, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x.reshape(len(x), -1, self.width)


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


def patch_clocks(batch: int, patch: int, image: int, width: int) -> dict[str, Clock]:
    shape = (batch, image, image, 3)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ours = PatchEmbed(patch, width, use_bias=False)
    return grad_clocks(
        {"matmul": ours, "convolution": PlainPatchEmbed(patch, width)}, x
    )


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
