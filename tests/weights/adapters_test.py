"""LoRA adapters of PEFT beside the weights that they adapt."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.weights import file_digests, load_clip
from tests.golden import FOLDER

HF = FOLDER / "clip_toy_gelu_hf"
LAYER = "vision_model.encoder.layers.0.self_attn.q_proj"
CONFIG = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 8,
    "bias": "none",
    "target_modules": ["q_proj"],
    "inference_mode": True,
    # what PEFT 0.21 writes besides, by default
    "use_dora": False,
    "megatron_core": "megatron.core",
    "megatron_config": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "loftq_config": {},
    "corda_config": None,
    "modules_to_save": None,
    "lora_bias": False,
    "fan_in_fan_out": False,
    "task_type": None,
    "revision": None,
}
RNG = np.random.default_rng(0)
DOWN, UP = (RNG.normal(size=s).astype(np.float32) for s in ((2, 32), (32, 2)))


def adapted_folder(folder, changes=None, layer=LAYER, extra=None):
    shutil.copytree(HF, folder)
    (folder / "adapter_config.json").write_text(
        json.dumps({**CONFIG, **(changes or {})})
    )
    stem = f"base_model.model.{layer}"
    factors = {f"{stem}.lora_A.weight": DOWN, f"{stem}.lora_B.weight": UP}
    path = folder / "adapter_model.safetensors"
    safetensors.numpy.save_file({**factors, **(extra or {})}, path)
    return folder


def query(params):
    """Our kernel [in, out] of the queries."""
    return params["visual"]["blocks_0"]["attn"]["in_proj"]["kernel"][:, :32]


@pytest.mark.parametrize(
    ("changes", "scale"), [({}, 4.0), ({"use_rslora": True}, 8 / 2**0.5)]
)
def test_the_product_is_added_to_its_matrix_alone(tmp_path, changes, scale):
    folder = adapted_folder(tmp_path / "a", changes)
    plain, found = load_clip(HF)[1], load_clip(folder)[1]
    want = query(plain) + scale * (UP.astype(np.float64) @ DOWN).T
    np.testing.assert_allclose(query(found), want, rtol=1e-5, atol=1e-5)
    query(found)[:] = query(plain)
    np.testing.assert_equal(found, plain)
    assert "adapter_model.safetensors" in file_digests(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type = 'IA3' is not supported, only 'LORA'"),
        ({"use_dora": True}, "use_dora = True is not known"),
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"rank_pattern": {"q": 8}}, "rank_pattern = .* is not known"),
        ({"modules_to_save": ["proj"]}, "modules_to_save = .* is not known"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"lora_alpha": None}, "does not say r and lora_alpha"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words) as error:
        load_clip(adapted_folder(tmp_path / "a", changes))
    assert "adapter_config.json" in str(error.value)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    folder = adapted_folder(tmp_path / "a", layer="vision_model.encoder.layers.9.fc")
    with pytest.raises(
        ValueError, match=r"adapts 1 tensor\(s\).*layers\.9\.fc\.weight"
    ):
        load_clip(folder)
    extra = {"base_model.model.logit_scale": np.zeros(1, np.float32)}
    folder = adapted_folder(tmp_path / "b", extra=extra)
    with pytest.raises(ValueError, match=r"logit_scale is no half.*merge_and_unload"):
        load_clip(folder)


def test_an_adapter_without_its_parts_says_what_is_missing(tmp_path):
    folder = adapted_folder(tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(tmp_path / "alone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"adapter_model\.safetensors is not"):
        load_clip(folder)
    with pytest.raises(ValueError, match="an adapter of PEFT: put its base beside it"):
        load_clip(tmp_path / "alone.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="without the weights that it adapts"):
        load_clip(folder)
