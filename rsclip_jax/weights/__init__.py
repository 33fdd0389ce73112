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
from rsclip_jax.weights.pretrained import (
    PRETRAINED,
    Found,
    check_digests,
    find_pretrained,
    is_name,
    suggest,
)
from rsclip_jax.weights.save import save_clip, save_encoder
from rsclip_jax.weights.sensor_clip import (
    check_is_tower,
    load_towers,
    read_bands,
    save_sensor_clip,
)

__all__ = [
    "ENCODERS",
    "PRETRAINED",
    "Found",
    "Heads",
    "check_digests",
    "check_is_tower",
    "fetch",
    "file_digests",
    "find_encoder",
    "find_pretrained",
    "has_input_scale",
    "is_name",
    "is_weight_folder",
    "load_clip",
    "load_encoder",
    "load_towers",
    "read_bands",
    "read_variant",
    "save_clip",
    "save_encoder",
    "save_sensor_clip",
    "suggest",
]
