"""Loads CLIP weights written by other tools."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rsclip_jax.data import tokenizer_files
from rsclip_jax.models.clip import clip_shapes
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.weights import infer, layouts, rules
from rsclip_jax.weights.adapters import adapted
from rsclip_jax.weights.files import WeightFile, open_weights
from rsclip_jax.weights.infer import Heads


def load_clip(
    path: str | Path,
    variant: str | Variant | None = None,
    *,
    activation: str | None = None,
    heads: Heads = None,
    image_size: int | None = None,
    ema: bool = True,
) -> tuple[Variant, dict]:
    """(variant, params) of a CLIP file or folder in a public layout.

    Reads OpenAI's .pt archives, open_clip's files, folders and training checkpoints,
    and Hugging Face's CLIPModel folders.

    Args:
        variant: a name or a Variant; None infers it from the sizes and the config.
        activation: "quick_gelu" or "gelu", overriding the config.
        heads: attention heads of the visual tower, or of the visual and the text tower,
            overriding the config.
        image_size: resizes the position embeddings to another image size; None is the
            config's, or else the file's.
        ema: whether averaged weights are read where a checkpoint has raw ones too.

    Raises ValueError listing every tensor that does not fit.
    """
    opened = open_clip_file(path, ema)
    if (bands := opened.bands) != 3:
        raise ValueError(
            f"{path}: the visual tower of this CLIP takes {bands} bands, not RGB:"
            " rsclip_jax.load(..., sensor=) loads it, with the sensor that has them"
        )
    return read_clip(opened, variant, activation, heads, image_size)


class ClipFile(NamedTuple):
    """A CLIP's weights: the file, its layout's rules, patterns of names to ignore."""

    file: WeightFile
    table: list[rules.Rule]
    ignore: tuple[str, ...]

    @property
    def bands(self) -> int:
        """The bands that the visual tower takes: 3 of RGB."""
        ours = rules.our_shapes(self.file.shapes, self.table)
        first = ("visual/patch_embed/kernel", "visual/conv1/kernel")
        return next((ours[path][2] for path in first if path in ours), 3)


def open_clip_file(path: str | Path, ema: bool = True) -> ClipFile:
    """Opens a file or folder of any layout of load_clip."""
    file = _without_text(adapted(open_weights(path, ema)))
    return ClipFile(file, *layouts.find_clip_layout(file.shapes))


def read_clip(
    opened: ClipFile,
    variant: str | Variant | None,
    activation: str | None,
    heads: Heads,
    image_size: int | None,
) -> tuple[Variant, dict]:
    """(variant, params) of an open file, of as many bands as its tower takes."""
    file, table, ignore = opened
    v = _find_variant(file, table, variant, activation, heads)
    if variant is None:
        image_size = image_size or v.image_size
    wanted = v.at_size(image_size or v.image_size)
    if image_size:  # the caller's variant may already have the new size
        v = _of_file_size(v, rules.our_shapes(file.shapes, table))
    params = rules.load_strict(
        file.shapes,
        file.read,
        table,
        clip_shapes(v, opened.bands),
        where=f"{file.path} as {v.name}{_other_variants(file, table, v)}",
        ignore=ignore,
    )
    if wanted.image_size == v.image_size:
        return wanted, params
    grid = wanted.image_size // wanted.patch_size
    visual = _with_grid(params["visual"], grid, prefix=int(v.has_class_token))
    return wanted, {**params, "visual": visual}


def read_variant(
    path: str | Path,
    variant: str | Variant | None = None,
    *,
    activation: str | None = None,
    heads: Heads = None,
) -> Variant:
    """The variant that load_clip would find, from tensor names and shapes alone."""
    file, table, _ = open_clip_file(path)
    return _find_variant(file, table, variant, activation, heads)


def _of_file_size(v: Variant, ours: dict[str, tuple[int, ...]]) -> Variant:
    """The variant with the file's image size, or unchanged if that is unknown."""
    try:
        return v.at_size(infer.read_sizes(ours)["image_size"])
    except KeyError:
        return v


def _with_grid(visual: dict, grid: int, prefix: int = 1) -> dict:
    if "attnpool" in visual:  # a ResNet's positions; the first belongs to the mean
        return {**visual, "attnpool": _with_grid(visual["attnpool"], grid)}
    positions = visual["positional_embedding"]
    if len(positions) == prefix + grid * grid:
        return visual
    positions = resize_positions(positions, grid, prefix)
    return {**visual, "positional_embedding": positions}


def resize_positions(positions: np.ndarray, grid: int, prefix: int = 1) -> np.ndarray:
    """Position embeddings [prefix + m * m, width] resized to a grid x grid.

    The first `prefix` are kept. Bicubic (a = -0.5) and antialiased, as in open_clip.
    """
    first, patches = positions[:prefix], positions[prefix:]
    m = round(len(patches) ** 0.5)
    shape = (grid, grid, patches.shape[-1])
    resized = jax.image.resize(
        jnp.asarray(patches).reshape(m, m, -1), shape, "cubic", antialias=True
    )
    return np.concatenate([first, np.asarray(resized).reshape(grid * grid, -1)])


def _without_text(file: WeightFile) -> WeightFile:
    """open_clip's custom text towers prefix OpenAI's names with "text."."""
    names = {name.removeprefix("text."): name for name in file.shapes}
    # If both forms are present, loading reports the extra tensors.
    return file.renamed(names) if len(names) == len(file.shapes) else file


def _other_variants(file: WeightFile, table: list[rules.Rule], v: Variant) -> str:
    """For an error: known variants with the file's sizes, unless v is one of them."""
    try:
        sizes = infer.read_sizes(rules.our_shapes(file.shapes, table))
    except KeyError:
        return ""
    names = [known.name for known in infer.variants_of(sizes)]
    if v.name in names or not names:
        return ""
    return f" (its sizes are those of {', '.join(names)}: pass one as variant=)"


def _find_variant(
    file: WeightFile,
    table: list[rules.Rule],
    variant: str | Variant | None,
    activation: str | None,
    heads: Heads,
) -> Variant:
    if variant is None and (told := file.told("variant")):  # written by save_clip
        variant = Variant.from_json(told)
        if variant.tokenizer is not None:
            tokenizer_files.read_saved(variant.tokenizer, file.path.parent)
    if variant is None:
        return infer.infer_variant(
            file, rules.our_shapes(file.shapes, table), activation, heads
        )
    v = get_variant(variant)
    given = infer.given_heads(heads, dataclasses.asdict(v))
    if activation:
        given["activation"] = activation
    return dataclasses.replace(v, **given)
