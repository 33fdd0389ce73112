"""Embeddings of texts and the zero-shot head, by hand from single texts."""

import functools

import jax
import numpy as np
import pytest

from rsclip_jax.data.tokenizer import tokenize
from rsclip_jax.models import inference
from rsclip_jax.models.clip import CLIP, init_clip
from rsclip_jax.models.inference import OnDevice, encode_texts, make_head
from rsclip_jax.models.variants import get_variant

VARIANT = get_variant("mini")
NAMES = ("lake", "forest")
TEMPLATES = ("a photo of a {c}.", "{c}", "an aerial view of {c}")


@functools.cache
def params():
    return init_clip("mini", jax.random.key(1))


def test_the_head_is_the_renormalised_mean_over_templates_times_the_scale():
    head = make_head(params(), VARIANT, NAMES, TEMPLATES)
    assert head.shape == (64, 2)
    for k, name in enumerate(NAMES):
        tokens = tokenize([t.format(c=name) for t in TEMPLATES], 24)
        _, ztxt, _ = CLIP("mini").apply({"params": params()}, None, tokens)
        mean = np.asarray(ztxt, np.float64).mean(axis=0)
        want = mean / np.linalg.norm(mean) * np.exp(float(params()["logit_scale"]))
        np.testing.assert_allclose(head[:, k], want, atol=1e-5)


def test_embeddings_do_not_depend_on_what_is_embedded_beside():
    long = "a very long text about a lake near a forest"
    together = encode_texts(params(), VARIANT, ["lake", long, "forest"])
    for text, z in zip(("lake", long, "forest"), together, strict=True):
        alone = encode_texts(params(), VARIANT, [text])[0]
        np.testing.assert_allclose(alone, z, atol=1e-6)
    shouted = "a a a a a river!🚀"  # its "!" is token 0, which is padding elsewhere too
    alone, beside = (
        encode_texts(params(), VARIANT, [shouted, *x]) for x in ([], [long])
    )
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-6)
    blocks = encode_texts(params(), VARIANT, ["lake", long] * 20, block=16)
    np.testing.assert_allclose(blocks[::2], np.repeat(together[:1], 20, 0), atol=1e-6)


def on_host():
    return jax.tree.map(np.asarray, params())


def test_params_are_moved_to_the_device_once(monkeypatch):
    moved, device_put = [], jax.device_put

    def put(tree):
        leaves = jax.tree.leaves(tree)
        moved.append(sum(leaf.nbytes for leaf in leaves if type(leaf) is np.ndarray))
        return device_put(tree)

    given = []
    for name in ("encode_rgb", "_encode_tokens"):
        program = getattr(inference, name)

        def called(params, inputs, program=program, **statics):
            given.append(params)
            return program(params, inputs, **statics)

        monkeypatch.setattr(inference, name, called)
    monkeypatch.setattr(inference.jax, "device_put", put)
    kept = OnDevice(on_host())
    assert list(kept) == list(params())
    for _ in range(2):
        encode_texts(kept, VARIANT, ["lake"] * 40, block=16)
        make_head(kept, VARIANT, NAMES, TEMPLATES)
        inference.encode_images(kept, VARIANT, [np.zeros((32, 32, 3), np.uint8)])
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(given))
    sizes = {
        name: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        for name, tree in on_host().items()
    }
    assert sorted(size for size in moved if size) == sorted(sizes.values())


def test_params_of_the_host_and_of_the_device_give_the_same_bits():
    host, device = on_host(), OnDevice(on_host())
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 32, 3), np.uint8)
    for encode in (
        lambda p: encode_texts(p, VARIANT, ["lake", "forest"]),
        lambda p: make_head(p, VARIANT, NAMES, TEMPLATES),
        lambda p: inference.encode_images(p, VARIANT, images, block=2),
    ):
        np.testing.assert_array_equal(encode(host), encode(device))


@pytest.mark.parametrize(
    ("images", "rows"),
    [(1, [1]), (2, [2]), (3, [4]), (5, [8]), (8, [8]), (9, [8, 8]), (17, [8, 8, 8])],
)
def test_few_images_are_not_padded_to_a_whole_block(monkeypatch, images, rows):
    encode, given = inference.encode_rgb, []

    def counted(params, rgb, **statics):
        given.append(len(rgb))
        return encode(params, rgb, **statics)

    rgb = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), np.uint8)
    want = inference.encode_images(params(), VARIANT, np.repeat(rgb, 2, 0), block=2)
    monkeypatch.setattr(inference, "encode_rgb", counted)
    z = inference.encode_images(params(), VARIANT, rgb, block=8)
    assert given == rows
    np.testing.assert_allclose(z, want[::2], atol=1e-6)


def test_a_block_holds_at_least_one_image():
    with pytest.raises(ValueError, match="block = 0: at least one"):
        inference.encode_images(params(), VARIANT, [], block=0)
