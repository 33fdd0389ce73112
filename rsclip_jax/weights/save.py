"""Saves CLIPs and sensor encoders in the layouts of other tools."""

import dataclasses
import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors.numpy

from rsclip_jax.data import tokenizer_files
from rsclip_jax.data.pipeline.fitting import AS_CLIP
from rsclip_jax.data.tokenizer import END, START, VOCAB_SIZE, vocabulary_names
from rsclip_jax.io.files import naming, replacing, write_json, write_text
from rsclip_jax.models.sensor import SensorSpec
from rsclip_jax.models.variants import CLIP_MEAN, CLIP_STD, Variant, get_variant
from rsclip_jax.weights import layouts, rules
from rsclip_jax.weights.tool_configs import (
    hf_config,
    hf_preprocessor,
    open_clip_config,
    timm_config,
)

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

    Args:
        path: for "openai" a .safetensors file; for "open_clip" a .safetensors file, or
            a folder, which gets the config too; for "hf" a folder that transformers'
            CLIPModel, CLIPProcessor and tokenizer read.
        layout: "open_clip", "openai" (the same names, with OpenAI's three sizes added)
            or "hf", the only one for tokenizers other than CLIP's.

    Raises ValueError for an unknown layout or dtype, a value that does not fit the
    dtype, and a model that the layout cannot describe.
    """
    path, v = Path(path), get_variant(variant)
    check_dtype(dtype)
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
    """Writes a sensor encoder in timm's names; its map to CLIP's width is timm's head.

    `path` is a .safetensors file, or a folder, which gets a config.json too.
    timm.create_model("local-dir:<path>", pretrained=True) reads the folder; without
    pretrained=True, timm's weights are random. The model takes the spec's input,
    clip((x - mean) / std, -clip_sigma, clip_sigma). Raises ValueError for an unknown
    dtype, and for a folder with a spec that timm has no model for.
    """
    path = Path(path)
    check_dtype(dtype)
    table = layouts.timm_vit("fc_norm" if spec.pool == "mean" else "norm")
    if spec.is_resnet:
        table = layouts.TORCHVISION_RESNET
    tensors = _with_counts(cast(rules.export_names(params, table), dtype))
    if spec.out_dim and not spec.proj_bias:  # timm's head always has one
        tensors["head.bias"] = np.zeros(spec.out_dim, DTYPES[dtype])
    if path.suffix != ".safetensors":
        config = timm_config(spec)
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "config.json", config, sort_keys=False)
        path = path / "model.safetensors"
    write_tensors(path, tensors, {"spec": json.dumps(dataclasses.asdict(spec))})


def check_dtype(dtype: str) -> None:
    """Raises ValueError for an unknown dtype of weights."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not known; use {', '.join(DTYPES)}")


def _check_plain(v: Variant, layout: str) -> None:
    if v.family != "clip" or v.tokenizer is not None:
        raise ValueError(
            f"layout {layout!r} is not written for {v.name}, whose tokenizer is not"
            " CLIP's: use 'hf'"
        )


def _save_open_clip(path: Path, v: Variant, params: dict, dtype: str) -> None:
    _check_plain(v, "open_clip")
    tensors = _open_clip_tensors(v, params, dtype)
    if path.suffix != ".safetensors":
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "open_clip_config.json", open_clip_config(v), sort_keys=False)
        path = path / "open_clip_model.safetensors"
    write_tensors(path, tensors, variant_header(v))


def _open_clip_tensors(v: Variant, params: dict, dtype: str) -> dict[str, np.ndarray]:
    is_resnet = isinstance(v.vision_layers, tuple)
    table = layouts.OPEN_CLIP_RESNET if is_resnet else layouts.OPEN_CLIP
    return _with_counts(cast(rules.export_names(params, table), dtype))


def _with_counts(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the counter that torch keeps beside each batch norm's statistics."""
    norms = [n for n in tensors if n.endswith("running_var")]
    counts = {n.replace("running_var", layouts.BATCHES) for n in norms}
    return tensors | dict.fromkeys(sorted(counts), np.array(0, np.int64))


def _save_openai(path: Path, v: Variant, params: dict, dtype: str) -> None:
    _check_plain(v, "openai")
    told = {
        "activation": (v.activation, "quick_gelu"),
        "layer_norm_eps": (v.layer_norm_eps, 1e-5),
        "width of a visual head": (v.vision_head_width, 64),
        "width of a text head": (v.text_width // v.text_heads, 64),
        "image mean": (v.image_mean, CLIP_MEAN),
        "image std": (v.image_std, CLIP_STD),
        "resizing of images": (
            dataclasses.replace(v.resize, like="open_clip"),
            AS_CLIP,
        ),
    }
    for what, (found, built) in told.items():
        if found != built:
            raise ValueError(
                f"layout 'openai' does not store the {what}, and OpenAI's code assumes"
                f" {built}, not this model's {found}: use 'open_clip' or 'hf'"
            )
    tensors = _open_clip_tensors(v, params, dtype)
    for name, value in (
        ("input_resolution", v.image_size),
        ("context_length", v.context_length),
        ("vocab_size", v.vocab_size),
    ):
        tensors[name] = np.array(value, np.int64)
    write_tensors(path, tensors, variant_header(v))


def _save_hf(path: Path, v: Variant, params: dict, dtype: str) -> None:
    if isinstance(v.vision_layers, tuple):
        raise ValueError(
            f"layout 'hf': transformers' CLIPModel cannot be the ResNet {v.name}; use"
            " 'open_clip' or 'openai'"
        )
    path.mkdir(parents=True, exist_ok=True)
    table = layouts.HF_CLIP if v.family == "clip" else layouts.HF_SIGLIP
    tensors = cast(rules.export_names(params, table), dtype)
    write_tensors(path / "model.safetensors", tensors, variant_header(v))
    write_json(path / "config.json", hf_config(v, dtype), sort_keys=False)
    write_json(path / "preprocessor_config.json", hf_preprocessor(v), sort_keys=False)
    if v.tokenizer is not None:
        tokenizer_files.save(v.tokenizer, path)
    elif v.vocab_size == VOCAB_SIZE:  # a toy vocabulary is not CLIP's
        _save_hf_tokenizer(path, v)


_WRITERS = {"open_clip": _save_open_clip, "openai": _save_openai, "hf": _save_hf}
LAYOUTS = tuple(_WRITERS)


def _save_hf_tokenizer(path: Path, v: Variant) -> None:
    """Writes CLIPTokenizer's files, which pad with the end token, as transformers does.

    Tokens after the first end token do not change a text's features.
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


def cast(tensors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """The tensors in a dtype; ValueError for a value that does not fit it."""
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


def variant_header(v: Variant) -> dict[str, str]:
    """The metadata from which load_clip reads the variant."""
    return {"variant": json.dumps(dataclasses.asdict(v))}


def write_tensors(
    path: Path, tensors: dict[str, np.ndarray], header: dict[str, str]
) -> None:
    """Writes a .safetensors file, whole or not at all."""
    # transformers, open_clip and timm require "pt"
    metadata = {"format": "pt", **header}
    with naming(path), replacing(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary, metadata=metadata)
        mask = os.umask(0)  # it can only be read by setting it
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # safetensors lets only the owner read it
