"""The variant of a CLIP file: sizes from its shapes, the rest from its config.

Shapes do not show the number of heads, the activation, LayerNorm's eps or the image
mean and std. These come from the caller, else from the config beside the weights
(told/), else from a known variant of the same sizes, whose image size may be another.
Unknown heads or an unknown activation are an error.
"""

from collections.abc import Mapping
from typing import Any

from rsclip_jax.models.variants import HEAD_WIDTH, VARIANTS, Variant, attention_width
from rsclip_jax.weights.files import WeightFile
from rsclip_jax.weights.rules import count_blocks
from rsclip_jax.weights.told import check_kind, read_told

Heads = int | tuple[int, int] | None
_HEADS = ("vision_heads", "text_heads")
# Channels of a head in open_clip's wider towers.
_WIDE: dict[str, tuple[int, ...]] = {
    "vision_heads": (80, 88, 104, 112),
    "text_heads": (),
}


def infer_variant(
    file: WeightFile,
    ours: Mapping[str, tuple[int, ...]],
    activation: str | None = None,
    heads: Heads = None,
) -> Variant:
    """The variant that fits a file; its image size is that of the config, if there is.

    Args:
        ours: our parameter path -> shape in our order of axes.
        heads: of the visual tower, or of the visual and the text tower.

    Raises ValueError saying which argument to pass if the file is ambiguous.
    """
    check_kind(file)
    try:
        sizes = read_sizes(ours)
    except KeyError as error:
        lacks = "the file holds a visual tower without a text tower"
        if any(path.startswith("text/") for path in ours):
            lacks = "so the model's sizes cannot be inferred; pass variant="
        raise ValueError(
            f"{file.path}: no tensor for our {error.args[0]}: {lacks}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
    known = variants_of(sizes)
    told = {**read_told(file, sizes), **given_heads(heads, sizes)}
    told |= _known_heads(file, sizes, told)
    fits = [v for v in known if all(getattr(v, k) == told[k] for k in _HEADS)]
    activation = activation or told.get("activation") or _only_activation(fits)
    if activation is None:
        names = " or ".join(v.name for v in fits) or "a custom Variant"
        raise ValueError(
            f"{file.path}: the file does not state its model's activation; pass"
            f" activation='quick_gelu' or 'gelu', or variant= {names}"
        )
    name = next((v.name for v in fits if v.activation == activation), file.path.stem)
    return Variant(**{"name": name, **sizes, **told, "activation": activation})


def tower_widths(sizes: Mapping[str, Any]) -> dict[str, int]:
    """The field of each tower's heads -> the channels that they share."""
    vision = attention_width(sizes["vision_width"], sizes["vision_layers"])
    return dict(zip(_HEADS, (vision, sizes["text_width"]), strict=True))


def given_heads(heads: Heads, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Variant that the argument heads gives."""
    if not heads:
        return {}
    given = (heads,) if isinstance(heads, int) else tuple(heads)
    widths = tuple(tower_widths(sizes).values())
    bad = len(given) > 2 or any(
        h < 1 or w % h for w, h in zip(widths, given, strict=False)
    )
    if bad:
        raise ValueError(
            f"heads = {heads}: give the number of attention heads of the visual tower,"
            f" or of both towers, that divides their widths {widths[0]} and {widths[1]}"
        )
    return dict(zip(_HEADS, given, strict=False))


def _known_heads(
    file: WeightFile, sizes: Mapping[str, Any], told: Mapping[str, Any]
) -> dict[str, int]:
    """The heads that are not told.

    They are those of known towers of the same sizes, or else HEAD_WIDTH wide, where no
    other width of open_clip's models would fit.
    """
    found = {}
    for key, width in tower_widths(sizes).items():
        if key in told:
            continue
        tower = key.removesuffix("heads")
        same = {k: sizes[k] for k in sizes if k.startswith(tower)}
        if tower == "vision_":
            same["patch_size"] = sizes["patch_size"]
        counts = {getattr(v, key) for v in variants_of(same)}
        usual = not width % HEAD_WIDTH and all(width % w for w in _WIDE[key])
        if not counts and usual:
            counts = {width // HEAD_WIDTH}
        if sizes.get("family") == "siglip":  # 72 channels in its So400m
            counts.clear()
        if len(counts) != 1:
            raise ValueError(
                f"{file.path}: no tensor shows a model's attention heads, and no known"
                f" tower has its {tower}width of {width} and its other sizes; pass"
                " heads=(of the visual tower, of the text tower), or variant="
            )
        found[key] = counts.pop()
    return found


def read_sizes(ours: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The sizes as Variant names them.

    Raises KeyError with the path that is missing, ValueError for a grid of positions
    that is not square.
    """
    read = _vit_sizes
    if "visual/attnpool/positional_embedding" in ours:
        read = _resnet_sizes
    elif "visual/pool/probe" in ours:
        read = _siglip_sizes
    return {
        **read(ours),
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


def _siglip_sizes(ours: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    patch, _, _, width = ours["visual/patch_embed/kernel"]
    inside = {
        "vision": ours["visual/blocks_0/mlp/c_fc/kernel"],
        "text": ours["text/blocks_0/mlp/c_fc/kernel"],
    }
    return {
        "family": "siglip",
        "embed_dim": width,
        "image_size": _side(ours["visual/positional_embedding"][0]) * patch,
        "patch_size": patch,
        "vision_width": width,
        "vision_layers": count_blocks(ours, "visual/blocks"),
        **{
            f"{tower}_mlp_width": 0 if mlp == 4 * own else mlp
            for tower, (own, mlp) in inside.items()
        },
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
    return _side(positions[0] - 1)


def _side(patches: int) -> int:
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(
            f"{patches} positions of patches are not a square's; only square images"
            " are supported"
        )
    return side


def variants_of(sizes: Mapping[str, Any]) -> list[Variant]:
    """The known variants of these sizes, for images of any size."""
    same = {key: value for key, value in sizes.items() if key != "image_size"}
    return [
        v
        for v in VARIANTS.values()
        if all(getattr(v, key) == value for key, value in same.items())
    ]


def _only_activation(variants: list[Variant]) -> str | None:
    kinds = {v.activation for v in variants}
    return kinds.pop() if len(kinds) == 1 else None
