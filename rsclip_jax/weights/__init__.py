"""Weight files in and out: load_clip, save_clip, load_vit."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from rsclip_jax.models.clip import clip_shapes
from rsclip_jax.models.sensor import SensorSpec, sensor_shapes
from rsclip_jax.models.variants import VARIANTS, Variant, get_variant
from rsclip_jax.weights import layouts, rules

__all__ = ["load_clip", "load_vit", "save_clip"]


def load_clip(
    path: str | Path, variant: str | Variant | None = None
) -> tuple[Variant, dict]:
    """(variant, params) of a CLIP file in open_clip's layout (.safetensors).

    variant: a name, a Variant, or None where the file says it (those that save_clip
    wrote, or whose sizes fit one known row only). Raises ValueError listing every
    tensor that does not fit.
    """
    path = _check_file(path)
    with safetensors.safe_open(path, framework="np") as file:
        shapes, read = _tensors(file)
        if variant is None:
            variant = _told_variant(file.metadata() or {}, shapes, path)
        v = get_variant(variant)
        params = rules.load_strict(
            shapes,
            read,
            layouts.OPEN_CLIP,
            clip_shapes(v),
            where=f"{path} as {v.name}",
            ignore=layouts.OPEN_CLIP_IGNORE,
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
    path = _check_file(path)
    targets = {k: v for k, v in sensor_shapes(spec).items() if k != "proj"}
    with safetensors.safe_open(path, framework="np") as file:
        shapes, read = _tensors(file)
        params = rules.load_strict(
            shapes,
            read,
            layouts.TIMM_VIT,
            targets,
            where=f"{path} as a {spec.layers}-block ViT over {spec.bands}",
            ignore=layouts.TIMM_IGNORE,
        )
    return {**params, "proj": projection}


def _check_file(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such weight file")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path}: this version reads .safetensors files only; convert it with"
            " safetensors' own tools first"
        )
    try:
        with safetensors.safe_open(path, framework="np"):
            return path
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error


def _tensors(file) -> tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]:
    names = list(file.keys())
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    return shapes, file.get_tensor


def _told_variant(metadata: dict, shapes: dict, path: Path) -> Variant:
    if "variant" in metadata:
        return Variant.from_json(json.loads(metadata["variant"]))
    fits = [name for name, row in VARIANTS.items() if _same_sizes(row, shapes)]
    if len(fits) == 1:
        return VARIANTS[fits[0]]
    raise ValueError(
        f"{path}: the file does not say which activation its model has; pass variant="
        f" (or --config.variant), {' or '.join(fits) or 'a Variant of your own'}"
    )


def _same_sizes(row: Variant, shapes: dict) -> bool:
    found, _ = rules.convert_names(shapes, layouts.OPEN_CLIP)
    layers = sum(path.endswith("ln_1/scale") for path, _ in found.values())
    patch = (row.vision_width, 3, row.patch_size, row.patch_size)
    tokens = ((row.image_size // row.patch_size) ** 2 + 1, row.vision_width)
    return (
        layers == row.vision_layers + row.text_layers
        and shapes.get("visual.conv1.weight") == patch
        and shapes.get("visual.positional_embedding") == tokens
        and shapes.get("visual.proj") == (row.vision_width, row.embed_dim)
        and shapes.get("positional_embedding") == (row.context_length, row.text_width)
    )
