"""What the config of a CLIP's weights tells: a file for each library's config.

A key is built, compared with the tensors' shapes, allowed to have one value, or known
to change no embedding; any other key is refused by name (keys.py).
"""

from collections.abc import Mapping
from typing import Any

from rsclip_jax.models.variants import HEAD_WIDTH, attention_width
from rsclip_jax.weights.files import WeightFile
from rsclip_jax.weights.told import hf, open_clip, siglip

_KINDS = ("clip", "metaclip_2", "siglip")
# OpenAI's loader puts these beside the weights; all its models use QuickGELU.
_OPENAI_MARKS = {"input_resolution", "context_length", "vocab_size"}


def check_kind(file: WeightFile) -> None:
    """Raises ValueError naming what a file is, where that is no CLIP."""
    kind = None
    if file.config.get("kind") == "hf":
        kind = file.config.get("model_type")
    if kind not in (None, *_KINDS):
        raise ValueError(
            f"{file.path}: this is a model of type {kind!r}, and only CLIPs and SigLIPs"
            f" of a fixed resolution can be loaded (model_type {', '.join(_KINDS)})"
        )


def read_told(file: WeightFile, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Variant that the config beside a file, or the file, states.

    Args:
        sizes: the fields that the tensors' shapes show.

    Raises ValueError naming the key of a config that does not fit the tensors or is not
    supported.
    """
    kind = file.config.get("kind")
    if sizes.get("family") == "siglip":
        if kind is None:
            raise ValueError(
                f"{file.path}: no tensor shows a SigLIP's heads, activation and"
                " tokenizer: give it with its config, under its usual name"
            )
        return {"hf": siglip.read_hf, "open_clip": siglip.read_open_clip}[kind](
            file, sizes
        )
    if kind == "open_clip":
        return open_clip.read(file, sizes)
    if kind == "hf":
        return hf.read(file, sizes)
    if set(file.shapes) >= _OPENAI_MARKS:
        width = attention_width(sizes["vision_width"], sizes["vision_layers"])
        return {
            "activation": "quick_gelu",
            "vision_heads": max(width // HEAD_WIDTH, 1),
            "text_heads": max(sizes["text_width"] // HEAD_WIDTH, 1),
        }
    return {}
