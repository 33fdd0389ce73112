"""open_clip_config.json: open_clip's CLIP, CLIPVisionCfg and CLIPTextCfg (3.3)."""

from collections.abc import Mapping
from typing import Any

from rsclip_jax.models.variants import HEAD_WIDTH, attention_width
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

_TOWER: Keys = {
    "width": SIZE,
    "layers": SIZE,
    "mlp_ratio": SIZE,
    "ls_init_value": only(None),
    "final_ln_after_pool": only(False),
    "output_tokens": FREE,  # further outputs
    "act_kwargs": only(None),
    "norm_kwargs": BUILT,
    "block_type": only(None, "default"),
    "qk_norm": only(False),
    "scaled_cosine_attn": only(False),
    "scale_heads": only(False),
    "scale_attn_inner": only(False),
    "scale_attn": only(False),
    "scale_fc": only(False),
}
VISION: Keys = {
    **_TOWER,
    "head_width": BUILT,
    "patch_size": SIZE,
    "image_size": BUILT,
    "patch_dropout": FREE,  # training
    "attentional_pool": only(False),
    "attn_pooler_queries": FREE,  # without attentional_pool
    "attn_pooler_heads": FREE,
    "no_ln_pre": only(False),
    "pos_embed_type": only("learnable"),
    "pool_type": only("tok"),
    "timm_model_name": only(None),
    "timm_model_pretrained": FREE,  # without timm_model_name
    "timm_pool": FREE,
    "timm_proj": FREE,
    "timm_proj_bias": FREE,
    "timm_drop": FREE,
    "timm_drop_path": FREE,
}
TEXT: Keys = {
    **_TOWER,
    "context_length": SIZE,
    "vocab_size": SIZE,
    "heads": BUILT,
    "hf_tokenizer_name": only(None),
    "tokenizer_mode": only(None),
    "tokenizer_kwargs": only(None, {"clean": "lower"}),
    "embed_cls": only(False),
    "pad_id": FREE,  # without embed_cls
    "eos_id": FREE,  # with pool_type "argmax"
    "no_causal_mask": only(False),
    "pool_type": only("argmax"),
    "proj_bias": only(False),
    "proj_type": only("linear"),
    "hf_model_name": only(None),
    "hf_model_pretrained": FREE,  # without hf_model_name
    "hf_proj_type": FREE,
    "hf_pooler_type": FREE,
}
MODEL: Keys = {
    "embed_dim": SIZE,
    "vision_cfg": BUILT,
    "text_cfg": BUILT,
    "quick_gelu": BUILT,
    "custom_text": FREE,  # the names of the text tower's tensors
    "init_logit_scale": FREE,  # the tensor logit_scale says it
    "init_logit_bias": only(None),
    "nonscalar_logit_scale": FREE,
    "cast_dtype": FREE,
    "output_dict": FREE,
    "multimodal_cfg": only(None),
}
# What open_clip takes for a key that is not there and that no tensor shows.
_TEXT_HEADS, _EPS = 8, 1e-5


def read(file: WeightFile, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Variant that open_clip_config.json states."""
    model = file.config.get("model_cfg") or {
        k: v for k, v in file.config.items() if k in MODEL
    }
    vision, text = model.get("vision_cfg") or {}, model.get("text_cfg") or {}
    check_section(file.path, "model_cfg", model, MODEL)
    check_section(file.path, "vision_cfg", vision, VISION)
    check_section(file.path, "text_cfg", text, TEXT)
    check_sizes(file.path, _sizes(model, vision, text), sizes)
    size = _image_size(file, vision, sizes)
    return {
        "activation": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "layer_norm_eps": _eps(file, vision, text),
        **_heads(file, vision, text, sizes),
        "image_size": size,
        **pixels.read_open_clip(
            file.path, file.config.get("preprocess_cfg") or {}, size
        ),
    }


def _sizes(
    model: Mapping, vision: Mapping, text: Mapping
) -> dict[str, tuple[str, Any]]:
    """The sizes that the config names, as check_sizes takes them."""
    keys = {
        "embed_dim": (model, "embed_dim"),
        "vision_width": (vision, "width"),
        "vision_layers": (vision, "layers"),
        "text_width": (text, "width"),
        "text_layers": (text, "layers"),
        "context_length": (text, "context_length"),
        "vocab_size": (text, "vocab_size"),
    }
    told = {f: (k, section[k]) for f, (section, k) in keys.items() if k in section}
    if vision.get("patch_size") and not isinstance(vision.get("layers"), list):
        told["patch_size"] = ("patch_size", vision["patch_size"])
    if {"mlp_ratio", "width"} <= set(vision):
        inside = int(vision["width"] * vision["mlp_ratio"])
        inside = 0 if inside == 4 * vision["width"] else inside
        told["vision_mlp_width"] = ("width * mlp_ratio", inside)
    return told


def _heads(
    file: WeightFile, vision: Mapping, text: Mapping, sizes: Mapping[str, Any]
) -> dict[str, int]:
    width = attention_width(sizes["vision_width"], sizes["vision_layers"])
    head = vision.get("head_width", HEAD_WIDTH)
    heads = width // head if isinstance(head, int) and head > 0 else 0
    text_heads = text.get("heads", _TEXT_HEADS)
    return {
        "vision_heads": whole_heads(
            file.path, f"head_width = {head}, so", width, heads
        ),
        "text_heads": whole_heads(
            file.path, "text_cfg.heads", sizes["text_width"], text_heads
        ),
    }


def _image_size(file: WeightFile, vision: Mapping, sizes: Mapping[str, Any]) -> int:
    """The config's image size: open_clip resizes the position embeddings to it."""
    if vision.get("image_size") is None:
        return sizes["image_size"]
    side = square_side(file.path, "image_size", vision["image_size"])
    if side % (patch := sizes["patch_size"]):
        raise ValueError(
            f"{file.path}: image_size = {side} is not supported, only a multiple of"
            f" patch_size = {patch}"
        )
    return side


def _eps(file: WeightFile, vision: Mapping, text: Mapping) -> float:
    found = {}
    for name, section in (("vision_cfg", vision), ("text_cfg", text)):
        options = section.get("norm_kwargs") or {}
        if set(options) - {"eps"}:
            raise ValueError(
                f"{file.path}: {name}.norm_kwargs = {options!r} is not supported, only"
                " 'eps'"
            )
        found[name] = options.get("eps", _EPS)
    if len(set(found.values())) > 1:
        raise ValueError(
            f"{file.path}: norm_kwargs give LayerNorm an eps of"
            f" {found['vision_cfg']} in the visual tower and {found['text_cfg']} in the"
            " text tower; they must be equal"
        )
    return found["vision_cfg"]
