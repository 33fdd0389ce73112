"""Weight files in and out."""

from rsclip_jax.weights.files import is_weight_folder
from rsclip_jax.weights.load import load_clip, load_vit
from rsclip_jax.weights.save import save_clip

__all__ = ["is_weight_folder", "load_clip", "load_vit", "save_clip"]
