"""open_clip, transformers and timm read what we write, and see what we see."""

import dataclasses
import json
import subprocess

import jax
import numpy as np
import pytest

from rsclip_jax.api import Model
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.tokenizer import tokenize
from rsclip_jax.models.clip import CLIP, clip_shapes
from rsclip_jax.models.sensor import (
    SensorEncoder,
    input_fields,
    make_sensor_encoder,
    sensor_shapes,
    vit_spec,
)
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.report.card import make_card
from rsclip_jax.weights import file_digests, save_clip, save_encoder
from tests.conftest import REPO
from tests.helpers.drawn import draw

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


CLIPS = {
    "open_clip": ("open_clip", "folder", get_variant("small")),
    "openai": ("openai", "a.safetensors", OPENAI),
    "hf": ("hf", "folder", get_variant("small")),
    "open_clip resnet": ("open_clip", "folder", RESNET),
    "openai resnet": ("openai", "a.safetensors", OPENAI_RESNET),
}
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


def apply(module, params, *inputs):
    """Compiled as one: several times faster than operation by operation."""
    return jax.jit(module.apply)({"params": params}, *inputs)


def write_clip(folder, layout, name, variant):
    """(layout, path, inputs) of a CLIP that is written there, and what it embeds."""
    params, rng = draw(clip_shapes(variant), 4), np.random.default_rng(0)
    save_clip(folder / name, variant, params, layout)
    size = variant.image_size
    image = rng.standard_normal((3, size, size, 3), np.float32)
    text = tokenize(TEXTS, variant.context_length)
    zimg, ztxt, _ = apply(CLIP(variant), params, image, text)
    inputs = {"image": image, "text": text, "texts": TEXTS}
    return (layout, folder / name, inputs), {"zimg": zimg, "ztxt": ztxt, "text": text}


def write_encoders(folder):
    images, ours, rng = {}, {}, np.random.default_rng(1)
    for name, changes in ENCODERS.items():
        spec = dataclasses.replace(VIT, **changes)
        params = draw(sensor_shapes(spec), 0)
        save_encoder(folder / name, spec, params)
        shape = (2, spec.image_size, spec.image_size, len(spec.bands))
        images[name] = rng.standard_normal(shape, np.float32)
        ours[name], _ = apply(make_sensor_encoder(spec), params, images[name])
    return ("timm", folder, images), ours


def write_card(folder):
    v, rng = get_variant("small"), np.random.default_rng(2)
    params = draw(clip_shapes(v), 5)
    spec = dataclasses.replace(VIT, **input_fields(SENSORS["s1_grd"]))
    spec = dataclasses.replace(spec, out_dim=v.embed_dim)
    encoder = draw(sensor_shapes(spec), 6)
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
    image = rng.standard_normal((2, v.image_size, v.image_size, 3), np.float32)
    s1 = rng.standard_normal((2, 24, 24, 2), np.float32)
    zimg, _, _ = apply(CLIP(v), params, image, None)
    want, _ = apply(make_sensor_encoder(spec), encoder, s1)
    return ("card", folder, {"image": image, "s1": s1}), {"zimg": zimg, "s1": want}


@pytest.fixture(scope="module")
def read(torch_python, tmp_path_factory):
    """{name: (what the library makes of what we wrote, what we make of it)}."""
    folder, jobs, ours = tmp_path_factory.mktemp("written"), [], {}
    written = {f"clip {name}": (write_clip, *case) for name, case in CLIPS.items()}
    written |= {"encoders": (write_encoders,), "card": (write_card,)}
    for name, (write, *given) in written.items():
        (folder / name).mkdir()
        (layout, path, inputs), ours[name] = write(folder / name, *given)
        np.savez(folder / f"{name}.npz", **inputs)
        ends = folder / f"{name}.npz", folder / f"{name} out.npz"
        jobs.append([layout, *map(str, (path, *ends))])
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = REPO / "tests" / "golden" / "read_with_torch.py"
    subprocess.run([torch_python, script, folder / "jobs.json"], check=True)
    theirs = {name: dict(np.load(folder / f"{name} out.npz")) for name in written}
    return {name: (theirs[name], ours[name]) for name in written}


@pytest.mark.parametrize("name", CLIPS)
def test_they_embed_as_we_do(read, name):
    got, want = read[f"clip {name}"]
    np.testing.assert_allclose(got["zimg"], want["zimg"], atol=1e-5)
    np.testing.assert_allclose(got["ztxt"], want["ztxt"], atol=1e-5)


def test_transformers_tokenizer_gives_our_ids(read):
    got, want = read["clip hf"]
    for theirs, ours in zip(got["ids"], want["text"], strict=True):
        length = ours.tolist().index(CLIPS["hf"][2].vocab_size - 1) + 1
        np.testing.assert_array_equal(theirs[:length], ours[:length])


def near(got, want):
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max(), rtol=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_timm_sees_what_our_encoders_see(read, name):
    got, want = read["encoders"]
    near(got[name], want[name])


def test_the_lines_of_a_model_card_read_what_was_exported(read):
    got, want = read["card"]
    np.testing.assert_allclose(got["zimg"], want["zimg"], atol=1e-5)
    near(got["s1"], want["s1"])
