"""Moments against numpy on all values at once; each oddity planted."""

import dataclasses
import functools

import numpy as np
import pytest

from rsclip_jax.data.inspect.statistics import (
    array_digest,
    count_labels,
    describe_captions,
    find_oddities,
    find_repeats,
    measure,
    merge,
)
from rsclip_jax.data.sensors import SENSORS


def draw(dtype, rng, bands=3):
    """Arrays of different sizes, each with its own level."""
    out = []
    for side in (3, 17, 8, 40):
        level = rng.uniform(100, 9000)
        values = rng.normal(level, 90, (side, side + 1, bands))
        out.append(np.clip(values, 0, 60000).astype(dtype))
    return out


def total(arrays):
    return functools.reduce(merge, map(measure, arrays))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_statistics_equal_numpy_on_all_values(dtype):
    arrays = draw(dtype, np.random.default_rng(0))
    arrays[1][2, 5, 1] = 0
    flat = np.concatenate([a.reshape(-1, 3) for a in arrays]).astype(np.float64)
    for i, row in enumerate(total(arrays).rows("xyz")):
        assert row["band"] == "xyz"[i]
        assert (row["min"], row["max"]) == (flat[:, i].min(), flat[:, i].max())
        np.testing.assert_allclose(row["mean"], flat[:, i].mean(), rtol=1e-13)
        np.testing.assert_allclose(row["std"], flat[:, i].std(), rtol=1e-13)
        assert row["nan"] == 0
        assert row["nodata"] == (flat[:, i] == 0).mean()


def test_nan_and_infinity_are_counted_and_left_out():
    arrays = draw(np.float32, np.random.default_rng(1))
    arrays[0][:, :, 1] = np.nan
    arrays[2][3:5, 2:4, 0] = [[np.nan, np.inf], [-np.inf, np.nan]]
    flat = np.concatenate([a.reshape(-1, 3) for a in arrays]).astype(np.float64)
    flat[~np.isfinite(flat)] = np.nan
    rows = total(arrays).rows("xyz")
    for i, row in enumerate(rows):
        x = flat[:, i]
        assert row["nan"] == pytest.approx(np.isnan(x).mean(), abs=1e-15)
        assert (row["min"], row["max"]) == (np.nanmin(x), np.nanmax(x))
        np.testing.assert_allclose(row["mean"], np.nanmean(x), rtol=1e-13)
        np.testing.assert_allclose(row["std"], np.nanstd(x), rtol=1e-13)
    assert [row["nan"] > 0 for row in rows] == [True, True, False]


def test_a_band_without_finite_values_has_no_statistics():
    array = np.full((4, 4, 2), np.nan, np.float32)
    array[..., 1] = -3
    empty, constant = measure(array).rows(("VV", "VH"))
    assert [empty[k] for k in ("min", "mean", "max", "std")] == [None] * 4
    assert empty["nan"] == 1
    assert constant == {
        "band": "VH", "min": -3, "mean": -3, "max": -3, "std": 0, "nan": 0,
        "missing": 0, "nodata": 0,
    }  # fmt: skip


def test_the_order_of_records_does_not_matter():
    arrays = draw(np.float32, np.random.default_rng(2)) * 5
    forth, back = total(arrays), total(arrays[::-1])
    for field in dataclasses.fields(forth):
        a, b = getattr(forth, field.name), getattr(back, field.name)
        np.testing.assert_allclose(a, b, rtol=1e-12)
        if field.name not in ("mean", "squares"):
            np.testing.assert_array_equal(a, b)


def test_a_small_std_with_a_large_mean_is_exact():
    """A sum of squares in float64 would lose it."""
    rng = np.random.default_rng(3)
    arrays = [1e9 + rng.normal(0, 1e-2, (50, 50, 1)) for _ in range(4)]
    flat = np.stack(arrays).ravel()
    naive = (flat**2).mean() - flat.mean() ** 2
    assert abs(naive - flat.var()) > 0.5 * flat.var()
    (row,) = total(arrays).rows(("x",))
    np.testing.assert_allclose(row["std"], flat.std(), rtol=1e-4)


S2, S1, IR, RGB = (SENSORS[n] for n in ("s2_l1c", "s1_grd", "ir_bt", "rgb"))


def usual(sensor, seed=4):
    """A typical array of a sensor, with a dark B10."""
    rng = np.random.default_rng(seed)
    centre = {"DN": 2000, "dB": -15, "K": 290, "8-bit": 120}[sensor.unit]
    x = rng.normal(
        centre, 150 if sensor.unit == "DN" else 3, (20, 20, len(sensor.bands))
    )
    if "B10" in sensor.bands:
        x[..., sensor.bands.index("B10")] *= 0.01
    return x.astype(sensor.dtype)


def oddities(array, sensor):
    return find_oddities(sensor, measure(array).rows(sensor.bands))


@pytest.mark.parametrize("sensor", [S2, S1, IR, RGB], ids=lambda s: s.name)
def test_usual_values_are_not_odd(sensor):
    assert oddities(usual(sensor), sensor) == []


def put(array, index, value):
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("sensor", "change", "words"),
    [
        (S2, lambda x: x // 16, "no value is above 255"),
        (S2, lambda x: put(x, (..., 3), 7), "B04 is constant: every value is 7"),
        (
            S2,
            lambda x: put(x, (0, 0, 2), 60000),
            "to 60000, expected between 0 and 30000 DN",
        ),
        (S2, lambda x: put(x, (slice(15), ..., 1), 0), "75 % of B02 are 0, likely"),
        (
            S2,
            lambda x: np.roll(x, 1, -1),
            "is about as bright as the other bands (median",
        ),
        (S1, lambda x: put(x, (0, slice(4), 0), np.nan), "1 % of VV are NaN or inf"),
        (S1, lambda x: put(x, (..., 1), np.nan), "VH holds no finite value"),
        (S1, lambda x: put(x, (0, 0, 0), -999), "expected between -80 and 40 dB"),
        (IR, lambda x: x - 273.15, "expected between 150 and 400 K"),
        (RGB, lambda x: x // 121, "no value is above 1: was it scaled"),
    ],
)
def test_planted_oddities_are_described(sensor, change, words):
    found = oddities(change(usual(sensor)), sensor)
    assert len(found) == 1
    assert words in found[0]


def test_single_and_multi_hot_labels_are_counted():
    assert count_labels([2, 0, 2, -1], 4).tolist() == [1, 0, 2, 0]
    multi = np.array([[1, 0, 1], [0, 0, 1]], np.uint8)
    assert count_labels(multi, 3).tolist() == [1, 0, 2]
    assert count_labels([np.full(1, 1, np.uint8)] * 300, 1).tolist() == [300]


def test_the_digest_depends_on_values_shape_and_dtype():
    a = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert array_digest(a) == array_digest(a.copy())
    assert array_digest(a) == array_digest(np.asfortranarray(a))
    others = (a + 1, a.reshape(1, 4, 3), a.astype(np.int8), a[..., ::-1])
    assert len({array_digest(x) for x in (a, *others)}) == 5


def test_repeats_are_found_within_and_across_splits():
    names = {"train": ["a", "b", "a"], "val": ["c", "b"], "test": ["d"]}
    assert find_repeats(names) == [{"train": [0, 2]}, {"train": [1], "val": [1]}]


def test_caption_counts_equal_hand_counts():
    long = "a road " * 37 + "a"  # 75 words
    captions = [
        ("a lake", "a lake", "blue"),
        ("blue",),
        (long, long + " a b", "x", "x"),
    ]
    assert describe_captions(captions, 77) == {
        "captions": 8,
        "different": 5,
        "an_image": {"1": 1, "3": 1, "4": 1},
        "different_an_image": {"1": 1, "2": 1, "3": 1},
        "mean_tokens": (4 + 4 + 3 + 3 + 77 + 79 + 3 + 3) / 8,
        "most_tokens": 79,
        "cut": 1,
        "shared": 1,
    }
    assert describe_captions([], 77)["mean_tokens"] == 0
