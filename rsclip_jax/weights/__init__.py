"""Weight files in and out."""

from rsclip_jax.weights.files import is_weight_folder
from rsclip_jax.weights.load import load_clip
from rsclip_jax.weights.load_encoder import load_encoder
from rsclip_jax.weights.save import save_clip, save_encoder

__all__ = ["is_weight_folder", "load_clip", "load_encoder", "save_clip", "save_encoder"]
