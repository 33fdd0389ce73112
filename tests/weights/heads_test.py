"""Attention heads, which no tensor shows: from a row, an argument, or asked for."""

import dataclasses

import flax.traverse_util
import pytest

from rsclip_jax.models.clip import clip_shapes
from rsclip_jax.models.variants import VARIANTS
from rsclip_jax.weights import infer, load_clip, read_variant
from rsclip_jax.weights.files import WeightFile
from tests.golden import FOLDER, toy_variant

TOY = FOLDER / "clip_toy_quick_gelu.safetensors"


def inferred(variant, **told):
    flat = flax.traverse_util.flatten_dict(clip_shapes(variant), sep="/")
    ours = {k: v.shape for k, v in flat.items()}
    file = WeightFile(TOY, {}, {}.__getitem__)
    return infer.infer_variant(file, ours, variant.activation, **told)


@pytest.mark.parametrize(
    ("name", "size", "heads"),
    [("ViT-H-14", 378, 16), ("ViT-bigG-14", 280, 16), ("ViT-g-14", 224, 16)],
)
def test_a_row_of_another_image_size_tells_them(name, size, heads):
    """DFN5B's ViT-H-14 at 378 has heads of 80 channels."""
    variant = dataclasses.replace(VARIANTS[name], image_size=size)
    found = inferred(variant)
    assert found == variant
    assert found.vision_heads == heads


def test_towers_that_no_row_has_are_asked_for():
    with pytest.raises(ValueError, match=r"heads.*vision_width of 32 .*heads="):
        load_clip(TOY, activation="quick_gelu")
    told = {"activation": "quick_gelu", "heads": (2, 2)}
    assert load_clip(TOY, **told)[0] == toy_variant("quick_gelu", name=TOY.stem)
    assert read_variant(TOY, **told).text_heads == 2
    with pytest.raises(ValueError, match="text_width of 24"):
        load_clip(TOY, activation="quick_gelu", heads=2)


@pytest.mark.parametrize("heads", [5, (2, 5), (2, 2, 2), -1])
def test_heads_that_do_not_divide_are_refused(heads):
    with pytest.raises(ValueError, match=r"heads = .*divides their widths 32 and 24"):
        load_clip(TOY, activation="quick_gelu", heads=heads)


def test_heads_given_override_a_row():
    found = inferred(VARIANTS["ViT-B/32"], heads=(8, 8))
    assert found.vision_heads == 8
    assert found.name == TOY.stem  # it is not that row
    variant, _ = load_clip(TOY, toy_variant("quick_gelu"), heads=4)
    assert (variant.vision_heads, variant.text_heads) == (4, 2)


@pytest.mark.parametrize(
    ("width", "heads"), [(128, 2), (1024, 16), (1280, 0), (1408, 0)]
)
def test_open_clips_default_is_taken_where_no_other_width_fits(width, heads):
    """80 channels a head divide 1,280, and 88 divide 1,408: as in ViT-H and ViT-g."""
    row = VARIANTS["ViT-B/32"]
    variant = dataclasses.replace(
        row, vision_width=width, vision_layers=3, vision_heads=1, vision_mlp_width=width
    )
    if heads:
        assert inferred(variant).vision_heads == heads
    else:
        with pytest.raises(ValueError, match=f"vision_width of {width} "):
            inferred(variant)
