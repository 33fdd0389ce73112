"""Pure: low-rank adapters (LoRA, Hu et al. 2022) as separate parameter trees."""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rsclip_jax.io.texts import first_of
from rsclip_jax.train.optim import check_pattern, leaf_names

PyTree = Any


def add_lora(params: PyTree, targets: str, rank: int, rng: jax.Array) -> PyTree:
    """Adapters {"a" [fan_in, rank], "b" [rank, out]} for the kernels targets matches.

    The tree holds only these, at the kernels' paths. a is normal with variance
    1 / fan_in, b is zero, so the model starts unchanged. A convolution's kernel [h, w,
    in, out] counts as the matrix [h * w * in, out]. Raises ValueError if no kernel
    matches, or if rank is below 1 or above a kernel's rank.
    """
    check_pattern(targets, "targets")
    names = jax.tree.leaves(leaf_names(params))
    leaves = dict(zip(names, jax.tree.leaves(params), strict=True))
    kernels = {name: leaf for name, leaf in leaves.items() if leaf.ndim > 1}
    chosen = {n: leaf for n, leaf in kernels.items() if re.fullmatch(targets, n)}
    if not chosen:
        raise ValueError(
            f"targets = {targets!r} matches none of the kernels"
            f" {first_of(list(kernels))}"
        )
    largest = {name: min(_as_matrix(leaf.shape)) for name, leaf in chosen.items()}
    least = min(largest, key=lambda name: largest[name])
    if not 1 <= rank <= largest[least]:
        raise ValueError(
            f"rank = {rank} is not between 1 and {largest[least]}, the rank of {least}"
        )
    adapters: dict = {}
    for i, (name, leaf) in enumerate(chosen.items()):
        fan_in, out = _as_matrix(leaf.shape)
        a = jax.random.normal(jax.random.fold_in(rng, i), (fan_in, rank), leaf.dtype)
        pair = {"a": a * fan_in**-0.5, "b": jnp.zeros((rank, out), leaf.dtype)}
        _put(adapters, name.split("/"), pair)
    return adapters


def merge_lora(params: PyTree, adapters: PyTree, scale: float) -> PyTree:
    """params with each adapted kernel replaced by kernel + scale * a @ b.

    scale is alpha / rank. Dtypes stay; leaves without an adapter are the same arrays.
    """
    if not isinstance(params, Mapping):
        change = scale * (adapters["a"] @ adapters["b"])
        return params + change.reshape(params.shape).astype(params.dtype)
    return {
        name: merge_lora(leaf, adapters[name], scale) if name in adapters else leaf
        for name, leaf in params.items()
    }


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1]


def _put(tree: dict, path: list[str], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value
