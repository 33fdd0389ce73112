"""CLIP's preprocessing step by step; resizing keeps values, dtype and bands."""

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.pipeline.geometry import fit, fit_record, resize
from tests.helpers.augmented import ground, noise

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
        array = np.asarray(Image.open(path).convert("RGB"))[:250]
        np.testing.assert_array_equal(fit(array, 224), clip_fit(array, 224))


def test_real_small_photographs_are_enlarged_as_by_clip(real_data):
    for name in ("Forest", "Highway", "SeaLake"):
        path = min((real_data / "eurosat_rgb" / "val" / name).iterdir())
        array = np.asarray(Image.open(path))
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


def test_measurements_shrink_to_the_mean_of_the_area():
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


def test_enlarging_clips_at_the_dtype_and_does_not_wrap():
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
