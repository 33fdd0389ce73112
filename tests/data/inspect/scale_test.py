"""Measured scales against numpy on the pixels of all records, and planted faults."""

import numpy as np
import pytest

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.inspect import scale
from rsclip_jax.data.inspect.scale import measure_scale
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.types import Dataset, ReadOptions, Source

SKIP = ReadOptions(on_error="skip")


class Arrays(Source):
    """A source of arrays in memory that counts reads; None is unreadable."""

    def __init__(self, sensor, arrays):
        self.dataset = Dataset("arrays", "", "none", {"x": sensor})
        self.split, self.arrays, self.seen = "train", arrays, []
        self.ids = [str(i) for i in range(len(arrays))]

    def __getitem__(self, index):
        self.seen.append(index)
        if self.arrays[index] is None:
            raise ValueError(f"record {index} is unreadable")
        return {"id": self.ids[index], "label": -1, "x": self.arrays[index]}


def skewed(name, count=12, side=24, seed=0):
    """Records with a long upper tail and different levels, like scenes."""
    sensor, rng = SENSORS[name], np.random.default_rng(seed)
    shape = (side, side + 1, len(sensor.bands))
    draws = [rng.lognormal(rng.normal(0, 0.3), 1.2, shape) for _ in range(count)]
    unit = {
        "DN": lambda x: np.minimum(400 * x + 1, 60000),
        "dB": lambda x: 10 * np.log10(0.01 * x),
        "K": lambda x: np.minimum(270 + 10 * x, 900),
        "8-bit": lambda x: np.minimum(20 * x, 255),
    }[sensor.unit]
    return [unit(x).astype(sensor.dtype) for x in draws]


def all_pixels(arrays):
    return np.concatenate([a.reshape(-1, a.shape[-1]) for a in arrays]).astype(float)


SENSOR_OF_UNIT = ("s2_l1c", "s1_grd", "ir_bt", "s1_vh_8bit", "cir_8bit")


@pytest.mark.parametrize("sensor", SENSOR_OF_UNIT)
def test_scales_equal_numpy_on_all_values_in_every_unit(sensor):
    arrays = skewed(sensor)
    x = all_pixels(arrays)
    found = measure_scale(Arrays(sensor, arrays), "x", "zscore", records=0)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, x.std(axis=0), rtol=1e-12)
    assert found.clip_sigma == SENSORS[sensor].clip_sigma
    assert (found.records, found.pixels) == (12, len(x))
    found = measure_scale(
        Arrays(sensor, arrays), "x", "percentile", percentiles=(1, 95)
    )
    low, high = np.percentile(x, [1, 95], axis=0)
    seen = np.clip((x - found.mean) / found.std, -found.clip_sigma, found.clip_sigma)
    want = 2 * np.clip((x - low) / (high - low), 0, 1) - 1
    np.testing.assert_allclose(seen, want, atol=1e-9)
    assert (seen.min(), seen.max()) == (-1, 1)


@pytest.mark.parametrize(("sensor", "none"), [("s2_l1c", 0), ("s1_grd", np.nan)])
@pytest.mark.parametrize("how", scale.HOW)
def test_pixels_without_a_value_are_not_counted(sensor, none, how):
    """Nodata in one band of some pixels, and in all of a corner."""
    arrays = skewed(sensor)
    arrays[1][:9, :7] = none
    arrays[5][3, :, 1] = none
    x = all_pixels(arrays)
    x[x == none] = np.nan
    assert np.isnan(x).any(axis=0).all()
    found = measure_scale(Arrays(sensor, arrays), "x", how)
    if how == "zscore":
        want = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    else:
        low, high = np.nanpercentile(x, [2, 98], axis=0)
        want = (low + high) / 2, (high - low) / 2
    np.testing.assert_allclose((found.mean, found.std), want, rtol=1e-12)


def test_zero_is_a_value_if_the_sensor_has_no_nodata():
    arrays = skewed("s1_vh_8bit")
    arrays[0][:] = 0
    found = measure_scale(Arrays("s1_vh_8bit", arrays), "x", "zscore")
    np.testing.assert_allclose(found.mean, all_pixels(arrays).mean(axis=0))


def test_the_sample_is_even_repeatable_and_the_only_records_read(monkeypatch):
    monkeypatch.setattr(scale, "_PIXELS", 1200)
    arrays = skewed("s2_l1c", count=40, side=60)
    source = Arrays("s2_l1c", arrays)
    found = measure_scale(source, "x", "percentile", records=8)
    assert sorted(source.seen) == np.linspace(0, 39, 8).round().astype(int).tolist()
    assert (found.records, found.pixels) == (8, 8 * 150)
    assert found == measure_scale(
        source, "x", "percentile", records=8, options=ReadOptions(threads=1)
    )
    # a sample's percentiles stand near those of all: ranks within two in a hundred
    x = all_pixels([arrays[i] for i in source.seen[:8]])
    low, high = np.subtract(found.mean, found.std), np.add(found.mean, found.std)
    np.testing.assert_allclose((x < low).mean(axis=0), 0.02, atol=0.02)
    np.testing.assert_allclose((x > high).mean(axis=0), 0.02, atol=0.02)


def test_an_unreadable_record_raises_or_is_left_out():
    arrays = skewed("s1_grd")
    broken = [*arrays[:3], None, *arrays[3:]]
    with pytest.raises(ValueError, match="record 3 is unreadable"):
        measure_scale(Arrays("s1_grd", broken), "x", "zscore")
    found = measure_scale(Arrays("s1_grd", broken), "x", "zscore", options=SKIP)
    assert found == measure_scale(Arrays("s1_grd", arrays), "x", "zscore")
    with pytest.raises(ValueError, match=r"0 of 2 records .* cannot be measured"):
        measure_scale(Arrays("s1_grd", [None] * 2), "x", "zscore", options=SKIP)


@pytest.mark.parametrize(
    ("how", "value", "words"),
    [
        ("zscore", 7, "B03 in 12 of 12 records of arrays is constant: .* 7 DN"),
        ("percentile", 7, "B03 .* is constant"),
        ("zscore", 0, "B03 .*holds only NaN or nodata"),
    ],
)
def test_a_band_without_spread_is_named(how, value, words):
    arrays = skewed("s2_l1c")
    for array in arrays:
        array[..., 2] = value
    with pytest.raises(ValueError, match=words):
        measure_scale(Arrays("s2_l1c", arrays), "x", how)


def test_equal_percentiles_are_named():
    arrays = skewed("s2_l1c")
    for array in arrays:
        array[1:, :, 2] = 7
    with pytest.raises(ValueError, match=r"B03 .* percentiles 2 and 90 are both 7 DN"):
        measure_scale(Arrays("s2_l1c", arrays), "x", "percentile", percentiles=(2, 90))


@pytest.mark.parametrize(
    ("name", "key"),
    [("eurosat_ms", "s2"), ("bigearthnet", "s1"), ("sen1floods11", "s1")],
)
def test_scales_of_real_files_equal_numpy(real_data, name, key):
    source = open_source(name, real_data, on_error="skip")
    sensor = SENSORS[source.dataset.sensors[key]]
    found = measure_scale(source, key, "zscore", records=0, options=SKIP)
    records = []
    for i in range(len(source)):
        try:
            records.append(source[i][key])
        except ValueError:
            continue
    x = all_pixels(records)
    assert (found.records, found.pixels) == (len(records), len(x))
    x[x == sensor.nodata] = np.nan
    np.testing.assert_allclose(found.mean, np.nanmean(x, axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.std, np.nanstd(x, axis=0), rtol=1e-9)
