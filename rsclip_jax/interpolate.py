"""Weight interpolation: WiSE-FT (Wortsman 2022) and PAINT (Ilharco 2022)."""

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
