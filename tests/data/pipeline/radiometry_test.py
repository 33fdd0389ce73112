"""Radiometric augmentation: colour, speckle, gain and dropped bands."""

import dataclasses
import re

import numpy as np
import pytest

from rsclip_jax.data.pipeline.augment import Augment, check_augment
from rsclip_jax.data.pipeline.radiometry import photometric, vary_backscatter
from rsclip_jax.data.sensors import SENSORS
from tests.helpers.augmented import STILL, SYMMETRY, ground, noise, run

# Colour.


def colour(augment, seed=0, rgb=None):
    rgb = noise(16, 16, 3) if rgb is None else rgb
    return photometric(rgb, np.random.default_rng(seed), augment)


def test_colour_changes_only_affect_rgb():
    record = {"rgb": noise(16, 16, 3), "s1": ground(16), "ir": noise(16, 16, 3, seed=1)}
    sizes = {"rgb": 16, "s1": 16, "ir": 16}
    plain = run(record, 4, SYMMETRY, sizes)
    strong = dataclasses.replace(
        SYMMETRY, jitter=0.4, jitter_prob=1, grey_prob=1, blur_prob=1
    )
    loud = run(record, 4, strong, sizes)
    assert not np.array_equal(plain["rgb"], loud["rgb"])
    for key in ("s1", "ir"):
        np.testing.assert_array_equal(plain[key], loud[key])


def test_without_settings_colours_are_unchanged():
    rgb = noise(16, 16, 3)
    assert colour(Augment(), rgb=rgb) is rgb
    never = Augment(jitter=0.4, jitter_prob=0)
    np.testing.assert_array_equal(colour(never, rgb=rgb), rgb)


def test_jitter_scales_a_flat_grey_image_by_its_brightness_alone():
    flat = np.full((4, 4, 3), 100, np.uint8)
    always = Augment(jitter=0.4, jitter_prob=1)
    values = []
    for seed in range(300):
        out = colour(always, seed, flat)
        assert np.ptp(out) <= 1  # contrast and saturation have nothing to change
        values.append(out.mean())
    assert 59 <= min(values) < 63
    assert 137 < max(values) <= 140
    assert np.mean(values) == pytest.approx(100, abs=4)


def test_jitter_is_brightness_then_contrast_then_saturation():
    rgb = (64 + noise(8, 8, 3) / 4).astype(np.uint8)
    out = colour(Augment(jitter=0.3, jitter_prob=1), 7, rgb)
    rng = np.random.default_rng(7)
    rng.random()
    bright, contrast, saturation = rng.uniform(0.7, 1.3, 3)
    x = rgb.astype(np.float64) * bright
    x = x.mean() + contrast * (x - x.mean())
    x = x.mean(-1, keepdims=True) + saturation * (x - x.mean(-1, keepdims=True))
    assert 0 < x.min() < x.max() < 255
    assert np.abs(out - x).max() < 1.01


def test_jitter_clips_at_white_and_does_not_wrap():
    white = np.full((4, 4, 3), 250, np.uint8)
    outs = [colour(Augment(jitter=0.4, jitter_prob=1), s, white) for s in range(30)]
    assert min(o.min() for o in outs) >= 149
    assert max(o.max() for o in outs) == 255


def test_jitter_occurs_with_its_probability():
    rgb = noise(4, 4, 3)
    augment = Augment(jitter=0.4, jitter_prob=0.3)
    changed = [not np.array_equal(colour(augment, s, rgb), rgb) for s in range(400)]
    assert 0.22 < np.mean(changed) < 0.38


def test_grey_is_luminance_in_three_equal_channels():
    rgb = noise(8, 8, 3)
    out = colour(Augment(grey_prob=1), rgb=rgb)
    expected = rgb @ np.array([0.299, 0.587, 0.114])
    assert out.shape == rgb.shape
    assert np.abs(out - expected[..., None]).max() <= 0.51


def test_blur_smooths_and_keeps_the_mean():
    rgb = noise(64, 64, 3)
    for seed in range(5):
        out = colour(Augment(blur_prob=1), seed, rgb)
        assert out.dtype == np.uint8
        assert out.mean() == pytest.approx(rgb.mean(), abs=1.5)
        assert out.std() <= rgb.std()
    assert min(colour(Augment(blur_prob=1), s, rgb).std() for s in range(5)) < 30


# Speckle, gain, band dropout.


def radar(seed=0, side=256, level=-12.0):
    """[side, side, 2] in dB, with a different level in each half and band."""
    array = np.full((side, side, 2), level, np.float32)
    array[: side // 2] -= 8
    array[..., 1] -= np.float32(seed + 7)
    return array


def intensity(decibel):
    return 10 ** (decibel.astype(np.float64) / 10)


@pytest.mark.parametrize("looks", [1, 4.4, 20])
def test_speckle_keeps_the_mean_intensity_with_a_variance_of_one_over_looks(looks):
    plain = radar()
    augment = dataclasses.replace(STILL, speckle_looks=looks)
    out = run({"s1": plain}, 3, augment, {"s1": 256})["s1"]
    assert out.dtype == np.float32
    ratio = intensity(out) / intensity(plain)
    n = ratio.size
    assert abs(ratio.mean() - 1) < 4 / np.sqrt(looks * n)
    # of a gamma distribution the variance's own variance is (2 + 6 / looks) / looks^2
    error = np.sqrt((2 + 6 / looks) / n) / looks
    assert abs(ratio.var() - 1 / looks) < 4 * error
    # from pixel to pixel and band to band it is drawn anew
    for other in (np.roll(ratio, 1, 0), np.roll(ratio, 1, 1), ratio[..., ::-1]):
        assert abs(np.corrcoef(ratio.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(n)
    # additive noise of one size, as in dB without the logarithm, is not it
    halves = (out - plain).std((1, 2))
    assert halves[:128].mean() == pytest.approx(halves[128:].mean(), rel=0.05)


def test_speckle_is_finite_where_a_draw_is_zero():
    class Zeros:
        def standard_gamma(self, shape, size, dtype):
            return np.zeros(size, dtype)

    out = vary_backscatter(radar(), Zeros(), Augment(speckle_looks=1))
    np.testing.assert_allclose(out, radar() - 50, atol=1e-4)


def test_gain_is_one_uniform_offset_per_image():
    plain, offsets = radar(side=8), []
    augment = dataclasses.replace(STILL, sar_gain_db=1.5)
    for seed in range(600):
        out = run({"s1": plain}, seed, augment, {"s1": 8})["s1"]
        assert out.dtype == np.float32
        assert np.ptp(out - plain) < 1e-5
        offsets.append(float((out - plain).mean()))
    counts, _ = np.histogram(offsets, 6, (-1.5, 1.5))
    assert sum(counts) == 600  # none lies outside
    assert ((counts - 100) ** 2 / 100).sum() < 15.1  # chi2 of 5 freedoms, p 0.01


def bands_of(array, sensor):
    """{band: "kept", "dropped" or "other"} of one augmented image of ones."""
    mean = np.asarray(sensor.mean).astype(array.dtype)
    flat = array.reshape(-1, len(sensor.bands))
    return np.where((flat == 1).all(0), 0, np.where((flat == mean).all(0), 1, 2))


@pytest.mark.parametrize("name", ["s2_l1c", "s2_l2a", "landsat_oli_tirs_toa"])
def test_an_encoder_sees_a_dropped_band_as_zero(name):
    sensor = SENSORS[name]
    ones = np.ones((4, 4, len(sensor.bands)), sensor.dtype)
    augment = dataclasses.replace(STILL, band_dropout=0.3)
    seen = []
    for seed in range(300):
        out = run({"x": ones}, seed, augment, {"x": 4}, {"x": sensor})["x"]
        seen.append(bands_of(out, sensor))
        seen_by_encoder = (out.astype(float) - sensor.mean) / sensor.std
        assert (seen_by_encoder[..., seen[-1] == 1] == 0).all()
    dropped = np.array(seen)
    assert set(dropped.ravel()) == {0, 1}
    share = dropped.mean(0)
    assert np.abs(share - 0.3).max() < 4 * np.sqrt(0.3 * 0.7 / 300)
    assert ones.min() == 1  # the record itself stays


@pytest.mark.parametrize(("mean", "want"), [(-300.0, 0), (70000.0, 65535), (99.7, 100)])
def test_a_dropped_bands_mean_is_rounded_to_the_dtype(mean, want):
    sensor = dataclasses.replace(SENSORS["s2_l2a"], mean=(mean,) * 12)
    augment = dataclasses.replace(STILL, band_dropout=0.5)
    ones = np.ones((2, 2, 12), np.uint16)
    out = run({"x": ones}, 0, augment, {"x": 2}, {"x": sensor})["x"]
    assert set(out.ravel().tolist()) == {1, want}


def test_at_least_one_band_is_kept():
    sensor = SENSORS["s2_l2a"]
    ones, kept = np.ones((2, 2, 12), sensor.dtype), []
    augment = dataclasses.replace(STILL, band_dropout=0.999)
    for seed in range(200):
        out = run({"x": ones}, seed, augment, {"x": 2}, {"x": sensor})["x"]
        (band,) = np.flatnonzero(bands_of(out, sensor) == 0)
        kept.append(band)
    assert set(kept) == set(range(12))  # any of them


EVERYTHING = dataclasses.replace(
    SYMMETRY,
    crop_scale=(0.5, 1.0),
    jitter=0.4,
    jitter_prob=1,
    blur_prob=1,
    speckle_looks=4,
    sar_gain_db=1,
    band_dropout=0.5,
)


def test_values_are_augmented_by_sensor_and_not_by_key():
    # the keys are swapped on purpose, and a third one is called rgb
    rows = {"s2": "s1_grd", "s1": "s2_l2a", "rgb": "s1_vh_8bit", "ir": "rgb"}
    sensors = {key: SENSORS[name] for key, name in rows.items()}
    record = {
        "s2": radar(side=16),
        "s1": np.ones((16, 16, 12), np.uint16),
        "rgb": noise(16, 16, 1),
        "ir": noise(16, 16, 3),
    }
    sizes = dict.fromkeys(record, 16)
    geometry = dataclasses.replace(SYMMETRY, crop_scale=(0.5, 1.0))
    for seed in range(5):
        plain = run(record, seed, geometry, sizes, sensors)
        loud = run(record, seed, EVERYTHING, sizes, sensors)
        for key in ("s2", "s1", "ir"):
            assert not np.array_equal(plain[key], loud[key])
        # a picture of radar stays, and everything else is cut and turned as before
        np.testing.assert_array_equal(plain["rgb"], loud["rgb"])


def test_single_band_reflectance_and_temperature_are_unchanged():
    record = {
        "nir": np.full((8, 8, 1), 500, np.uint16),
        "bt": np.full((8, 8, 1), 290, np.float32),
    }
    sensors = {"nir": SENSORS["s2_nir"], "bt": SENSORS["ir_bt"]}
    out = run(record, 0, EVERYTHING, {"nir": 8, "bt": 8}, sensors)
    for key, array in record.items():
        np.testing.assert_array_equal(out[key], array)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("crop_scale", (0.8, 0.5), "0 < least <= most <= 1"),
        ("crop_scale", (0.0, 1.0), "0 < least"),
        ("crop_scale", (0.5, 1.5), "most <= 1"),
        ("crop_scale", (0.5,), "least, most"),
        ("crop_pixels", -1, "0"),
        ("jitter", 1.2, "between 0 and 1"),
        ("jitter_prob", -0.1, "between 0 and 1"),
        ("grey_prob", 1.01, "between 0 and 1"),
        ("blur_prob", float("nan"), "between 0 and 1"),
        ("speckle_looks", 0.5, "1 look or more"),
        ("speckle_looks", -4, "1 look or more"),
        ("sar_gain_db", -1, "0 dB"),
        ("band_dropout", 1.0, "below 1"),
    ],
)
def test_a_value_out_of_range_is_named(key, value, wanted):
    with pytest.raises(ValueError, match=rf"^augment\.{key} = .*{re.escape(wanted)}"):
        Augment(**{key: value})


@pytest.mark.parametrize(
    ("key", "acts_on"),
    [
        ("jitter", ["rgb"]),
        ("grey_prob", ["rgb"]),
        ("blur_prob", ["rgb"]),
        ("speckle_looks", ["s1_grd"]),
        ("sar_gain_db", ["s1_grd"]),
        ("band_dropout", ["s2_l1c", "s2_l2a", "s2_so2sat", "landsat_oli_sr"]),
    ],
)
def test_a_setting_without_effect_is_refused(key, acts_on):
    augment = Augment(**{key: 1 if key != "band_dropout" else 0.5})
    others = [sensor for name, sensor in SENSORS.items() if name not in acts_on]
    others = [sensor for sensor in others if not sensor.name.startswith("landsat_oli")]
    with pytest.raises(
        ValueError, match=rf"^augment\.{key} = .*but the sensors are .*8-bit"
    ):
        check_augment(augment, others)
    for name in acts_on:
        check_augment(augment, [*others, SENSORS[name]])
    check_augment(Augment(), others)
