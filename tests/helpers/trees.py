"""Equality of parameter trees."""

import jax
import numpy as np


def same(found, want, half=False):
    assert jax.tree.structure(found) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        assert a.dtype == np.float32
        expected = b.astype(np.float16).astype(np.float32) if half else b
        np.testing.assert_array_equal(a, expected)
