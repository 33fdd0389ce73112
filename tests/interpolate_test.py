"""Interpolation: exact ends, refusals that name leaves, order against conversion."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, strategies

from rsclip_jax import interpolate as interpolation
from rsclip_jax.interpolate import (
    add_tasks,
    analogy,
    block_names,
    block_prefix,
    fisher_diagonal,
    fisher_merge,
    greedy_soup,
    interpolate,
    soup,
)
from rsclip_jax.weights import load_clip, save_clip
from tests.golden import FOLDER, toy_variant
from tests.helpers.doc_examples import run_examples


def same_bits(a, b):
    def check(x, y):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()

    jax.tree.map(check, a, b)


def draw(seed: int):
    rng = np.random.default_rng(seed)
    return {
        "visual": {
            "kernel": rng.normal(size=(3, 4)).astype(np.float32),
            "bias": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
        },
        "logit_scale": np.float32(rng.normal()).reshape(()),
    }


HARD = np.array([-0.0, 0.0, np.nan, np.inf, -np.inf, 1e-45, 3.4e38], np.float32)


def hard_ends():
    theta_0 = {"w": HARD, "half": jnp.asarray(HARD, jnp.bfloat16)}
    turned = HARD[::-1].copy()
    return theta_0, {"w": turned, "half": jnp.asarray(turned, jnp.bfloat16)}


@pytest.mark.parametrize("alpha", [0, 1, 0.0, 1.0, np.float32(0), np.float64(1)])
@pytest.mark.parametrize("ends", [hard_ends(), (draw(0), draw(1))])
def test_ends_are_bit_identical(alpha, ends):
    same_bits(interpolate(*ends, alpha), ends[int(alpha)])


@pytest.mark.parametrize("ends", [hard_ends(), (draw(0), draw(1))])
def test_ends_are_bit_identical_for_a_traced_alpha(ends):
    jitted = jax.jit(lambda *args: interpolate(*args))
    same_bits(jitted(*ends, 0.0), jax.tree.map(jnp.asarray, ends[0]))
    same_bits(jitted(*ends, 1.0), jax.tree.map(jnp.asarray, ends[1]))
    assert jitted._cache_size() == 1  # alpha was traced, not compiled in


def test_the_plain_formula_would_miss_the_ends():
    x, y = hard_ends()
    with np.errstate(invalid="ignore"):
        plain = (1 - 0.0) * x["w"] + 0.0 * y["w"]
    assert plain.tobytes() != x["w"].tobytes()


@pytest.mark.parametrize("how", [interpolate, jax.jit(interpolate)])
def test_values_between_by_hand(how):
    theta_0 = {"a": jnp.array([0.0, 2.0]), "b": jnp.array(-4.0)}
    theta_1 = {"a": jnp.array([8.0, 2.0]), "b": jnp.array(4.0)}
    quarter = how(theta_0, theta_1, 0.25)
    np.testing.assert_array_equal(quarter["a"], [2.0, 2.0])
    np.testing.assert_array_equal(quarter["b"], -2.0)
    np.testing.assert_array_equal(how(theta_0, theta_1, 0.75)["b"], 2.0)


def test_alpha_may_be_a_tree_prefix():
    theta_0, theta_1 = draw(0), draw(1)
    mixed = interpolate(theta_0, theta_1, {"visual": 0.5, "logit_scale": 0.0})
    half = interpolate(theta_0, theta_1, 0.5)
    same_bits(mixed["visual"], half["visual"])
    same_bits(mixed["logit_scale"], theta_0["logit_scale"])
    deeper = {"visual": {"kernel": 1.0, "bias": 0.0}, "logit_scale": 1.0}
    mixed = interpolate(theta_0, theta_1, deeper)
    same_bits(mixed["visual"]["kernel"], theta_1["visual"]["kernel"])
    same_bits(mixed["visual"]["bias"], theta_0["visual"]["bias"])
    same_bits(mixed["logit_scale"], theta_1["logit_scale"])


def test_a_traced_tree_prefix_gives_the_same():
    prefix = {"visual": 0.25, "logit_scale": 1.0}
    want = interpolate(draw(0), draw(1), prefix)
    got = jax.jit(interpolate)(draw(0), draw(1), prefix)
    np.testing.assert_allclose(
        got["visual"]["kernel"], want["visual"]["kernel"], rtol=1e-6
    )
    same_bits(np.asarray(got["logit_scale"]), draw(1)["logit_scale"])


def test_alpha_that_is_no_prefix_is_refused():
    with pytest.raises(ValueError, match="alpha must be a float or a tree prefix"):
        interpolate(draw(0), draw(1), {"visual": 0.5})


@pytest.mark.parametrize("alpha", [0.0, 0.5, {"visual": 0.5, "logit_scale": 1.0}])
def test_trees_of_two_models_raise_naming_every_leaf(alpha):
    theta_0, theta_1 = draw(0), draw(1)
    del theta_1["visual"]["bias"]
    theta_1["visual"]["extra"] = np.zeros(2, np.float32)
    theta_1["visual"]["kernel"] = theta_1["visual"]["kernel"].T
    with pytest.raises(ValueError, match="cannot be interpolated") as error:
        interpolate(theta_0, theta_1, alpha)
    for line in (
        r"only in theta_0: visual/bias",
        r"only in theta_1: visual/extra",
        r"visual/kernel: \(3, 4\) in theta_0, \(4, 3\) in theta_1",
    ):
        assert re.search(line, str(error.value))
    assert "logit_scale" not in str(error.value)


@pytest.mark.parametrize("module", [np, jnp])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("alpha", [0.0, 0.3, np.float64(0.3), 1.0])
def test_dtype_is_kept(module, dtype, alpha):
    x = {"w": module.asarray([0.0, 1.0], dtype)}
    y = {"w": module.asarray([2.0, 3.0], dtype)}
    for how in (interpolate, jax.jit(interpolate)):
        got = how(x, y, alpha)["w"]
        assert got.dtype == dtype
        want = np.array([2 * alpha, 1 + 2 * alpha])
        np.testing.assert_allclose(got.astype(np.float32), want, rtol=1e-2)


def test_the_ends_are_not_changed_in_place():
    theta_0, theta_1 = draw(0), draw(1)
    interpolate(theta_0, theta_1, 0.5)
    same_bits(theta_0, draw(0))
    same_bits(theta_1, draw(1))


def test_interpolation_commutes_with_conversion(tmp_path):
    variant = toy_variant("gelu")
    params, files = [], []
    for i, activation in enumerate(("gelu", "quick_gelu")):
        path = FOLDER / f"clip_toy_{activation}.safetensors"
        params.append(load_clip(path, variant)[1])
        save_clip(tmp_path / f"{i}.safetensors", variant, params[-1])
        files.append(safetensors.numpy.load_file(tmp_path / f"{i}.safetensors"))
    save_clip(tmp_path / "mixed.safetensors", variant, interpolate(*params, 0.3))
    mixed = safetensors.numpy.load_file(tmp_path / "mixed.safetensors")
    want = {k: (0.7 * files[0][k] + 0.3 * files[1][k]) for k in files[0]}
    assert mixed.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(mixed[name], array)
    moved = sum(not np.array_equal(mixed[k], files[0][k]) for k in mixed)
    assert moved > len(mixed) / 2  # the two models do differ
    _, again = load_clip(tmp_path / "mixed.safetensors")
    same_bits(again, interpolate(*params, 0.3))


# Blocks


def tower(seed: int):
    rng = np.random.default_rng(seed)
    names = "patch_embed ln_pre class_embedding blocks_0 blocks_1 blocks_10 ln_post"
    return {
        name: {"w": rng.normal(size=3).astype(np.float32)}
        for name in (*names.split(), "proj")
    }


def test_blocks_are_named_from_the_pixels_on():
    assert block_names(tower(0)) == (
        *("stem", "blocks_0", "blocks_1", "blocks_10", "projection"),
    )
    resnet = dict.fromkeys(("conv1", "bn1", "layer2_1", "layer1_10", "attnpool"))
    assert block_names(resnet) == ("stem", "layer1_10", "layer2_1", "projection")


@pytest.mark.parametrize("how", [interpolate, jax.jit(interpolate)])
def test_each_block_has_its_own_alpha(how):
    ends = tower(0), tower(1)
    alphas = {"stem": 0.0, "blocks_0": 0.25, "blocks_1": 1.0, "blocks_10": 0.5}
    alphas["projection"] = 0.75
    mixed = how(*ends, block_prefix(ends[0], alphas))
    by_hand = {"patch_embed": 0.0, "ln_pre": 0.0, "class_embedding": 0.0}
    by_hand |= {"ln_post": 0.75, "proj": 0.75, "blocks_10": 0.5, "blocks_0": 0.25}
    for name, alpha in by_hand.items():
        want = (1 - alpha) * ends[0][name]["w"] + alpha * ends[1][name]["w"]
        np.testing.assert_allclose(mixed[name]["w"], want, rtol=1e-6)
    same_bits(np.asarray(mixed["blocks_1"]["w"]), ends[1]["blocks_1"]["w"])


def test_alphas_that_miss_a_block_are_refused():
    with pytest.raises(ValueError, match=r"alphas has .*\['blocks_0', 'stem'\]; the"):
        block_prefix(tower(0), {"stem": 0.0, "blocks_0": 1.0})


# Several models, against numpy


def close(got, want):
    def check(x, y):
        assert x.dtype == np.asarray(y).dtype or x.dtype == jnp.bfloat16
        rtol = 1e-2 if x.dtype == jnp.bfloat16 else 1e-5
        np.testing.assert_allclose(
            np.asarray(x, np.float64), np.asarray(y, np.float64), rtol=rtol, atol=rtol
        )

    jax.tree.map(check, got, want)


def by_numpy(function, *trees):
    """The same arithmetic in float64, leaf by leaf."""
    return jax.tree.map(
        lambda *xs: function(*(np.asarray(x, np.float64) for x in xs)).astype(
            np.asarray(xs[0]).dtype
        ),
        *trees,
    )


def test_tasks_add_up():
    zero, one, two = draw(0), draw(1), draw(2)
    want = by_numpy(lambda z, a, b: z + 0.5 * (a - z) - 0.25 * (b - z), zero, one, two)
    close(add_tasks(zero, [one, two], [0.5, -0.25]), want)
    want = by_numpy(lambda z, a, b: z + 0.3 * (a - z) + 0.3 * (b - z), zero, one, two)
    close(add_tasks(zero, [one, two], 0.3), want)


@given(alpha=strategies.floats(0, 1))
def test_one_task_is_interpolation(alpha):
    same_bits(
        add_tasks(draw(0), [draw(1)], alpha), interpolate(draw(0), draw(1), alpha)
    )


@given(order=strategies.permutations(range(4)), seed=strategies.integers(0, 99))
def test_tasks_commute(order, seed):
    thetas = [draw(seed + i) for i in range(1, 5)]
    alphas = [0.1, -0.3, 0.7, 0.2]
    close(
        add_tasks(draw(seed), [thetas[i] for i in order], [alphas[i] for i in order]),
        add_tasks(draw(seed), thetas, alphas),
    )


def test_no_alpha_gives_the_original_bit_for_bit():
    theta_0, theta_1 = hard_ends()
    same_bits(add_tasks(theta_0, [theta_1, theta_1], 0.0), theta_0)
    same_bits(add_tasks(theta_0, [theta_1, theta_0], [1.0, 0.0]), theta_1)


def test_an_analogy_by_numpy_and_of_nothing():
    a, b, c = draw(0), draw(1), draw(2)
    close(analogy(a, b, c, 0.5), by_numpy(lambda x, y, z: z + 0.5 * (y - x), a, b, c))
    same_bits(analogy(a, b, c, 0.0), c)


def test_a_soup_is_the_mean():
    thetas = [draw(i) for i in range(3)]
    close(soup(thetas), by_numpy(lambda *xs: sum(xs) / 3, *thetas))
    close(
        soup(thetas, [1, 0, 3]),
        by_numpy(lambda x, y, z: (x + 3 * z) / 4, *thetas),
    )
    for one in (draw(0), hard_ends()[0]):
        same_bits(soup([one]), one)
    for weights in ([1, -1, 1], [0, 0, 0]):
        with pytest.raises(ValueError, match="of a soup must be 0 or more"):
            soup(thetas, weights)


def test_a_greedy_soup_takes_only_what_does_not_harm():
    points = [np.float32([x]) for x in (1.0, -1.5, 9.0, 4.0)]
    thetas = [{"w": x} for x in points]
    # the closer to 0 the better: -1.5 mixes to -0.25, 4 to 1.17, 9 to 2.83
    asked = []

    def score(theta):
        asked.append(float(theta["w"][0]))
        return -abs(asked[-1])

    mixed, kept = greedy_soup(thetas, score)
    assert kept == (0, 1)
    np.testing.assert_allclose(mixed["w"], [-0.25])
    assert len(asked) == 4 + 3


@given(values=strategies.lists(strategies.floats(-5, 5), min_size=1, max_size=6))
def test_a_greedy_soup_is_never_below_its_best_model(values):
    thetas = [{"w": np.float32([v])} for v in values]

    def score(theta):
        return -float((theta["w"][0] - 1) ** 2)

    mixed, _ = greedy_soup(thetas, score)
    assert score(mixed) >= max(score(theta) for theta in thetas)


def test_fisher_merging_weighs_by_what_each_model_knows():
    thetas = [{"w": np.float32([0.0, 0.0, 2.0])}, {"w": np.float32([8.0, 8.0, 6.0])}]
    fishers = [{"w": np.float32([1.0, 3.0, 0.0])}, {"w": np.float32([3.0, 1.0, 0.0])}]
    # by hand: 24/4, 8/4, and where neither knows anything the mean
    np.testing.assert_allclose(fisher_merge(thetas, fishers)["w"], [6, 2, 4], rtol=1e-6)
    weighted = fisher_merge(thetas, fishers, [3, 1])["w"]
    np.testing.assert_allclose(weighted, [24 / 6, 8 / 10, 3], rtol=1e-6)


def test_equal_fishers_give_the_soup():
    thetas = [draw(i) for i in range(3)]
    ones = jax.tree.map(lambda x: np.full_like(np.asarray(x), 7), thetas[0])
    close(fisher_merge(thetas, [ones] * 3), soup(thetas))
    close(fisher_merge(thetas, [ones] * 3, [1, 2, 1]), soup(thetas, [1, 2, 1]))


@pytest.mark.parametrize(
    "how",
    [
        lambda a, b: add_tasks(a, [b], 0.5),
        lambda a, b: analogy(a, a, b),
        lambda a, b: soup([a, b]),
        lambda a, b: fisher_merge([a, b], [a, a]),
        lambda a, b: fisher_merge([a, a], [a, b]),
    ],
)
def test_trees_of_two_models_are_refused_by_all(how):
    other = draw(1)
    del other["visual"]["bias"]
    with pytest.raises(ValueError, match=r"only in theta_.: visual/bias"):
        how(draw(0), other)


def test_counts_that_differ_are_refused():
    with pytest.raises(ValueError, match="1 alphas for 2 models"):
        add_tasks(draw(0), [draw(1), draw(2)], [0.5])
    with pytest.raises(ValueError, match="1 fishers for 2 models"):
        fisher_merge([draw(1), draw(2)], [draw(0)])
    with pytest.raises(ValueError, match="no parameter trees"):
        soup([])


def test_nothing_is_changed_in_place():
    thetas = [draw(i) for i in range(3)]
    add_tasks(*thetas[:1], thetas[1:], 0.5)
    soup(thetas)
    fisher_merge(thetas, thetas)
    for i, theta in enumerate(thetas):
        same_bits(theta, draw(i))


# Fisher information


def softmax_nll(params, frozen, batch):
    logits = batch["x"] @ params["w"] + frozen["b"][None]
    logp = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.mean(jnp.take_along_axis(logp, batch["label"][:, None], axis=-1)), {}


def test_the_fisher_diagonal_is_the_mean_square_of_each_examples_gradient():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(5, 3)), rng.normal(size=(3, 4))
    b, label = rng.normal(size=4), rng.integers(4, size=5)
    prob = np.exp(x @ w + b)
    prob /= prob.sum(axis=1, keepdims=True)
    # of softmax regression the gradient is x (p - y)
    each = x[:, :, None] * (prob - np.eye(4)[label])[:, None, :]
    found = fisher_diagonal(
        softmax_nll,
        {"w": jnp.asarray(w, jnp.float32)},
        {"b": jnp.asarray(b, jnp.float32)},
        {"x": jnp.asarray(x, jnp.float32), "label": jnp.asarray(label)},
    )
    np.testing.assert_allclose(found["w"], (each**2).mean(axis=0), rtol=1e-5)


def test_over_the_models_own_labels_the_fisher_is_the_curvature():
    """By hand: of one logit pair at x, p (1 - p) x^2 for each weight."""
    x, w = 1.5, np.array([[0.4, -0.3]])
    p = 1 / (1 + np.exp(-x * (w[0, 0] - w[0, 1])))
    count = 4000
    labels = (np.arange(count) >= round(p * count)).astype(np.int32)  # in p's shares
    found = fisher_diagonal(
        softmax_nll,
        {"w": jnp.asarray(w, jnp.float32)},
        {"b": jnp.zeros(2)},
        {"x": jnp.full((count, 1), x), "label": jnp.asarray(labels)},
    )
    np.testing.assert_allclose(
        found["w"], np.full((1, 2), p * (1 - p) * x**2), rtol=1e-3
    )


def test_every_public_function_has_an_example_that_runs():
    assert run_examples(interpolation) >= 11
