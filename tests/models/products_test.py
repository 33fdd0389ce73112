"""Patches embedded by a convolution: values and gradients by numpy's own products."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from rsclip_jax.models.compute import DTYPES, Compute
from rsclip_jax.models.products import embed_patches


@pytest.mark.parametrize("dtype", DTYPES)
def test_patches_and_their_gradients_are_those_of_products(dtype):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 4, 3, 5)).astype(np.float32)
    image, g = (
        rng.normal(size=s).astype(np.float32) for s in ((2, 8, 12, 3), (2, 2, 3, 5))
    )
    embed = jax.jit(embed_patches, static_argnums=0)
    y, back = jax.vjp(lambda x, k: embed(Compute(dtype), x, k), image, kernel)
    dimage, dkernel = back(jnp.asarray(g))

    # numpy rounds the factors likewise, then multiplies and sums in float64
    number = np.dtype(np.float32 if dtype == "float32" else ml_dtypes.bfloat16)
    x, k, g = (z.astype(number).astype(np.float64) for z in (image, kernel, g))
    patches = x.reshape(2, 2, 4, 3, 4, 3)
    for got, want in (
        (y, np.einsum("bhpwqc,pqcd->bhwd", patches, k)),
        (dkernel, np.einsum("bhpwqc,bhwd->pqcd", patches, g)),
        (dimage, np.einsum("bhwd,pqcd->bhpwqc", g, k).reshape(image.shape)),
    ):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
