"""Image files of every kind are read as uint8; damaged files are refused by name."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.codecs import images
from rsclip_jax.data.codecs.images import SUFFIXES, read_image


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(h=40, w=48):
    """A photograph-like RGB ramp, which JPEG keeps well."""
    y, x = np.mgrid[:h, :w]
    return np.stack([4 * x, 5 * y, 2 * (x + y)], -1).clip(0, 255).astype(np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def decoded(path, mode="RGB"):
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


# Whole files.


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_lossless_rgb_comes_back_exactly_in_rgb_order(tmp_path, suffix):
    array = noise(7, 9, 3)
    out = read_image(save(tmp_path / f"a{suffix}", array))
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, array)


def test_lossless_webp_is_read(tmp_path):
    array = noise(7, 9, 3)
    path = save(tmp_path / "a.webp", array, lossless=True)
    np.testing.assert_array_equal(read_image(path), array)


def test_a_jpeg_is_decoded_as_by_pillow(tmp_path):
    path = save(tmp_path / "a.JPG", smooth(), quality=95)
    out = read_image(path)
    assert out.shape == (40, 48, 3)
    assert np.abs(out.astype(int) - decoded(path)).max() <= 3
    assert np.abs(out.astype(int) - smooth()).mean() < 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_grey_is_repeated_for_rgb_or_read_as_one_band(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", smooth()[..., 0])
    rgb, one = read_image(path), read_image(path, 1)
    assert rgb.shape == (40, 48, 3)
    assert one.shape == (40, 48, 1)
    for i in range(3):
        np.testing.assert_array_equal(rgb[..., i], one[..., 0])
    assert np.abs(one[..., 0].astype(int) - smooth()[..., 0]).max() <= 4


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(noise(8, 8, 3)).quantize(16)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=3)
    expected = np.asarray(image.convert("RGB"))
    for name in ("plain.png", "clear.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_dropped_and_not_blended(tmp_path, suffix):
    array = noise(8, 8, 4)
    out = read_image(save(tmp_path / f"a{suffix}", array))
    np.testing.assert_array_equal(out, array[..., :3])


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_four_bands_come_back_in_the_files_order(tmp_path, suffix):
    pixels = np.random.default_rng(4).integers(1, 256, (6, 5, 4), np.uint8)
    path = tmp_path / f"a{suffix}"
    lossless = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    Image.fromarray(pixels).save(path, **lossless)
    np.testing.assert_array_equal(read_image(path, 4), pixels)


def test_grey_and_alpha_of_a_png_are_two_bands(tmp_path):
    pixels = np.random.default_rng(5).integers(1, 256, (6, 5, 2), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 2), pixels)
    with pytest.raises(ValueError, match="2 bands of uint8, expected 4"):
        read_image(tmp_path / "a.png", 4)


def test_exif_rotation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    for grey in (False, True):
        array = smooth()[..., 0] if grey else smooth()
        path = save(tmp_path / f"{grey}.jpg", array, exif=exif, quality=95)
        for bands in (1, 3) if grey else (3,):
            out = read_image(path, bands).astype(int)
            assert out.shape == (40, 48, bands)
            assert np.abs(out - array.reshape(40, 48, -1)).mean() < 2


def test_names_in_any_script_are_read(tmp_path):
    folder = tmp_path / "Île de Ré – 東京"
    folder.mkdir()
    array = noise(5, 6, 3)
    for name in ("forêt_1.png", "река.png", "海 湖.png"):
        np.testing.assert_array_equal(read_image(save(folder / name, array)), array)


def test_bytes_after_the_image_are_allowed(tmp_path):
    path = save(tmp_path / "a.png", noise(5, 6, 3))
    path.write_bytes(path.read_bytes() + b"appended by a camera")
    np.testing.assert_array_equal(read_image(path), noise(5, 6, 3))
    jpeg = save(tmp_path / "a.jpg", smooth(), quality=95)
    whole = read_image(jpeg)
    for tail in (b"\0\0\0\n", b"appended by a camera"):
        jpeg.write_bytes(jpeg.read_bytes() + tail)
        assert np.abs(read_image(jpeg).astype(int) - whole).max() <= 3


# Files that are not what is wanted.


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bands", [1, 3])
def test_sixteen_bit_images_are_refused(tmp_path, suffix, bands):
    array = np.full((4, 4), 30_000, np.uint16)
    path = save(tmp_path / f"dn{suffix}", array)
    with pytest.raises(ValueError, match=rf"dn\{suffix}.*expected {bands} of uint8"):
        read_image(path, bands)


def test_sixteen_bit_colour_images_are_refused(tmp_path):
    array = np.full((4, 4, 3), 30_000, np.uint16)
    for suffix in ("png", "tif"):
        path = tmp_path / f"colour.{suffix}"
        assert cv2.imwrite(str(path), array)
        with pytest.raises(ValueError, match=rf"colour\.{suffix}.*expected 3 of uint8"):
            read_image(path)


def test_a_float_tiff_is_refused(tmp_path):
    path = save(tmp_path / "db.tif", np.full((4, 4), -12.5, np.float32))
    with pytest.raises(ValueError, match=r"db\.tif.*expected 3 of uint8"):
        read_image(path)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_is_refused_where_one_band_is_wanted(tmp_path, channels):
    path = save(tmp_path / "vh.png", noise(4, 4, channels))
    with pytest.raises(ValueError, match=rf"vh\.png: {channels} bands.*expected 1 of"):
        read_image(path, 1)


# Damaged files.


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_cut_file_is_refused_with_its_name_and_size(tmp_path, suffix, share):
    path = save(tmp_path / f"cut{suffix}", noise(64, 64, 3))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=rf"cut\{suffix}: unreadable or cut") as error:
        read_image(path)
    assert f"{int(share * len(data)):,} bytes" in str(error.value)
    assert str(error.value).endswith("; fetch the file again")


@pytest.mark.parametrize("missing", [1, 2, 20])
def test_a_jpeg_that_lacks_its_last_bytes_is_refused(tmp_path, missing):
    path = save(tmp_path / "cut.jpg", noise(64, 64, 3))
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ValueError, match=r"cut\.jpg: unreadable or cut"):
        read_image(path)


def test_one_wrong_byte_inside_a_png_is_found_by_its_checksum(tmp_path):
    path = save(tmp_path / "flipped.png", noise(64, 64, 3))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"flipped\.png: unreadable or cut"):
        read_image(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8\xff\xd9", b"<html>404</html>", b"\x89P" + b"IEND\xaeB`\x82"],
)
def test_a_file_that_is_not_an_image_is_named(tmp_path, data):
    path = tmp_path / "page.jpg"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"page\.jpg: unreadable or cut"):
        read_image(path)


@pytest.mark.parametrize(
    ("suffix", "step"),
    [(".png", 8), (".jpg", 1), (".tif", 1), (".bmp", 1), (".webp", 1)],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of what Pillow then refuses
def test_a_damaged_byte_gives_an_image_or_an_error_with_the_name(
    tmp_path, suffix, step
):
    path = save(tmp_path / f"damaged{suffix}", noise(9, 9, 3))
    data = path.read_bytes()
    messages = []
    for offset in range(0, len(data), step):
        for change in (1, 255):
            damaged = bytearray(data)
            damaged[offset] = (damaged[offset] + change) % 256
            path.write_bytes(damaged)
            try:
                assert read_image(path).shape[-1] == 3
            except ValueError as error:
                messages.append(str(error))
    assert len(messages) > 10
    assert all(path.name in message for message in messages)


def test_a_cut_photograph_that_the_decoder_pads_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "cut.jpg", noise(64, 64, 3))
    padded = np.full((64, 64, 3), 128, np.uint8)
    monkeypatch.setattr(images.cv2, "imdecode", lambda *_: padded)
    assert read_image(path) is padded
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cut\.jpg: unreadable or cut"):
        read_image(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        read_image(tmp_path / "gone.jpg")


# Real files.


def test_real_photographs_are_read_as_by_pillow(real_data):
    folders = ("eurosat_rgb/val/River", "resisc45/beach", "cifar10/val/ship")
    for folder in folders:
        for path in sorted((real_data / folder).iterdir())[:4]:
            assert path.suffix in SUFFIXES
            out = read_image(path).astype(int)
            assert np.abs(out - decoded(path)).max() <= 3, path


def test_a_real_thermal_image_is_grey_in_one_band_or_three(real_data):
    for path in sorted((real_data / "roadscene_vis_ir" / "infrared").iterdir())[:4]:
        rgb, one = read_image(path), read_image(path, 1)
        assert np.abs(one[..., 0].astype(int) - decoded(path, "L")).max() <= 3
        np.testing.assert_array_equal(rgb, one.repeat(3, -1))


def test_real_radar_has_one_band_and_its_partner_three(real_data):
    folder = real_data / "sentinel_pairs" / "val"
    path = min((folder / "s1_vh").iterdir())
    radar, rgb = read_image(path, 1), read_image(folder / "s2_rgb" / path.name)
    assert radar.shape == (256, 256, 1)
    assert rgb.shape == (256, 256, 3)
    np.testing.assert_array_equal(radar[..., 0], decoded(path, "L"))
    with pytest.raises(ValueError, match="3 bands of uint8, expected 1"):
        read_image(folder / "s2_rgb" / path.name, 1)


def test_a_real_photograph_cut_anywhere_is_refused(real_data, tmp_path):
    data = min((real_data / "resisc45" / "desert").iterdir()).read_bytes()
    assert Image.open(io.BytesIO(data)).size == (256, 256)
    path = tmp_path / "desert.jpg"
    for size in np.linspace(100, len(data) - 200, 12).astype(int):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"desert\.jpg: unreadable or cut"):
            read_image(path)
