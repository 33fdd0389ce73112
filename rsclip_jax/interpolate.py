"""Arithmetic on weights: interpolation, task vectors, soups, Fisher merging. All pure.

Weights are trees (nested dicts) of arrays, theta; the trees of one call have the same
leaves and shapes, as models fine-tuned from one have. A ValueError names the leaves
where they differ.

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

    Args:
      theta_0: the weights at alpha 0, usually the zero-shot model's.
      theta_1: the weights at alpha 1, usually the fine-tuned model's.
      alpha: a float (or a traced scalar), or a tree prefix of floats, such as
        {"visual": 0.5, "text": 0.0, ...}.

    Returns:
      The mixed weights, in theta_0's dtypes; alpha 0 and 1 give the ends bit for bit.

    Raises:
      ValueError: naming the leaves that only one tree has or whose shapes differ, and
        for an alpha that is no tree prefix.

    >>> theta_0, theta_1 = {"w": jnp.zeros(2)}, {"w": jnp.array([2.0, 4.0])}
    >>> print(interpolate(theta_0, theta_1, alpha=0.25)["w"])
    [0.5 1. ]
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
    if isinstance(alpha, jax.Array):  # traced, perhaps: its value cannot be asked
        mixed = (1 - alpha) * x + alpha * y
        # exact at the ends also where an end holds -0.0 or is not finite
        return jnp.where(alpha == 0, x, jnp.where(alpha == 1, y, mixed)).astype(x.dtype)
    if alpha in (0, 1):
        return y if alpha == 1 else x
    return ((1 - alpha) * x + alpha * y).astype(x.dtype)


# Blocks: the parts of a visual tower that may each have their own alpha.

_LAST = ("ln_post", "pool", "proj", "attnpool", "head")


def block_of(name: str) -> str:
    """The block that a top-level key of a visual tower belongs to.

    A transformer's "blocks_3" and a ResNet's "layer3_1" are blocks of their own. Keys
    after them ("ln_post", "pool", "proj", "attnpool", "head") belong to the
    "projection", all others to the "stem".

    >>> block_of("blocks_3"), block_of("conv1"), block_of("ln_post")
    ('blocks_3', 'stem', 'projection')
    """
    if re.fullmatch(r"(blocks|layer\d)_\d+", name):
        return name
    return "projection" if name in _LAST else "stem"


def block_names(theta: PyTree) -> tuple[str, ...]:
    """The blocks of a visual tower in forward order: stem, blocks, projection.

    >>> block_names({"conv1": 0, "blocks_1": 0, "blocks_0": 0, "proj": 0})
    ('stem', 'blocks_0', 'blocks_1', 'projection')
    """
    return sort_blocks({"stem", "projection", *map(block_of, theta)})


def sort_blocks(names: Iterable[str]) -> tuple[str, ...]:
    """Block names in forward order: stem, blocks by number, projection.

    >>> sort_blocks(["projection", "blocks_10", "blocks_2", "stem"])
    ('stem', 'blocks_2', 'blocks_10', 'projection')
    """

    def order(block: str):
        ends = {"stem": -1, "projection": 1}
        return ends.get(block, 0), [int(n) for n in re.findall(r"\d+", block)]

    return tuple(sorted(names, key=order))


def block_prefix(theta: PyTree, alphas: dict[str, Any]) -> dict[str, Any]:
    """interpolate's alpha for a visual tower with one alpha per block.

    Args:
      theta: a visual tower's weights.
      alphas: the alpha of each of block_names(theta).

    Returns:
      A tree prefix: {top-level key of theta: its block's alpha}.

    Raises:
      ValueError: where alphas lacks a block or has another.

    >>> alphas = {"stem": 0.0, "blocks_0": 0.5, "projection": 1.0}
    >>> block_prefix({"conv1": 0, "blocks_0": 0, "ln_post": 0, "proj": 0}, alphas)
    {'conv1': 0.0, 'blocks_0': 0.5, 'ln_post': 1.0, 'proj': 1.0}
    """
    names = block_names(theta)
    if set(alphas) != set(names):
        raise ValueError(
            f"alphas has the blocks {sorted(alphas)}; the tower's are {names}: name"
            " each of them"
        )
    return {name: alphas[block_of(name)] for name in theta}


# Several models


def add_tasks(
    theta_0: PyTree, thetas: Sequence[PyTree], alphas: float | Sequence[float]
) -> PyTree:
    """theta_0 + sum_i alpha_i (theta_i - theta_0): scaled task vectors, added.

    Args:
      theta_0: the weights that every task was fine-tuned from.
      thetas: the weights fine-tuned on each task.
      alphas: one per task, or one for all. An alpha below 0 makes the model forget a
        task; PAINT's parallel patching of n tasks has alpha / n.

    Returns:
      The sum. One task gives interpolate's values; all alphas 0 give theta_0 bit for
      bit.

    Raises:
      ValueError: for another number of alphas, and for trees that differ.

    >>> theta_0, tasks = {"w": jnp.ones(1)}, [{"w": jnp.ones(1) * x} for x in (2, 5)]
    >>> print(add_tasks(theta_0, tasks, [1.0, 0.5])["w"])  # 1 + 1 + 0.5 * 4
    [4.]
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
    """theta_c + alpha (theta_b - theta_a): a is to b as c is to the result.

    >>> a, b, c = ({"w": jnp.ones(1) * x} for x in (1, 3, 10))
    >>> print(analogy(a, b, c)["w"])
    [12.]
    """
    return weighted_sum([theta_c, theta_b, theta_a], [1.0, alpha, -alpha])


def soup(thetas: Sequence[PyTree], weights: Sequence[float] | None = None) -> PyTree:
    """The weighted mean of models that were fine-tuned from one.

    Args:
      thetas: the models' weights.
      weights: one per model, in any scale; None weighs them equally.

    Returns:
      The mean; one model is returned bit for bit.

    Raises:
      ValueError: for weights below 0 or all 0, and for trees that differ.

    >>> print(soup([{"w": jnp.array([1.0])}, {"w": jnp.array([5.0])}], [3, 1])["w"])
    [2.]
    """
    weights = [1.0] * len(thetas) if weights is None else list(weights)
    if weights and (min(weights) < 0 or not sum(weights) > 0):
        raise ValueError(f"weights {weights} of a soup must be 0 or more, not all 0")
    return weighted_sum(thetas, [w / sum(weights) for w in weights])


def greedy_soup(
    thetas: Sequence[PyTree], score: Callable[[PyTree], float]
) -> tuple[PyTree, tuple[int, ...]]:
    """A soup of the models that do not lower its score, added from the best one on.

    Args:
      thetas: the models' weights.
      score: weights -> a score on held-out data, higher is better.

    Returns:
      (soup, indices of the models in it). Its score is never below the best model's.

    >>> thetas = [{"w": jnp.array(x)} for x in (9.0, 2.0, 4.0)]
    >>> mixed, kept = greedy_soup(thetas, lambda t: -abs(float(t["w"]) - 3.0))
    >>> float(mixed["w"]), kept
    (3.0, (1, 2))
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
    """sum_i w_i F_i theta_i / sum_i w_i F_i, with each model's diagonal Fisher F_i.

    Args:
      thetas: the models' weights.
      fishers: each model's fisher_diagonal.
      weights: one per model; None weighs them equally.
      floor: smaller values of F_i are raised to it, as in the paper, so that the result
        is the weighted mean where no model's data carries information.

    Returns:
      The merged weights; equal Fishers give soup's mean.

    Raises:
      ValueError: for another number of fishers or weights, and for trees that differ.

    >>> thetas = [{"w": jnp.array([0.0])}, {"w": jnp.array([4.0])}]
    >>> fishers = [{"w": jnp.array([1.0])}, {"w": jnp.array([3.0])}]
    >>> print(fisher_merge(thetas, fishers)["w"])
    [3.]
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
    """The squared gradient of each example's loss, averaged over a batch.

    With the data's labels this is the empirical Fisher; with labels drawn from the
    model's own distribution it is an unbiased estimate of the Fisher itself (Matena &
    Raffel 2022). Examples are taken one by one, so memory holds one gradient.

    Args:
      loss_fn: (params, frozen, batch) -> (loss, metrics), a negative log likelihood.
      params: the weights to differentiate by.
      frozen: weights that loss_fn also needs.
      batch: {key: array [b, ...]}.

    Returns:
      A tree like params.

    >>> def loss_fn(params, frozen, batch):
    ...     return jnp.mean(params["w"] * batch["x"]), {}
    >>> batch = {"x": jnp.array([1.0, 3.0])}  # gradients 1 and 3
    >>> float(fisher_diagonal(loss_fn, {"w": jnp.array(0.5)}, {}, batch)["w"])
    5.0
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

    Args:
      thetas: the trees to add up.
      weights: one per tree; with one weight 1 and all others 0 that tree is returned
        bit for bit.

    Raises:
      ValueError: for no tree, another number of weights, and for trees that differ.

    >>> trees = [{"w": jnp.array([1.0])}, {"w": jnp.array([10.0])}]
    >>> print(weighted_sum(trees, [2.0, -1.0])["w"])
    [-8.]
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
            "these trees have different leaves and cannot be interpolated:\n  "
            + "\n  ".join(sorted(problems))
        )


def _leaf_shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(leaf)
        for path, leaf in leaves
    }
