"""The variant of a CLIP file: sizes from its shapes, the rest from its config.

Shapes do not tell the number of heads, the activation, LayerNorm's eps or the image's
mean and std. These come from the caller, else from the config in the folder, else from
a known variant of the same sizes; an activation that none of them tells is an error.
"""

from collections.abc import Mapping
from typing import Any

from rsclip_jax.models.variants import (
    CLIP_MEAN,
    CLIP_STD,
    VARIANTS,
    Variant,
    attention_width,
)
from rsclip_jax.weights.files import WeightFile
from rsclip_jax.weights.rules import count_blocks

HEAD_WIDTH = 64  # OpenAI's, and open_clip's default
# OpenAI's own loader puts these beside the weights; all its models use QuickGELU.
_OPENAI_MARKS = {"input_resolution", "context_length", "vocab_size"}


def infer_variant(
    file: WeightFile, ours: Mapping[str, tuple[int, ...]], activation: str | None = None
) -> Variant:
    """The variant that fits a file; ours: our path -> shape in our order of axes.

    Raises ValueError saying which argument to pass if the file does not tell it.
    """
    try:
        sizes = read_sizes(ours)
    except KeyError as error:
        raise ValueError(
            f"{file.path}: no tensor for our {error.args[0]}, so the model's sizes"
            " cannot be read from it; pass variant="
        ) from error
    told = _told(file)
    rows = rows_of(sizes)
    widths = {
        "vision": attention_width(sizes["vision_width"], sizes["vision_layers"]),
        "text": sizes["text_width"],
    }
    for tower, width in widths.items():
        by_width = max(width // HEAD_WIDTH, 1)
        heads = getattr(rows[0], f"{tower}_heads") if rows else by_width
        told.setdefault(f"{tower}_heads", heads)
    activation = activation or told.get("activation") or _only_activation(rows)
    if activation is None:
        names = " or ".join(row.name for row in rows) or "a Variant of your own"
        raise ValueError(
            f"{file.path}: the file does not say which activation its model has; pass"
            f" activation='quick_gelu' or 'gelu', or variant= {names}"
        )
    name = next((r.name for r in rows if r.activation == activation), file.path.stem)
    return Variant(**{"name": name, **sizes, **told, "activation": activation})


def read_sizes(ours: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The sizes in Variant's terms; KeyError with the path that is missing."""
    is_resnet = "visual/attnpool/positional_embedding" in ours
    return {
        **(_resnet_sizes(ours) if is_resnet else _vit_sizes(ours)),
        "text_width": ours["text/positional_embedding"][1],
        "text_layers": count_blocks(ours, "text/blocks"),
        "context_length": ours["text/positional_embedding"][0],
        "vocab_size": ours["text/token_embedding/embedding"][0],
    }


def _vit_sizes(ours: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    patch, _, _, width = ours["visual/patch_embed/kernel"]
    mlp = ours["visual/blocks_0/mlp/c_fc/kernel"][1]
    return {
        "embed_dim": ours["visual/proj/kernel"][1],
        "image_size": _grid(ours["visual/positional_embedding"]) * patch,
        "patch_size": patch,
        "vision_width": width,
        "vision_layers": count_blocks(ours, "visual/blocks"),
        "vision_mlp_width": 0 if mlp == 4 * width else mlp,
    }


def _resnet_sizes(ours: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {
        "embed_dim": ours["visual/attnpool/c_proj/kernel"][1],
        "image_size": _grid(ours["visual/attnpool/positional_embedding"]) * 32,
        "patch_size": 32,
        "vision_width": ours["visual/conv3/kernel"][-1],
        "vision_layers": tuple(
            count_blocks(ours, f"visual/layer{i}") for i in (1, 2, 3, 4)
        ),
    }


def _grid(positions: tuple[int, ...]) -> int:
    """The side of the grid whose positions, and one more, these are."""
    return round((positions[0] - 1) ** 0.5)


def rows_of(sizes: Mapping[str, Any]) -> list[Variant]:
    """The known variants of these sizes."""
    return [
        row
        for row in VARIANTS.values()
        if all(getattr(row, key) == value for key, value in sizes.items())
    ]


def _only_activation(rows: list[Variant]) -> str | None:
    kinds = {row.activation for row in rows}
    return kinds.pop() if len(kinds) == 1 else None


def _told(file: WeightFile) -> dict[str, Any]:
    """What the folder's config and the file's own marks say, in Variant's terms."""
    if file.config.get("kind") == "open_clip":
        return _from_open_clip(file)
    if file.config.get("kind") == "hf":
        return _from_hf(file)
    if set(file.shapes) >= _OPENAI_MARKS:
        return {"activation": "quick_gelu"}
    return {}


def _from_open_clip(file: WeightFile) -> dict[str, Any]:
    model = file.config.get("model_cfg", file.config)
    vision, text = model.get("vision_cfg", {}), model.get("text_cfg", {})
    for section, key in ((vision, "timm_model_name"), (text, "hf_model_name")):
        if section.get(key):
            raise ValueError(
                f"{file.path}: {key} = {section[key]!r} is no tower of CLIP's, and is"
                " not read here"
            )
    _refuse_other_towers(file, {"vision_cfg": vision, "text_cfg": text})
    told: dict[str, Any] = {
        "activation": "quick_gelu" if model.get("quick_gelu") else "gelu"
    }
    if "width" in vision:
        width = attention_width(vision["width"], vision.get("layers", 0))
        told["vision_heads"] = width // vision.get("head_width", HEAD_WIDTH)
    if "heads" in text:
        told["text_heads"] = text["heads"]
    pixels = file.config.get("preprocess_cfg", {})
    told["image_mean"] = tuple(pixels.get("mean", CLIP_MEAN))
    told["image_std"] = tuple(pixels.get("std", CLIP_STD))
    return told


# What a config can set, no shape shows, and the towers here have no other way of.
_OPEN_CLIP_FIXED: dict[str, dict[str, Any]] = {
    "vision_cfg": {"pool_type": "tok", "act_kwargs": None, "norm_kwargs": None},
    "text_cfg": {
        "pool_type": "argmax",
        "no_causal_mask": False,
        "act_kwargs": None,
        "norm_kwargs": None,
    },
}


def _refuse_other_towers(file: WeightFile, sections: Mapping[str, Any]) -> None:
    for section, fixed in _OPEN_CLIP_FIXED.items():
        for key, value in fixed.items():
            if (found := sections[section].get(key, value)) != value:
                raise ValueError(
                    f"{file.path}: {section}.{key} = {found!r} is not read here, only"
                    f" {value!r}"
                )


def _from_hf(file: WeightFile) -> dict[str, Any]:
    vision = {**_HF_DEFAULTS, **file.config.get("vision_config", {})}
    text = {**_HF_DEFAULTS, **file.config.get("text_config", {})}
    for key in ("hidden_act", "layer_norm_eps"):
        if vision[key] != text[key]:
            raise ValueError(
                f"{file.path}: {key} is {vision[key]!r} in the visual tower and"
                f" {text[key]!r} in the text tower; one for both is read here"
            )
    if vision["hidden_act"] not in ("quick_gelu", "gelu"):
        raise ValueError(
            f"{file.path}: hidden_act = {vision['hidden_act']!r} is not read here;"
            " 'quick_gelu' and 'gelu' are"
        )
    # 2 stands in older files for "the largest id", which the text tower pools at.
    if text["eos_token_id"] not in (2, text["vocab_size"] - 1):
        raise ValueError(
            f"{file.path}: eos_token_id = {text['eos_token_id']} is not the largest of"
            f" {text['vocab_size']} ids, where the text tower here pools"
        )
    pixels = file.config.get("preprocessor", {})
    return {
        "image_mean": tuple(pixels.get("image_mean", CLIP_MEAN)),
        "image_std": tuple(pixels.get("image_std", CLIP_STD)),
        "activation": vision["hidden_act"],
        "layer_norm_eps": vision["layer_norm_eps"],
        "vision_heads": vision["num_attention_heads"] or _HF_HEADS["vision"],
        "text_heads": text["num_attention_heads"] or _HF_HEADS["text"],
    }


# transformers writes only what differs from its defaults.
_HF_DEFAULTS = {
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
    "vocab_size": 49408,
    "num_attention_heads": 0,
}
_HF_HEADS = {"vision": 12, "text": 8}
