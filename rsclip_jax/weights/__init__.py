"""Weight files in and out."""

from rsclip_jax.weights.encoders import ENCODERS
from rsclip_jax.weights.files import file_digests, is_weight_folder
from rsclip_jax.weights.hub import fetch
from rsclip_jax.weights.infer import Heads
from rsclip_jax.weights.load import load_clip, read_variant
from rsclip_jax.weights.load_encoder import (
    find_encoder,
    has_input_scale,
    load_encoder,
)
from rsclip_jax.weights.pretrained import PRETRAINED, find_pretrained, is_name, suggest
from rsclip_jax.weights.save import save_clip, save_encoder

__all__ = [
    "ENCODERS",
    "PRETRAINED",
    "Heads",
    "fetch",
    "file_digests",
    "find_encoder",
    "find_pretrained",
    "has_input_scale",
    "is_name",
    "is_weight_folder",
    "load_clip",
    "load_encoder",
    "read_variant",
    "save_clip",
    "save_encoder",
    "suggest",
]
