"""The miniature against physics, its formulas redone, and simple classifiers."""

import functools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rsclip_jax.data.miniature import scenes as miniature
from rsclip_jax.data.miniature.scenes import CLASSES, NATURAL_CLASSES, SIZES, VIEWS

B03, B04, B08, B10, B11 = 2, 3, 7, 10, 11
VV, VH = 0, 1


@functools.cache
def scenes(view="miniature", split="test"):
    return miniature.open_miniature(view, split)


def arrays_of(name, view="miniature"):
    """Arrays of a class (single-label views)."""
    arrays = scenes(view).arrays
    of = arrays["label"] == CLASSES.index(name)
    return {key: array[of] for key, array in arrays.items()}


def index(s2, a, b):
    """Normalised difference of two bands."""
    a, b = s2[..., a].astype(np.float64), s2[..., b].astype(np.float64)
    return (a - b) / (a + b)


# The set as a sequence.


@pytest.fixture
def small(monkeypatch):
    """Splits of 120 scenes, more than one block; blocks have one distribution."""
    for view in VIEWS:
        monkeypatch.setitem(SIZES, view, {"train": 120, "val": 120, "test": 120})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("view", VIEWS)
def test_the_bytes_depend_on_the_seed_alone(view):
    first, again, other = (
        miniature.open_miniature(view, "val", seed=seed).arrays for seed in (0, 0, 1)
    )
    for key, array in first.items():
        assert array.tobytes() == again[key].tobytes()
        assert array.tobytes() != other[key].tobytes()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("view", VIEWS)
def test_no_picture_is_in_two_splits(view):
    splits = [miniature.open_miniature(view, s) for s in ("train", "val", "test")]
    pictures = {picture.tobytes() for s in splits for picture in s.arrays["rgb"]}
    ids = {i for s in splits for i in s.ids}
    assert len(pictures) == len(ids) == 360


@pytest.mark.usefixtures("small")
def test_all_is_the_concatenated_splits():
    whole = miniature.open_miniature("miniature_natural", "all")
    parts = [
        miniature.open_miniature("miniature_natural", s)
        for s in ("train", "val", "test")
    ]
    assert whole.ids == [i for part in parts for i in part.ids]
    np.testing.assert_array_equal(
        whole.arrays["rgb"], np.concatenate([part.arrays["rgb"] for part in parts])
    )


def test_access_in_any_order_gives_the_same_records():
    data = scenes("miniature_multi", "val")
    for i, record in zip((7, 5, 3), data[7:1:-2], strict=True):
        assert record["id"] == data[i]["id"] == f"miniature_multi/val/{i:06d}"
        for key in ("label", "rgb", "s1", "s2", "ir"):
            np.testing.assert_array_equal(record[key], data[i][key])
    assert data[-1]["id"] == data[len(data) - 1]["id"]
    with pytest.raises(IndexError):
        data[len(data)]
    with pytest.raises(ValueError, match="read-only"):
        data[0]["rgb"][:] = 0


@pytest.mark.parametrize(
    ("view", "split", "message"),
    [
        ("miniatur", "train", "view is 'miniatur'.*miniature, miniature_multi"),
        ("miniature", "dev", "split is 'dev'.*train, val, test, all"),
    ],
)
def test_an_unknown_view_or_split_is_refused_with_the_choices(view, split, message):
    with pytest.raises(ValueError, match=message):
        miniature.open_miniature(view, split)


@pytest.mark.parametrize("view", VIEWS)
def test_labels_are_balanced(view):
    label = scenes(view).arrays["label"]
    if view == "miniature_multi":
        assert set(label.sum(1)) == {1, 2, 3, 4}
        assert np.all(np.abs(label.mean(0) - 0.25) < 0.05)
    else:
        assert set(np.bincount(label)) == {SIZES[view]["test"] // 10}
        assert isinstance(scenes(view)[0]["label"], int)


@pytest.mark.parametrize("size", [32, 48])
def test_sensors_have_their_shapes_types_and_ranges(size, monkeypatch):
    monkeypatch.setitem(SIZES["miniature"], "val", 100)
    data = miniature.open_miniature("miniature", "val", size=size).arrays
    expected = {  # channels, type, the 1st and 99th percentiles' bounds
        "rgb": (3, np.uint8, 10, 255),
        "s1": (2, np.float32, -35, 6),
        "s2": (13, np.uint16, 1, 9000),
        "ir": (1, np.float32, 265, 325),
    }
    for key, (channels, dtype, low, high) in expected.items():
        assert data[key].shape == (100, size, size, channels)
        assert data[key].dtype == dtype
        assert np.all(np.isfinite(data[key].astype(np.float64)))
        bounds = np.percentile(data[key], [1, 99])
        assert low <= bounds[0] < bounds[1] <= high


# Physics.


def test_rgb_is_the_stretch_of_the_records_bands():
    for record in scenes()[:20]:
        composite = np.stack([record["s2"][..., b] for b in (3, 2, 1)], -1)
        expected = np.minimum(composite.astype(float) / 3558, 1) * 255
        assert np.abs(record["rgb"] - expected).max() <= 0.5 + 1e-4


def test_vegetation_is_green_and_forest_darker_than_soil():
    ndvi = {c: index(arrays_of(c)["s2"], B08, B04).mean() for c in CLASSES}
    assert ndvi["forest"] > 0.35
    assert ndvi["forest"] > ndvi["bare soil"] + 0.2
    assert ndvi["grassland"] > ndvi["industrial buildings"]
    red = {c: arrays_of(c)["s2"][..., B04].mean() for c in CLASSES}
    assert red["forest"] < red["bare soil"]


def test_water_is_dark_in_swir_and_radar_and_cool_by_day():
    lake = arrays_of("lake")
    water = index(lake["s2"], B03, B08) > 0.2
    assert 0.2 < water.mean() < 0.9
    assert lake["s2"][water][:, B11].mean() < 0.25 * lake["s2"][~water][:, B11].mean()
    for channel in (VV, VH):
        in_water, on_land = (lake["s1"][m][:, channel].mean() for m in (water, ~water))
        assert in_water < on_land - 3
    others = [arrays_of(c)["s1"][..., VH].mean() for c in CLASSES if c != "lake"]
    assert lake["s1"][..., VH].mean() < min(others)
    assert lake["ir"][water].mean() < lake["ir"][~water].mean()


def test_buildings_are_bright_in_vv_and_forests_scatter_into_vh():
    mean = {c: arrays_of(c)["s1"].mean((0, 1, 2)) for c in CLASSES}
    assert mean["residential buildings"][VV] > mean["forest"][VV] > mean["lake"][VV]
    ratio = {c: vv - vh for c, (vv, vh) in mean.items()}
    assert ratio["forest"] < min(ratio["bare soil"], ratio["industrial buildings"])
    assert ratio["forest"] < ratio["grassland"]


def test_the_cirrus_band_sees_no_ground():
    s2 = scenes().arrays["s2"].astype(float)
    assert s2[..., B10].mean() < 150
    soil = arrays_of("bare soil")["s2"].astype(float)
    ground = soil[..., B11].mean((1, 2))
    assert np.abs(np.corrcoef(ground, soil[..., B10].mean((1, 2)))[0, 1]) < 0.4


def test_speckle_has_the_looks_of_the_product():
    """ENL = mean^2 / variance of power in small windows of one cover.

    The mean square of a window overestimates the square mean by variance / pixels.
    """
    power = 10 ** (arrays_of("bare soil")["s1"][..., VV].astype(np.float64) / 10)
    windows = power.reshape(-1, 8, 4, 8, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 16)
    variance = windows.var(1, ddof=1)
    looks = (windows.mean(1) ** 2 - variance / 16).sum() / variance.sum()
    assert looks == pytest.approx(4.4, rel=0.2)


def test_radar_noise_floor_is_near_25_db():
    lake = arrays_of("lake")
    dark = index(lake["s2"], B03, B08) > 0.2
    power = 10 ** (lake["s1"][dark][:, VH].astype(np.float64) / 10)
    assert -25 < 10 * np.log10(power.mean()) < -21


def test_sensors_see_the_same_ground_at_the_same_pixels():
    river = arrays_of("river")
    water = index(river["s2"], B03, B08) > 0

    def correlation(shift):
        dark = -np.roll(river["s1"][..., VH], shift, axis=(1, 2))
        pairs = [(w, d) for w, d in zip(water, dark, strict=True) if w.any()]
        return np.mean([np.corrcoef(w.ravel(), d.ravel())[0, 1] for w, d in pairs])

    here = correlation((0, 0))
    assert here > 0.3
    away = [(0, 3), (3, 0), (-3, 0), (0, -3)]
    assert all(correlation(shift) < 0.75 * here for shift in away)


def test_multi_hot_labels_match_the_land_cover():
    data = scenes("miniature_multi").arrays
    water = (index(data["s2"], B03, B08) > 0.15).mean((1, 2))
    label = {c: data["label"][:, i].astype(bool) for i, c in enumerate(CLASSES)}
    wet = label["river"] | label["lake"]
    assert (water[wet] > 0.01).mean() > 0.95
    assert (water[~wet] < 0.01).mean() > 0.95
    built = label["residential buildings"] | label["industrial buildings"]
    # Double bounce: the brightest pixels to radar are roofs.
    bright = np.quantile(data["s1"][..., VV], 0.95, axis=(1, 2))
    cut = -5.5
    assert ((bright > cut) == built).mean() > 0.85


# Hardness, by softmax regression on 1,500 scenes.


def colour_mean(images):
    return images.reshape(len(images), -1, images.shape[-1]).astype(float).mean(1)


def colour(images):
    pixels = images.reshape(len(images), -1, images.shape[-1]).astype(float)
    return np.concatenate([pixels.mean(1), pixels.std(1)], 1)


def spatial(images):
    """Colour, edges and quantiles at three scales, and the radial spectrum."""
    x = images.astype(np.float32) / 255
    features = [colour(images)]
    for s in (1, 2, 4):
        n, h, w, c = x.shape
        y = x.reshape(n, h // s, s, w // s, s, c).mean((2, 4))
        y -= y.mean((1, 2), keepdims=True)
        for axis in (1, 2):
            step = np.diff(y, axis=axis)
            features.append(np.abs(step).mean((1, 2)))
            features.append(np.abs(np.diff(step, axis=axis)).mean((1, 2)))
        quantiles = np.quantile(y, [0.02, 0.1, 0.9, 0.98], axis=(1, 2))
        features += [y.std((1, 2)), (y**3).mean((1, 2)), *quantiles]
    power = np.abs(np.fft.rfft2(x.mean(-1))) ** 2
    radius = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32)[None])
    for low in np.arange(0.02, 0.5, 0.04):
        ring = (radius >= low) & (radius < low + 0.04)
        features.append(np.log(power[:, ring].mean(1))[:, None])
    return np.concatenate(features, 1)


def softmax_accuracy(features, sensor="rgb", view="miniature", train_view=None):
    train = scenes(train_view or view, "train").arrays
    test = scenes(view, "test").arrays
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    model.fit(features(train[sensor][:1500]), train["label"][:1500])
    return model.score(features(test[sensor]), test["label"])


@pytest.mark.slow
def test_colour_alone_names_about_half_the_scenes_and_texture_most():
    by_colour = softmax_accuracy(colour)
    assert 0.45 < by_colour < 0.70
    assert softmax_accuracy(spatial) > max(0.8, by_colour + 0.15)


@pytest.mark.slow
def test_radar_brightness_alone_is_weak_but_useful():
    assert 0.30 < softmax_accuracy(colour_mean, sensor="s1") < 0.60


@pytest.mark.slow
def test_the_spectrum_tells_more_than_its_visible_part():
    by_rgb = softmax_accuracy(colour_mean)
    assert softmax_accuracy(colour_mean, sensor="s2") > by_rgb + 0.15


@pytest.mark.slow
def test_the_aerial_camera_helps_a_little():
    assert 0.25 < softmax_accuracy(colour, train_view="miniature_aerial") < 0.45


@pytest.mark.slow
def test_natural_objects_are_not_named_by_their_mean_colour():
    assert len(NATURAL_CLASSES) == 10
    assert softmax_accuracy(colour_mean, view="miniature_natural") < 0.5
