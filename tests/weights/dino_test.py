"""DINOv2 and DINOv3 as sensor encoders: every block is transformers' and timm's."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.models.compute import Compute
from rsclip_jax.models.rope import Rope
from rsclip_jax.models.sensor import add_map, make_sensor_encoder
from rsclip_jax.weights import load_encoder, save_encoder
from tests.golden import FOLDER

BLOCK, END = 1e-5, 1e-4
S1 = SENSORS["s1_grd"]
# By hand: (rotary base, whether gated, pool, registers, eps, channels in the MLP)
TOLD = {
    "dinov2_hf": (0.0, False, "token", 2, 1e-6, 0),
    "dinov2_swiglu_hf": (0.0, True, "token", 0, 1e-6, 16),
    "dinov3_hf": (50.0, True, "token", 2, 1e-5, 24),
    "dinov3_timm": (100.0, False, "normed_mean", 4, 1e-5, 0),
    "dinov3_plus_timm": (100.0, True, "token", 4, 1e-5, 32),
}


def worst(spec, params, want) -> dict[str, float]:
    encoder = jax.jit(make_sensor_encoder(spec).apply)
    _, features = encoder({"params": params}, want["image"])
    return {k: np.abs(features[k] - want[k]).max() for k in want if k in features}


@pytest.mark.parametrize("name", TOLD)
def test_every_block_is_the_librarys(golden, name):
    spec, params = load_encoder(FOLDER / name, S1)
    off = worst(spec, params, golden(name))
    assert off.keys() == {"block_0", "block_1", "pooled"}
    assert max(off["block_0"], off["block_1"]) <= BLOCK
    assert off["pooled"] <= END


@pytest.mark.parametrize("name", TOLD)
def test_what_names_and_configs_tell(name):
    spec, _ = load_encoder(FOLDER / name, S1)
    found = (spec.rope, spec.gated, spec.pool, spec.registers, spec.eps, spec.mlp_width)
    assert found == TOLD[name]
    assert (spec.image_size, spec.patch_size, spec.layers, spec.heads) == (12, 4, 2, 2)
    assert spec.layer_scale


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("dinov2_hf", {"heads": 4}),
        ("dinov3_hf", {"rope": 100.0}),
        ("dinov3_timm", {"rope": 0.01}),
        ("dinov3_timm", {"pool": "mean"}),
        ("dinov3_plus_timm", {"pool": "normed_mean"}),
        ("dinov3_plus_timm", {"eps": 1e-2}),
    ],
)
def test_parity_catches_a_wrong_spec(golden, name, fault):
    spec, params = load_encoder(FOLDER / name, S1)
    wrong = dataclasses.replace(spec, **fault)
    assert worst(wrong, params, golden(name))["pooled"] > END


@pytest.mark.slow  # compiles a gradient for each
@pytest.mark.parametrize("name", TOLD)
def test_gradients_are_the_librarys(golden, name):
    (spec, params), want = load_encoder(FOLDER / name, S1), golden(name)

    def total(p):
        out, _ = make_sensor_encoder(spec).apply({"params": p}, want["image"])
        return jnp.sum(out * want["probe"])

    grads = jax.jit(jax.grad(total))(params)
    patch = np.asarray(grads["patch_embed"]["kernel"]).transpose(3, 2, 0, 1)
    queries = np.asarray(grads["blocks_1"]["attn"]["in_proj"]["kernel"]).T
    queries = queries[: len(want["grad_queries_1"])]  # timm has them with the keys'
    for got, wanted in ((patch, "grad_patch"), (queries, "grad_queries_1")):
        limit = END * np.abs(want[wanted]).max()
        np.testing.assert_allclose(got, want[wanted], atol=limit, rtol=0)


@pytest.mark.parametrize("name", TOLD)
def test_an_encoder_comes_back_bit_for_bit(tmp_path, name):
    spec, params = add_map(
        *load_encoder(FOLDER / name, S1), 6, jax.random.key(0)
    )  # and is a plain ViT's file, which needs no config
    save_encoder(tmp_path / "a.safetensors", spec, params)
    found, again = load_encoder(tmp_path / "a.safetensors")
    assert found == spec
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize("name", ["dinov2_swiglu_hf", "dinov3_timm"])
def test_a_folder_for_timm_is_refused_by_name(tmp_path, name):
    what = {"dinov2_swiglu_hf": "gated = True", "dinov3_timm": r"rope = 100\.0"}[name]
    with pytest.raises(ValueError, match=f"timm has no such model with {what}; write"):
        save_encoder(tmp_path / "a", *load_encoder(FOLDER / name, S1))


def test_meta_names_registers_and_gates_otherwise(tmp_path, golden):
    """The same tensors under Meta's names, and a key's bias that it masks."""
    spec, params = load_encoder(FOLDER / "dinov3_plus_timm", S1)
    file = safetensors.numpy.load_file(FOLDER / "dinov3_plus_timm/model.safetensors")
    file = {n: a.astype(np.float32) for n, a in file.items()}
    renamed = (("reg_token", "storage_tokens"), ("fc1_g", "w1"), ("fc1_x", "w2"))
    renamed += (
        ("mlp.fc2", "mlp.w3"),
        ("gamma_1", "ls1.gamma"),
        ("gamma_2", "ls2.gamma"),
    )
    for i in range(2):
        q, v = (file.pop(f"blocks.{i}.attn.{x}_bias") for x in "qv")
        masked = np.full_like(q, np.nan)
        file[f"blocks.{i}.attn.qkv.bias"] = np.concatenate([q, masked, v])
        file[f"blocks.{i}.attn.qkv.bias_mask"] = np.concatenate([q, masked, v])
    for old, new in renamed:
        file = {n.replace(old, new): a for n, a in file.items()}
    file |= {"mask_token": np.ones((1, 16)), "rope_embed.periods": np.ones(2)}
    safetensors.numpy.save_file(file, tmp_path / "meta.safetensors")
    found, again = load_encoder(tmp_path / "meta.safetensors", S1, heads=2)
    # nothing tells the size of images, which a rotary embedding does not need
    assert found == dataclasses.replace(spec, image_size=224)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert worst(spec, again, golden("dinov3_plus_timm"))["pooled"] <= END


def test_a_bare_file_of_another_width_asks_for_heads(tmp_path):
    file = FOLDER / "dinov3_timm/model.safetensors"
    shutil.copy(file, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="heads of 16 channels; pass heads="):
        load_encoder(tmp_path / "bare.safetensors", S1)
    assert load_encoder(tmp_path / "bare.safetensors", S1, heads=4)[0].heads == 4


def changed(tmp_path, name, **changes):
    folder = tmp_path / name
    shutil.copytree(FOLDER / name, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("dinov3_hf", {"model_type": "vit"}, "model_type 'vit' cannot be read"),
        ("dinov3_hf", {"hidden_act": "gelu"}, "'gelu' with use_gated_mlp = True"),
        ("dinov2_hf", {"hidden_act": "relu"}, "hidden_act = 'relu'.*only 'gelu'"),
        ("dinov3_hf", {"image_size": [12, 16]}, "only square images"),
        ("dinov3_timm", {"architecture": "eva_x"}, "'eva_x' has no position embed"),
        ("dinov3_timm", {"global_pool": "map"}, "global_pool 'map' is not supported"),
        (
            "dinov3_timm",
            {"model_args": {"rope_temperature": 50}},
            "rope_temperature change a DINOv3",
        ),
    ],
)
def test_a_config_that_is_not_built_is_refused_by_name(tmp_path, name, changes, words):
    with pytest.raises(ValueError, match=words):
        load_encoder(changed(tmp_path, name, **changes), S1)


def test_a_rotary_embedding_takes_images_of_any_size():
    spec, params = load_encoder(FOLDER / "dinov3_hf", S1)
    larger, same = load_encoder(FOLDER / "dinov3_hf", S1, image_size=20)
    assert larger == dataclasses.replace(spec, image_size=20)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    out, _ = make_sensor_encoder(larger).apply(
        {"params": params}, np.ones((1, 20, 20, 2), np.float32)
    )
    assert np.isfinite(out).all()


def test_angles_by_hand():
    """Two patches a side, at -1/2 and 1/2; of 8 channels two rates, 1 and 1 / 10."""
    cos, sin = Rope(base=100.0, grid=2, prefix=1).angles(8)
    half = np.array([np.pi, np.pi / 10])
    by_hand = np.concatenate([-half, half])  # upper right: row -1/2, column 1/2
    np.testing.assert_allclose(cos[1], np.cos(np.tile(by_hand, 2)), atol=1e-6)
    np.testing.assert_allclose(sin[1], np.sin(np.tile(by_hand, 2)), atol=1e-6)


@pytest.mark.parametrize("layout", ["rows", "tiles"])
def test_every_layout_computes_the_same(golden, layout):
    """A TPU's form of blocks has no rotary embedding: the rows' form stands in."""
    spec, params = load_encoder(FOLDER / "dinov3_hf", S1)
    want = golden("dinov3_hf")
    encoder = make_sensor_encoder(spec, Compute(layout=layout, scan=True))
    out, _ = encoder.apply({"params": params}, want["image"])
    np.testing.assert_allclose(out, want["pooled"], atol=END)
