"""Goldens made by torch, and the toy models that they belong to."""

import os
from pathlib import Path

import jax
import numpy as np

from rsclip_jax.models.clip import clip_shapes
from rsclip_jax.models.sensor import SensorSpec
from rsclip_jax.models.variants import Variant

# RSCLIP_GOLDEN: goldens made anew from torch, instead of those kept here.
FOLDER = Path(os.environ.get("RSCLIP_GOLDEN") or Path(__file__).parent)


def toy_variant(activation: str, **changes) -> Variant:
    """The variant of clip_toy_<activation>.safetensors."""
    fields = {
        "name": "toy",
        "embed_dim": 16,
        "image_size": 16,
        "patch_size": 8,
        "vision_width": 32,
        "vision_layers": 2,
        "vision_heads": 2,
        "text_width": 24,
        "text_layers": 2,
        "text_heads": 2,
        "activation": activation,
        "context_length": 12,
        "vocab_size": 64,
    }
    return Variant(**{**fields, **changes})


def toy_resnet(**changes) -> Variant:
    """The variant of clip_rn_toy.safetensors."""
    fields = {
        "name": "toy",
        "image_size": 64,
        "patch_size": 32,
        "vision_width": 2,
        "vision_layers": (1, 2, 1, 1),
        "text_width": 16,
        "context_length": 8,
    }
    return toy_variant("quick_gelu", **{**fields, **changes})


# What OpenAI's code builds of a state dict: heads of 64 channels.
OPENAI_HEADS = {"vision_heads": 1, "text_width": 64, "text_heads": 1}


def toy_spec() -> SensorSpec:
    """The encoder of timm_toy.safetensors: two bands, class token, exact GELU."""
    return SensorSpec(
        sensor="s1_grd",
        modality="s1",
        bands=("VV", "VH"),
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        clip_sigma=1e6,
        image_size=16,
        patch_size=4,
        width=32,
        layers=2,
        heads=2,
        out_dim=16,
        unit="dB",
        dtype="float32",
        valid=(-150.0, 100.0),
        nodata=0.0,
        level="GRD",
    )


def random_params(variant: Variant, seed: int = 0) -> dict:
    """Params of a variant's shapes; init_clip would compile its initialisers first."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32), clip_shapes(variant)
    )
