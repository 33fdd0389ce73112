"""Sensors stay aligned, CLIP's preprocessing step by step, values kept as they are."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rsclip_jax.data import transforms
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.transforms import (
    Augment,
    augment_record,
    check_augment,
    draw_crop,
    fit,
    fit_record,
    make_views,
    photometric,
    possible_views,
    resize,
    turn,
    vary_backscatter,
)

STILL = Augment(flip_lr=False)
SYMMETRY = Augment(flip_lr=True, flip_ud=True, rotate=True)


def ground(size, pixel=1.0, dtype=np.float32):
    """[size, size, 2]: the y and x of each pixel's centre on the ground."""
    axis = (np.arange(size) + 0.5) * pixel
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).astype(dtype)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


SEEDS = range(80)  # of eight views, all are drawn
ROWS = {"rgb": "rgb", "s1": "s1_grd", "s2": "s2_l1c", "ir": "ir_bt"}
SENSOR_OF = {key: SENSORS[name] for key, name in ROWS.items()}


def run(record, seed, augment, sizes, sensors=SENSOR_OF):
    rng = np.random.default_rng(seed)
    return augment_record(record, rng, sizes=sizes, sensors=sensors, augment=augment)


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
def test_possible_views_are_those_that_are_drawn(augment, views):
    rgb = noise(6, 6, 3)
    drawn = {run({"rgb": rgb}, s, augment, {"rgb": 6})["rgb"].tobytes() for s in SEEDS}
    assert drawn == {square(rgb, view).tobytes() for view in views}
    assert possible_views(augment) == tuple(sorted(views))


@pytest.mark.parametrize("shape", [(6, 6), (12, 12), (20, 20), (9, 14)])
def test_the_features_are_those_of_the_view_that_is_seen(shape):
    """By its number, whether it is enlarged, kept or shrunk; and with no RGB to see."""
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


def test_without_a_crop_a_sensor_of_another_shape_is_seen_whole():
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
def test_settings_without_end_of_views_are_named(changes):
    with pytest.raises(ValueError, match="not one of eight") as error:
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
def test_no_crop_is_so_small_that_a_coarse_sensor_sees_nothing(
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
    """How often each symmetry occurs; every sensor of a place has the same."""
    record = {"s1": ground(16), "s2": ground(8, pixel=2.0), "ir": ground(4, pixel=4.0)}
    sizes = {"s1": 16, "s2": 8, "ir": 4}
    counts = np.zeros(8, int)
    for seed in range(n):
        out = run(record, seed, SYMMETRY, sizes)
        (one,) = {symmetry_of(out[key]) for key in sizes}
        counts[one] += 1
    return counts


def test_all_eight_symmetries_occur_evenly_and_alike_in_sensors_of_any_pixel_size():
    counts = draw_symmetries(1600)
    assert ((counts - 200) ** 2 / 200).sum() < 18.5  # chi2 of 7 freedoms, p 0.01


@pytest.mark.parametrize(
    "fault",
    [
        lambda a, y, x, quarters: turn(a, y, x, 0 if len(a) == 8 else quarters),
        lambda a, y, x, quarters: turn(a, y, x and len(a) > 4, quarters),
    ],
)
def test_a_sensor_turned_otherwise_would_be_noticed(monkeypatch, fault):
    monkeypatch.setattr(transforms, "turn", fault)
    with pytest.raises(ValueError, match="too many values to unpack"):
        draw_symmetries(30)


@pytest.mark.parametrize(
    "fault",
    [
        lambda a, y, x, quarters: turn(a, x, x, quarters),  # never a reflection
        lambda a, y, x, quarters: turn(a, y, x, min(quarters, 1)),
    ],
)
def test_symmetries_that_come_up_unevenly_would_be_noticed(monkeypatch, fault):
    monkeypatch.setattr(transforms, "turn", fault)
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
def test_only_the_flips_that_are_asked_for_happen(augment, axes):
    array = ground(6)
    seen = {
        run({"s1": array}, seed, augment, {"s1": 6})["s1"].tobytes()
        for seed in range(30)
    }
    assert seen == {array[::y, ::x].tobytes() for y, x in axes}


def test_flips_come_up_half_of_the_time():
    array = ground(4)
    flipped = [
        run({"s1": array}, seed, Augment(), {"s1": 4})["s1"][0, 0, 1] > 2
        for seed in range(400)
    ]
    assert 0.4 < np.mean(flipped) < 0.6


# Crops.


def test_crop_pixels_cuts_windows_without_resampling_anywhere_in_the_tile():
    array = noise(20, 30, 3)
    places = set()
    for seed in range(300):
        augment = Augment(crop_pixels=16, flip_lr=False)
        top, left, *_ = draw_crop(np.random.default_rng(seed), (20, 30), augment)
        out = run({"rgb": array}, seed, augment, {"rgb": 16})["rgb"]
        np.testing.assert_array_equal(out, array[top : top + 16, left : left + 16])
        places.add((top, left))
    assert {top for top, _ in places} == set(range(5))
    assert {left for _, left in places} == set(range(15))


def test_a_crop_larger_than_the_image_is_an_error_with_both_sizes():
    record = {"id": "x/7", "rgb": noise(20, 30, 3)}
    out = run(record, 0, Augment(crop_pixels=20, flip_lr=False), {"rgb": 20})["rgb"]
    assert out.shape == (20, 20, 3)
    words = r"crop_pixels = 21 is more than x/7 has, 20 x 30 pixels: set it to 20 or"
    with pytest.raises(ValueError, match=words):
        run(record, 0, Augment(crop_pixels=21), {"rgb": 20})


def test_without_a_crop_the_whole_image_is_resized():
    record = {"rgb": noise(20, 20, 3)}
    out = run(record, 0, STILL, {"rgb": 10})["rgb"]
    np.testing.assert_array_equal(out, resize(record["rgb"], 10))


def test_crop_scale_is_a_share_of_the_area_and_sides_differ_little():
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


def test_the_same_rng_gives_the_same_record_and_another_another():
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
def test_an_enlarged_image_is_written_where_it_is_wanted(bands):
    image = noise(9, 9, bands)
    out = np.zeros((20, 20, bands), np.uint8)
    assert resize(image, 20, out=out) is out
    np.testing.assert_array_equal(out, resize(image, 20))
    for other in (np.zeros((20, 21, bands), np.uint8), np.zeros((20, 20, bands))):
        np.testing.assert_array_equal(resize(image, 20, out=other), out)
        assert not other.any()


@pytest.mark.parametrize("size", [20, 32, 40])
@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_places_change_nothing_but_where_the_result_lies(size, jitter):
    augment = dataclasses.replace(SYMMETRY, jitter=jitter)
    record = {"rgb": noise(32, 32, 3), "s1": ground(32)}
    sizes = {"rgb": size, "s1": size}
    want = run(record, 5, augment, sizes)
    places = {key: np.zeros_like(want[key]) for key in sizes}
    got = augment_record(
        record,
        np.random.default_rng(5),
        sizes=sizes,
        sensors=SENSOR_OF,
        augment=augment,
        places=places,
    )
    for key in sizes:
        np.testing.assert_array_equal(got[key], want[key])
    assert (got["s1"] is places["s1"]) == (size == 40)


def test_the_record_itself_is_not_touched_and_its_other_keys_stay():
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


def test_measurements_survive_to_the_last_bit():
    array = np.random.default_rng(0).normal(-15, 5, (9, 9, 2)).astype(np.float32)
    augment = dataclasses.replace(SYMMETRY, jitter=0.4, blur_prob=1, grey_prob=1)
    out = run({"s1": array}, 3, augment, {"s1": 9})["s1"]
    assert out.dtype == np.float32
    assert sorted(out.ravel()) == sorted(array.ravel())


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_digital_numbers_beyond_eight_bits_are_cropped_whole(dtype):
    array = np.full((12, 12, 13), 9123, dtype)
    augment = Augment(crop_scale=(0.3, 0.8))
    out = run({"s2": array}, 0, augment, {"s2": 20})["s2"]
    assert out.dtype == dtype
    assert out.shape == (20, 20, 13)
    np.testing.assert_allclose(out, 9123, rtol=1e-6)


@pytest.mark.parametrize("size", [6, 12, 24])
def test_many_bands_are_resized_as_each_of_them(size):
    """OpenCV takes four channels at a time, and multispectral images have 13."""
    bands = np.random.default_rng(3).integers(0, 9000, (12, 12, 13)).astype(np.uint16)
    whole = resize(bands, size)
    assert whole.shape == (size, size, 13)
    for i in range(13):
        np.testing.assert_array_equal(
            whole[..., i : i + 1], resize(bands[..., i : i + 1], size)
        )


# Evaluation: CLIP's preprocessing.


def clip_fit(array, size):
    """torchvision's Resize(size, BICUBIC) and CenterCrop(size) of a PIL image."""
    image = Image.fromarray(array)
    w, h = image.size
    short, long = (w, h) if w <= h else (h, w)
    new_long = int(size * long / short)
    new_w, new_h = (size, new_long) if w <= h else (new_long, size)
    image = image.resize((new_w, new_h), Image.Resampling.BICUBIC)
    top, left = round((new_h - size) / 2.0), round((new_w - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize(
    ("h", "w", "size"),
    [
        (64, 64, 32),
        (64, 64, 224),
        (60, 91, 224),
        (300, 40, 96),
        (100, 131, 32),
        (131, 100, 32),
        (375, 500, 224),
        (333, 227, 224),
        (65, 33, 32),
        (257, 256, 224),
        (788, 591, 96),  # 96 / 591 * 788 is a hair below 128 in floating point
        (591, 788, 96),
    ],
)
def test_photographs_shrink_as_clip_shrinks_them(h, w, size):
    array = noise(h, w, 3, seed=h)
    out = fit(array, size)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, clip_fit(array, size))


@pytest.mark.parametrize(
    ("height", "top"), [(32, 0), (33, 0), (34, 1), (35, 2), (37, 2), (39, 4), (50, 9)]
)
def test_the_centre_of_an_odd_margin_rounds_to_even(height, top):
    array = np.arange(height * 32 * 2, dtype=np.float32).reshape(height, 32, 2)
    np.testing.assert_array_equal(fit(array, 32), array[top : top + 32])
    turned = array.swapaxes(0, 1)
    np.testing.assert_array_equal(fit(turned, 32), turned[:, top : top + 32])


def test_real_photographs_shrink_as_clip_shrinks_them(real_data):
    for path in sorted((real_data / "resisc45" / "harbor").iterdir())[:3]:
        array = np.asarray(Image.open(path).convert("RGB"))[:250]
        np.testing.assert_array_equal(fit(array, 224), clip_fit(array, 224))


def test_real_small_photographs_grow_as_clip_grows_them(real_data):
    for name in ("Forest", "Highway", "SeaLake"):
        path = min((real_data / "eurosat_rgb" / "val" / name).iterdir())
        array = np.asarray(Image.open(path))
        np.testing.assert_array_equal(fit(array, 224), clip_fit(array, 224))
        # training enlarges with OpenCV: another cubic, by a few grey levels
        fast = resize(array, 224).astype(float) - clip_fit(array, 224)
        assert 0 < np.abs(fast).mean() < 1
        assert abs(fast.mean()) < 0.1


def test_a_fitting_image_is_passed_on_untouched():
    array = noise(16, 16, 3)
    assert fit(array, 16) is array


def test_fit_record_fits_each_sensor_to_its_own_size():
    record = {"id": "x", "label": 2, "rgb": noise(20, 30, 3), "s1": ground(20)}
    out = fit_record(record, sizes={"rgb": 10, "s1": 20})
    assert out["rgb"].shape == (10, 10, 3)
    assert out["s1"] is record["s1"]
    assert (out["id"], out["label"]) == ("x", 2)
    np.testing.assert_array_equal(out["rgb"], clip_fit(record["rgb"], 10))


# Resizing.


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(12, 12), (6, 6), (48, 48), (12, 30), (30, 12)])
def test_resizing_keeps_dtype_channels_and_mean(channels, dtype, shape):
    smooth = 100 + 20 * np.sin(ground(24).sum(-1) / 5)
    array = np.stack([smooth + 3 * i for i in range(channels)], -1).astype(dtype)
    out = resize(array, *shape)
    assert out.shape == (*shape, channels)
    assert out.dtype == dtype
    mean = out.reshape(-1, channels).astype(float).mean(0)
    expected = array.reshape(-1, channels).astype(float).mean(0)
    np.testing.assert_allclose(mean, expected, atol=1.5)
    assert (np.diff(mean) > 2).all() or channels == 1  # channels keep their order


def test_measurements_shrink_to_the_mean_of_what_they_cover():
    array = np.random.default_rng(1).normal(-12, 4, (12, 8, 2)).astype(np.float32)
    blocks = array.reshape(3, 4, 2, 4, 2).mean((1, 3))
    np.testing.assert_allclose(resize(array, 3, 2), blocks, rtol=1e-5)


def test_shrinking_does_not_alias():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    for array in (board, board.repeat(3, -1), board.repeat(13, -1)):
        out = resize(array, 16)
        assert np.abs(out.astype(float) - 127.5).max() < 8
    out = resize(board.astype(np.float32), 16)
    np.testing.assert_allclose(out, 127.5)


def test_enlarging_clips_at_the_type_and_does_not_wrap():
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    out = resize(edge, 32)
    assert (out[:, :12] < 60).all()
    assert (out[:, 20:] > 195).all()
    dn = resize((edge.astype(np.uint16) * 257), 32)
    assert (dn[:, :12] < 15_000).all()
    assert (dn[:, 20:] > 50_000).all()


def test_enlarged_floats_are_not_rounded():
    array = ground(4)[..., :1]
    out = resize(array, 8)
    assert (out != np.rint(out)).mean() > 0.5
    np.testing.assert_allclose(out[2:6, 0, 0], [1.25, 1.75, 2.25, 2.75], atol=0.1)


# Colour.


def colour(augment, seed=0, rgb=None):
    rgb = noise(16, 16, 3) if rgb is None else rgb
    return photometric(rgb, np.random.default_rng(seed), augment)


def test_colour_changes_touch_rgb_alone():
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


def test_without_settings_colours_stay():
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


def test_jitter_happens_as_often_as_asked():
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
    """[side, side, 2] in dB, another level in each half and band."""
    array = np.full((side, side, 2), level, np.float32)
    array[: side // 2] -= 8
    array[..., 1] -= np.float32(seed + 7)
    return array


def intensity(decibel):
    return 10 ** (decibel.astype(np.float64) / 10)


@pytest.mark.parametrize("looks", [1, 4.4, 20])
def test_speckle_keeps_the_mean_intensity_and_has_a_variance_of_one_over_looks(looks):
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


def test_gain_is_one_offset_an_image_evenly_over_its_range():
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


def bands_of(array, row):
    """{band: "kept", "dropped" or "other"} of one augmented image of ones."""
    mean = np.asarray(row.mean).astype(array.dtype)
    flat = array.reshape(-1, len(row.bands))
    return np.where((flat == 1).all(0), 0, np.where((flat == mean).all(0), 1, 2))


@pytest.mark.parametrize("name", ["s2_l1c", "s2_l2a", "landsat_oli_tirs_toa"])
def test_a_dropped_band_is_what_an_encoder_sees_as_zero(name):
    row = SENSORS[name]
    ones = np.ones((4, 4, len(row.bands)), row.dtype)
    augment = dataclasses.replace(STILL, band_dropout=0.3)
    seen = []
    for seed in range(300):
        out = run({"x": ones}, seed, augment, {"x": 4}, {"x": row})["x"]
        seen.append(bands_of(out, row))
        seen_by_encoder = (out.astype(float) - row.mean) / row.std
        assert (seen_by_encoder[..., seen[-1] == 1] == 0).all()
    dropped = np.array(seen)
    assert set(dropped.ravel()) == {0, 1}
    share = dropped.mean(0)
    assert np.abs(share - 0.3).max() < 4 * np.sqrt(0.3 * 0.7 / 300)
    assert ones.min() == 1  # the record itself stays


@pytest.mark.parametrize(("mean", "want"), [(-300.0, 0), (70000.0, 65535), (99.7, 100)])
def test_a_mean_that_the_files_cannot_hold_becomes_their_nearest_value(mean, want):
    row = dataclasses.replace(SENSORS["s2_l2a"], mean=(mean,) * 12)
    augment = dataclasses.replace(STILL, band_dropout=0.5)
    ones = np.ones((2, 2, 12), np.uint16)
    out = run({"x": ones}, 0, augment, {"x": 2}, {"x": row})["x"]
    assert set(out.ravel().tolist()) == {1, want}


def test_one_band_at_least_stays():
    row = SENSORS["s2_l2a"]
    ones, kept = np.ones((2, 2, 12), row.dtype), []
    augment = dataclasses.replace(STILL, band_dropout=0.999)
    for seed in range(200):
        out = run({"x": ones}, seed, augment, {"x": 2}, {"x": row})["x"]
        (band,) = np.flatnonzero(bands_of(out, row) == 0)
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


def test_what_is_done_to_values_follows_from_the_row_and_not_from_the_key():
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


def test_one_band_of_reflectance_and_temperature_are_left_alone():
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
def test_a_setting_that_would_change_nothing_is_refused(key, acts_on):
    augment = Augment(**{key: 1 if key != "band_dropout" else 0.5})
    others = [row for name, row in SENSORS.items() if name not in acts_on]
    others = [row for row in others if not row.name.startswith("landsat_oli")]
    with pytest.raises(ValueError, match=rf"^augment\.{key} = .*none is read: .*8-bit"):
        check_augment(augment, others)
    for name in acts_on:
        check_augment(augment, [*others, SENSORS[name]])
    check_augment(Augment(), others)
