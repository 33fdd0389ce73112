"""A block in a TPU's form, with the parameters of vit.Block.

A TPU's matrix units and memory work on tiles of 8 x 128 numbers, and its compiler
keeps tokens outermost. Values equal vit.Block's up to rounding; what differs:

* Query, key and value are projected straight to [b, heads, tokens, channels].
* Up to 128 tokens as many heads share a group as fit 128 channels: a head of 64 alone
  would be padded to twice its size. The queries of a group's heads lie one below the
  other; zeros in the kernels of query and output keep each to its head's channels.
* With more tokens scores are what costs: see long_attention.py. There a block's input
  lies by images: with tokens outermost, as the compiler lays it out, the gradients of
  queries, keys and values are moved about, which takes up to a fifth of a step.
* LayerNorm's scale and bias are multiplied into the dense layer that follows: their
  gradients are then sums over its kernel instead of sums over all tokens.
* A bias's gradient is a product with a vector of ones, on the matrix units.
* In bfloat16 GELU is computed without the error function: see activations.py.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint

from rsclip_jax.models import long_attention
from rsclip_jax.models.activations import ACTIVATIONS, short_gelu
from rsclip_jax.models.block_fields import BlockFields
from rsclip_jax.models.compute import FLOAT32, Compute
from rsclip_jax.models.products import LANES, dense, product

_BY_IMAGE = Layout(major_to_minor=(0, 1, 2))
Linear = tuple[jax.Array, jax.Array]  # kernel [d, k] and bias [k]


class Block(BlockFields):
    """vit.Block for a TPU: the same fields and parameters."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, c = x.shape[-1], self.compute
        if not is_short(x, self.causal):
            x = with_layout_constraint(x, _BY_IMAGE)
        norm = Norm(self.eps, name="ln_1")(x)
        y = Attention(self.heads, self.out_std, self.causal, c, name="attn")(norm)
        x = x + self.scaled(y, "scale_1")
        norm = Norm(self.eps, name="ln_2")(x)
        inside = self.mlp_width or 4 * width
        y = Mlp(self.activation, self.out_std, inside, c, name="mlp")(norm)
        return x + self.scaled(y, "scale_2")


class Normed(NamedTuple):
    """A LayerNorm's values before scale [d] and bias [d]: float32 [b, n, d]."""

    x: jax.Array
    scale: jax.Array
    bias: jax.Array

    def into(self, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A following layer's kernel [d, k] and bias [k] that take x as it is."""
        moved = jnp.dot(self.bias, kernel, precision=jax.lax.Precision.HIGHEST)
        scaled = (kernel * self.scale[:, None]).astype(kernel.dtype)
        return scaled, bias + moved


class Norm(nn.Module):
    """flax.linen.LayerNorm, whose scale and bias are left to the layer that follows."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> Normed:
        x, width = x.astype(jnp.float32), (x.shape[-1],)
        mean = x.mean(-1, keepdims=True)
        # as flax computes it
        variance = jnp.maximum(0, (x * x).mean(-1, keepdims=True) - mean * mean)
        y = (x - mean) * jax.lax.rsqrt(variance + self.eps)
        scale = self.param("scale", nn.initializers.ones, width)
        return Normed(y, scale, self.param("bias", nn.initializers.zeros, width))


class Weights(nn.Module):
    """The kernel [d, features] and bias [features] of a Dense."""

    features: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, width: int) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", self.kernel_init, (width, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class Attention(nn.Module):
    """vit.Attention of a normalised [b, n, width]."""

    heads: int
    out_std: float
    causal: bool = False
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, norm: Normed) -> jax.Array:
        width = norm.x.shape[-1]
        init = nn.initializers.normal(width**-0.5)
        into = norm.into(*Weights(3 * width, init, name="in_proj")(width))
        init = nn.initializers.normal(self.out_std)
        out = Weights(width, init, name="out_proj")(width)
        short = is_short(norm.x, self.causal)
        attend = self.in_groups if short else self.by_heads
        return attend(norm.x, into, out)

    def by_heads(self, x: jax.Array, into: Linear, out: Linear) -> jax.Array:
        """More than 128 tokens, each head by itself."""
        width, c = x.shape[-1], self.compute
        depth = width // self.heads
        kernels = into[0].reshape(width, 3, self.heads, depth)
        biases = into[1].reshape(3, self.heads, depth)
        scale = depth**-0.5
        project = partial(dense, spec="bnd,dhk->bhnk", compute=c)

        x = c.cast(x)
        last, rest, keys = long_attention.split(x)
        q = project(x, kernels[:, 0] * scale, biases[0] * scale)
        apart, others = (
            tuple(project(y, kernels[:, i], biases[i]) for i in (1, 2))
            for y in (last, rest)
        )
        x = long_attention.attend(keys, c, q, apart, others)
        kernel = out[0].reshape(self.heads, depth, width)
        return dense(x, kernel, out[1], "bhnk,hkd->bnd", c)

    def in_groups(self, x: jax.Array, into: Linear, out: Linear) -> jax.Array:
        """Up to 128 tokens, heads in groups of 128 channels."""
        width, c = x.shape[-1], self.compute
        kernel, bias = into
        mine = channels_of_heads(self.heads, width // self.heads)  # [t, k]
        groups = self.heads // len(mine), mine.shape[1]
        kernels = kernel.reshape(width, 3, *groups)
        biases = bias.reshape(3, *groups)
        mine_scaled = mine * (width // self.heads) ** -0.5
        x = c.cast(x)
        q = dense(
            x,
            kernels[:, 0, :, None] * mine_scaled.astype(kernel.dtype)[None, None],
            biases[0, :, None] * mine_scaled[None],
            "bnd,dgtk->bgtnk",
            c,
        )
        k, v = (dense(x, kernels[:, i], biases[i], "bnd,dgk->bgnk", c) for i in (1, 2))
        x = attend(q, k, v, causal=self.causal, compute=c)
        kernel, bias = out
        kernel = kernel.reshape(groups[0], 1, groups[1], width)
        kernel = kernel * mine[None, :, :, None].astype(kernel.dtype)
        return dense(x, kernel, bias, "bgtnk,gtkd->bnd", c)


class Mlp(nn.Module):
    """vit.Mlp of a normalised [b, n, width]."""

    activation: str
    out_std: float
    mlp_width: int
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, norm: Normed) -> jax.Array:
        width, c = norm.x.shape[-1], self.compute
        init = nn.initializers.normal((2 * width) ** -0.5)
        kernel, bias = norm.into(*Weights(self.mlp_width, init, name="c_fc")(width))
        x = dense(c.cast(norm.x), kernel, bias, "bnd,df->bnf", c)
        short = self.activation == "gelu" and c.dtype == "bfloat16"
        x = c.cast((short_gelu if short else ACTIVATIONS[self.activation])(x))
        init = nn.initializers.normal(self.out_std)
        kernel, bias = Weights(width, init, name="c_proj")(self.mlp_width)
        return dense(x, kernel, bias, "bnf,fd->bnd", c)


def is_short(x: jax.Array, causal: bool) -> bool:
    """Whether the heads of tokens [b, n, d] are grouped: causal ones, or up to 128."""
    return causal or x.shape[1] <= LANES


def channels_of_heads(heads: int, depth: int) -> np.ndarray:
    """Which channels of a group are those of each of its heads: [t, t * depth].

    t heads share a group: the most that divide the heads and fit its 128 channels.
    """
    most = max(1, LANES // depth)
    together = max(t for t in range(1, most + 1) if heads % t == 0)
    return np.repeat(np.eye(together, dtype=np.float32), depth, axis=1)


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool, compute: Compute
) -> jax.Array:
    """softmax(q k^T) v of q [b, g, t, n, channels] and k, v [b, g, n, channels].

    q is scaled, and zero in the channels of a group's other heads; the result has
    values in them that do not count. softmax in float32.
    """
    b, g, t, n, channels = q.shape
    scores = _score(compute, q.reshape(b, g, t * n, channels), k)
    if causal:
        seen = jnp.tile(jnp.tril(jnp.ones((n, n), bool)), (t, 1))[None, None]
        scores = jnp.where(seen, scores, -jnp.inf)
    weights = compute.cast(jax.nn.softmax(scores, axis=-1))
    x = product("bgqn,bgnk->bgqk", compute, weights, v, weights.dtype)
    return x.reshape(q.shape)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _score(compute: Compute, q: jax.Array, k: jax.Array) -> jax.Array:
    """q k^T in float32, whose gradient is rounded before it is multiplied."""
    return _score_fwd(compute, q, k)[0]


def _score_fwd(compute, q, k):
    return product("bgqk,bgnk->bgqn", compute, q, k), (q, k)


def _score_bwd(compute, residuals, g):
    q, k = residuals
    dq = product("bgqn,bgnk->bgqk", compute, g, k, q.dtype)
    return dq, product("bgqn,bgqk->bgnk", compute, g, q, k.dtype)


_score.defvjp(_score_fwd, _score_bwd)
