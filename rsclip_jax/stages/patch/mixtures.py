"""Interpolations of two models' towers, on the host and on the devices."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rsclip_jax.interpolate import PyTree, block_prefix, interpolate
from rsclip_jax.models.clip import put_towers, visual_params
from rsclip_jax.records.budget import ORIGINAL
from rsclip_jax.train import checkpoint, sharding

# One alpha for the tower (ORIGINAL: the model before any patching), or one per block.
Alpha = float | Mapping[str, float]


class Mixtures:
    """The interpolations of theta_0 and theta_1, in the CLIP of params.

    They are visual towers, or towers of models.clip.tower_params with the text's. The
    visual ends stay on the devices, and beside them only the mixture asked for last.
    original: the towers at alpha ORIGINAL, if there are any.
    """

    def __init__(
        self,
        params: dict,
        theta_0: PyTree,
        theta_1: PyTree,
        mesh: Mesh,
        original: PyTree | None = None,
    ):
        self._theta_0, self._theta_1, self._original = theta_0, theta_1, original
        self._ends = [
            sharding.put_params(visual_params(t), mesh) for t in (theta_0, theta_1)
        ]
        self._placed = None
        if original is not None:
            self._placed = sharding.put_params(visual_params(original), mesh)
        self._last: tuple[Alpha | None, PyTree] = (None, None)
        self._digest_of = checkpoint.make_digest_of_part(params, "visual")
        if "text" in theta_0:
            self._digest_of = lambda theta: checkpoint.params_digest(
                put_towers(params, theta)
            )
        self._digests: dict[str, str] = {}

    def on_host(self, alpha: Alpha) -> PyTree:
        """The towers at this alpha, as numpy computes them."""
        if alpha == ORIGINAL:
            return self._original
        at = self._prefix(alpha) if isinstance(alpha, Mapping) else alpha
        return interpolate(self._theta_0, self._theta_1, at)

    def on_devices(self, alpha: Alpha) -> PyTree:
        """The visual tower at this alpha on the mesh, that of on_host bit for bit."""
        if alpha == ORIGINAL:
            return self._placed
        if alpha in (0, 1):
            return self._ends[int(alpha)]
        if self._last[0] != alpha:
            self._last = (None, None)  # frees it before the next one is made
            weights = np.array(list(visual_params(self._prefix(alpha)).values()))
            shares = np.float32(1 - weights), np.float32(weights)
            parts = [_scale(t, s) for t, s in zip(self._ends, shares, strict=True)]
            self._last = alpha, _add(*self._ends, *parts, shares[1])
        return self._last[1]

    def text(self, alpha: Alpha) -> PyTree | None:
        """The text tower at this alpha; None if it is the CLIP's."""
        if "text" not in self._theta_0:
            return None
        if alpha == ORIGINAL and self._original is not None:
            return self._original["text"]
        return interpolate(self._theta_0["text"], self._theta_1["text"], alpha)

    def digest(self, alpha: Alpha) -> str:
        """Digest of the whole CLIP at this alpha; each is computed once."""
        key = repr(sorted(alpha.items()) if isinstance(alpha, Mapping) else alpha + 0.0)
        if key not in self._digests:
            self._digests[key] = self._digest_of(self.on_host(alpha))
        return self._digests[key]

    def _prefix(self, alpha: Alpha) -> dict[str, float]:
        """{top-level key of the tower: its alpha}."""
        if isinstance(alpha, Mapping):
            return block_prefix(self._theta_0, dict(alpha))
        return dict.fromkeys(self._theta_0, alpha)


# Two programs, because within one the compiler fuses a product and the sum into one
# operation that rounds once, and the mixture would not be the product's.


@jax.jit
def _scale(theta: dict, shares: jax.Array) -> dict:
    """Each top-level part times its share."""
    return {
        name: jax.tree.map(lambda x, s=share: s.astype(x.dtype) * x, part)
        for (name, part), share in zip(theta.items(), shares, strict=True)
    }


@jax.jit
def _add(theta_0: dict, theta_1: dict, part_0: dict, part_1: dict, alphas) -> dict:
    """The sum of the parts; bit for bit an end where the alpha is 0 or 1."""

    def add(alpha, *leaves):
        x, y, p, q = leaves
        return jnp.where(alpha == 0, x, jnp.where(alpha == 1, y, p + q))

    return {
        name: jax.tree.map(
            lambda *leaves, a=alpha: add(a, *leaves),
            *(t[name] for t in (theta_0, theta_1, part_0, part_1)),
        )
        for name, alpha in zip(theta_0, alphas, strict=True)
    }
