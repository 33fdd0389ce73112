"""open_clip, transformers and timm read what we write, and see what we see."""

import dataclasses
import os
import subprocess

import jax
import numpy as np
import pytest

from rsclip_jax.api import Model
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.tokenizer import tokenize
from rsclip_jax.models.clip import CLIP, init_clip
from rsclip_jax.models.sensor import (
    SensorEncoder,
    init_sensor,
    input_fields,
    make_sensor_encoder,
    vit_spec,
)
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.report.card import make_card
from rsclip_jax.weights import file_digests, save_clip, save_encoder
from tests.golden import __path__ as golden

PYTHON = os.environ.get("RSCLIP_TORCH_PYTHON", "")
pytestmark = pytest.mark.skipif(
    not PYTHON,
    reason="needs a Python with torch (tests/golden/requirements.txt) in"
    " RSCLIP_TORCH_PYTHON",
)
# no entities: transformers leaves "&amp;" as it is
TEXTS = [
    "a satellite photo of a river.",
    "Sentinel-1 VV/VH, 10 m",
    "forêt 🌲 lake",
]

RESNET = Variant(
    "toy",
    embed_dim=16,
    image_size=64,
    patch_size=32,
    vision_width=4,
    vision_layers=(1, 2, 1, 1),
    vision_heads=4,
    text_width=32,
    text_layers=1,
    text_heads=2,
    activation="gelu",
    context_length=24,
)


# What OpenAI's own code would build: QuickGELU, heads of 64 channels.
OPENAI_RESNET = dataclasses.replace(
    RESNET, vision_heads=2, text_width=64, text_heads=1, activation="quick_gelu"
)
OPENAI = dataclasses.replace(
    get_variant("small"), vision_heads=2, text_width=64, text_heads=1
)


def read(tmp_path, layout, path, **inputs):
    """What the library of a layout makes of inputs with the model that we wrote."""
    given, out = tmp_path / "inputs.npz", tmp_path / "out.npz"
    np.savez(given, **inputs)
    script = f"{golden[0]}/read_with_torch.py"
    command = [PYTHON, script, layout, str(path), str(given), str(out)]
    subprocess.run(command, check=True, timeout=300)
    with np.load(out) as got:
        return dict(got)


@pytest.mark.parametrize(
    ("layout", "name", "variant"),
    [
        ("open_clip", "folder", "small"),
        ("openai", "a.safetensors", OPENAI),
        ("hf", "folder", "small"),
        ("open_clip", "folder", RESNET),
        ("openai", "a.safetensors", OPENAI_RESNET),
    ],
)
def test_they_embed_as_we_do(tmp_path, layout, name, variant):
    v = get_variant(variant)
    params = jax.device_get(init_clip(v, jax.random.key(4)))
    rng = np.random.default_rng(0)
    if isinstance(v.vision_layers, tuple):  # whose blocks begin as mere shortcuts
        params["visual"] = jax.tree.map(
            lambda x: x + 0.1 * rng.random(x.shape, np.float32), params["visual"]
        )
    save_clip(tmp_path / name, v, params, layout)
    image = rng.standard_normal((3, v.image_size, v.image_size, 3)).astype(np.float32)
    text = tokenize(TEXTS, v.context_length)
    inputs = {"image": image, "text": text, "texts": TEXTS}
    got = read(tmp_path, layout, tmp_path / name, **inputs)
    zimg, ztxt, _ = CLIP(v).apply({"params": params}, image, text)
    np.testing.assert_allclose(got["zimg"], zimg, atol=1e-5)
    np.testing.assert_allclose(got["ztxt"], ztxt, atol=1e-5)
    if layout == "hf":
        for theirs, ours in zip(got["ids"], text, strict=True):
            length = ours.tolist().index(v.vocab_size - 1) + 1
            np.testing.assert_array_equal(theirs[:length], ours[:length])


VIT = vit_spec(
    SENSORS["s2_l1c"],
    image_size=24,
    patch_size=8,
    width=32,
    layers=2,
    heads=2,
    out_dim=10,
)
ENCODERS = {
    "plain": {},
    "mean": {"pool": "mean"},
    "no_class_token": {"pool": "mean", "class_token": False},
    "registers": {"registers": 3, "prefix_positions": False, "layer_scale": True},
    "wide_mlp": {"mlp_width": 80},
    "clip": {
        **{"ln_pre": True, "patch_bias": False, "proj_bias": False, "eps": 1e-5},
        "activation": "quick_gelu",
    },
    "resnet": {"layers": (1, 2, 1, 1), "width": 64, "image_size": 32},
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """{name: (what timm makes of an image, what we make of it)}, in one process."""
    folder, images, ours = tmp_path_factory.mktemp("timm"), {}, {}
    rng = np.random.default_rng(1)
    for name, changes in ENCODERS.items():
        spec = dataclasses.replace(VIT, **changes)
        params = jax.tree.map(
            lambda x: np.asarray(x) + 0.1 * rng.random(x.shape, np.float32),
            init_sensor(spec, jax.random.key(0)),
        )
        save_encoder(folder / name, spec, params)
        shape = (2, spec.image_size, spec.image_size, len(spec.bands))
        images[name] = rng.standard_normal(shape).astype(np.float32)
        ours[name], _ = make_sensor_encoder(spec).apply(
            {"params": params}, images[name]
        )
    got = read(folder, "timm", folder, **images)
    return {name: (got[name], ours[name]) for name in ENCODERS}


@pytest.mark.parametrize("name", ENCODERS)
def test_timm_sees_what_our_encoders_see(seen, name):
    got, want = seen[name]
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max(), rtol=0)


def test_the_lines_of_a_model_card_read_what_was_exported(tmp_path):
    v, rng = get_variant("small"), np.random.default_rng(2)
    params = jax.device_get(init_clip(v, jax.random.key(5)))
    spec = dataclasses.replace(VIT, **input_fields(SENSORS["s1_grd"]))
    spec = dataclasses.replace(spec, out_dim=v.embed_dim)
    encoder = jax.device_get(init_sensor(spec, jax.random.key(6)))
    folder = tmp_path / "export"
    save_clip(folder / "clip", v, params)
    save_encoder(folder / "s1", spec, encoder)
    model = Model(v, params, {"s1": SensorEncoder(spec, encoder, "b")}, "a")
    card = make_card(
        model,
        layout="open_clip",
        dtype="float32",
        files={key: file_digests(folder / key) for key in ("clip", "s1")},
        history={},
        records=[],
    )
    (folder / "README.md").write_text(card)
    image = rng.standard_normal((2, v.image_size, v.image_size, 3)).astype(np.float32)
    s1 = rng.standard_normal((2, 24, 24, 2)).astype(np.float32)
    got = read(tmp_path, "card", folder, image=image, s1=s1)
    zimg, _, _ = CLIP(v).apply({"params": params}, image, None)
    np.testing.assert_allclose(got["zimg"], zimg, atol=1e-5)
    want, _ = make_sensor_encoder(spec).apply({"params": encoder}, s1)
    np.testing.assert_allclose(got["s1"], want, atol=1e-4 * np.abs(want).max(), rtol=0)
