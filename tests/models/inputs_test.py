"""What is fitted to an encoder's input, and what is refused."""

import jax
import numpy as np
import PIL.Image
import pytest

from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.models.inputs import fit_arrays, fit_images
from rsclip_jax.models.sensor import vit_spec

S1 = get_sensor("s1_grd")
SPEC = vit_spec(S1, image_size=16, patch_size=8, width=8, layers=1, heads=1, out_dim=4)


@pytest.mark.parametrize("shape", [(128, 128), (128, 500), (500, 128)])
def test_up_to_eight_times_the_input_is_resized(shape):
    rgb = np.full((*shape, 3), 7, np.uint8)
    (fitted,) = fit_images(rgb, 16)
    np.testing.assert_array_equal(fitted, np.full((16, 16, 3), 7))
    (fitted,) = fit_arrays(np.full((*shape, 2), -9, np.float32), SPEC, S1)
    assert fitted.shape == (16, 16, 2)


def test_a_whole_scene_is_refused_unless_it_is_allowed():
    words = r"1: 129 x 300 pixels, but the encoder takes 16 x 16: .*name:split:tile.*"
    words += r"max_shrink=None \(now 8\)"
    small, large = np.zeros((16, 16, 3), np.uint8), np.zeros((129, 300, 3), np.uint8)
    with pytest.raises(ValueError, match=f"image {words}"):
        fit_images([small, large], 16)
    with pytest.raises(ValueError, match=r"now 4"):
        fit_images(np.zeros((65, 65, 3), np.uint8), 16, max_shrink=4)
    assert len(fit_images([small, large], 16, max_shrink=None)) == 2
    s1 = [np.full((h, 300, 2), -9, np.float32) for h in (16, 129)]
    with pytest.raises(ValueError, match=f"array {words}"):
        fit_arrays(s1, SPEC, S1)
    assert len(fit_arrays(s1, SPEC, S1, max_shrink=None)) == 2


def test_a_file_that_is_too_large_is_named(tmp_path):
    PIL.Image.new("RGB", (200, 200)).save(tmp_path / "scene.png")
    with pytest.raises(ValueError, match=r"scene\.png: 200 x 200 pixels"):
        fit_images(tmp_path / "scene.png", 16)


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path_that_is_no_image_is_told(tmp_path, kind):
    with pytest.raises(ValueError, match=r"is a folder, not an image: .*glob"):
        fit_images([kind(tmp_path)], 16)
    with pytest.raises(FileNotFoundError, match=r"none\.png: there is no such image"):
        fit_images(kind(tmp_path / "none.png"), 16)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png: unreadable"):
        fit_images(kind(tmp_path / "text.png"), 16)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (3, TypeError, r"image 1: an image is an array, .*not int"),
        (None, TypeError, r"image 1: .*not NoneType"),
        (np.zeros((9, 9, 3)), ValueError, r"image 1: .*uint8 \[h, w, 3\], got float64"),
        (np.zeros((9, 9), np.uint8), ValueError, r"image 1: .*got uint8 \(9, 9\)"),
        (np.zeros((9, 9, 4), np.uint8), ValueError, r"image 1: .*\(9, 9, 4\)"),
        (np.zeros((0, 9, 3), np.uint8), ValueError, r"image 1: 0 x 9 pixels: it is em"),
    ],
)
def test_what_is_no_image_is_named_by_its_index(image, error, words):
    with pytest.raises(error, match=words):
        fit_images([np.zeros((9, 9, 3), np.uint8), image], 16)


def test_one_image_without_bands_is_one_image():
    with pytest.raises(ValueError, match=r"image 0: .*got uint8 \(9, 8\)"):
        fit_images(np.zeros((9, 8), np.uint8), 16)
    with pytest.raises(ValueError, match=r"array 0: an array of shape \(9, 8\)"):
        fit_arrays(np.zeros((9, 8), np.float32), SPEC, S1)


def test_a_batch_on_a_device_is_a_batch():
    rgb = np.arange(2 * 16 * 16 * 2, dtype=np.float32).reshape(2, 16, 16, 2) / 1e3 - 9
    for batch in (rgb, list(rgb), jax.numpy.asarray(rgb)):
        np.testing.assert_array_equal(np.stack(fit_arrays(batch, SPEC, S1)), rgb)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_values_of_more_than_8_bits_want_a_range(mode, tmp_path):
    values = np.array([[0, 500], [1000, 2000]])
    dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    image = PIL.Image.fromarray(values.astype(dtype))
    assert image.mode == mode
    with pytest.raises(ValueError, match=r"values of 0.* to 2000.*value_range="):
        fit_images(image, 2)
    (made,) = fit_images(image, 2, value_range=(0, 1000))
    np.testing.assert_array_equal(made[..., 0], [[0, 128], [255, 255]])
    if mode == "I;16":
        image.save(tmp_path / "deep.png")
        with pytest.raises(ValueError, match=r"deep\.png: uint16 values"):
            fit_images(tmp_path / "deep.png", 2)
        (read,) = fit_images(tmp_path / "deep.png", 2, value_range=(0, 1000))
        np.testing.assert_array_equal(read, made)
