"""config.json of transformers' SiglipModel, and open_clip's configs of SigLIP.

SigLIP (Zhai et al. 2023, arXiv 2303.15343) and the SigLIP 2 models of a fixed
resolution (arXiv 2502.14786), which are SiglipModels too.
"""

from collections.abc import Mapping
from typing import Any

from rsclip_jax.weights.files import WeightFile
from rsclip_jax.weights.timm_table import read_siglip
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
from rsclip_jax.weights.told.tokenizer import read_tokenizer

_TOWER: Keys = {
    "hidden_size": SIZE,
    "intermediate_size": SIZE,
    "num_hidden_layers": SIZE,
    "num_attention_heads": BUILT,
    "hidden_act": BUILT,
    "layer_norm_eps": BUILT,
    "attention_dropout": FREE,  # training
}
HF_VISION: Keys = {
    **_TOWER,
    "num_channels": only(3),
    "image_size": SIZE,
    "patch_size": SIZE,
    "vision_use_head": only(True),
}
HF_TEXT: Keys = {
    **_TOWER,
    "vocab_size": SIZE,
    "max_position_embeddings": SIZE,
    "projection_size": SIZE,
    "bos_token_id": FREE,  # the tokenizer's file counts
    "eos_token_id": FREE,
    "pad_token_id": FREE,
}
HF_MODEL: Keys = {
    "model_type": only("siglip"),
    "vision_config": BUILT,
    "text_config": BUILT,
}
OPEN_CLIP_VISION: Keys = {
    "image_size": BUILT,
    "timm_model_name": BUILT,
    "timm_model_pretrained": FREE,
    "timm_pool": only("map"),
    "timm_proj": only("none", None),
    "timm_proj_bias": FREE,  # without timm_proj
    "timm_drop": FREE,
    "timm_drop_path": FREE,
    "patch_dropout": FREE,
}
OPEN_CLIP_TEXT: Keys = {
    "context_length": SIZE,
    "vocab_size": SIZE,
    "hf_tokenizer_name": BUILT,
    "tokenizer_kwargs": BUILT,
    "width": SIZE,
    "heads": BUILT,
    "layers": SIZE,
    "mlp_ratio": SIZE,
    "no_causal_mask": only(True),
    "proj_bias": only(True),
    "proj_type": only("linear", None),
    "pool_type": only("last"),
    "norm_kwargs": BUILT,
    "act_kwargs": only(None, {"approximate": "tanh"}),
}
OPEN_CLIP_MODEL: Keys = {
    "embed_dim": SIZE,
    "vision_cfg": BUILT,
    "text_cfg": BUILT,
    "custom_text": only(True),
    "quick_gelu": only(False),
    "init_logit_scale": FREE,  # the tensors say them
    "init_logit_bias": FREE,
    "cast_dtype": FREE,
    "output_dict": FREE,
}
# SiglipVisionConfig's and SiglipTextConfig's, for a key that no tensor shows.
_DEFAULTS = {
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "num_attention_heads": 12,
}
_PROCESSOR = {"image_processor_type": "SiglipImageProcessor"}
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
_EPS = 1e-6  # of timm's towers


def read_hf(file: WeightFile, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Variant that config.json and the files beside it state."""
    config = {k: v for k, v in file.config.items() if k in HF_MODEL}
    check_section(file.path, "config.json", config, HF_MODEL)
    vision = {**_DEFAULTS, **(config.get("vision_config") or {})}
    text = {**_DEFAULTS, **(config.get("text_config") or {})}
    for name, section, keys in (("vision", vision, HF_VISION), ("text", text, HF_TEXT)):
        known = {k: v for k, v in section.items() if k in keys}
        check_section(file.path, f"{name}_config", known, keys)
    check_sizes(file.path, _hf_sizes(file, vision, text, sizes), sizes)
    return {
        **_hf_towers(file, vision, text, sizes),
        "image_size": vision.get("image_size", sizes["image_size"]),
        **pixels.read_hf(
            file.path,
            file.config.get("preprocessor") or _PROCESSOR,
            vision.get("image_size", sizes["image_size"]),
        ),
        "tokenizer": read_tokenizer(file.path.parent),
    }


def _hf_towers(
    file: WeightFile, vision: Mapping, text: Mapping, sizes: Mapping[str, Any]
) -> dict[str, Any]:
    for section in (vision, text):
        if section["hidden_act"] not in _ACTIVATIONS:
            raise ValueError(
                f"{file.path}: hidden_act = {section['hidden_act']!r} is not supported;"
                f" use {' or '.join(map(repr, _ACTIVATIONS))}"
            )
    if vision["layer_norm_eps"] != text["layer_norm_eps"]:
        raise ValueError(
            f"{file.path}: layer_norm_eps is {vision['layer_norm_eps']} in the visual"
            f" tower and {text['layer_norm_eps']} in the text tower; they must be equal"
        )
    heads = {
        f"{tower}_heads": whole_heads(
            file.path,
            f"{tower}_config.num_attention_heads",
            sizes[f"{tower}_width"],
            section["num_attention_heads"],
        )
        for tower, section in (("vision", vision), ("text", text))
    }
    return {
        **heads,
        "layer_norm_eps": vision["layer_norm_eps"],
        **_activations(*(_ACTIVATIONS[s["hidden_act"]] for s in (vision, text))),
    }


def _activations(vision: str, text: str) -> dict[str, str]:
    return {"activation": vision, "text_activation": "" if text == vision else text}


def _hf_sizes(
    file: WeightFile, vision: Mapping, text: Mapping, sizes: Mapping[str, Any]
) -> dict[str, tuple[str, Any]]:
    """The sizes that the config names, as check_sizes takes them."""
    keys = {
        "vision_width": (vision, "hidden_size"),
        "vision_layers": (vision, "num_hidden_layers"),
        "text_width": (text, "hidden_size"),
        "text_layers": (text, "num_hidden_layers"),
        "context_length": (text, "max_position_embeddings"),
        "vocab_size": (text, "vocab_size"),
    }
    told = {f: (k, section[k]) for f, (section, k) in keys.items() if k in section}
    if text.get("projection_size") is not None:
        told["embed_dim"] = ("projection_size", text["projection_size"])
    if "patch_size" in vision:
        side = square_side(file.path, "patch_size", vision["patch_size"])
        told["patch_size"] = ("patch_size", side)
    for tower, section in (("vision", vision), ("text", text)):
        inside, width = section.get("intermediate_size"), sizes[f"{tower}_width"]
        if inside is not None:
            inside = 0 if inside == 4 * width else inside
            told[f"{tower}_mlp_width"] = ("intermediate_size", inside)
    if "image_size" in vision:  # what is no whole patch is left out
        side = square_side(file.path, "image_size", vision["image_size"])
        patch = sizes["patch_size"]
        told["image_size"] = ("image_size", side // patch * patch)
    return told


def read_open_clip(file: WeightFile, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Variant that open_clip_config.json and timm's table state."""
    model = file.config.get("model_cfg") or {
        k: v for k, v in file.config.items() if k in OPEN_CLIP_MODEL
    }
    vision, text = model.get("vision_cfg") or {}, model.get("text_cfg") or {}
    check_section(file.path, "model_cfg", model, OPEN_CLIP_MODEL)
    check_section(file.path, "vision_cfg", vision, OPEN_CLIP_VISION)
    check_section(file.path, "text_cfg", text, OPEN_CLIP_TEXT)
    side = vision.get("image_size", sizes["image_size"])
    side = square_side(file.path, "image_size", side)
    check_sizes(file.path, _open_clip_sizes(model, text), sizes)
    tower = read_siglip(file.path, vision.get("timm_model_name") or "")
    eps = (text.get("norm_kwargs") or {}).get("eps", 1e-5)
    if set(text.get("norm_kwargs") or {}) - {"eps"} or eps != tower["eps"]:
        raise ValueError(
            f"{file.path}: text_cfg.norm_kwargs = {text.get('norm_kwargs')!r} is not"
            f" supported, only an eps of {tower['eps']}, the visual tower's"
        )
    activation = "gelu_tanh" if text.get("act_kwargs") else "gelu"
    cleaning = _cleaning(file, text.get("tokenizer_kwargs") or {})
    return {
        "image_size": side,
        "layer_norm_eps": eps,
        "vision_heads": whole_heads(
            file.path, "timm's", sizes["vision_width"], tower["heads"]
        ),
        "text_heads": whole_heads(
            file.path, "text_cfg.heads", sizes["text_width"], text.get("heads", 8)
        ),
        **_activations(tower["activation"], activation),
        **pixels.read_open_clip(
            file.path, file.config.get("preprocess_cfg") or {}, side
        ),
        "tokenizer": read_tokenizer(file.path.parent, cleaning),
    }


def _cleaning(file: WeightFile, kwargs: Mapping) -> tuple[str, ...]:
    clean = kwargs.get("clean", "whitespace")
    known = ("whitespace", "lower", "canonicalize")
    if set(kwargs) - {"clean"} or clean not in known:
        raise ValueError(
            f"{file.path}: text_cfg.tokenizer_kwargs = {dict(kwargs)!r} is not"
            f" supported, only 'clean' with {', '.join(known)}"
        )
    return (clean,)


def _open_clip_sizes(model: Mapping, text: Mapping) -> dict[str, tuple[str, Any]]:
    keys = {
        "embed_dim": (model, "embed_dim"),
        "text_width": (text, "width"),
        "text_layers": (text, "layers"),
        "context_length": (text, "context_length"),
        "vocab_size": (text, "vocab_size"),
    }
    told = {f: (k, section[k]) for f, (section, k) in keys.items() if k in section}
    if {"mlp_ratio", "width"} <= set(text):
        inside = int(text["width"] * text["mlp_ratio"])
        inside = 0 if inside == 4 * text["width"] else inside
        told["text_mlp_width"] = ("width * mlp_ratio", inside)
    return told
