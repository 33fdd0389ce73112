"""Interpolation: exact ends, refusals that name leaves, order against conversion."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.interpolate import interpolate
from rsclip_jax.weights import load_clip, save_clip
from tests.golden import FOLDER, toy_variant


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
