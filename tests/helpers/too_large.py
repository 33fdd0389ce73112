"""A computation that asks for more memory than any machine has."""

import jax


def too_large(x):
    """256 TiB of random numbers; XLA refuses them at once."""
    return jax.random.normal(jax.random.key(0), (2**22, 2**24)) * x
