"""Products of a transformer's TPU form, with gradients in the layers' formats."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rsclip_jax.models.compute import Compute, keep_product

LANES = 128  # numbers in a row of a TPU's tile


def dense(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, spec: str, compute: Compute
) -> jax.Array:
    """einsum(spec, x, kernel) + bias over the letters of the output that kernel has.

    x is in the layers' format, and so is its gradient.
    """
    return keep_product(_dense(spec, compute, x, kernel, bias))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _dense(spec, compute, x, kernel, bias):
    return _dense_fwd(spec, compute, x, kernel, bias)[0]


def _dense_fwd(spec, compute, x, kernel, bias):
    y = product(spec, compute, x, kernel)
    across = [i for i, letter in enumerate(spec[-y.ndim :]) if letter in _rows(spec)]
    return compute.cast(y + jnp.expand_dims(bias, across)), (x, kernel)


def _dense_bwd(spec, compute, residuals, g):
    x, kernel = residuals
    of_x, of_kernel, of_y = spec.replace("->", ",").split(",")
    dx = product(f"{of_y},{of_kernel}->{of_x}", compute, g, kernel, x.dtype)
    # in the kernel's dtype before devices add their parts of it, as in compute.py
    dkernel = product(f"{of_x},{of_y}->{of_kernel}", compute, x, g, kernel.dtype)
    rows = _rows(spec)
    ones = jnp.ones([g.shape[of_y.index(letter)] for letter in rows], g.dtype)
    kept = "".join(letter for letter in of_y if letter not in rows)
    dbias = product(f"{of_y},{rows}->{kept}", compute, g, ones)
    return dx, dkernel, dbias


_dense.defvjp(_dense_fwd, _dense_bwd)


def _rows(spec: str) -> str:
    """The letters of a layer's output that its input has too."""
    of_x, _, of_y = spec.replace("->", ",").split(",")
    return "".join(letter for letter in of_y if letter in of_x)


def product(
    spec: str, compute: Compute, a: jax.Array, b: jax.Array, dtype: Any = jnp.float32
) -> jax.Array:
    """An einsum of factors in the layers' format, summed in float32."""
    return jnp.einsum(
        spec,
        compute.cast(a),
        compute.cast(b),
        precision=compute.precision,
        preferred_element_type=dtype,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def embed_patches(compute: Compute, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Products [b, h / p, w / p, d] of patches of [b, h, w, c] and [p, p, c, d].

    A convolution: a TPU's compiler reads the bands with less moving about than where
    patches are cut out before. The kernel's gradient is in the kernel's dtype.
    """
    return _embed_fwd(compute, image, kernel)[0]


def _embed_fwd(compute, image, kernel):
    x, p = compute.cast(image), kernel.shape[0]
    y = _convolve(compute, x, compute.cast(kernel), (p, p), ("NHWC", "HWIO", "NHWC"))
    return y, (x, kernel, jnp.zeros((), image.dtype))


def _embed_bwd(compute, residuals, g):
    x, kernel, like = residuals
    g, p = compute.cast(g), kernel.shape[0]
    b, h, w, _ = g.shape
    dx = product("bhwd,pqcd->bhpwqc", compute, g, kernel, like.dtype)
    dx = dx.reshape(b, h * p, w * p, -1)
    # the images are what is summed over: they take the place of the channels
    numbers = "CHWN", "IHWO", "HWNC"
    dkernel = _convolve(compute, x, g, (1, 1), numbers, rhs_dilation=(p, p))
    return dx, dkernel.astype(kernel.dtype)


embed_patches.defvjp(_embed_fwd, _embed_bwd)


def _convolve(compute, x, kernel, strides, numbers, **options) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        "VALID",
        dimension_numbers=numbers,
        precision=compute.precision,
        preferred_element_type=jnp.float32,
        **options,
    )
