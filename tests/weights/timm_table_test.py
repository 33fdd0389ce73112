"""What timm's architectures tell by their names."""

import json
import shutil
import subprocess

import pytest

from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.weights import load_encoder
from rsclip_jax.weights.timm_table import read_architecture, towers
from tests.conftest import REPO
from tests.golden import FOLDER

GIANT = "vit_giant_patch14_clip_224"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (GIANT, (16, "gelu", 1e-5, "token")),
        ("vit_base_patch32_clip_quickgelu_224", (12, "quick_gelu", 1e-5, "token")),
        ("vit_base_patch16_224.augreg_in21k", (12, "gelu", 1e-6, "token")),
        ("deit_small_patch16_224", (6, "gelu", 1e-6, "token")),
    ],
)
def test_a_name_tells_what_no_shape_shows(tmp_path, name, found):
    told = read_architecture(tmp_path, name, is_resnet=False)
    assert tuple(told.values()) == found


@pytest.mark.parametrize(
    ("name", "is_resnet"),
    [
        ("resnet50d", True),  # a deep stem
        ("resnetaa50", True),
        ("resnetblur50", True),
        ("seresnet50", True),
        ("vit_so400m_patch14_siglip_224", False),
        ("vit_small_patch16_18x2_224", False),
        ("swin_tiny_patch4_window7_224", False),
        ("resnet50", False),
    ],
)
def test_other_architectures_are_refused_by_name(tmp_path, name, is_resnet):
    with pytest.raises(ValueError, match=f"architecture = '{name}' is none of"):
        read_architecture(tmp_path, name, is_resnet)


def folder_of(folder, name, **arguments):
    folder.mkdir()
    shutil.copy(FOLDER / "timm_toy.safetensors", folder / "model.safetensors")
    config = {"architecture": name, "model_args": arguments}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_arguments_of_the_model_override_its_name(tmp_path):
    sensor = SENSORS["s1_grd"]
    folder = folder_of(tmp_path / "a", "vit_tiny_patch16_224", num_heads=2)
    spec, _ = load_encoder(folder, sensor)
    assert (spec.heads, spec.activation) == (2, "gelu")
    with pytest.raises(ValueError, match="architecture = 'vit_so400m"):
        load_encoder(folder_of(tmp_path / "b", "vit_so400m_patch14_siglip_224"), sensor)


@pytest.mark.parity
def test_the_table_is_timms_own(torch_python, tmp_path):
    script = REPO / "tests" / "golden" / "timm_table.py"
    made = tmp_path / "towers.json"
    subprocess.run([torch_python, script, made], check=True, timeout=300)
    assert json.loads(made.read_text()) == towers()
