"""Sensor encoders against timm's ViT, inflation, normalisation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.models.clip import init_clip, make_visual
from rsclip_jax.models.sensor import (
    SensorSpec,
    adapt_kernel,
    add_map,
    clip_spec,
    inflate_params,
    init_sensor,
    make_sensor_encoder,
    normalize_sensor,
    sensor_features,
    sensor_shapes,
    vit_spec,
)
from rsclip_jax.weights import load_encoder
from tests.golden import FOLDER, toy_spec, toy_variant


@pytest.fixture
def toy(golden):
    """(spec, params, torch's arrays) of the timm toy, with a random map on top."""
    spec = toy_spec()
    kernel = np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)
    projection = {"kernel": kernel, "bias": np.full(16, 0.5, np.float32)}
    path = FOLDER / "timm_toy.safetensors"
    found, params = load_encoder(path, SENSORS["s1_grd"], heads=2)
    assert dataclasses.replace(found, out_dim=16) == dataclasses.replace(
        spec, mean=found.mean, std=found.std, clip_sigma=found.clip_sigma
    )
    return spec, {**params, "proj": projection}, golden("timm_toy")


def apply(spec, params, x):
    """Compiled as one: several times faster than operation by operation."""
    return jax.jit(make_sensor_encoder(spec).apply)({"params": params}, x)


def test_every_block_equals_timm(toy):
    spec, params, golden = toy
    _, features = apply(spec, params, golden["image"])
    for name in ("pre", "block_0", "block_1"):
        np.testing.assert_allclose(features[name], golden[name], atol=1e-5, rtol=0)
    np.testing.assert_allclose(features["pooled"], golden["pooled"], atol=1e-4, rtol=0)


def test_the_map_to_clip_is_applied_last(toy):
    spec, params, golden = toy
    got, _ = apply(spec, params, golden["image"])
    projection = params["proj"]
    want = golden["pooled"] @ projection["kernel"] + projection["bias"]
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("change", [{"eps": 1e-3}, {"activation": "quick_gelu"}])
def test_parity_catches_a_wrong_row(toy, change):
    spec, params, golden = toy
    _, features = apply(dataclasses.replace(spec, **change), params, golden["image"])
    assert np.abs(features["block_1"] - golden["block_1"]).max() > 1e-4


@pytest.mark.parametrize("bands", [1, 2, 13])
def test_inflation_keeps_the_sum_over_equal_bands(bands):
    variant = toy_variant("quick_gelu")
    visual = init_clip(variant, jax.random.key(0))["visual"]
    inflated = inflate_params(visual, bands)
    grey = np.random.default_rng(1).normal(size=(2, 16, 16, 1)).astype(np.float32)
    sensor = dataclasses.replace(
        SENSORS["s1_vh_8bit"],
        bands=tuple(f"X{i}" for i in range(bands)),
        **dict.fromkeys(("wavelengths", "resolution", "mean", "std"), (1.0,) * bands),
    )
    spec, copies = clip_spec(sensor, variant), np.repeat(grey, bands, axis=-1)
    got, _ = apply(spec, inflated, copies)
    tower = jax.jit(make_visual(variant).apply)
    want, _ = tower({"params": visual}, np.repeat(grey, 3, -1))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert visual["patch_embed"]["kernel"].shape[2] == 3  # the teacher's stays


KERNEL = np.random.default_rng(5).normal(size=(2, 2, 3, 4)).astype(np.float32)
RGB = ("R", "G", "B")


def test_bands_of_both_keep_their_kernel_in_the_order_of_the_target():
    got = adapt_kernel(KERNEL, RGB, ("B", "R", "G"))
    np.testing.assert_array_equal(got, KERNEL[:, :, [2, 0, 1]])
    got = adapt_kernel(KERNEL, RGB, ("G",), missing="zero")
    np.testing.assert_array_equal(got, KERNEL[:, :, 1:2])
    got = adapt_kernel(KERNEL, RGB, ("B", "NIR"), missing="zero")
    np.testing.assert_array_equal(got[:, :, 0], KERNEL[:, :, 2])
    np.testing.assert_array_equal(got[:, :, 1], 0)


@pytest.mark.parametrize(
    "target",
    [("B", "R", "G"), ("G",), ("R", "NIR"), ("NIR", "G", "B", "R", "SWIR"), ("X",)],
)
def test_spread_keeps_the_sum_over_bands(target):
    got = adapt_kernel(KERNEL, RGB, target, missing="spread")
    assert got.shape == (2, 2, len(target), 4)
    np.testing.assert_allclose(got.sum(axis=2), KERNEL.sum(axis=2), atol=1e-6)


def test_what_spread_adds_is_equal_for_all_bands():
    """R, G of R, G, B: what B had is shared out, so their difference stays."""
    got = adapt_kernel(KERNEL, RGB, ("R", "G"), missing="spread")
    np.testing.assert_allclose(
        got[:, :, 0] - got[:, :, 1], KERNEL[:, :, 0] - KERNEL[:, :, 1], atol=1e-6
    )


@pytest.mark.parametrize(
    ("source", "target", "missing", "words"),
    [
        (RGB, ("R", "G"), "error", r"not in the sensor \['B'\].*'zero'.*'spread'"),
        (RGB, ("VV", "VH"), "zero", r"not in the encoder \['VV', 'VH'\]"),
        (("R", "G"), ("R",), "zero", r"over 3 bands does not fit the band names"),
        (("R", "R", "B"), ("R",), "zero", r"distinct names"),
        (RGB, ("R",), "mean", r"missing 'mean': use 'error', 'zero' or 'spread'"),
    ],
)
def test_bands_that_do_not_fit_are_named(source, target, missing, words):
    with pytest.raises(ValueError, match=words):
        adapt_kernel(KERNEL, source, target, missing=missing)


def test_a_map_on_top_starts_near_the_width_of_the_features():
    spec = dataclasses.replace(toy_spec(), out_dim=0)
    params = init_sensor(spec, jax.random.key(0))
    assert "proj" not in params
    spec, params = add_map(spec, params, 16, jax.random.key(1))
    jax.tree.map(
        lambda a, b: np.testing.assert_equal(a.shape, b.shape),
        params,
        sensor_shapes(spec),
    )
    assert 0.5 < params["proj"]["kernel"].std() * 32**0.5 < 1.5


def test_normalisation_by_hand_and_clipped():
    spec = dataclasses.replace(
        toy_spec(), mean=(-12.0, -20.0), std=(5.0, 4.0), clip_sigma=2.0
    )
    x = np.array([-7.0, -100.0], np.float32).reshape(1, 1, 1, 2)
    got = np.asarray(normalize_sensor(x, spec)).ravel()
    np.testing.assert_allclose(got, [1.0, -2.0])


def test_features_take_raw_values():
    spec = vit_spec(
        SENSORS["s2_l1c"],
        image_size=8,
        patch_size=4,
        width=16,
        layers=1,
        heads=2,
        out_dim=4,
    )
    params = init_sensor(spec, jax.random.key(0))
    raw = np.random.default_rng(0).integers(0, 8000, (2, 8, 8, 13)).astype(np.uint16)
    by_hand = ((raw.astype(np.float64) - 2000) / 2000).astype(np.float32)
    want, _ = apply(spec, params, by_hand)
    got = jax.jit(sensor_features, static_argnums=2)(params, raw, spec)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_spec_survives_json():
    spec = toy_spec()
    as_lists = {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in dataclasses.asdict(spec).items()
    }
    assert SensorSpec.from_json(as_lists) == spec


def test_shapes_are_those_of_init():
    spec = toy_spec()
    made = init_sensor(spec, jax.random.key(0))
    jax.tree.map(
        lambda a, b: np.testing.assert_equal(a.shape, b.shape),
        made,
        sensor_shapes(spec),
    )


def test_wrong_band_count_says_which():
    spec = toy_spec()
    params = init_sensor(spec, jax.random.key(0))
    with pytest.raises(ValueError, match=r"\(16, 16, 2\), got \(16, 16, 3\)"):
        make_sensor_encoder(spec).apply({"params": params}, jnp.zeros((1, 16, 16, 3)))
