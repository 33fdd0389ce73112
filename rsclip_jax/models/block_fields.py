"""What a transformer block's form for a TPU shares with its form for other devices."""

import flax.linen as nn
import jax

from rsclip_jax.models.compute import FLOAT32, Compute
from rsclip_jax.models.rope import Rope


class BlockFields(nn.Module):
    """The fields of a pre-norm transformer block.

    mlp_width: 0 means four times the width. gated: the MLP is a SwiGLU (Shazeer 2020)
    of mlp_width channels. layer_scale: a trained factor per channel on the output of
    each half (Touvron et al. 2021), as in DINOv2. rope: turns queries and keys.
    """

    heads: int
    activation: str
    eps: float
    out_std: float
    mlp_width: int = 0
    gated: bool = False
    layer_scale: bool = False
    causal: bool = False
    rope: Rope | None = None
    compute: Compute = FLOAT32

    def scaled(self, y: jax.Array, name: str) -> jax.Array:
        """The output [..., width] of a half, times the factors if there are any."""
        if not self.layer_scale:
            return y
        init = nn.initializers.constant(1e-5)
        scale = self.param(name, init, (y.shape[-1],))
        return self.compute.cast(y * scale.reshape((1,) * (y.ndim - 1) + (-1,)))
