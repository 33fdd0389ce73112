"""The variant of a CLIP file: sizes from its shapes, the rest from its config.

Shapes do not show the number of heads, the activation, LayerNorm's eps or the image
mean and std. These come from the caller, else from the config in the folder, else from
a known variant of the same sizes. An unknown activation is an error.
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
# OpenAI's loader puts these beside the weights; all its models use QuickGELU.
_OPENAI_MARKS = {"input_resolution", "context_length", "vocab_size"}


def infer_variant(
    file: WeightFile, ours: Mapping[str, tuple[int, ...]], activation: str | None = None
) -> Variant:
    """The variant that fits a file.

    Args:
        ours: our parameter path -> shape in our order of axes.

    Raises ValueError saying which argument to pass if the file is ambiguous.
    """
    try:
        sizes = read_sizes(ours)
    except KeyError as error:
        raise ValueError(
            f"{file.path}: no tensor for our {error.args[0]}, so the model's sizes"
            " cannot be inferred; pass variant="
        ) from error
    told = _told(file)
    known = variants_of(sizes)
    widths = {
        "vision": attention_width(sizes["vision_width"], sizes["vision_layers"]),
        "text": sizes["text_width"],
    }
    for tower, width in widths.items():
        by_width = max(width // HEAD_WIDTH, 1)
        heads = getattr(known[0], f"{tower}_heads") if known else by_width
        told.setdefault(f"{tower}_heads", heads)
    activation = activation or told.get("activation") or _only_activation(known)
    if activation is None:
        names = " or ".join(v.name for v in known) or "a custom Variant"
        raise ValueError(
            f"{file.path}: the file does not state its model's activation; pass"
            f" activation='quick_gelu' or 'gelu', or variant= {names}"
        )
    name = next((v.name for v in known if v.activation == activation), file.path.stem)
    return Variant(**{"name": name, **sizes, **told, "activation": activation})


def read_sizes(ours: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The sizes as Variant names them; KeyError with the path that is missing."""
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
    """The side of the grid; one position is the class token or the mean."""
    return round((positions[0] - 1) ** 0.5)


def variants_of(sizes: Mapping[str, Any]) -> list[Variant]:
    """The known variants of these sizes."""
    return [
        v
        for v in VARIANTS.values()
        if all(getattr(v, key) == value for key, value in sizes.items())
    ]


def _only_activation(variants: list[Variant]) -> str | None:
    kinds = {v.activation for v in variants}
    return kinds.pop() if len(kinds) == 1 else None


def _told(file: WeightFile) -> dict[str, Any]:
    """The fields of Variant that the folder's config or the file itself states."""
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
                f"{file.path}: {key} = {section[key]!r} is not a CLIP tower and is not"
                " supported"
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


# Options that no shape shows and that the towers here support in one way only.
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
                    f"{file.path}: {section}.{key} = {found!r} is not supported, only"
                    f" {value!r}"
                )


def _from_hf(file: WeightFile) -> dict[str, Any]:
    vision = {**_HF_DEFAULTS, **file.config.get("vision_config", {})}
    text = {**_HF_DEFAULTS, **file.config.get("text_config", {})}
    for key in ("hidden_act", "layer_norm_eps"):
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
    # Older files have 2 for "the largest id", where the text tower pools.
    if text["eos_token_id"] not in (2, text["vocab_size"] - 1):
        raise ValueError(
            f"{file.path}: eos_token_id = {text['eos_token_id']} is not the largest of"
            f" {text['vocab_size']} ids, where the text tower pools"
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
