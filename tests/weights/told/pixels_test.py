"""Pictures are resized, cut and converted as the config's library does it."""

import json
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest

from rsclip_jax.data.pipeline.fitting import Fit, Resize
from rsclip_jax.models.inputs import fit_images
from rsclip_jax.models.variants import CLIP_MEAN, CLIP_STD
from rsclip_jax.weights import load_clip
from rsclip_jax.weights.told.pixels import read_hf, read_open_clip
from tests.conftest import REPO
from tests.golden import FOLDER

SHAPES = [(40, 40), (41, 90), (90, 41), (13, 50), (20, 21), (33, 32), (300, 64)]
MODES = ["RGB", "L", "LA", "RGBA", "P", "1", "CMYK"]
SIZE = 32
OPEN_CLIP = [
    {},
    {"interpolation": "bilinear"},
    {"resize_mode": "squash"},
    {"resize_mode": "longest"},
    {"resize_mode": "longest", "fill_color": 127, "interpolation": "bilinear"},
]
HF = [
    {"size": {"shortest_edge": 32}},
    {"size": {"shortest_edge": 40}},
    {"size": {"shortest_edge": 41}, "resample": 2},
    {"size": {"height": 32, "width": 32}, "do_center_crop": False},
    {"size": {"height": 43, "width": 43}},
]


def picture(shape: tuple[int, int], mode: str) -> PIL.Image.Image:
    h, w = shape
    rng = np.random.default_rng(h * w)
    rgba = PIL.Image.fromarray(rng.integers(0, 256, (h, w, 4), np.uint8), "RGBA")
    if mode == "RGBA":
        return rgba
    return rgba.convert("LA") if mode == "LA" else rgba.convert("RGB").convert(mode)


def suffix(mode: str) -> str:
    return "tif" if mode == "CMYK" else "png"


def cases() -> dict[str, dict]:
    """name -> what the reference script needs, and our reading of the same settings."""
    found = {}
    keys = {"resize_mode": "mode", "fill_color": "fill"}
    for i, settings in enumerate(OPEN_CLIP):
        told = {keys.get(k, k): v for k, v in settings.items()}
        fields = read_open_clip(FOLDER, settings, SIZE)
        found[f"open_clip{i}"] = ("open_clip", told, fields["resize"])
    for i, settings in enumerate(HF):
        config = {"crop_size": {"height": SIZE, "width": SIZE}, **settings}
        fields = read_hf(FOLDER, config, SIZE)
        found[f"transformers{i}"] = ("transformers", settings, fields["resize"])
    return found


@pytest.mark.parity
def test_pictures_of_all_shapes_and_modes_are_the_librarys(torch_python, tmp_path):
    """Pixel for pixel, 490 pictures."""
    asked, ours = {}, {}
    for shape in SHAPES:
        for mode in MODES:
            file = f"{shape[0]}x{shape[1]}_{mode}.{suffix(mode)}"
            picture(shape, mode).save(tmp_path / file)
            for name, (library, settings, resize) in cases().items():
                key = f"{name}_{shape[0]}x{shape[1]}_{mode}"
                about = {"library": library, "settings": settings}
                asked[key] = {**about, "size": SIZE, "picture": file}
                ours[key] = (tmp_path / file, resize)
    (tmp_path / "cases.json").write_text(json.dumps(asked))
    script = REPO / "tests" / "golden" / "preprocess.py"
    subprocess.run([torch_python, script, tmp_path], check=True, timeout=300)
    other = []
    for key, (path, resize) in ours.items():
        want = np.load(tmp_path / f"{key}.npy")
        image = PIL.Image.open(path)
        (found,) = fit_images(image, Fit(SIZE, resize), None)
        if not np.array_equal(found, want):
            other.append(key)
        if path.suffix == ".png":  # a file is what Pillow makes of it
            (read,) = fit_images(path, Fit(SIZE, resize), None)
            np.testing.assert_array_equal(read, found)
    assert len(ours) == 490
    assert other == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"resize_mode": "stretch"}, "mode 'stretch': use one of shortest"),
        ({"interpolation": "lanczos"}, "interpolation 'lanczos': use one"),
        ({"mode": "L"}, "preprocess_cfg.mode = 'L' is not supported, only 'RGB'"),
        ({"size": 48}, "preprocess_cfg.size = 48, but the tower takes images of 32"),
        ({"size": [32, 64]}, "only a square"),
        ({"mean": [0.5, 0.5]}, "give a number for each of RGB"),
        ({"sharpen": 1}, "preprocess_cfg.sharpen = 1 is not known"),
    ],
)
def test_what_open_clip_would_do_otherwise_is_refused(config, words):
    with pytest.raises(ValueError, match=words):
        read_open_clip(FOLDER, config, 32)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"do_resize": False}, "do_resize = False is not supported"),
        ({"do_rescale": False}, "do_rescale = False"),
        ({"rescale_factor": 1 / 127.5}, "only 1 / 255"),
        ({"resample": 1}, "number 1 of Pillow"),
        ({"do_center_crop": False}, "the short side 32, uncut"),
        ({"crop_size": {"height": 24, "width": 24}}, "make images of 24 pixels"),
        ({"size": {"longest_edge": 32}}, "only shortest_edge, or height and"),
        ({"image_processor_type": "ViTImageProcessor"}, "ViTImageProcessor"),
    ],
)
def test_what_transformers_would_do_otherwise_is_refused(config, words):
    plain = {"size": {"shortest_edge": 32}, "crop_size": 32}
    with pytest.raises(ValueError, match=words):
        read_hf(FOLDER, {**plain, **config}, 32)


def test_no_normalisation_and_one_number_for_all_bands():
    plain = {"size": 32, "crop_size": 32}
    made = read_hf(FOLDER, {**plain, "do_normalize": False}, 32)
    assert made["image_mean"] == (0, 0, 0)
    assert made["image_std"] == (1, 1, 1)
    made = read_open_clip(FOLDER, {"mean": 0.5, "std": None}, 32)
    assert made["image_mean"] == (0.5, 0.5, 0.5)
    assert made["image_std"] == CLIP_STD
    assert read_hf(FOLDER, plain, 32)["image_mean"] == CLIP_MEAN


def test_the_newer_file_of_transformers_comes_first(tmp_path):
    folder = tmp_path / "hf"
    shutil.copytree(FOLDER / "clip_toy_gelu_hf", folder)
    sides = {"size": {"shortest_edge": 16}, "crop_size": 16}
    older = {**sides, "image_mean": [0.1, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(older))
    assert load_clip(folder)[0].image_mean == (0.1, 0.2, 0.3)
    newer = {"image_processor": {**sides, "image_mean": [0.5, 0.5, 0.5]}}
    (folder / "processor_config.json").write_text(json.dumps(newer))
    variant, _ = load_clip(folder)
    assert variant.image_mean == (0.5, 0.5, 0.5)
    assert variant.resize == Resize(like="transformers")


@pytest.mark.parametrize("side", [16, 20])
def test_at_another_size_the_margin_is_as_large(side, tmp_path):
    """A short side of 20 cut to 16 is one of 40 cut to 32."""
    folder = tmp_path / "hf"
    shutil.copytree(FOLDER / "clip_toy_gelu_hf", folder)
    config = {"size": {"shortest_edge": side}, "crop_size": 16}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    variant, _ = load_clip(folder, image_size=32)
    assert variant.fit.size == 32
    assert variant.fit.resize.side == (40 if side == 20 else 0)
