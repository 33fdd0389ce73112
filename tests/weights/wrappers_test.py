"""What training scripts put around the weights."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.weights import load_clip
from rsclip_jax.weights.wrappers import bare_names, shared_prefix, unwrap
from tests.golden import FOLDER, toy_variant
from tests.helpers.trees import same

RAW, MEAN = ({"a": np.full(2, value)} for value in (1.0, 2.0))
PATH = Path("run.pth")
TOY = FOLDER / "clip_toy_quick_gelu.safetensors"


@pytest.mark.parametrize(
    "saved",
    [
        {"state_dict": RAW, "state_dict_ema": MEAN, "epoch": 3},
        {"model": RAW, "model_ema": MEAN},
        {"state_dict": {"model": RAW, "model_ema": MEAN}},
    ],
)
def test_averaged_weights_come_first_as_in_timm(saved):
    assert unwrap(saved, PATH, ema=True) is not MEAN  # without other entries
    np.testing.assert_array_equal(unwrap(saved, PATH, ema=True)["a"], MEAN["a"])
    np.testing.assert_array_equal(unwrap(saved, PATH, ema=False)["a"], RAW["a"])


def test_an_average_that_is_no_dict_is_passed_over():
    """timm saves None where no average was kept."""
    saved = {"state_dict": RAW, "state_dict_ema": None}
    np.testing.assert_array_equal(unwrap(saved, PATH, ema=True)["a"], RAW["a"])


@pytest.mark.parametrize(
    ("names", "bare"),
    [
        (["module.a", "module.b"], ["a", "b"]),
        (["module.model.a", "module.model.b"], ["a", "b"]),
        (["_orig_mod.a", "_orig_mod.b.c"], ["a", "b.c"]),
        (["visual._orig_mod.a", "text.b"], ["visual.a", "text.b"]),
        (["model._orig_mod.a"], ["a"]),
        (["clip.visual.a", "clip.b"], ["visual.a", "b"]),
        (["model.a", "loss.b"], ["model.a", "loss.b"]),  # not all
        (["_orig_mod.a", "a"], ["_orig_mod.a", "a"]),  # would be equal
    ],
)
def test_prefixes_that_all_names_have_go(names, bare):
    assert bare_names(names) == dict(zip(bare, names, strict=True))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.", "module.clip."])
def test_a_wrapped_clip_is_read(tmp_path, prefix):
    tensors = safetensors.numpy.load_file(TOY)
    wrapped = {prefix + name: array for name, array in tensors.items()}
    safetensors.numpy.save_file(wrapped, tmp_path / "a.safetensors")
    variant = toy_variant("quick_gelu")
    found = load_clip(tmp_path / "a.safetensors", variant)[1]
    same(found, load_clip(TOY, variant)[1])


def test_a_way_out_is_named_where_other_tensors_lie_beside(tmp_path):
    """Lightning saves its module's losses and metrics, too."""
    tensors = safetensors.numpy.load_file(TOY)
    wrapped = {"model." + name: array for name, array in tensors.items()}
    wrapped["loss.weight"] = np.zeros(1, np.float32)
    safetensors.numpy.save_file(wrapped, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"most begin with 'model\.': save those"):
        load_clip(tmp_path / "a.safetensors")
    assert shared_prefix(["a", "b", "model.c"]) == ""


def test_a_pth_tar_is_a_torch_file(tmp_path):
    source = FOLDER / "clip_toy_training.pt"
    target = tmp_path / "checkpoint.pth.tar"
    target.write_bytes(source.read_bytes())
    variant = toy_variant("quick_gelu")
    same(load_clip(target, variant)[1], load_clip(source, variant)[1])
    with pytest.raises(ValueError, match=r"\.tar: not the name of a weight file"):
        load_clip(target.rename(tmp_path / "checkpoint.tar"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_by_its_tensor(tmp_path, value):
    tensors = safetensors.numpy.load_file(TOY)
    tensors["visual.proj"][3, 2] = value
    tensors["visual.ln_pre.bias"][:] = 3e38  # its sum overflows; it is finite
    safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors")
    words = r"a\.safetensors.*NaN or infinite values in 1 tensor\(s\): visual\.proj;"
    with pytest.raises(ValueError, match=words):
        load_clip(tmp_path / "a.safetensors", toy_variant("quick_gelu"))
