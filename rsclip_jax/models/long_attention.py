"""Attention of more than 128 tokens in a TPU's form.

Scores of all pairs of tokens are what costs: they are written and read between the
products. So that a product's output is what the next one takes:

* Keys fill whole tiles of 128. Of 257 tokens the last key is apart, a column of scores
  of its own; else copies of the last token fill the tile, and their weights are zero.
* The maximum is taken where scores are made, and weights are divided by their sum after
  they are multiplied with the values.
* A score's gradient is weight x (its product - the query's sum), and that sum is the
  product of the query's output and its gradient (FlashAttention, arXiv 2205.14135): no
  sum over scores stands between two products of the backward pass.
* A query's scores' gradients sum to zero, so that the other keys, less the one apart,
  give the query's gradient alone.
"""

from functools import partial

import jax
import jax.numpy as jnp

from rsclip_jax.models.compute import Compute
from rsclip_jax.models.products import LANES, product

Pair = tuple[jax.Array, jax.Array]  # key and value [b, h, n, k]


def split(x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
    """Tokens [b, n, d] -> (one apart [b, 0 or 1, d], keys in whole tiles, how many).

    Copies of the last token fill up the keys [b, m, d] behind those that count.
    """
    n = x.shape[1]
    keys = n - (n % LANES == 1)
    filled = jnp.pad(x[:, :keys], ((0, 0), (0, -keys % LANES), (0, 0)), mode="edge")
    return x[:, keys:], filled, keys


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def attend(
    keys: int, compute: Compute, q: jax.Array, apart: Pair, others: Pair
) -> jax.Array:
    """softmax(q k^T) v of q [b, h, n, k], which is scaled, over both pairs' tokens.

    keys: how many of the others count. softmax in float32.
    """
    return _attend_fwd(keys, compute, q, apart, others)[0]


def _attend_fwd(keys, compute, q, apart, others):
    (k0, v0), (k, v) = apart, others
    scores, scores0 = product("bhqk,bhnk->bhqn", compute, q, k), _pair(q, k0)
    largest = jnp.maximum(_max(scores), _max(scores0))
    # behind the barrier, lest it be computed with exp instead of with the scores
    largest = jax.lax.optimization_barrier(largest)
    counted = (jnp.arange(k.shape[2]) < keys).astype(jnp.float32)[None, None, None]
    weights = compute.cast(jnp.exp(scores - largest) * counted)
    weights0 = jnp.exp(scores0 - largest)
    total = _sum(weights) + _sum(weights0)
    y = product("bhqn,bhnk->bhqk", compute, weights, v) + _mix(weights0, v0)
    y = compute.cast(y / total)
    return y, (q, apart, others, weights, weights0, total, y)


def _attend_bwd(keys, compute, residuals, g):
    del keys
    q, (k0, v0), (k, v), weights, weights0, total, y = residuals
    g = g / total
    mean = _sum(g * y)
    ds0 = weights0 * (_pair(g, v0) - mean)
    dapart = _gather(ds0, q), _gather(weights0, g)
    g = compute.cast(g)
    ds = weights * (product("bhqk,bhnk->bhqn", compute, g, v) - mean)
    ds = compute.cast(ds)
    relative = k - k0.sum(2, keepdims=True)
    dq = product("bhqn,bhnk->bhqk", compute, ds, relative, q.dtype)
    dk = product("bhqn,bhqk->bhnk", compute, ds, q, k.dtype)
    dv = product("bhqn,bhqk->bhnk", compute, weights, g, v.dtype)
    return dq, jax.tree.map(compute.cast, dapart), (dk, dv)


attend.defvjp(_attend_fwd, _attend_bwd)


def _max(scores: jax.Array) -> jax.Array:
    return scores.max(-1, keepdims=True, initial=-jnp.inf)


def _sum(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32).sum(-1, keepdims=True)


# Products with the tokens apart, a = 0 or 1 of them: too few for the matrix units


def _pair(x: jax.Array, y: jax.Array) -> jax.Array:
    """[b, h, n, k], [b, h, a, k] -> [b, h, n, a]."""
    return (x[:, :, :, None].astype(jnp.float32) * y[:, :, None]).sum(-1)


def _mix(weights: jax.Array, y: jax.Array) -> jax.Array:
    """[b, h, n, a], [b, h, a, k] -> [b, h, n, k]."""
    return (weights[..., None] * y[:, :, None]).sum(3)


def _gather(weights: jax.Array, x: jax.Array) -> jax.Array:
    """[b, h, n, a], [b, h, n, k] -> [b, h, a, k]."""
    return (weights[..., None] * x[:, :, :, None]).sum(2)
