"""CLIPs and sensor encoders written in the layouts that other tools read."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from rsclip_jax.data.tokenizer import END, START, VOCAB_SIZE, vocabulary_names
from rsclip_jax.io.files import naming, replacing, write_json, write_text
from rsclip_jax.models.sensor import SensorSpec
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.weights import layouts, rules

DTYPES = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


def save_clip(
    path: str | Path,
    variant: str | Variant,
    params: dict,
    layout: str = "open_clip",
    *,
    dtype: str = "float32",
) -> None:
    """Writes a CLIP in a public layout, as .safetensors.

    layout "open_clip" or "openai" (the same names, and OpenAI's three sizes beside
    them): `path` is a file where it ends in .safetensors, else, for open_clip, a folder
    that gets the config too. "hf": a folder as transformers' CLIPModel, CLIPProcessor
    and tokenizer read it. Raises ValueError for a layout or dtype that is not known,
    where a value does not fit the dtype, and where the layout cannot say what the model
    is.
    """
    path, v = Path(path), get_variant(variant)
    _check_dtype(dtype)
    if layout not in _WRITERS:
        raise ValueError(f"layout {layout!r} is not known; use {', '.join(_WRITERS)}")
    is_file = path.suffix == ".safetensors"
    if layout == "hf" and is_file:
        raise ValueError(f"{path}: layout 'hf' is a folder of files; give its name")
    if layout == "openai" and not is_file:
        raise ValueError(f"{path}: layout 'openai' is one file; end it in .safetensors")
    _WRITERS[layout](path, v, params, dtype)


def save_encoder(
    path: str | Path, spec: SensorSpec, params: dict, *, dtype: str = "float32"
) -> None:
    """Writes a sensor encoder in timm's names, its map to CLIP's width as timm's head.

    `path` is a file where it ends in .safetensors, else a folder that gets a
    config.json too. timm.create_model("local-dir:<path>", pretrained=True) reads the
    folder; without pretrained=True, timm's weights are random. The model takes the
    spec's input, clip((x - mean) / std, -clip_sigma, clip_sigma). Raises ValueError for
    an unknown dtype, and for a spec that timm has no model of.
    """
    path = Path(path)
    _check_dtype(dtype)
    table = layouts.timm_vit("fc_norm" if spec.pool == "mean" else "norm")
    if spec.is_resnet:
        table = layouts.TORCHVISION_RESNET
    tensors = _with_counts(_cast(rules.export_names(params, table), dtype))
    if spec.out_dim and not spec.proj_bias:  # timm's head always has one
        tensors["head.bias"] = np.zeros(spec.out_dim, DTYPES[dtype])
    if path.suffix != ".safetensors":
        config = timm_config(spec)
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "config.json", config, sort_keys=False)
        path = path / "model.safetensors"
    _write(path, tensors, {"spec": json.dumps(dataclasses.asdict(spec))})


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not known; use {', '.join(DTYPES)}")


def _save_open_clip(path: Path, v: Variant, params: dict, dtype: str) -> None:
    tensors = _open_clip_tensors(v, params, dtype)
    if path.suffix != ".safetensors":
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "open_clip_config.json", open_clip_config(v), sort_keys=False)
        path = path / "open_clip_model.safetensors"
    _write(path, tensors, _variant_header(v))


def _open_clip_tensors(v: Variant, params: dict, dtype: str) -> dict[str, np.ndarray]:
    is_resnet = isinstance(v.vision_layers, tuple)
    table = layouts.OPEN_CLIP_RESNET if is_resnet else layouts.OPEN_CLIP
    return _with_counts(_cast(rules.export_names(params, table), dtype))


def _with_counts(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With the counter that torch keeps beside each batch norm's statistics."""
    norms = [n for n in tensors if n.endswith("running_var")]
    counts = {n.replace("running_var", layouts.BATCHES) for n in norms}
    return tensors | dict.fromkeys(sorted(counts), np.array(0, np.int64))


def _save_openai(path: Path, v: Variant, params: dict, dtype: str) -> None:
    told = {
        "activation": (v.activation, "quick_gelu"),
        "layer_norm_eps": (v.layer_norm_eps, 1e-5),
        "channels of a visual head": (v.vision_head_width, 64),
        "channels of a text head": (v.text_width // v.text_heads, 64),
    }
    for what, (found, built) in told.items():
        if found != built:
            raise ValueError(
                f"layout 'openai' does not say {what}, and OpenAI's code builds"
                f" {built}, not this model's {found}: use 'open_clip' or 'hf'"
            )
    tensors = _open_clip_tensors(v, params, dtype)
    for name, value in (
        ("input_resolution", v.image_size),
        ("context_length", v.context_length),
        ("vocab_size", v.vocab_size),
    ):
        tensors[name] = np.array(value, np.int64)
    _write(path, tensors, _variant_header(v))


def _save_hf(path: Path, v: Variant, params: dict, dtype: str) -> None:
    if isinstance(v.vision_layers, tuple):
        raise ValueError(
            f"layout 'hf': transformers' CLIPModel has no ResNet such as {v.name}; use"
            " 'open_clip' or 'openai'"
        )
    path.mkdir(parents=True, exist_ok=True)
    tensors = _cast(rules.export_names(params, layouts.HF_CLIP), dtype)
    _write(path / "model.safetensors", tensors, _variant_header(v))
    write_json(path / "config.json", hf_config(v, dtype), sort_keys=False)
    write_json(path / "preprocessor_config.json", hf_preprocessor(v), sort_keys=False)
    if v.vocab_size == VOCAB_SIZE:  # a toy vocabulary is no subset of CLIP's
        _save_hf_tokenizer(path, v)


_WRITERS = {"open_clip": _save_open_clip, "openai": _save_openai, "hf": _save_hf}
LAYOUTS = tuple(_WRITERS)


def open_clip_config(v: Variant) -> dict[str, Any]:
    """open_clip_config.json of a variant; ValueError where it cannot say all of it."""
    if v.layer_norm_eps != 1e-5:
        raise ValueError(
            f"layout 'open_clip': its config does not say eps = {v.layer_norm_eps}, and"
            " open_clip builds 1e-5: use 'hf'"
        )
    vision: dict[str, Any] = {
        "image_size": v.image_size,
        "layers": v.vision_layers,  # a list of four is a ResNet there
        "width": v.vision_width,
        "head_width": v.vision_head_width,
    }
    if not isinstance(v.vision_layers, tuple):
        vision["patch_size"] = v.patch_size
    if v.vision_mlp_width:
        vision["mlp_ratio"] = v.vision_mlp_width / v.vision_width
    text = {
        "context_length": v.context_length,
        "vocab_size": v.vocab_size,
        "width": v.text_width,
        "heads": v.text_heads,
        "layers": v.text_layers,
    }
    model = {"embed_dim": v.embed_dim, "vision_cfg": vision, "text_cfg": text}
    if v.activation == "quick_gelu":
        model["quick_gelu"] = True
    pixels = {"mean": list(v.image_mean), "std": list(v.image_std)}
    return {"model_cfg": model, "preprocess_cfg": pixels}


def hf_config(v: Variant, dtype: str = "float32") -> dict[str, Any]:
    """config.json of transformers' CLIPModel."""
    shared = {"hidden_act": v.activation, "layer_norm_eps": v.layer_norm_eps}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": v.embed_dim,
        "dtype": dtype,
        "vision_config": {
            **shared,
            "model_type": "clip_vision_model",
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
            "model_type": "clip_text_model",
            "hidden_size": v.text_width,
            "intermediate_size": 4 * v.text_width,
            "num_hidden_layers": v.text_layers,
            "num_attention_heads": v.text_heads,
            "max_position_embeddings": v.context_length,
            "vocab_size": v.vocab_size,
            # the two largest ids start and end a text
            "bos_token_id": v.vocab_size - 2,
            "eos_token_id": v.vocab_size - 1,
            "pad_token_id": 0,
            "projection_dim": v.embed_dim,
        },
    }


# timm's class of that LayerNorm eps; config.json cannot say it otherwise
_TIMM_NAMES = {1e-6: "vit_base_patch16_224", 1e-5: "vit_base_patch32_clip_224"}


def has_timm_model(spec: SensorSpec) -> bool:
    """Whether timm's ViT or ResNet can be what the spec says."""
    if spec.is_resnet:
        return spec.width == 64  # timm's stem has no other
    return spec.eps in _TIMM_NAMES and not spec.patch_offset


def timm_config(spec: SensorSpec) -> dict[str, Any]:
    """config.json of timm for a sensor encoder.

    The architecture's name only picks the LayerNorm's eps; all sizes stand in
    model_args. Raises ValueError for a spec that timm's ViT cannot be.
    """
    if not has_timm_model(spec):
        what = "patch_offset" if spec.patch_offset else "eps"
        what = "width" if spec.is_resnet else what
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
        "global_pool": {"token": "token", "mean": "avg"}[spec.pool],
        "class_token": spec.class_token,
        "reg_tokens": spec.registers,
        "no_embed_class": not spec.prefix_positions,
        "act_layer": spec.activation,
    }
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
    """preprocessor_config.json: short side resized, centre cropped, normalised."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": v.image_size},
        "resample": 3,  # Pillow's number of bicubic
        "do_center_crop": True,
        "crop_size": {"height": v.image_size, "width": v.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(v.image_mean),
        "image_std": list(v.image_std),
    }


def _save_hf_tokenizer(path: Path, v: Variant) -> None:
    """CLIPTokenizer's files; transformers pads with the end token, and so do we there.

    What follows the first end token has no influence on the text's features.
    """
    names, merges = vocabulary_names()
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = {**names, start: START, end: END}
    write_text(path / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    lines = "\n".join(["#version: 0.2", *merges])
    write_text(path / "merges.txt", lines + "\n")
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": v.context_length,
        "do_lower_case": True,
        **special,
    }
    write_json(path / "tokenizer_config.json", config, sort_keys=False)
    write_json(path / "special_tokens_map.json", special, sort_keys=False)


def _cast(tensors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    out = {}
    with np.errstate(over="ignore"):
        for name, array in tensors.items():
            out[name] = array.astype(DTYPES[dtype])
            if np.isfinite(array).all() and not np.isfinite(out[name]).all():
                largest = np.abs(array).max()
                raise ValueError(
                    f"{name}: {largest:g} does not fit {dtype}; use bfloat16 or float32"
                )
    return out


def _variant_header(v: Variant) -> dict[str, str]:
    return {"variant": json.dumps(dataclasses.asdict(v))}


def _write(path: Path, tensors: dict[str, np.ndarray], header: dict[str, str]) -> None:
    # "pt" is what transformers, open_clip and timm want the header to say
    metadata = {"format": "pt", **header}
    with naming(path), replacing(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary, metadata=metadata)
        mask = os.umask(0)  # only setting it tells it
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # safetensors makes it its owner's alone
