"""LoRA: the merged kernel against the low-rank path beside the kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsclip_jax.train.lora import add_lora, merge_lora
from rsclip_jax.train.optim import leaf_names

ATTENTION = r"blocks_\d+/attn/.*kernel"


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def tower() -> dict:
    block = {"attn": {"in_proj": {"kernel": draw(0, 6, 18), "bias": draw(1, 18)}}}
    return {
        "conv1": {"kernel": draw(2, 3, 3, 2, 6)},
        "blocks_0": block,
        "blocks_1": {**block, "ln_1": {"scale": draw(3, 6)}},
    }


def trained(adapters: dict) -> dict:
    """Adapters whose b is no longer zero."""
    leaves, tree = jax.tree.flatten(adapters)
    moved = [x + draw(i, *x.shape) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(tree, moved)


def test_adapters_stand_in_the_places_of_the_kernels_that_match():
    adapters = add_lora(tower(), ATTENTION, 2, jax.random.key(0))
    assert jax.tree.leaves(leaf_names(adapters)) == [
        f"blocks_{i}/attn/in_proj/kernel/{x}" for i in (0, 1) for x in "ab"
    ]
    first, second = (
        adapters[f"blocks_{i}"]["attn"]["in_proj"]["kernel"] for i in (0, 1)
    )
    assert first["a"].shape == (6, 2)
    assert first["b"].shape == (2, 18)
    assert np.abs(first["a"] - second["a"]).min() > 0  # each is drawn


def test_the_first_factor_has_the_scale_of_its_inputs():
    wide = {"kernel": draw(0, 400, 300)}
    a = add_lora(wide, ".*", 100, jax.random.key(0))["kernel"]["a"]
    np.testing.assert_allclose(np.std(a), 400**-0.5, rtol=0.02)


def test_the_model_begins_as_it_is():
    theta = tower()
    merged = merge_lora(theta, add_lora(theta, ".*kernel", 2, jax.random.key(0)), 7.0)
    jax.tree.map(np.testing.assert_array_equal, theta, merged)


def test_a_merged_dense_kernel_is_the_low_rank_path_beside_it():
    theta, scale = tower(), 1.7
    adapters = trained(add_lora(theta, r"blocks_1/.*kernel", 2, jax.random.key(0)))
    merged = merge_lora(theta, adapters, scale)
    pair = adapters["blocks_1"]["attn"]["in_proj"]["kernel"]
    x, kernel, a, b = (
        np.asarray(v, np.float64)
        for v in (
            draw(9, 5, 6),
            theta["blocks_1"]["attn"]["in_proj"]["kernel"],
            pair["a"],
            pair["b"],
        )
    )
    want = x @ kernel + scale * ((x @ a) @ b)
    got = x @ np.asarray(merged["blocks_1"]["attn"]["in_proj"]["kernel"], np.float64)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert np.abs(want - x @ kernel).max() > 0.1
    for place in (("blocks_0",), ("conv1",), ("blocks_1", "ln_1")):
        before, after = theta, merged
        for name in place:
            before, after = before[name], after[name]
        leaves = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        assert all(x is y for x, y in leaves)  # what has no adapter is left alone


def test_a_merged_convolution_is_a_narrow_one_and_one_by_one_beside_it():
    theta = {"conv1": tower()["conv1"]}
    adapters = trained(add_lora(theta, "conv1/kernel", 3, jax.random.key(0)))
    pair = adapters["conv1"]["kernel"]

    def conv(x, kernel):
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=dims
        )

    x = draw(9, 2, 5, 5, 2)
    narrow = conv(x, pair["a"].reshape(3, 3, 2, 3))
    want = conv(x, theta["conv1"]["kernel"]) + 0.5 * conv(narrow, pair["b"][None, None])
    got = conv(x, merge_lora(theta, adapters, 0.5)["conv1"]["kernel"])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("targets", "rank", "words"),
    [
        ("attn/.*", 2, r"targets = 'attn/\.\*' matches none of .*blocks_0/attn/in_pr"),
        (r".*(bias|scale)", 2, r"matches none of the kernels"),
        (ATTENTION, 7, r"rank = 7 is not between 1 and 6, the rank of blocks_0/attn"),
        (ATTENTION, 0, r"rank = 0 is not between 1 and 6"),
    ],
)
def test_what_cannot_be_adapted_is_refused(targets, rank, words):
    with pytest.raises(ValueError, match=words):
        add_lora(tower(), targets, rank, jax.random.key(0))
