"""The zero-shot head, by hand from single texts; records."""

import functools

import jax
import numpy as np
import pytest

from rsclip_jax.evals.zero_shot import encode_texts, make_head, zero_shot_records
from rsclip_jax.models.clip import CLIP, init_clip
from rsclip_jax.models.variants import get_variant

VARIANT = get_variant("mini")
NAMES = ("lake", "forest")
TEMPLATES = ("a photo of a {c}.", "{c}", "an aerial view of {c}")


@functools.cache
def params():
    return init_clip("mini", jax.random.key(1))


def test_the_head_is_the_renormalised_mean_over_templates_times_the_scale():
    from rsclip_jax.data.tokenizer import tokenize

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


def test_single_label_records_have_a_value_a_class():
    logits = np.array([[2.0, 1, 0], [2, 1, 0], [0, 1, 2]])
    (record,) = zero_shot_records(
        logits, np.array([0, 1, 2]), task="single", sensor="s1", classnames="abc"
    )
    assert record["value"] == pytest.approx(2 / 3)
    assert record["ci95"] == [0.0, 1.0]  # of three examples
    assert record["per_class"] == {"a": 1.0, "b": 0.0, "c": 1.0}
    assert (record["task"], record["sensor"], record["n"]) == ("zero_shot", "s1", 3)


def test_a_class_without_examples_has_no_value_and_no_weight():
    logits = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.1]])
    targets = np.array([[1, 0, 0], [0, 1, 0]], np.uint8)
    macro, micro = zero_shot_records(
        logits, targets, task="multi", sensor="rgb", classnames="abc"
    )
    assert macro["metric"] == "mAP_macro"
    assert macro["value"] == 1.0
    assert macro["per_class"] == {"a": 1.0, "b": 1.0, "c": None}
    assert (micro["metric"], micro["value"]) == ("mAP_micro", 1.0)
    assert macro["ci95"] == micro["ci95"] == [1.0, 1.0]
