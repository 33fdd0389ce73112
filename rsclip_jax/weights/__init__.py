"""Weight files in and out: load_clip, save_clip, load_vit."""

import dataclasses
import json
from pathlib import Path

import safetensors.numpy

from rsclip_jax.models.clip import clip_shapes
from rsclip_jax.models.sensor import SensorSpec, sensor_shapes
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.weights import infer, layouts, rules
from rsclip_jax.weights.files import WeightFile, is_weight_folder, open_weights

__all__ = ["is_weight_folder", "load_clip", "load_vit", "save_clip"]


def load_clip(
    path: str | Path,
    variant: str | Variant | None = None,
    *,
    activation: str | None = None,
) -> tuple[Variant, dict]:
    """(variant, params) of a CLIP file or folder, in whatever public layout it is.

    OpenAI's .pt archives, open_clip's files, folders and training checkpoints, Hugging
    Face's CLIPModel folders. variant: a name, a Variant, or None where sizes and config
    tell it; activation ("quick_gelu" or "gelu") goes before what they say. Raises
    ValueError listing every tensor that does not fit.
    """
    file = _without_text(open_weights(path))
    _, table, ignore = layouts.find_clip_layout(file.shapes)
    v = _told_variant(file, table, variant, activation)
    params = rules.load_strict(
        file.shapes,
        file.read,
        table,
        clip_shapes(v),
        where=f"{path} as {v.name}",
        ignore=ignore,
    )
    return v, params


def save_clip(
    path: str | Path,
    variant: str | Variant,
    params: dict,
    layout: str = "open_clip",
) -> None:
    """Writes .safetensors in open_clip's layout; the header names the variant."""
    if layout != "open_clip":
        raise ValueError(f"layout {layout!r} is not written here; use 'open_clip'")
    v = get_variant(variant)
    tensors = rules.export_names(params, layouts.OPEN_CLIP)
    metadata = {"variant": json.dumps(dataclasses.asdict(v))}
    safetensors.numpy.save_file(tensors, path, metadata=metadata)


def load_vit(path: str | Path, spec: SensorSpec, projection: dict) -> dict:
    """Params of a sensor encoder from a timm-layout ViT file (.safetensors).

    The file has no map to CLIP's width: `projection` ({"kernel", "bias"}) is put there.
    Raises ValueError listing every tensor that does not fit.
    """
    file = open_weights(path)
    targets = {k: v for k, v in sensor_shapes(spec).items() if k != "proj"}
    params = rules.load_strict(
        file.shapes,
        file.read,
        layouts.TIMM_VIT,
        targets,
        where=f"{path} as a {spec.layers}-block ViT over {spec.bands}",
        ignore=layouts.TIMM_IGNORE,
    )
    return {**params, "proj": projection}


def _without_text(file: WeightFile) -> WeightFile:
    """open_clip's custom text towers have a "text." before what is OpenAI's name."""
    return file.renamed({name.removeprefix("text."): name for name in file.shapes})


def _told_variant(
    file: WeightFile,
    table: list[rules.Rule],
    variant: str | Variant | None,
    activation: str | None,
) -> Variant:
    if variant is None and "variant" in file.metadata:  # one that save_clip wrote
        variant = Variant.from_json(json.loads(file.metadata["variant"]))
    if variant is None:
        return infer.infer_variant(
            file, rules.our_shapes(file.shapes, table), activation
        )
    v = get_variant(variant)
    return dataclasses.replace(v, activation=activation) if activation else v
