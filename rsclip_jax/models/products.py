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
