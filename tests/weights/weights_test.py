"""Weight files in and out: strict, round trip exact, every problem in one message."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import VARIANTS
from rsclip_jax.weights import load_clip, load_encoder, save_clip
from tests.golden import FOLDER, toy_variant

TOY = FOLDER / "clip_toy_quick_gelu.safetensors"


@pytest.fixture
def tensors():
    return safetensors.numpy.load_file(TOY)


def test_round_trip_is_bit_exact(tmp_path, tensors):
    variant, params = load_clip(TOY, toy_variant("quick_gelu"))
    save_clip(tmp_path / "again.safetensors", variant, params)
    again = safetensors.numpy.load_file(tmp_path / "again.safetensors")
    assert again.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(again[name], array)


def test_our_own_file_says_its_variant(tmp_path):
    variant = toy_variant("gelu")
    params = init_clip(variant, jax.random.key(0))
    save_clip(tmp_path / "a.safetensors", variant, params)
    found, loaded = load_clip(tmp_path / "a.safetensors")
    assert found == variant
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_a_file_of_one_known_size_needs_no_variant(tmp_path):
    params = init_clip("mini", jax.random.key(0))
    save_clip(tmp_path / "a.safetensors", "mini", params)
    bare = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    safetensors.numpy.save_file(bare, tmp_path / "bare.safetensors")
    found, _ = load_clip(tmp_path / "bare.safetensors")
    assert found == VARIANTS["mini"]


def test_an_unknown_activation_is_asked_for():
    with pytest.raises(ValueError, match=r"its model's activation.*variant="):
        load_clip(TOY, heads=(2, 2))


def test_every_problem_is_in_one_message(tmp_path, tensors):
    del tensors["visual.ln_pre.bias"]
    tensors["visual.proj"] = tensors["visual.proj"][:, :-1].copy()
    tensors["something.else"] = np.zeros(3, np.float32)
    tensors["transformer.resblocks.7.ln_1.bias"] = np.zeros(24, np.float32)
    path = tmp_path / "bad.safetensors"
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError, match="4 tensor") as error:
        load_clip(path, toy_variant("quick_gelu"))
    text = str(error.value)
    for part in (
        "bad.safetensors",
        "missing tensor visual.ln_pre.bias",
        "misshapen tensor visual.proj: (32, 15) in the file",
        "(32, 16) in the model",
        "unknown tensor something.else (3,)",
        "extra tensor transformer.resblocks.7.ln_1.bias",
    ):
        assert part in text


def test_a_file_of_another_model_is_not_told_at_length(tmp_path, tensors):
    """A hundred tensors are missing and a hundred are unknown."""
    other = {f"net.{i}.weight": np.zeros(3, np.float32) for i in range(100)}
    other["visual.conv1.weight"] = tensors["visual.conv1.weight"]
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file(other, path)
    with pytest.raises(ValueError, match=r"unknown tensor net\.0") as error:
        load_clip(path, toy_variant("quick_gelu"))
    text = str(error.value)
    assert "missing tensor " in text
    assert text.endswith("...")
    assert len(text) < 1000
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, path.name)}))
    count = len(tensors) - 1
    with pytest.raises(ValueError, match=rf"{count} tensor\(s\) are not in") as error:
        load_clip(index, toy_variant("quick_gelu"))
    assert len(str(error.value)) < 1000


def test_a_bare_state_dict_may_carry_sizes_and_masks(tmp_path, tensors):
    tensors["attn_mask"] = np.zeros((12, 12), np.float32)
    tensors["input_resolution"] = np.array(16)
    path = tmp_path / "carry.safetensors"
    safetensors.numpy.save_file(tensors, path)
    load_clip(path, toy_variant("quick_gelu"))


def test_half_precision_files_become_float32(tmp_path, tensors):
    path = tmp_path / "half.safetensors"
    half = {k: v.astype(np.float16) for k, v in tensors.items()}
    safetensors.numpy.save_file(half, path)
    _, params = load_clip(path, toy_variant("quick_gelu"))
    kernel = params["visual"]["proj"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, half["visual.proj"].astype(np.float32))


def test_a_cut_file_is_refused_by_name(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(TOY.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.safetensors: not a whole"):
        load_clip(path, toy_variant("quick_gelu"))


def test_other_formats_and_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        load_clip(tmp_path / "none.safetensors")
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"model\.pt: neither a zip archive"):
        load_clip(tmp_path / "model.pt")


def test_an_unknown_layout_is_refused(tmp_path):
    variant, params = load_clip(TOY, toy_variant("quick_gelu"))
    with pytest.raises(ValueError, match="layout 'hf'"):
        save_clip(tmp_path / "a.safetensors", variant, params, layout="hf")


def test_params_of_another_model_do_not_export(tmp_path):
    variant, params = load_clip(TOY, toy_variant("quick_gelu"))
    with pytest.raises(ValueError, match="no name for extra/kernel"):
        save_clip(
            tmp_path / "a.safetensors", variant, {**params, "extra": {"kernel": 0}}
        )


S1 = SENSORS["s1_grd"]


def test_timm_file_with_its_classifier_loads_and_a_wrong_one_does_not(tmp_path):
    tensors = safetensors.numpy.load_file(FOLDER / "timm_toy.safetensors")
    tensors["head.weight"] = np.zeros((10, 32), np.float32)
    path = tmp_path / "vit.safetensors"
    safetensors.numpy.save_file(tensors, path)
    _, params = load_encoder(path, S1, heads=2)
    assert "proj" not in params
    del tensors["blocks.1.attn.qkv.bias"]
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError, match=r"missing tensor blocks\.1\.attn\.qkv\.bias"):
        load_encoder(path, S1, heads=2)


@pytest.mark.parametrize(
    "prefix", ["module.base_encoder.", "module.encoder_q.", "backbone."]
)
def test_the_encoder_is_taken_out_of_a_checkpoint(tmp_path, prefix):
    """As MoCo's and DINO's have it: a momentum copy and projectors beside it."""
    plain = safetensors.numpy.load_file(FOLDER / "timm_toy.safetensors")
    first = prefix.split(".")[0] + "." if prefix.startswith("module.") else ""
    tensors = {prefix + name: array for name, array in plain.items()}
    tensors |= {f"{first}momentum_encoder.{n}": -array for n, array in plain.items()}
    tensors[f"{first}predictor.0.weight"] = np.zeros((3, 3), np.float32)
    tensors[f"{prefix}head.0.weight"] = np.zeros((3, 3), np.float32)
    path = tmp_path / "moco.safetensors"
    safetensors.numpy.save_file(tensors, path)
    _, found = load_encoder(path, S1, heads=2)
    _, want = load_encoder(FOLDER / "timm_toy.safetensors", S1, heads=2)
    jax.tree.map(np.testing.assert_array_equal, found, want)


def test_a_masked_autoencoders_decoder_is_left_out(tmp_path):
    tensors = safetensors.numpy.load_file(FOLDER / "timm_toy.safetensors")
    tensors |= {
        name: np.zeros((1, 1, 8), np.float32)
        for name in ("mask_token", "decoder_pos_embed", "decoder_blocks.0.norm1.weight")
    }
    path = tmp_path / "mae.safetensors"
    safetensors.numpy.save_file(tensors, path)
    load_encoder(path, S1, heads=2)
