"""SigLIPs and MetaCLIP 2: as transformers and open_clip have them, saved, refused."""

import dataclasses
import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.special
from jax import export

import rsclip_jax
from rsclip_jax.data import tokenizer_files
from rsclip_jax.models.clip import normalize_rgb, text_features
from rsclip_jax.models.inference import tokenize_for
from rsclip_jax.weights import load_clip, save_clip
from rsclip_jax.weights.programs import save_programs
from tests.conftest import REPO
from tests.helpers.siglips import tokenizer_json, toy_params, toy_variant

SCRIPT = REPO / "tests" / "golden" / "siglip.py"
CASES = ("siglip", "siglip2", "open_clip", "metaclip")


def pictures(*shapes) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, s).astype(np.uint8) for s in shapes]


@pytest.fixture
def folder(tmp_path) -> Path:
    variant = toy_variant()
    save_clip(tmp_path / "siglip", variant, toy_params(variant), "hf")
    return tmp_path / "siglip"


def forget_header(folder: Path) -> None:
    """Leaves the tensors and the configs, as transformers writes them."""
    import safetensors.numpy

    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize("header", [True, False])
def test_what_is_saved_is_loaded(folder, header):
    if not header:
        forget_header(folder)
    model, variant = rsclip_jax.load(folder), toy_variant()
    if header:
        assert model.variant == variant
    else:  # the name is the file's
        assert model.variant == toy_variant(name="model")
    params = toy_params(variant)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)
    assert model.zero_shot(["river", "harbour"]).shape == (48, 2)
    assert (folder / "tokenizer.json").read_text() == tokenizer_json()
    with pytest.raises(ValueError, match="is not written for siglip-toy"):
        save_clip(folder / "x", variant, params)


# An independent forward pass, in float64 and one image at a time.


def layer_norm(x, p, eps=1e-6):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def gelu(x):
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def attention(x, memory, p, heads):
    q, k, v = np.split(p["in_proj"]["kernel"], 3, 1)
    bq, bk, bv = np.split(p["in_proj"]["bias"], 3)
    q, k, v = x @ q + bq, memory @ k + bk, memory @ v + bv
    out = []
    for one in zip(*(np.split(y, heads, 1) for y in (q, k, v)), strict=True):
        weights = scipy.special.softmax(one[0] @ one[1].T / len(one[0].T) ** 0.5, 1)
        out.append(weights @ one[2])
    return dense(np.concatenate(out, 1), p["out_proj"])


def mlp(x, p):
    return dense(gelu(dense(x, p["c_fc"])), p["c_proj"])


def blocks(x, p, heads):
    for i in range(2):
        b = p[f"blocks_{i}"]
        y = layer_norm(x, b["ln_1"])
        x = x + attention(y, y, b["attn"], heads)
        x = x + mlp(layer_norm(x, b["ln_2"]), b["mlp"])
    return x


def image_by_hand(image, p):
    tokens = []
    for i in range(3):
        for j in range(3):
            patch = image[12 * i : 12 * i + 12, 12 * j : 12 * j + 12]
            kernel = p["patch_embed"]["kernel"].reshape(-1, 48)
            tokens.append(patch.reshape(-1) @ kernel + p["patch_embed"]["bias"])
    x = blocks(np.array(tokens) + p["positional_embedding"], p, 6)
    x, pool = layer_norm(x, p["ln_post"]), p["pool"]
    y = attention(pool["probe"][None], x, pool, 6)
    y = (y + mlp(layer_norm(y, pool["ln"]), pool["mlp"]))[0]
    return y / np.linalg.norm(y)


def text_by_hand(ids, p):
    x = p["token_embedding"]["embedding"][ids] + p["positional_embedding"]
    x = layer_norm(blocks(x, p, 4), p["ln_final"])
    y = x[-1] @ p["text_projection"] + p["text_bias"]
    return y / np.linalg.norm(y)


def test_the_towers_are_those_of_the_paper(folder):
    model, params = rsclip_jax.load(folder), toy_params(toy_variant())
    params = jax.tree.map(np.float64, params)
    (image,) = pictures((40, 40, 3))
    plain = np.asarray(normalize_rgb(image[None], model.variant))[0]
    want = image_by_hand(np.float64(plain), params["visual"])
    np.testing.assert_allclose(model.encode_image(image)[0], want, atol=1e-5)
    text = "a river"
    (ids,) = tokenize_for(model.variant, [text])
    assert (ids[-5:] == 1).all()  # filled up, and seen by the tower
    want = text_by_hand(ids, params["text"])
    np.testing.assert_allclose(model.encode_text(text)[0], want, atol=1e-5)


def test_another_image_size_resizes_all_positions(folder):
    model = rsclip_jax.load(folder, image_size=64)
    assert model.params["visual"]["positional_embedding"].shape == (25, 48)
    assert model.encode_image(pictures((64, 64, 3))).shape == (1, 48)


def test_its_programs_run_without_the_package(folder, tmp_path):
    model = rsclip_jax.load(folder)
    save_programs(tmp_path, model.variant, model.params)
    shown, texts = pictures(*[(40, 40, 3)] * 3), ["a river", "the harbour"]
    inputs = {"image": np.stack(shown), "text": tokenize_for(model.variant, texts)}
    wanted = {"image": model.encode_image(shown), "text": model.encode_text(texts)}
    for name, given in inputs.items():
        data = (tmp_path / f"{name}.stablehlo").read_bytes()
        found = export.deserialize(data).call(given)
        np.testing.assert_allclose(found, wanted[name], atol=1e-5)


def test_its_programs_run_in_onnx(folder, tmp_path):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = rsclip_jax.load(folder)
    save_programs(tmp_path, model.variant, model.params, kind="onnx")
    shown = pictures((40, 40, 3), (40, 40, 3))
    session = onnxruntime.InferenceSession(tmp_path / "image.onnx")
    (z,) = session.run(None, {"x": np.stack(shown)})
    np.testing.assert_allclose(z, model.encode_image(shown), atol=1e-4)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("config.json", {"model_type": "siglip2"}, "type 'siglip2', and only CLIPs"),
        ("config.json", {"vision_config.vision_use_head": False}, "only True"),
        ("config.json", {"vision_config.hidden_act": "relu"}, "'relu' is not supp"),
        ("config.json", {"text_config.layer_norm_eps": 1e-5}, "they must be equal"),
        ("config.json", {"vision_config.num_attention_heads": 5}, "do not divide"),
        ("config.json", {"vision_config.image_size": 64}, "of other weights"),
        ("config.json", {"text_config.projection_size": 32}, "of other weights"),
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer"}, "BertTokeni"),
        ("tokenizer_config.json", {"do_lower_case": False}, "in lower case"),
        ("tokenizer_config.json", {"pad_token": "<none>"}, "'<none>' is no token"),
        ("preprocessor_config.json", {"do_rescale": False}, "only True"),
    ],
)
def test_what_would_change_embeddings_is_refused(folder, file, changes, words):
    forget_header(folder)
    path = folder / file
    config = json.loads(path.read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (config[section] if section else config)[name] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load_clip(folder)


def test_a_folder_without_a_tokenizer_says_what_is_missing(folder):
    forget_header(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer\.json"):
        load_clip(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json: texts are tok"):
        load_clip(folder)
    bare = folder.parent / "bare.safetensors"
    (folder / "model.safetensors").rename(bare)
    with pytest.raises(ValueError, match=r"no tensor shows a SigLIP's heads"):
        load_clip(bare)


def test_ids_beyond_the_vocabulary_are_refused(folder):
    model = rsclip_jax.load(folder)
    small = dataclasses.replace(model.variant, vocab_size=5)
    with pytest.raises(ValueError, match=r"gives the id \d+, and its text tower has"):
        tokenize_for(small, ["a river"])


def test_a_header_wants_its_tokenizer(folder, monkeypatch):
    monkeypatch.setattr(tokenizer_files, "_registered", {})
    assert load_clip(folder)[0].tokenizer == toy_variant().tokenizer
    monkeypatch.setattr(tokenizer_files, "_registered", {})
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="missing or not those of the model"):
        load_clip(folder)


# The libraries themselves.


@pytest.fixture(scope="module")
def made(torch_python, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("siglips")
    subprocess.run([torch_python, SCRIPT, "make", folder], check=True, timeout=300)
    return folder


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES)
def test_ids_embeddings_and_logits_are_the_librarys(made, case):
    texts = json.loads((made / "texts.json").read_text())
    want = np.load(made / case / "out.npz")
    model = rsclip_jax.load(made / case / "weights")
    ids = tokenize_for(model.variant, texts, truncate=True)
    np.testing.assert_array_equal(ids, want["ids"])
    zimg = model.encode_image([want["picture_0"], want["picture_1"]])
    np.testing.assert_allclose(zimg, want["zimg"], atol=1e-5)
    ztxt = model.encode_text(texts, truncate=True)
    np.testing.assert_allclose(ztxt, want["ztxt"], atol=1e-5)
    logits = np.exp(model.params["logit_scale"]) * zimg @ ztxt.T
    logits += model.params.get("logit_bias", 0)
    np.testing.assert_allclose(logits, want["logits"], atol=1e-4)
    # a planted fault: pooled elsewhere, or of another activation
    other = {"clip": {"end_token": -1}, "siglip": {"text_activation": "quick_gelu"}}
    wrong = dataclasses.replace(model.variant, **other[model.variant.family])
    ftxt = np.asarray(text_features(model.params["text"], ids, wrong))
    ftxt = ftxt / np.linalg.norm(ftxt, axis=-1, keepdims=True)
    assert np.abs(ftxt - want["ztxt"]).max() > 1e-3


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES)
def test_transformers_reads_ours(made, torch_python, tmp_path, case):
    model = rsclip_jax.load(made / case / "weights")
    save_clip(tmp_path / "weights", model.variant, model.params, "hf")
    shown = pictures((40, 40, 3), (90, 41, 3))
    np.savez(tmp_path / "pictures.npz", *shown)
    subprocess.run([torch_python, SCRIPT, "read", tmp_path], check=True, timeout=300)
    found = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(found["zimg"], model.encode_image(shown), atol=1e-5)
    if case != "open_clip":  # its cleaning is not in the files of a tokenizer
        texts = json.loads((made / "texts.json").read_text())
        ztxt = model.encode_text(texts, truncate=True)
        np.testing.assert_allclose(found["ztxt"], ztxt, atol=1e-5)
