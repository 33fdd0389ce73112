"""Arithmetic on weights: interpolation, task vectors, soups, Fisher merging. All pure.

WiSE-FT (Wortsman et al. 2022), PAINT (Ilharco et al. 2022), task arithmetic (Ilharco et
al. 2023), model soups (Wortsman et al. 2022), Fisher merging (Matena & Raffel 2022).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


def interpolate(theta_0: PyTree, theta_1: PyTree, alpha: float | PyTree) -> PyTree:
    """(1 - alpha) theta_0 + alpha theta_1, leaf by leaf.

    alpha is a float (or a traced scalar) or a tree prefix of floats: {"visual": 0.5,
    "text": 0.0, ...}. alpha 0 and 1 give the ends bit for bit. Raises ValueError naming
    the leaves that only one tree has or whose shapes differ.
    """
    _check_same(theta_0, theta_1)
    try:
        alphas = jax.tree.broadcast(alpha, theta_0)
    except ValueError as error:
        raise ValueError(
            f"alpha must be a float or a tree prefix of the params: {error}"
        ) from error
    return jax.tree.map(_mix, theta_0, theta_1, alphas)


def _mix(x, y, alpha):
    if isinstance(alpha, jax.core.Tracer):
        mixed = (1 - alpha) * x + alpha * y
        # exact at the ends also where an end holds -0.0 or is not finite
        return jnp.where(alpha == 0, x, jnp.where(alpha == 1, y, mixed)).astype(x.dtype)
    if alpha in (0, 1):
        return y if alpha == 1 else x
    return ((1 - alpha) * x + alpha * y).astype(x.dtype)


# Blocks: where an alpha of its own makes sense.


_LAST = ("ln_post", "proj", "attnpool", "head")


def block_of(name: str) -> str:
    """The block that a top-level key of a visual tower belongs to.

    A transformer's "blocks_3" and a ResNet's "layer3_1" are blocks; what makes the
    embedding of their output ("ln_post", "proj", "attnpool"), or scores of that
    ("head"), is the "projection", the rest the "stem".
    """
    if re.fullmatch(r"(blocks|layer\d)_\d+", name):
        return name
    return "projection" if name in _LAST else "stem"


def block_names(theta: PyTree) -> tuple[str, ...]:
    """The blocks of a visual tower from the pixels on: stem, blocks, projection."""
    return sort_blocks({"stem", "projection", *map(block_of, theta)})


def sort_blocks(names: Iterable[str]) -> tuple[str, ...]:
    """Blocks from the pixels on: stem, "blocks_2" before "blocks_10", projection."""

    def place(block: str):
        ends = {"stem": -1, "projection": 1}
        return ends.get(block, 0), [int(n) for n in re.findall(r"\d+", block)]

    return tuple(sorted(names, key=place))


def block_prefix(theta: PyTree, alphas: dict[str, Any]) -> dict[str, Any]:
    """interpolate's alpha for a visual tower: a tree prefix of its blocks' alphas.

    Raises ValueError unless alphas names each of block_names(theta) once.
    """
    names = block_names(theta)
    if set(alphas) != set(names):
        raise ValueError(f"alphas of {sorted(alphas)}, but the blocks are {names}")
    return {name: alphas[block_of(name)] for name in theta}


# Several models


def add_tasks(
    theta_0: PyTree, thetas: Sequence[PyTree], alphas: float | Sequence[float]
) -> PyTree:
    """theta_0 + sum_i alpha_i (theta_i - theta_0): each a task vector, scaled.

    A single alpha counts for every task; one below 0 makes the model forget a task.
    PAINT's parallel patching is alpha / n of n tasks. One task gives interpolate's
    values, all alphas 0 theta_0 bit for bit.
    """
    if isinstance(alphas, Sequence):
        scales = list(alphas)
    else:
        scales = [alphas] * len(thetas)
    _check_count("alphas", scales, thetas)
    return weighted_sum([theta_0, *thetas], [1 - sum(scales), *scales])


def analogy(
    theta_a: PyTree, theta_b: PyTree, theta_c: PyTree, alpha: float = 1.0
) -> PyTree:
    """theta_c + alpha (theta_b - theta_a): a is to b as c is to the result."""
    return weighted_sum([theta_c, theta_b, theta_a], [1.0, alpha, -alpha])


def soup(thetas: Sequence[PyTree], weights: Sequence[float] | None = None) -> PyTree:
    """The mean of models fine-tuned from one, by weight (default: alike).

    One model gives itself bit for bit. Raises ValueError for weights below 0 or of sum
    0.
    """
    weights = [1.0] * len(thetas) if weights is None else list(weights)
    if weights and (min(weights) < 0 or not sum(weights) > 0):
        raise ValueError(f"weights {weights} of a soup must be 0 or more, not all 0")
    return weighted_sum(thetas, [w / sum(weights) for w in weights])


def greedy_soup(
    thetas: Sequence[PyTree], score: Callable[[PyTree], float]
) -> tuple[PyTree, tuple[int, ...]]:
    """(a soup, the places of the models in it): each is added if the score is no lower.

    In order of their own scores, highest first; score is on held-out data, higher is
    better. Never lower than the best model's.
    """
    scores = [score(theta) for theta in thetas]
    order = sorted(range(len(thetas)), key=lambda i: -scores[i])
    kept, best, mixed = [order[0]], scores[order[0]], thetas[order[0]]
    for i in order[1:]:
        trial = soup([thetas[j] for j in (*kept, i)])
        value = score(trial)
        if value >= best:
            kept, best, mixed = [*kept, i], value, trial
    return mixed, tuple(kept)


def fisher_merge(
    thetas: Sequence[PyTree],
    fishers: Sequence[PyTree],
    weights: Sequence[float] | None = None,
    *,
    floor: float = 1e-6,
) -> PyTree:
    """sum_i w_i F_i theta_i / sum_i w_i F_i, F_i the diagonal of each model's Fisher.

    F_i below `floor` counts as floor (as the paper has it), so where no model's data
    says anything the result is the weighted mean. Equal Fishers give soup's mean.
    """
    weights = [1.0] * len(thetas) if weights is None else list(weights)
    _check_count("fishers", fishers, thetas)
    _check_count("weights", weights, thetas)
    for tree in (*thetas[1:], *fishers):
        _check_same(thetas[0], tree)

    def merge(*leaves):
        values, diagonals = leaves[: len(thetas)], leaves[len(thetas) :]
        precise = [
            w * jnp.maximum(jnp.asarray(f, jnp.float32), floor)
            for w, f in zip(weights, diagonals, strict=True)
        ]
        total = sum(p * x for p, x in zip(precise, values, strict=True))
        return (total / sum(precise)).astype(values[0].dtype)

    return jax.tree.map(merge, *thetas, *fishers)


def fisher_diagonal(
    loss_fn: Callable, params: PyTree, frozen: PyTree, batch: dict[str, Any]
) -> PyTree:
    """The mean over a batch's examples of the squared gradient of each one's loss.

    loss_fn(params, frozen, batch) -> (loss, metrics), a negative log likelihood. With
    the data's labels it is the empirical Fisher; with labels drawn from the model's own
    distribution an unbiased estimate of the Fisher itself (Matena & Raffel 2022).
    Examples go one by one, so that one gradient is held.
    """

    def add(total, example):
        one = jax.tree.map(lambda x: x[None], example)
        grads, _ = jax.grad(loss_fn, has_aux=True)(params, frozen, one)
        return jax.tree.map(lambda t, g: t + g * g, total, grads), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, _ = jax.lax.scan(add, zeros, batch)
    count = len(jax.tree.leaves(batch)[0])
    return jax.tree.map(lambda t: t / count, total)


def weighted_sum(thetas: Sequence[PyTree], weights: Sequence[float]) -> PyTree:
    """sum_i w_i theta_i, leaf by leaf, in the first tree's dtypes.

    Where one weight is 1 and the others are 0, that tree bit for bit. Raises ValueError
    naming the leaves that only one tree has.
    """
    if not thetas:
        raise ValueError("no parameter trees to add up")
    _check_count("weights", weights, thetas)
    for theta in thetas[1:]:
        _check_same(thetas[0], theta)
    used = [i for i, w in enumerate(weights) if w != 0]
    if len(used) == 1 and weights[used[0]] == 1:
        return thetas[used[0]]

    def add(*leaves):
        terms = (w * x for w, x in zip(weights, leaves, strict=True))
        return sum(terms).astype(leaves[0].dtype)

    return jax.tree.map(add, *thetas)


def _check_count(what: str, values: Sequence, thetas: Sequence[PyTree]) -> None:
    if len(values) != len(thetas):
        raise ValueError(f"{len(values)} {what} for {len(thetas)} models")


def _check_same(theta_0: PyTree, theta_1: PyTree) -> None:
    shapes_0, shapes_1 = _leaf_shapes(theta_0), _leaf_shapes(theta_1)
    problems = [f"only in theta_0: {k}" for k in shapes_0.keys() - shapes_1.keys()]
    problems += [f"only in theta_1: {k}" for k in shapes_1.keys() - shapes_0.keys()]
    problems += [
        f"{k}: {shapes_0[k]} in theta_0, {shapes_1[k]} in theta_1"
        for k in shapes_0.keys() & shapes_1.keys()
        if shapes_0[k] != shapes_1[k]
    ]
    if problems:
        raise ValueError(
            "these trees are not of one model and cannot be interpolated:\n  "
            + "\n  ".join(sorted(problems))
        )


def _leaf_shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(leaf)
        for path, leaf in leaves
    }
