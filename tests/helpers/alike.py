"""Whether several processes made what one process makes."""

import math

import jax
import numpy as np


def key_of(r):
    return r.stage, r.dataset, r.split, r.sensor, r.task, r.metric, r.step, r.alpha


def as_number(value):
    return math.nan if value is None else value


def assert_close(ours, theirs):
    """Equal to 1e-5 of a leaf's size, but for key biases: nothing depends on them."""
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(ours),
        jax.tree_util.tree_leaves_with_path(theirs),
        strict=True,
    )
    for (path, a), (where, b) in pairs:
        assert path == where
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        a, b = np.asarray(a), np.asarray(b)
        if name.endswith("attn/in_proj/bias"):
            third = len(b) // 3
            a, b = (np.delete(x, np.s_[third : 2 * third]) for x in (a, b))
        size = max(np.abs(b).max(), 1e-3)
        np.testing.assert_allclose(a, b, atol=1e-5 * size, rtol=0, err_msg=name)
