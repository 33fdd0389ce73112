"""CLIP against torch's open_clip: every block, both ends, gradients; planted faults."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsclip_jax.models.clip import (
    CLIP,
    clip_shapes,
    image_features,
    init_clip,
    make_visual,
    normalize_rgb,
    text_features,
)
from rsclip_jax.models.variants import VARIANTS, get_variant
from rsclip_jax.weights import load_clip
from tests.golden import FOLDER, toy_variant

BLOCK, END = 1e-5, 1e-4
ACTIVATIONS = ("quick_gelu", "gelu")


@pytest.fixture(params=ACTIVATIONS)
def toy(request, golden):
    """(variant, params, torch's arrays) of one activation."""
    variant = toy_variant(request.param)
    path = FOLDER / f"clip_toy_{request.param}.safetensors"
    _, params = load_clip(path, variant)
    return variant, params, golden(f"clip_toy_{request.param}")


def run(variant, params, golden):
    apply = jax.jit(CLIP(variant).apply)  # op by op is several times slower
    out = apply({"params": params}, golden["image"], golden["text"])
    return jax.tree.map(np.asarray, out)


compiled_text_features = jax.jit(text_features, static_argnums=2)


def worst_block(out, golden) -> float:
    names = [k for k in golden if "_block_" in k or k == "visual_pre"]
    assert len(names) == 5
    return max(np.abs(out[k] - golden[k]).max() for k in names)


def test_every_block_equals_torch(toy):
    _, _, out = run(*toy)
    assert worst_block(out, toy[2]) <= BLOCK


def test_embeddings_equal_torch(toy):
    golden = toy[2]
    zimg, ztxt, out = run(*toy)
    for name, got in {"zimg": zimg, "ztxt": ztxt, **out}.items():
        if name in golden:
            np.testing.assert_allclose(got, golden[name], atol=END, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(zimg, axis=-1), 1, atol=1e-6)


@pytest.mark.slow
def test_gradients_equal_torch(toy):
    variant, params, golden = toy

    def total(visual):
        fimg, _ = make_visual(variant).apply({"params": visual}, golden["image"])
        return jnp.sum(fimg * golden["grad_probe"])

    grads = jax.jit(jax.grad(total))(params["visual"])
    conv1 = np.asarray(grads["patch_embed"]["kernel"]).transpose(3, 2, 0, 1)
    in_proj = np.asarray(grads["blocks_0"]["attn"]["in_proj"]["kernel"]).T
    for got, want in (
        (conv1, golden["grad_conv1"]),
        (in_proj, golden["grad_in_proj_0"]),
    ):
        np.testing.assert_allclose(got, want, atol=END * np.abs(want).max(), rtol=0)


def planted(variant, params, fault):
    """The variant and params with one known mistake."""
    params = jax.tree.map(np.copy, params)
    block = params["visual"]["blocks_0"]
    if fault == "activation":
        other = {"gelu": "quick_gelu", "quick_gelu": "gelu"}[variant.activation]
        variant = dataclasses.replace(variant, activation=other)
    elif fault == "eps":
        variant = dataclasses.replace(variant, layer_norm_eps=1e-6)
    elif fault == "transposed kernel":
        kernel = block["attn"]["out_proj"]["kernel"]
        block["attn"]["out_proj"]["kernel"] = kernel.T.copy()
    elif fault == "query and key swapped":
        kernel, w = block["attn"]["in_proj"]["kernel"], variant.vision_width
        # scores are q k^T: swapping transposes them
        parts = (kernel[:, w : 2 * w], kernel[:, :w], kernel[:, 2 * w :])
        block["attn"]["in_proj"]["kernel"] = np.concatenate(parts, axis=1)
    elif fault == "bias dropped":
        block["mlp"]["c_fc"]["bias"][:] = 0
    elif fault == "patch rows and columns swapped":
        kernel = params["visual"]["patch_embed"]["kernel"]
        params["visual"]["patch_embed"]["kernel"] = kernel.swapaxes(0, 1).copy()
    return variant, params


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        "activation",
        "eps",
        "transposed kernel",
        "query and key swapped",
        "bias dropped",
        "patch rows and columns swapped",
    ],
)
def test_parity_catches_a_planted_fault(toy, fault):
    variant, params, golden = toy
    _, _, out = run(*planted(variant, params, fault), golden)
    assert worst_block(out, golden) > 10 * BLOCK


def test_either_side_may_be_left_out(toy):
    variant, params, golden = toy
    both = run(*toy)
    zimg, none, _ = run(variant, params, {"image": golden["image"], "text": None})
    assert none is None
    np.testing.assert_allclose(zimg, both[0], atol=1e-6)
    none, ztxt, _ = run(variant, params, {"image": None, "text": golden["text"]})
    assert none is None
    np.testing.assert_allclose(ztxt, both[1], atol=1e-6)


def test_padding_after_the_longest_text_can_be_cut(toy):
    variant, params, golden = toy
    text = golden["text"][2:]  # start and end only
    whole = compiled_text_features(params["text"], text, variant)
    cut = compiled_text_features(params["text"], text[:, :4], variant)
    np.testing.assert_allclose(whole, cut, atol=1e-6)


def test_the_future_does_not_reach_the_past(toy):
    variant, params, golden = toy
    changed = golden["text"][:1].copy()
    end = int(changed[0].argmax())
    changed[0, end + 1 :] = 5
    a = compiled_text_features(params["text"], golden["text"][:1], variant)
    b = compiled_text_features(params["text"], changed, variant)
    np.testing.assert_array_equal(a, b)


def test_wrong_image_size_says_which():
    variant = toy_variant("gelu")
    with pytest.raises(ValueError, match=r"\(16, 16, 3\), got \(8, 8, 3\)"):
        jax.eval_shape(
            lambda x: CLIP(variant).init(jax.random.key(0), x, None),
            jnp.zeros((1, 8, 8, 3)),
        )


def test_normalize_rgb_by_hand():
    row = toy_variant("gelu", image_mean=(0.0, 0.5, 1.0), image_std=(1.0, 0.5, 2.0))
    rgb = np.array([255, 0, 51], np.uint8).reshape(1, 1, 1, 3)
    got = np.asarray(normalize_rgb(rgb, row)).ravel()
    np.testing.assert_allclose(got, [1.0, -1.0, -0.4], atol=1e-6)


def test_image_features_take_raw_pixels(toy):
    variant, params, _ = toy
    rgb = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    by_hand = (rgb / 255 - np.array(variant.image_mean)) / np.array(variant.image_std)
    tower, by_hand = jax.jit(make_visual(variant).apply), by_hand.astype(np.float32)
    want, _ = tower({"params": params["visual"]}, by_hand)
    got = jax.jit(image_features, static_argnums=2)(params["visual"], rgb, variant)
    np.testing.assert_allclose(got, want, atol=1e-5)


# As open_clip 3.3 builds them, which for OpenAI's four are the published counts (in
# millions 151.28, 149.62, 427.62, 427.94), exactly.
COUNTS = {
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
    "ViT-H-14": 986_109_441,
    "ViT-bigG-14": 2_539_567_105,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count_is_open_clips(name):
    shapes = clip_shapes(name)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == COUNTS[name]


def test_init_is_reproducible_and_depends_on_the_key():
    variant = toy_variant("gelu")
    a, b, c = (init_clip(variant, jax.random.key(k)) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert not np.array_equal(
        a["visual"]["class_embedding"], c["visual"]["class_embedding"]
    )


def test_openai_and_open_clip_names_differ_in_activation():
    assert get_variant("ViT-B/32").activation == "quick_gelu"
    assert get_variant("ViT-B-32").activation == "gelu"
    assert get_variant("ViT-B-32-quickgelu").activation == "quick_gelu"


def test_unknown_variant_names_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean 'ViT-L/14'"):
        get_variant("ViT-L/15")


def test_every_row_is_consistent():
    for name, row in VARIANTS.items():
        assert name == row.name
        assert row.vision_width % row.vision_heads == 0
        assert row.text_width % row.text_heads == 0


def test_a_row_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="activation 'relu'"):
        toy_variant("relu")
    with pytest.raises(ValueError, match="multiple of patch_size"):
        toy_variant("gelu", image_size=20)
