"""Transforms: sensors stay aligned, draws have their probability, values are kept."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsclip_jax.data.pipeline import geometry
from rsclip_jax.data.pipeline.augment import Augment, possible_views
from rsclip_jax.data.pipeline.geometry import make_views, resize, turn
from rsclip_jax.data.pipeline.transforms import augment_record, draw_crop
from tests.helpers.augmented import SENSOR_OF, STILL, SYMMETRY, ground, noise, run

SEEDS = range(80)  # of eight views, all are drawn


# One crop, one flip, one turn for all sensors.


@pytest.mark.parametrize(
    "augment",
    [
        SYMMETRY,
        Augment(crop_scale=(0.2, 0.9)),
        dataclasses.replace(SYMMETRY, crop_scale=(0.2, 1.0)),
        dataclasses.replace(SYMMETRY, crop_pixels=11),
    ],
)
def test_sensors_of_one_resolution_see_the_same_pixels(augment):
    record = {"s1": ground(32), "ir": ground(32), "s2": ground(32) + 1000}
    seen = set()
    for seed in range(20):
        out = run(record, seed, augment, {"s1": 16, "ir": 16, "s2": 16})
        np.testing.assert_array_equal(out["s1"], out["ir"])
        np.testing.assert_allclose(out["s2"] - 1000, out["s1"], atol=1e-3)
        seen.add(out["s1"].tobytes())
    assert len(seen) > 5


# The eight views.


def square(array, view):
    """A view by numpy alone."""
    return np.rot90(array[:, ::-1] if view >= 4 else array, view % 4)


@pytest.mark.parametrize(
    ("augment", "views"),
    [
        (STILL, {0}),
        (Augment(), {0, 4}),
        (Augment(flip_lr=False, flip_ud=True), {0, 6}),
        (Augment(flip_ud=True), {0, 2, 4, 6}),
        (Augment(flip_lr=False, rotate=True), {0, 1, 2, 3}),
        (Augment(rotate=True), set(range(8))),
        (SYMMETRY, set(range(8))),
        (dataclasses.replace(SYMMETRY, speckle_looks=4, band_dropout=0.1), {*range(8)}),
    ],
)
def test_possible_views_are_those_that_augmentation_draws(augment, views):
    rgb = noise(6, 6, 3)
    drawn = {run({"rgb": rgb}, s, augment, {"rgb": 6})["rgb"].tobytes() for s in SEEDS}
    assert drawn == {square(rgb, view).tobytes() for view in views}
    assert possible_views(augment) == tuple(sorted(views))


@pytest.mark.parametrize("shape", [(6, 6), (12, 12), (20, 20), (9, 14)])
def test_teacher_features_are_those_of_the_view_drawn(shape):
    """Views are matched by number, for any size, and without RGB in the batch."""
    augment = dataclasses.replace(SYMMETRY, speckle_looks=3, sar_gain_db=1.0)
    record = {"rgb": noise(*shape, 3), "s1": ground(8), "teacher": np.arange(8)}
    views = make_views(record["rgb"], 12, range(8))
    assert len({view.tobytes() for view in views}) == 8
    seen = set()
    for seed in SEEDS:
        out = run(record, seed, augment, {"rgb": 12, "s1": 8})
        np.testing.assert_array_equal(out["rgb"], views[out["teacher"]])
        blind = run(record, seed, augment, {"s1": 8})
        np.testing.assert_array_equal(blind["s1"], out["s1"])
        assert blind["teacher"] == out["teacher"]
        seen.add(int(out["teacher"]))
    assert seen == set(range(8))
    small = make_views(record["rgb"], 12, (5, 2))
    np.testing.assert_array_equal(small, views[[5, 2]])


def test_without_a_crop_a_sensor_of_another_shape_is_kept_whole():
    record = {"rgb": noise(10, 20, 3), "s1": ground(12)[:5, :11]}
    out = run(record, 0, STILL, {"rgb": 4, "s1": 4})
    np.testing.assert_array_equal(out["s1"], resize(record["s1"], 4))


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_scale": (0.5, 1.0)},
        {"crop_pixels": 64},
        {"jitter": 0.4},
        {"grey_prob": 0.2},
        {"blur_prob": 0.2, "crop_pixels": 8},
    ],
)
def test_settings_with_unbounded_views_are_named(changes):
    with pytest.raises(ValueError, match="cannot be cached") as error:
        possible_views(dataclasses.replace(SYMMETRY, **changes))
    for key, value in changes.items():
        assert f"{key} = {value!r}" in str(error.value)


@pytest.mark.parametrize("seed", range(40))
def test_a_sensor_of_half_the_resolution_sees_the_same_ground(seed):
    augment = dataclasses.replace(SYMMETRY, crop_scale=(0.3, 1.0))
    record = {"s1": ground(64), "s2": ground(32, pixel=2.0)}
    out = run(record, seed, augment, {"s1": 32, "s2": 16})
    coarse = out["s1"].reshape(16, 2, 16, 2, 2).mean((1, 3))
    # a crop's edge may cut a coarse pixel, 2 units wide, in half
    assert np.abs(coarse - out["s2"]).max() < 2.2
    assert np.ptp(out["s2"][..., 0]) > 15


@pytest.mark.parametrize("seed", range(8))
def test_a_finer_second_sensor_sees_the_same_ground(seed):
    augment = dataclasses.replace(SYMMETRY, crop_pixels=8)
    record = {"s2": ground(16, pixel=4.0), "s1": ground(64)}
    out = run(record, seed, augment, {"s2": 8, "s1": 32})
    coarse = out["s1"].reshape(8, 4, 8, 4, 2).mean((1, 3))
    np.testing.assert_allclose(coarse, out["s2"], atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    first=st.integers(8, 64),
    divisor=st.integers(1, 8),
    side=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_the_smallest_crop_covers_a_pixel_of_a_coarse_sensor(
    first, divisor, side, seed
):
    record = {"s1": ground(first), "ir": ground(max(1, first // divisor))}
    out = run(record, seed, Augment(crop_pixels=side), {"s1": 4, "ir": 4})
    assert out["ir"].shape == out["s1"].shape == (4, 4, 2)


def test_all_eight_symmetries_occur_and_nothing_else():
    array = ground(8)
    turned = [np.rot90(a, k) for a in (array, array[:, ::-1]) for k in range(4)]
    expected = {a.tobytes() for a in turned}
    seen = {
        run({"s1": array}, seed, SYMMETRY, {"s1": 8})["s1"].tobytes()
        for seed in range(80)
    }
    assert seen == expected
    assert len(expected) == 8


def symmetry_of(array):
    """Which of the square's eight symmetries was applied to ground(): 0 to 7."""
    ramp = array / array.max()  # of any pixel size
    plain = ground(len(array))
    turned = [np.rot90(a, k) for a in (plain, plain[:, ::-1]) for k in range(4)]
    off = [np.abs(a / plain.max() - ramp).max() for a in turned]
    assert min(off) < 1e-3
    return int(np.argmin(off))


def draw_symmetries(n):
    """How often each symmetry occurs; every sensor of a record has the same."""
    record = {"s1": ground(16), "s2": ground(8, pixel=2.0), "ir": ground(4, pixel=4.0)}
    sizes = {"s1": 16, "s2": 8, "ir": 4}
    counts = np.zeros(8, int)
    for seed in range(n):
        out = run(record, seed, SYMMETRY, sizes)
        (one,) = {symmetry_of(out[key]) for key in sizes}
        counts[one] += 1
    return counts


def test_symmetries_occur_evenly_and_are_the_same_at_any_pixel_size():
    counts = draw_symmetries(1600)
    assert ((counts - 200) ** 2 / 200).sum() < 18.5  # chi2 of 7 freedoms, p 0.01


@pytest.mark.parametrize(
    "fault",
    [
        lambda a, y, x, quarters: turn(a, y, x, 0 if len(a) == 8 else quarters),
        lambda a, y, x, quarters: turn(a, y, x and len(a) > 4, quarters),
    ],
)
def test_a_sensor_with_another_turn_would_be_noticed(monkeypatch, fault):
    monkeypatch.setattr(geometry, "turn", fault)
    with pytest.raises(ValueError, match="too many values to unpack"):
        draw_symmetries(30)


@pytest.mark.parametrize(
    "fault",
    [
        lambda a, y, x, quarters: turn(a, x, x, quarters),  # never a reflection
        lambda a, y, x, quarters: turn(a, y, x, min(quarters, 1)),
    ],
)
def test_unevenly_drawn_symmetries_would_be_noticed(monkeypatch, fault):
    monkeypatch.setattr(geometry, "turn", fault)
    counts = draw_symmetries(1600)
    assert ((counts - 200) ** 2 / 200).sum() > 18.5


@pytest.mark.parametrize(
    ("augment", "axes"),
    [
        (Augment(flip_lr=True), {(1, 1), (1, -1)}),
        (Augment(flip_lr=False, flip_ud=True), {(1, 1), (-1, 1)}),
        (STILL, {(1, 1)}),
    ],
)
def test_only_the_requested_flips_occur(augment, axes):
    array = ground(6)
    seen = {
        run({"s1": array}, seed, augment, {"s1": 6})["s1"].tobytes()
        for seed in range(30)
    }
    assert seen == {array[::y, ::x].tobytes() for y, x in axes}


def test_flips_occur_in_half_of_the_records():
    array = ground(4)
    flipped = [
        run({"s1": array}, seed, Augment(), {"s1": 4})["s1"][0, 0, 1] > 2
        for seed in range(400)
    ]
    assert 0.4 < np.mean(flipped) < 0.6


# Crops.


def test_crop_pixels_cuts_windows_without_resampling_anywhere_in_the_tile():
    array = noise(20, 30, 3)
    corners = set()
    for seed in range(300):
        augment = Augment(crop_pixels=16, flip_lr=False)
        top, left, *_ = draw_crop(np.random.default_rng(seed), (20, 30), augment)
        out = run({"rgb": array}, seed, augment, {"rgb": 16})["rgb"]
        np.testing.assert_array_equal(out, array[top : top + 16, left : left + 16])
        corners.add((top, left))
    assert {top for top, _ in corners} == set(range(5))
    assert {left for _, left in corners} == set(range(15))


def test_a_crop_larger_than_the_image_is_an_error_with_both_sizes():
    record = {"id": "x/7", "rgb": noise(20, 30, 3)}
    out = run(record, 0, Augment(crop_pixels=20, flip_lr=False), {"rgb": 20})["rgb"]
    assert out.shape == (20, 20, 3)
    words = r"crop_pixels = 21 exceeds x/7, which has 20 x 30 pixels: set it to 20 or"
    with pytest.raises(ValueError, match=words):
        run(record, 0, Augment(crop_pixels=21), {"rgb": 20})


def test_without_a_crop_the_whole_image_is_resized():
    record = {"rgb": noise(20, 20, 3)}
    out = run(record, 0, STILL, {"rgb": 10})["rgb"]
    np.testing.assert_array_equal(out, resize(record["rgb"], 10))


def test_crop_scale_is_a_share_of_the_area_and_crops_are_nearly_square():
    augment = Augment(crop_scale=(0.25, 0.5))
    areas, ratios = [], []
    for seed in range(500):
        top, left, h, w = draw_crop(np.random.default_rng(seed), (400, 400), augment)
        assert 0 <= top <= 400 - h
        assert 0 <= left <= 400 - w
        areas.append(h * w / 400**2)
        ratios.append(w / h)
    assert 0.248 < min(areas) < 0.26
    assert 0.49 < max(areas) < 0.502
    assert np.mean(areas) == pytest.approx(0.375, abs=0.01)
    assert 0.74 < min(ratios) < 0.78
    assert 1.29 < max(ratios) < 1.35
    assert np.mean(np.log(ratios)) == pytest.approx(0, abs=0.03)


# Randomness and what a record keeps.


def test_the_record_depends_on_the_rng_alone():
    full = dataclasses.replace(
        SYMMETRY, crop_scale=(0.3, 1), jitter=0.4, grey_prob=0.2, blur_prob=0.4
    )
    record = {"rgb": noise(32, 32, 3), "s1": ground(32)}
    sizes = {"rgb": 24, "s1": 24}
    first, again, other = (run(record, seed, full, sizes) for seed in (5, 5, 6))
    for key in sizes:
        assert first[key].tobytes() == again[key].tobytes()
        assert first[key].tobytes() != other[key].tobytes()


@pytest.mark.parametrize("bands", [1, 3, 4, 13])
def test_an_enlarged_image_is_written_to_the_buffer(bands):
    image = noise(9, 9, bands)
    out = np.zeros((20, 20, bands), np.uint8)
    assert resize(image, 20, out=out) is out
    np.testing.assert_array_equal(out, resize(image, 20))
    for other in (np.zeros((20, 21, bands), np.uint8), np.zeros((20, 20, bands))):
        np.testing.assert_array_equal(resize(image, 20, out=other), out)
        assert not other.any()


@pytest.mark.parametrize("size", [20, 32, 40])
@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_buffers_do_not_change_the_result(size, jitter):
    augment = dataclasses.replace(SYMMETRY, jitter=jitter)
    record = {"rgb": noise(32, 32, 3), "s1": ground(32)}
    sizes = {"rgb": size, "s1": size}
    want = run(record, 5, augment, sizes)
    out = {key: np.zeros_like(want[key]) for key in sizes}
    got = augment_record(
        record,
        np.random.default_rng(5),
        sizes=sizes,
        sensors=SENSOR_OF,
        augment=augment,
        out=out,
    )
    for key in sizes:
        np.testing.assert_array_equal(got[key], want[key])
    assert (got["s1"] is out["s1"]) == (size == 40)


def test_the_record_is_not_modified_and_its_other_keys_are_kept():
    rgb = noise(8, 8, 3)
    rgb.flags.writeable = False
    record = {"id": "a/1", "label": 3, "rgb": rgb, "mask": True}
    out = run(record, 1, dataclasses.replace(SYMMETRY, jitter=0.4), {"rgb": 8})
    assert {k: out[k] for k in ("id", "label", "mask")} == {
        "id": "a/1",
        "label": 3,
        "mask": True,
    }
    assert record["rgb"] is rgb
    assert out["rgb"].flags.c_contiguous


def test_measurements_are_kept_bit_for_bit():
    array = np.random.default_rng(0).normal(-15, 5, (9, 9, 2)).astype(np.float32)
    augment = dataclasses.replace(SYMMETRY, jitter=0.4, blur_prob=1, grey_prob=1)
    out = run({"s1": array}, 3, augment, {"s1": 9})["s1"]
    assert out.dtype == np.float32
    assert sorted(out.ravel()) == sorted(array.ravel())


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_crops_keep_digital_numbers_above_eight_bits(dtype):
    array = np.full((12, 12, 13), 9123, dtype)
    augment = Augment(crop_scale=(0.3, 0.8))
    out = run({"s2": array}, 0, augment, {"s2": 20})["s2"]
    assert out.dtype == dtype
    assert out.shape == (20, 20, 13)
    np.testing.assert_allclose(out, 9123, rtol=1e-6)


@pytest.mark.parametrize("size", [6, 12, 24])
def test_many_bands_are_resized_like_single_bands(size):
    """OpenCV takes four channels at a time, and multispectral images have 13."""
    bands = np.random.default_rng(3).integers(0, 9000, (12, 12, 13)).astype(np.uint16)
    whole = resize(bands, size)
    assert whole.shape == (size, size, 13)
    for i in range(13):
        np.testing.assert_array_equal(
            whole[..., i : i + 1], resize(bands[..., i : i + 1], size)
        )
