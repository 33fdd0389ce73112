"""A CLIP over a sensor's bands comes in, is asked for its bands, and goes out whole."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

import rsclip_jax
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.models.clip import init_clip, text_features
from rsclip_jax.models.sensor import clip_spec, inflate_params, normalize_sensor
from rsclip_jax.models.variants import Variant
from rsclip_jax.weights import (
    PRETRAINED,
    load_clip,
    load_towers,
    save_clip,
    save_sensor_clip,
)
from tests.conftest import REPO

SCRIPT = REPO / "tests" / "golden" / "sensor_clip.py"
S1 = SENSORS["s1_grd"]
V = Variant("toy", 64, 32, 16, 128, 2, 2, 128, 2, 2, "gelu", vocab_size=512)
MS_CLIP = PRETRAINED["Llama3-MS-CLIP-base"]


def make_towers(variant=V, sensor=S1) -> tuple:
    """(params with RGB, spec, params of the sensor's tower)."""
    params = jax.tree.map(np.asarray, init_clip(variant, jax.random.key(0)))
    spec = clip_spec(sensor, variant)
    tower = inflate_params(params["visual"], len(spec.bands))
    kernel = np.random.default_rng(0).normal(size=(16, 16, len(spec.bands), 128))
    tower["patch_embed"]["kernel"] = kernel.astype(np.float32) * 0.05
    return params, spec, tower


@pytest.fixture
def saved(tmp_path) -> Path:
    params, spec, tower = make_towers()
    save_sensor_clip(tmp_path / "clip_s1", V, params, spec, tower)
    return tmp_path / "clip_s1"


def radar() -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.normal(-15, 5, (3, 32, 32, 2)).astype(np.float32)


def test_what_is_saved_is_loaded_bit_for_bit(saved):
    params, spec, tower = make_towers()
    model = rsclip_jax.load(saved)
    assert model.variant == V
    assert model.sensors["s1"].spec == spec
    jax.tree.map(np.testing.assert_array_equal, model.sensors["s1"].params, tower)
    del params["visual"]
    jax.tree.map(np.testing.assert_array_equal, model.params, params)
    assert model.encode(radar(), "s1").shape == (3, 64)


def test_a_model_without_rgb_says_what_it_takes(saved):
    model = rsclip_jax.load(saved)
    with pytest.raises(ValueError, match=r"takes no RGB.*the bands of s1"):
        model.encode_image(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"it has s1$"):
        model.encode(radar(), "s2_l1c")
    with pytest.raises(ValueError, match=r"takes 2 bands, not RGB: .*sensor="):
        load_clip(saved)


def bare(saved: Path, names=lambda name: (name,)) -> Path:
    """The tensors alone, each under the names given; no header, no config."""
    tensors = safetensors.numpy.load_file(saved / "open_clip_model.safetensors")
    path = saved.parent / "bare.safetensors"
    made = {new: array for name, array in tensors.items() for new in names(name)}
    safetensors.numpy.save_file(made, path)
    return path


def test_bands_that_no_file_states_are_asked_for(saved, tmp_path):
    told = {"activation": "gelu", "heads": (2, 2)}
    path = bare(saved)
    with pytest.raises(ValueError, match=r"takes 2 bands.*give sensor="):
        rsclip_jax.load(path, **told)
    with pytest.raises(ValueError, match=r"takes 2 bands.*s2_l1c has the 13 bands"):
        rsclip_jax.load(path, **told, sensor="s2_l1c")
    bare_sensor = dataclasses.replace(S1, mean=(), std=())
    with pytest.raises(ValueError, match="has no mean and std"):
        load_towers(path, **told, sensor=bare_sensor)
    found = rsclip_jax.load(path, **told, sensor="s1_grd")
    want = rsclip_jax.load(saved)
    np.testing.assert_array_equal(
        found.encode(radar(), "s1"), want.encode(radar(), "s1")
    )
    with pytest.raises(ValueError, match=r"states its bands.*omit sensor="):
        rsclip_jax.load(saved, sensor="s1_grd")


def test_three_bands_may_be_a_sensors(tmp_path):
    params, _, _ = make_towers()
    save_clip(tmp_path / "clip", V, params)
    cir = rsclip_jax.load(tmp_path / "clip", sensor="cir_8bit")
    assert not cir.takes_rgb
    x = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype(np.uint8)
    assert cir.encode(x, "cir").shape == (2, 64)


def test_the_same_clip_under_three_names_is_one(saved):
    def names(name):
        held = ("clip_base_model", "image_encoder", "text_encoder")
        return [f"{part}.model.{name}" for part in held]

    told = {"activation": "gelu", "heads": (2, 2), "sensor": "s1_grd"}
    model = rsclip_jax.load(bare(saved, names), **told)
    want = rsclip_jax.load(saved)
    jax.tree.map(np.testing.assert_array_equal, model.params, want.params)

    def more(name):
        return [*names(name), f"image_encoder.model.more.{name}"]

    with pytest.raises(ValueError, match="not a CLIP in the layout"):
        rsclip_jax.load(bare(saved, more), **told)


def test_another_image_size_resizes_the_positions(saved):
    model = rsclip_jax.load(saved, image_size=64)
    assert model.sensors["s1"].spec.image_size == 64
    assert model.sensors["s1"].params["positional_embedding"].shape == (17, 128)
    assert model.encode(radar(), "s1").shape == (3, 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ln_pre": False}, "ln_pre False for True"),
        ({"eps": 1e-6, "activation": "quick_gelu"}, "activation quick_gelu for gelu"),
        ({"heads": 4}, "heads 4 for 2"),
    ],
)
def test_an_encoder_that_is_no_tower_of_its_clip_is_refused(tmp_path, change, words):
    params, spec, tower = make_towers()
    with pytest.raises(ValueError, match=rf"{words}.*student 'clip'"):
        save_sensor_clip(
            tmp_path / "x", V, params, dataclasses.replace(spec, **change), tower
        )
    assert not (tmp_path / "x").exists()


def test_an_inner_width_by_its_number_is_the_same_tower(tmp_path):
    params, spec, tower = make_towers()
    spec = dataclasses.replace(spec, mlp_width=512)
    save_sensor_clip(tmp_path / "x", V, params, spec, tower)
    assert rsclip_jax.load(tmp_path / "x").sensors["s1"].spec == spec


@pytest.fixture(scope="module")
def made(torch_python, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ms_clip")
    subprocess.run([torch_python, SCRIPT, "make", folder], check=True, timeout=300)
    return folder


@pytest.mark.parity
def test_ms_clips_row_gives_its_embeddings(made, tmp_path, monkeypatch):
    """Its file, names, bands and scale; the tower is a small one."""
    monkeypatch.setenv("RSCLIP_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(
        PRETRAINED, MS_CLIP.name, dataclasses.replace(MS_CLIP, variant=V)
    )
    place = tmp_path / MS_CLIP.repository.replace("/", "--") / MS_CLIP.file
    place.parent.mkdir()
    shutil.copy(made / "weights.pt", place)
    model = rsclip_jax.load(MS_CLIP.name)
    x = np.load(made / "x.npy")
    found = model.encode(x, "s2")
    np.testing.assert_allclose(found, np.load(made / "zimg.npy"), atol=1e-5)
    text = np.load(made / "text.npy")
    ftxt = np.asarray(text_features(model.params["text"], text, V))
    ztxt = ftxt / np.linalg.norm(ftxt, axis=-1, keepdims=True)
    np.testing.assert_allclose(ztxt, np.load(made / "ztxt.npy"), atol=1e-5)
    # the twelve bands of L2A: its ten are found by name
    twelve = np.zeros((*x.shape[:3], 12), np.uint16)
    s2 = SENSORS["s2_l2a"]
    for i, band in enumerate(model.sensors["s2"].spec.bands):
        twelve[..., s2.bands.index(band)] = x[..., i]
    np.testing.assert_array_equal(model.encode(twelve, "s2_l2a"), found)


@pytest.mark.parity
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_open_clip_reads_ours_as_the_card_says(torch_python, tmp_path, activation):
    from rsclip_jax.api import Model
    from rsclip_jax.models.sensor import SensorEncoder
    from rsclip_jax.report.card import make_card

    v = dataclasses.replace(V, activation=activation)
    params, spec, tower = make_towers(v)
    save_sensor_clip(tmp_path / "clip_s1", v, params, spec, tower)
    model = Model(v, params, {"s1": SensorEncoder(spec, tower, "y")}, "x")
    card = make_card(
        model,
        layout="open_clip",
        dtype="float32",
        files={"clip": {}, "s1": {"config.json": ""}, "clip of s1": {}},
        history={},
        records=[],
    )
    (tmp_path / "README.md").write_text(card)
    np.save(tmp_path / "x.npy", np.asarray(normalize_sensor(radar(), spec)))
    command = [torch_python, SCRIPT, "read", tmp_path, tmp_path / "README.md"]
    subprocess.run(command, check=True, timeout=300, cwd=tmp_path)
    ours = rsclip_jax.load(tmp_path / "clip_s1").encode(radar(), "s1")
    np.testing.assert_allclose(ours, np.load(tmp_path / "zimg.npy"), atol=1e-5)
