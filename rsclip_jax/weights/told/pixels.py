"""How a config says that images are resized, cut and normalised.

open_clip's preprocess_cfg, and the image processor of transformers
(processor_config.json, or preprocessor_config.json of older versions).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsclip_jax.data.pipeline.fitting import Resize
from rsclip_jax.models.variants import CLIP_MEAN, CLIP_STD
from rsclip_jax.weights.told.keys import (
    BUILT,
    FREE,
    Keys,
    check_section,
    only,
    square_side,
)

OPEN_CLIP: Keys = {
    "size": BUILT,
    "mode": only("RGB"),
    "mean": BUILT,
    "std": BUILT,
    "interpolation": BUILT,
    "resize_mode": BUILT,
    "fill_color": BUILT,
}
HF: Keys = {
    "do_resize": only(True),
    "size": BUILT,
    "resample": BUILT,
    "do_center_crop": BUILT,
    "crop_size": BUILT,
    "do_rescale": only(True),
    "rescale_factor": BUILT,
    "do_normalize": BUILT,
    "image_mean": BUILT,
    "image_std": BUILT,
    "do_convert_rgb": FREE,  # images are made RGB in any case
    "do_pad": only(False, None),
    "use_square_size": only(False, None),
    "image_processor_type": only(
        None,
        *(
            f"{kind}ImageProcessor{backend}"
            for kind in ("CLIP", "Siglip")
            for backend in ("", "Fast", "Pil")
        ),
    ),
    "feature_extractor_type": only(None, "CLIPFeatureExtractor"),
}
# SiglipImageProcessor's own, for a key that is not there or null.
_SIGLIP: dict[str, Any] = {
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": 0.5,
    "image_std": 0.5,
}
_PILLOW = {2: "bilinear", 3: "bicubic"}  # its numbers, which transformers writes


def read_open_clip(path: Path, config: Mapping, image_size: int) -> dict[str, Any]:
    """The fields of Variant that preprocess_cfg states."""
    check_section(path, "preprocess_cfg", config, OPEN_CLIP)
    given = {key: value for key, value in config.items() if value is not None}
    side = square_side(path, "preprocess_cfg.size", given.get("size", image_size))
    if side != image_size:
        raise ValueError(
            f"{path}: preprocess_cfg.size = {side}, but the tower takes images of"
            f" {image_size} pixels"
        )
    # open_clip takes "random", a choice in training, for bicubic
    how = given.get("interpolation", "bicubic").replace("random", "bicubic")
    return {
        "image_mean": _triple(path, "mean", given.get("mean", CLIP_MEAN)),
        "image_std": _triple(path, "std", given.get("std", CLIP_STD)),
        "resize": _resize(
            path,
            mode=given.get("resize_mode", "shortest"),
            interpolation=how,
            fill=given.get("fill_color", 0),
        ),
    }


def read_hf(path: Path, config: Mapping, image_size: int) -> dict[str, Any]:
    """The fields of Variant that an image processor's config states; {} without one."""
    if not config:
        return {}
    if str(config.get("image_processor_type")).startswith("Siglip"):
        given = {k: v for k, v in config.items() if v is not None}
        config = {**_SIGLIP, **given}
    known = {k: v for k, v in config.items() if k in HF}
    check_section(path, "image_processor", known, HF)
    if not math.isclose(config.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        raise ValueError(
            f"{path}: rescale_factor = {config['rescale_factor']} is not supported,"
            " only 1 / 255"
        )
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        mean = _triple(path, "image_mean", config.get("image_mean", CLIP_MEAN))
        std = _triple(path, "image_std", config.get("image_std", CLIP_STD))
    number = config.get("resample", 3)
    return {
        "image_mean": mean,
        "image_std": std,
        "resize": _resize(
            path,
            **_hf_sides(path, config, image_size),
            interpolation=_PILLOW.get(number, f"number {number} of Pillow"),
            like="transformers",
        ),
    }


def _hf_sides(path: Path, config: Mapping, image_size: int) -> dict[str, Any]:
    """The mode and side of the Resize that gives images of the tower's size."""
    size = config.get("size", {"shortest_edge": 224})
    size = {"shortest_edge": size} if isinstance(size, int) else size
    if set(size) == {"shortest_edge"}:
        mode, side = "shortest", size["shortest_edge"]
    elif set(size) == {"height", "width"}:
        mode = "squash"
        side = square_side(path, "size", [size["height"], size["width"]])
    else:
        raise ValueError(
            f"{path}: size = {size} is not supported, only shortest_edge, or height and"
            " width"
        )
    made: Any = side if mode == "squash" else f"the short side {side}, uncut"
    if config.get("do_center_crop", True):
        crop = config.get("crop_size", 224)
        sides = crop if isinstance(crop, int) else [crop.get(k) for k in _SIDES]
        made = square_side(path, "crop_size", sides)
    if made != image_size:
        raise ValueError(
            f"{path}: size = {size} and crop_size make images of {made} pixels, but the"
            f" tower takes {image_size}"
        )
    return {"mode": mode, "side": 0 if side == image_size else side}


_SIDES = ("height", "width")


def _triple(path: Path, key: str, value: Any) -> tuple[float, float, float]:
    values = value if isinstance(value, list | tuple) else [value] * 3
    if len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise ValueError(f"{path}: {key} = {value!r}: give a number for each of RGB")
    return values[0], values[1], values[2]


def _resize(path: Path, **told: Any) -> Resize:
    try:
        return Resize(**told)
    except ValueError as error:
        raise ValueError(f"{path}: {error} (its config's preprocessing)") from error
