"""config.json of transformers' CLIPConfig and its towers' (5).

MetaClip2Config has the same keys; its text tower is pooled at eos_token_id, and its
tokenizer is in the folder.
"""

from collections.abc import Mapping
from typing import Any

from rsclip_jax.weights.files import WeightFile
from rsclip_jax.weights.told import pixels
from rsclip_jax.weights.told.keys import (
    BUILT,
    FREE,
    SIZE,
    Keys,
    check_section,
    check_sizes,
    only,
    square_side,
    whole_heads,
)
from rsclip_jax.weights.told.tokenizer import check_tokenizer, read_tokenizer

_TOWER: Keys = {
    "hidden_size": SIZE,
    "intermediate_size": SIZE,
    "num_hidden_layers": SIZE,
    "num_attention_heads": BUILT,
    "hidden_act": BUILT,
    "layer_norm_eps": BUILT,
    "projection_dim": FREE,  # the model's own counts
    "attention_dropout": FREE,  # training
    "initializer_range": FREE,
    "initializer_factor": FREE,
}
VISION: Keys = {
    **_TOWER,
    "num_channels": only(3),
    "image_size": SIZE,
    "patch_size": SIZE,
}
TEXT: Keys = {
    **_TOWER,
    "vocab_size": SIZE,
    "max_position_embeddings": SIZE,
    "eos_token_id": BUILT,
    "bos_token_id": FREE,  # the tokenizer's counts
    "pad_token_id": FREE,  # what follows the end token is not seen
}
MODEL: Keys = {
    "model_type": only("clip", "metaclip_2", None),
    "projection_dim": SIZE,
    "vision_config": BUILT,
    "text_config": BUILT,
    "vision_config_dict": BUILT,
    "text_config_dict": BUILT,
    "logit_scale_init_value": FREE,  # the tensor logit_scale says it
}
# What transformers takes for a key that is not there and that no tensor shows; it
# writes only what differs.
_SHARED = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "vision": {**_SHARED, "num_attention_heads": 12},
    "text": {**_SHARED, "num_attention_heads": 8, "eos_token_id": 49407},
}
# Sizes that transformers fills in when it reads an older <tower>_config_dict.
_SIZES = {
    "vision": {
        **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
        **{"image_size": 224, "patch_size": 32},
    },
    "text": {
        **{"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12},
        **{"vocab_size": 49408, "max_position_embeddings": 77},
    },
}


def read(file: WeightFile, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Variant that config.json and the preprocessor's config state."""
    config = {k: v for k, v in file.config.items() if k in MODEL}
    check_section(file.path, "config.json", config, MODEL)
    vision, text = _section(config, "vision"), _section(config, "text")
    # transformers keeps any other key and uses none of them
    for name, section, keys in (("vision", vision, VISION), ("text", text, TEXT)):
        known = {k: v for k, v in section.items() if k in keys}
        check_section(file.path, f"{name}_config", known, keys)
    check_sizes(file.path, _sizes(file, config, vision, text), sizes)
    if config.get("model_type") == "metaclip_2":
        ends = {
            "end_token": text["eos_token_id"],
            "tokenizer": read_tokenizer(file.path.parent),
        }
    else:
        ends = {}
        _check_end(file, text, sizes)
        check_tokenizer(file.path.parent)
    return {
        **ends,
        **_same_in_both(file, vision, text),
        "vision_heads": _heads(file, "vision", vision, sizes),
        "text_heads": _heads(file, "text", text, sizes),
        **pixels.read_hf(
            file.path, file.config.get("preprocessor") or {}, sizes["image_size"]
        ),
    }


def _section(config: Mapping, tower: str) -> dict[str, Any]:
    """A tower's config; an older <tower>_config_dict, filled up, overrides it."""
    section = {**_DEFAULTS[tower], **(config.get(f"{tower}_config") or {})}
    older = config.get(f"{tower}_config_dict")
    if older is None:
        return section
    return {**section, **_DEFAULTS[tower], **_SIZES[tower], **older}


def _sizes(
    file: WeightFile, config: Mapping, vision: Mapping, text: Mapping
) -> dict[str, tuple[str, Any]]:
    """The sizes that the config names, as check_sizes takes them."""
    keys = {
        "embed_dim": (config, "projection_dim"),
        "vision_width": (vision, "hidden_size"),
        "vision_layers": (vision, "num_hidden_layers"),
        "text_width": (text, "hidden_size"),
        "text_layers": (text, "num_hidden_layers"),
        "context_length": (text, "max_position_embeddings"),
        "vocab_size": (text, "vocab_size"),
    }
    told = {f: (k, section[k]) for f, (section, k) in keys.items() if k in section}
    for key in {"image_size", "patch_size"} & set(vision):
        told[key] = (key, square_side(file.path, key, vision[key]))
    if {"hidden_size", "intermediate_size"} <= set(vision):
        inside = vision["intermediate_size"]
        inside = 0 if inside == 4 * vision["hidden_size"] else inside
        told["vision_mlp_width"] = ("intermediate_size", inside)
    return told


def _same_in_both(file: WeightFile, vision: Mapping, text: Mapping) -> dict[str, Any]:
    for key in _SHARED:
        if vision[key] != text[key]:
            raise ValueError(
                f"{file.path}: {key} is {vision[key]!r} in the visual tower and"
                f" {text[key]!r} in the text tower; they must be equal"
            )
    if vision["hidden_act"] not in ("quick_gelu", "gelu"):
        raise ValueError(
            f"{file.path}: hidden_act = {vision['hidden_act']!r} is not supported; use"
            " 'quick_gelu' or 'gelu'"
        )
    return {
        "activation": vision["hidden_act"],
        "layer_norm_eps": vision["layer_norm_eps"],
    }


def _check_end(file: WeightFile, text: Mapping, sizes: Mapping[str, Any]) -> None:
    # Older files have 2 for "the largest id", where the text tower pools.
    if text["eos_token_id"] not in (2, sizes["vocab_size"] - 1):
        raise ValueError(
            f"{file.path}: eos_token_id = {text['eos_token_id']} is not the largest of"
            f" {sizes['vocab_size']} ids (vocab_size), where the text tower pools"
        )


def _heads(
    file: WeightFile, tower: str, section: Mapping, sizes: Mapping[str, Any]
) -> int:
    key = f"{tower}_config.num_attention_heads"
    width = sizes[f"{tower}_width"]
    return whole_heads(file.path, key, width, section["num_attention_heads"])
