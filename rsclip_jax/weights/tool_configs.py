"""The config files with which open_clip, transformers and timm describe a model."""

from typing import Any

from rsclip_jax.data.pipeline.fitting import AS_CLIP
from rsclip_jax.data.pipeline.geometry import INTERPOLATIONS
from rsclip_jax.models.sensor import SensorSpec
from rsclip_jax.models.variants import Variant


def open_clip_config(v: Variant) -> dict[str, Any]:
    """open_clip_config.json; ValueError for a variant that it cannot describe."""
    vision: dict[str, Any] = {
        "image_size": v.image_size,
        "layers": v.vision_layers,  # open_clip takes a list of four for a ResNet
        "width": v.vision_width,
        "head_width": v.vision_head_width,
    }
    if not isinstance(v.vision_layers, tuple):
        vision["patch_size"] = v.patch_size
    if v.vision_mlp_width:
        vision["mlp_ratio"] = v.vision_mlp_width / v.vision_width
    text: dict[str, Any] = {
        "context_length": v.context_length,
        "vocab_size": v.vocab_size,
        "width": v.text_width,
        "heads": v.text_heads,
        "layers": v.text_layers,
    }
    model = {"embed_dim": v.embed_dim, "vision_cfg": vision, "text_cfg": text}
    if v.activation == "quick_gelu":
        model["quick_gelu"] = True
    if v.layer_norm_eps != 1e-5:
        for section in (vision, text):
            section["norm_kwargs"] = {"eps": v.layer_norm_eps}
    return {"model_cfg": model, "preprocess_cfg": _open_clip_pixels(v)}


def _open_clip_pixels(v: Variant) -> dict[str, Any]:
    """preprocess_cfg; ValueError for a margin around the centre, which it lacks."""
    if v.resize.side:
        raise ValueError(
            "layout 'open_clip': its config cannot say that images are resized to"
            f" {v.resize.side} pixels and cut to {v.image_size}: use 'hf'"
        )
    pixels: dict[str, Any] = {"mean": list(v.image_mean), "std": list(v.image_std)}
    keys = {"mode": "resize_mode", "interpolation": "interpolation"}
    keys["fill"] = "fill_color"
    for ours, theirs in keys.items():
        if (value := getattr(v.resize, ours)) != getattr(AS_CLIP, ours):
            pixels[theirs] = value
    return pixels


def hf_config(v: Variant, dtype: str = "float32") -> dict[str, Any]:
    """config.json of transformers' CLIPModel, MetaClip2Model or SiglipModel."""
    if v.family == "siglip":
        return _siglip_config(v, dtype)
    kind, model = "clip", "CLIPModel"
    # the two largest ids start and end a text
    ids = {"bos_token_id": v.vocab_size - 2, "eos_token_id": v.vocab_size - 1}
    ids["pad_token_id"] = 0
    if v.tokenizer is not None:
        kind, model = "metaclip_2", "MetaClip2Model"
        ids = {"eos_token_id": v.end_token, "pad_token_id": v.tokenizer.pad}
    shared = {"hidden_act": v.activation, "layer_norm_eps": v.layer_norm_eps}
    return {
        "architectures": [model],
        "model_type": kind,
        "projection_dim": v.embed_dim,
        "dtype": dtype,
        "vision_config": {
            **shared,
            "model_type": f"{kind}_vision_model",
            "hidden_size": v.vision_width,
            "intermediate_size": v.vision_mlp_width or 4 * v.vision_width,
            "num_hidden_layers": v.vision_layers,
            "num_attention_heads": v.vision_heads,
            "image_size": v.image_size,
            "patch_size": v.patch_size,
            "projection_dim": v.embed_dim,
        },
        "text_config": {
            **shared,
            "model_type": f"{kind}_text_model",
            "hidden_size": v.text_width,
            "intermediate_size": 4 * v.text_width,
            "num_hidden_layers": v.text_layers,
            "num_attention_heads": v.text_heads,
            "max_position_embeddings": v.context_length,
            "vocab_size": v.vocab_size,
            **ids,
            "projection_dim": v.embed_dim,
        },
    }


_SIGLIP_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh"}


def _siglip_config(v: Variant, dtype: str) -> dict[str, Any]:
    towers = {
        tower: {
            "model_type": f"siglip_{tower}_model",
            "hidden_size": width,
            "intermediate_size": inside or 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "hidden_act": _SIGLIP_ACTIVATIONS.get(activation, activation),
            "layer_norm_eps": v.layer_norm_eps,
        }
        for tower, width, inside, layers, heads, activation in (
            (
                *("vision", v.vision_width, v.vision_mlp_width, v.vision_layers),
                *(v.vision_heads, v.activation),
            ),
            (
                *("text", v.text_width, v.text_mlp_width, v.text_layers),
                *(v.text_heads, v.text_activation or v.activation),
            ),
        )
    }
    sizes = {"image_size": v.image_size, "patch_size": v.patch_size}
    text = {"vocab_size": v.vocab_size, "max_position_embeddings": v.context_length}
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "dtype": dtype,
        "vision_config": {**towers["vision"], **sizes},
        "text_config": {**towers["text"], **text, "projection_size": v.embed_dim},
    }


# timm's architecture with that LayerNorm eps, which config.json cannot set
_TIMM_NAMES = {1e-6: "vit_base_patch16_224", 1e-5: "vit_base_patch32_clip_224"}


def has_timm_model(spec: SensorSpec) -> bool:
    """Whether timm's ViT or ResNet can implement the spec."""
    return not _not_in_timm(spec)


def _not_in_timm(spec: SensorSpec) -> str:
    """The field for whose value timm's ViT or ResNet has no model; "" for none."""
    if spec.is_resnet:
        return "" if spec.width == 64 else "width"  # the only width of timm's stem
    if spec.eps not in _TIMM_NAMES:
        return "eps"
    # config.json cannot name the classes of layers that these two need
    return next((f for f in ("patch_offset", "rope", "gated") if getattr(spec, f)), "")


def timm_config(spec: SensorSpec) -> dict[str, Any]:
    """config.json of timm for a sensor encoder.

    The architecture's name only selects the LayerNorm's eps; model_args has all sizes.
    Raises ValueError for a spec that timm cannot implement.
    """
    if what := _not_in_timm(spec):
        raise ValueError(
            f"timm has no such model with {what} = {getattr(spec, what)}; write a"
            " .safetensors file, which load_encoder reads"
        )
    model: dict[str, Any]
    if isinstance(spec.layers, tuple):
        model = {"in_chans": len(spec.bands), "layers": list(spec.layers)}
        return _timm_json(spec, "resnet50", model, first="conv1", head="fc")
    model = {
        "img_size": spec.image_size,
        "patch_size": spec.patch_size,
        "in_chans": len(spec.bands),
        "embed_dim": spec.width,
        "depth": spec.layers,
        "num_heads": spec.heads,
        "mlp_ratio": (spec.mlp_width or 4 * spec.width) / spec.width,
        "pre_norm": spec.ln_pre,
        "global_pool": {"token": "token", "map": "map"}.get(spec.pool, "avg"),
        "class_token": spec.class_token,
        "reg_tokens": spec.registers,
        "no_embed_class": not spec.prefix_positions,
        "act_layer": spec.activation,
    }
    if spec.pool == "normed_mean":
        model["fc_norm"] = False
    if spec.layer_scale:
        model["init_values"] = 1e-5
    name = _TIMM_NAMES[spec.eps]
    return _timm_json(spec, name, model, first="patch_embed.proj", head="head")


def _timm_json(
    spec: SensorSpec, name: str, model: dict[str, Any], *, first: str, head: str
) -> dict[str, Any]:
    size = spec.image_size
    return {
        "architecture": name,
        "num_classes": spec.out_dim,
        "num_features": spec.pooled_width,
        "model_args": model,
        "pretrained_cfg": {
            "input_size": [len(spec.bands), size, size],
            "mean": list(spec.mean),
            "std": list(spec.std),
            "num_classes": spec.out_dim,
            "first_conv": first,
            "classifier": head,
        },
    }


def hf_preprocessor(v: Variant) -> dict[str, Any]:
    """preprocessor_config.json; ValueError for a long side that is resized."""
    side = v.resize.side or v.image_size
    sizes = {
        "shortest": {"shortest_edge": side},
        "squash": {"height": side, "width": side},
    }
    if v.resize.mode not in sizes:
        raise ValueError(
            f"layout 'hf': CLIPImageProcessor cannot resize the {v.resize.mode} side:"
            " use 'open_clip'"
        )
    crop = {"height": v.image_size, "width": v.image_size}
    if (is_siglip := v.family == "siglip") and sizes[v.resize.mode] != crop:
        raise ValueError(
            "layout 'hf': SiglipImageProcessor only squashes images to the tower's"
            f" size, and this model has {v.resize}"
        )
    cut = {} if is_siglip else {"do_center_crop": True, "crop_size": crop}
    return {
        "image_processor_type": f"{'Siglip' if is_siglip else 'CLIP'}ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": sizes[v.resize.mode],
        "resample": int(INTERPOLATIONS[v.resize.interpolation]),  # Pillow's number
        **cut,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(v.image_mean),
        "image_std": list(v.image_std),
    }
