"""GELU without the error function."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from scipy.special import ndtr

from rsclip_jax.models.activations import short_gelu

# half a unit of bfloat16's last place, at most, of a value just below a power of two
HALF = float(ml_dtypes.finfo(ml_dtypes.bfloat16).eps) / 4
X = np.arange(-12, 12, 1 / 256, dtype=np.float32)


def test_short_gelu_is_exact_gelu_but_for_less_than_the_rounding_of_bfloat16():
    exact = X.astype(np.float64) * ndtr(X.astype(np.float64))
    np.testing.assert_allclose(short_gelu(X), exact, rtol=HALF, atol=1.5e-6)


def test_its_slope_is_that_of_exact_gelu():
    x = X.astype(np.float64)
    slope = ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    found = jax.vmap(jax.grad(short_gelu))(X)
    np.testing.assert_allclose(found, slope, atol=5e-4)


def test_it_keeps_the_format_and_the_ends():
    x = jnp.asarray([-3e38, 0.0, 3e38], jnp.bfloat16)
    assert short_gelu(x).dtype == jnp.bfloat16
    np.testing.assert_array_equal(short_gelu(x), np.maximum(x, 0))
