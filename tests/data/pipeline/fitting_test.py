"""Pictures are fitted as by CLIP, open_clip and transformers."""

import numpy as np
import PIL.Image
import pytest

from rsclip_jax.data.pipeline.fitting import Fit, Resize, fit, fit_picture, fit_record
from rsclip_jax.data.pipeline.geometry import resize
from tests.helpers.augmented import ground, noise


def clip_fit(array, size):
    """torchvision's Resize(size, BICUBIC) and CenterCrop(size) of a PIL image."""
    image = PIL.Image.fromarray(array)
    w, h = image.size
    short, long = (w, h) if w <= h else (h, w)
    new_long = int(size * long / short)
    new_w, new_h = (size, new_long) if w <= h else (new_long, size)
    image = image.resize((new_w, new_h), PIL.Image.Resampling.BICUBIC)
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
def test_photographs_are_shrunk_as_by_clip(h, w, size):
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


def test_real_photographs_are_shrunk_as_by_clip(real_data):
    for path in sorted((real_data / "resisc45" / "harbor").iterdir())[:3]:
        array = np.asarray(PIL.Image.open(path).convert("RGB"))[:250]
        np.testing.assert_array_equal(fit(array, 224), clip_fit(array, 224))


def test_real_small_photographs_are_enlarged_as_by_clip(real_data):
    for name in ("Forest", "Highway", "SeaLake"):
        path = min((real_data / "eurosat_rgb" / "val" / name).iterdir())
        array = np.asarray(PIL.Image.open(path))
        np.testing.assert_array_equal(fit(array, 224), clip_fit(array, 224))
        # training enlarges with OpenCV: another cubic, by a few grey levels
        fast = resize(array, 224).astype(float) - clip_fit(array, 224)
        assert 0 < np.abs(fast).mean() < 1
        assert abs(fast.mean()) < 0.1


def test_an_image_of_the_right_size_is_unchanged():
    array = noise(16, 16, 3)
    assert fit(array, 16) is array


def test_fit_record_fits_each_sensor_to_its_own_size():
    record = {"id": "x", "label": 2, "rgb": noise(20, 30, 3), "s1": ground(20)}
    out = fit_record(record, sizes={"rgb": 10, "s1": 20})
    assert out["rgb"].shape == (10, 10, 3)
    assert out["s1"] is record["s1"]
    assert (out["id"], out["label"]) == ("x", 2)
    np.testing.assert_array_equal(out["rgb"], clip_fit(record["rgb"], 10))


def test_a_long_side_is_fitted_and_filled():
    rgb = np.full((10, 40, 3), 200, np.uint8)
    made = fit(rgb, Fit(20, Resize("longest", fill=7)))
    assert made.shape == (20, 20, 3)
    assert (made[:7] == 7).all()  # 5 of 20 rows are the picture's
    assert (made[7:12] == 200).all()
    assert (made[12:] == 7).all()


def test_alpha_is_resized_before_it_is_dropped_as_in_open_clip():
    """Where a picture is transparent its colours weigh nothing."""
    rgba = np.zeros((2, 4, 4), np.uint8)
    rgba[:, ::2] = (255, 0, 0, 255)
    made = fit_picture(PIL.Image.fromarray(rgba), Fit(1, Resize("squash")))
    assert made[0, 0, 0] == 255
    like = Resize("squash", like="transformers")
    made = fit_picture(PIL.Image.fromarray(rgba), Fit(1, like))
    np.testing.assert_array_equal(made[0, 0], [255, 128, 128])  # on white
