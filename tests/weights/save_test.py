"""What save_clip writes: the same weights in every layout, and files others read."""

import dataclasses
import json
import re

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.data.pipeline.fitting import Resize
from rsclip_jax.data.tokenizer import VOCAB_SIZE, vocabulary_names
from rsclip_jax.weights import file_digests, load_clip, save_clip
from rsclip_jax.weights.tool_configs import open_clip_config
from tests.conftest import REPO
from tests.golden import FOLDER, OPENAI_HEADS, random_params, toy_variant
from tests.helpers.trees import same

TOY = FOLDER / "clip_toy_quick_gelu.safetensors"


@pytest.fixture(scope="module")
def toy():
    return load_clip(TOY, toy_variant("quick_gelu"))


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("open_clip", "a.safetensors"),
        ("open_clip", "folder"),
        ("hf", "folder"),
    ],
)
def test_every_layout_gives_the_same_weights_back(tmp_path, toy, layout, name):
    variant, params = toy
    save_clip(tmp_path / name, variant, params, layout)
    found, again = load_clip(tmp_path / name)
    assert found == variant
    same(again, params)


def openai_toy(**changes):
    fields = {"vision_width": 64, **OPENAI_HEADS, **changes}
    return toy_variant(fields.pop("activation", "quick_gelu"), **fields)


def test_openais_layout_gives_the_same_weights_back(tmp_path):
    variant = openai_toy()
    params = random_params(variant)
    save_clip(tmp_path / "a.safetensors", variant, params, "openai")
    found, again = load_clip(tmp_path / "a.safetensors")
    assert found == variant
    same(again, params)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"activation": "gelu"},
            "does not store the activation.*assumes quick_gelu, not.*gelu",
        ),
        ({"layer_norm_eps": 1e-6}, "does not store the layer_norm_eps"),
        ({"vision_heads": 2}, "width of a visual head.*assumes 64, not this.*32"),
        ({"text_heads": 2}, "width of a text head"),
        ({"image_mean": (0.5, 0.5, 0.5)}, "image mean, and OpenAI's code assumes"),
        ({"resize": Resize("squash")}, "resizing of images"),
    ],
)
def test_what_openais_code_would_build_otherwise_is_refused(tmp_path, changes, words):
    variant = openai_toy(**changes)
    params = random_params(variant)
    with pytest.raises(ValueError, match=words):
        save_clip(tmp_path / "a.safetensors", variant, params, "openai")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", ["open_clip", "hf"])
@pytest.mark.parametrize(
    "changes",
    [
        {"layer_norm_eps": 1e-6},
        {"resize": Resize("squash", "bilinear")},
        {"resize": Resize("longest", fill=9)},
        {"resize": Resize(side=20)},
        {"resize": Resize("squash", side=20)},
    ],
)
def test_a_folder_says_what_it_needs_or_is_refused(tmp_path, layout, changes):
    """Read back without our header, as others write it."""
    variant = toy_variant("gelu", **changes)
    how, params = variant.resize, random_params(variant)
    if (layout == "hf" and how.mode == "longest") or (layout != "hf" and how.side):
        with pytest.raises(ValueError, match=rf"'{layout}'.*: use 'hf'|.*open_clip'"):
            save_clip(tmp_path / "a", variant, params, layout)
        return
    save_clip(tmp_path / "a", variant, params, layout)
    (path,) = (tmp_path / "a").glob("*.safetensors")
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)
    found, _ = load_clip(tmp_path / "a")
    like = {"hf": "transformers", "open_clip": "open_clip"}[layout]
    resize = dataclasses.replace(how, like=like)
    assert found == dataclasses.replace(variant, name=found.name, resize=resize)


def test_hugging_faces_preprocessor_says_mean_and_std(tmp_path):
    """A folder as others write it, without our header."""
    half = (0.5, 0.5, 0.5)
    variant = toy_variant("gelu", image_mean=half, image_std=half)
    params = random_params(variant)
    save_clip(tmp_path / "a", variant, params, "hf")
    path = tmp_path / "a" / "model.safetensors"
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)
    found, _ = load_clip(tmp_path / "a")
    assert (found.image_mean, found.image_std) == (half, half)
    assert "preprocessor_config.json" in file_digests(tmp_path / "a")


def test_the_same_layout_is_bit_exact(tmp_path, toy):
    variant, params = toy
    save_clip(tmp_path / "a.safetensors", variant, params)
    want, got = (
        safetensors.numpy.load_file(path) for path in (TOY, tmp_path / "a.safetensors")
    )
    assert want.keys() == got.keys()
    for name in want:
        assert want[name].tobytes() == got[name].tobytes()
    hf = FOLDER / "clip_toy_gelu_hf"
    save_clip(tmp_path / "hf", *load_clip(hf), "hf")
    want, got = (
        safetensors.numpy.load_file(f / "model.safetensors")
        for f in (hf, tmp_path / "hf")
    )
    assert want.keys() == got.keys()
    for name in want:
        assert want[name].tobytes() == got[name].tobytes()


@pytest.mark.parity
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_transformers_config_says_what_ours_does(tmp_path, activation):
    """Key by key against the file that transformers wrote of the same model."""
    theirs = FOLDER / f"clip_toy_{activation}_hf"
    save_clip(tmp_path / "hf", *load_clip(theirs), "hf")
    want, got = (
        json.loads((folder / "config.json").read_text())
        for folder in (theirs, tmp_path / "hf")
    )
    for part in ("vision_config", "text_config"):
        for key, value in got[part].items():
            if key != "projection_dim":  # transformers leaves its default there
                assert want[part][key] == value, (part, key)
    assert want["projection_dim"] == got["projection_dim"]


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)]
)
def test_half_precision_is_the_nearest_value(tmp_path, toy, dtype, kind):
    variant, params = toy
    save_clip(tmp_path / "a.safetensors", variant, params, dtype=dtype)
    stored = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert {array.dtype for array in stored.values()} == {np.dtype(kind)}
    _, again = load_clip(tmp_path / "a.safetensors")
    kernel = params["visual"]["patch_embed"]["kernel"]
    np.testing.assert_array_equal(
        again["visual"]["patch_embed"]["kernel"], kernel.astype(kind).astype(np.float32)
    )


def test_others_may_read_the_file_as_the_umask_says(tmp_path, toy):
    save_clip(tmp_path / "a.safetensors", *toy)
    (tmp_path / "plain").write_text("")
    modes = [(tmp_path / name).stat().st_mode for name in ("a.safetensors", "plain")]
    assert modes[0] == modes[1]


def test_what_does_not_fit_half_precision_is_named(tmp_path, toy):
    variant, params = toy
    large = {**params, "logit_scale": np.float32(1e5)}
    with pytest.raises(ValueError, match=r"logit_scale: 100000 does not fit float16"):
        save_clip(tmp_path / "a.safetensors", variant, large, dtype="float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("a.safetensors", {"layout": "timm"}, r"'timm' is not known; use open_clip, o"),
        ("a.safetensors", {"layout": "hf"}, r"'hf' is a folder"),
        ("a", {"layout": "openai"}, r"end it in \.safetensors"),
        ("a", {"dtype": "int8"}, r"'int8' is not known; use float32, float16, bfl"),
    ],
)
def test_bad_requests_are_named(tmp_path, toy, name, settings, words):
    with pytest.raises(ValueError, match=words):
        save_clip(tmp_path / name, *toy, **settings)


def test_tokenizer_files_hold_the_whole_vocabulary(tmp_path):
    names, merges = vocabulary_names()
    assert sorted(names.values()) == list(range(VOCAB_SIZE - 2))
    assert len(merges) == VOCAB_SIZE - 2 - 512
    assert merges[:2] == ["i n", "t h"]
    assert names["in"] == 512
    assert names["a</w>"] - names["a"] == 256


def test_an_uncommon_mlp_is_in_the_config():
    config = open_clip_config(toy_variant("gelu", vision_mlp_width=96))
    assert config["model_cfg"]["vision_cfg"]["mlp_ratio"] == 3


def test_timm_is_told_everywhere_to_load_the_weights():
    """create_model's pretrained is False by default: random weights, without a word."""
    found = {
        (path.name, call)
        for pattern in ("*.md", "rsclip_jax/**/*.py", "rsclip_jax/**/*.md")
        for path in REPO.glob(pattern)
        for call in re.findall(r"timm\.create_model\([^)]*\)", path.read_text())
    }
    assert {"card.py", "save.py"} <= {name for name, _ in found}
    assert [call for _, call in found if "pretrained=True" not in call] == []
