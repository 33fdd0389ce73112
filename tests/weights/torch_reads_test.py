"""open_clip and transformers read what we write, and see what we see."""

import os
import subprocess

import jax
import numpy as np
import pytest

from rsclip_jax.data.tokenizer import tokenize
from rsclip_jax.models.clip import CLIP, init_clip
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.weights import save_clip
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


@pytest.mark.parametrize(
    ("layout", "name", "variant"),
    [
        ("open_clip", "folder", "small"),
        ("openai", "a.safetensors", "small"),
        ("hf", "folder", "small"),
        ("open_clip", "folder", RESNET),
        ("openai", "a.safetensors", RESNET),
    ],
)
def test_they_embed_as_we_do(tmp_path, layout, name, variant):
    v = get_variant(variant)
    params = jax.device_get(init_clip(v, jax.random.key(4)))
    rng = np.random.default_rng(0)
    if isinstance(v.vision_layers, tuple):  # its blocks begin as shortcuts alone
        params["visual"] = jax.tree.map(
            lambda x: x + 0.1 * rng.random(x.shape, np.float32), params["visual"]
        )
    save_clip(tmp_path / name, v, params, layout)
    image = rng.standard_normal((3, v.image_size, v.image_size, 3)).astype(np.float32)
    text = tokenize(TEXTS, v.context_length)
    inputs, out = tmp_path / "inputs.npz", tmp_path / "out.npz"
    np.savez(inputs, image=image, text=text, texts=TEXTS)
    script = f"{golden[0]}/read_with_torch.py"
    command = [PYTHON, script, layout, str(tmp_path / name), str(inputs), str(out)]
    subprocess.run(command, check=True, timeout=300)
    zimg, ztxt, _ = CLIP(v).apply({"params": params}, image, text)
    with np.load(out) as got:
        np.testing.assert_allclose(got["zimg"], zimg, atol=1e-5)
        np.testing.assert_allclose(got["ztxt"], ztxt, atol=1e-5)
        if layout == "hf":
            for theirs, ours in zip(got["ids"], text, strict=True):
                length = ours.tolist().index(v.vocab_size - 1) + 1
                np.testing.assert_array_equal(theirs[:length], ours[:length])
