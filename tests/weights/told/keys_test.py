"""Every key of a config is built, compared, free or refused; the page lists them."""

import dataclasses
import json
import shutil

import pytest

from rsclip_jax.weights import load_clip
from rsclip_jax.weights.told import hf, open_clip, pixels, siglip
from tests.conftest import REPO
from tests.golden import FOLDER

TOY = FOLDER / "clip_toy_gelu.safetensors"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 12, "width": 24, "heads": 2, "layers": 2},
}
SECTIONS = {
    "open_clip `model_cfg`": open_clip.MODEL,
    "open_clip `vision_cfg`": open_clip.VISION,
    "open_clip `text_cfg`": open_clip.TEXT,
    "open_clip `preprocess_cfg`": pixels.OPEN_CLIP,
    "transformers `config.json`": hf.MODEL,
    "transformers `vision_config`": hf.VISION,
    "transformers `text_config`": hf.TEXT,
    "transformers' image processor": pixels.HF,
    "SigLIP, open_clip `model_cfg`": siglip.OPEN_CLIP_MODEL,
    "SigLIP, open_clip `vision_cfg`": siglip.OPEN_CLIP_VISION,
    "SigLIP, open_clip `text_cfg`": siglip.OPEN_CLIP_TEXT,
    "SigLIP, transformers `config.json`": siglip.HF_MODEL,
    "SigLIP, transformers `vision_config`": siglip.HF_VISION,
    "SigLIP, transformers `text_config`": siglip.HF_TEXT,
}


def table() -> str:
    """The table of weights/README.md: a row for each section and way."""
    rows = ["| config | keys | what is done with them |", "|---|---|---|"]
    for section, keys in SECTIONS.items():
        ways: dict[str, list[str]] = {}
        for name, key in keys.items():
            ways.setdefault(key.how, []).append(f"`{name}`")
        rows += [f"| {section} | {', '.join(k)} | {how} |" for how, k in ways.items()]
    return "\n".join(rows)


def test_the_page_lists_every_key():
    page = (REPO / "rsclip_jax" / "weights" / "README.md").read_text("utf-8")
    assert table() in page, table()


def open_clip_folder(folder, section="", **changes):
    """The toy's weights with a config, of which one section is changed."""
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in CONFIG.items()}
    (config[section] if section else config).update(changes)
    folder.mkdir()
    shutil.copy(TOY, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return folder


def hf_folder(folder, section="", **changes):
    shutil.copytree(FOLDER / "clip_toy_gelu_hf", folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config[section] if section else config).update(changes)
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("vision_cfg", "attentional_pool", True, "only False"),
        ("vision_cfg", "pool_type", "avg", "only 'tok'"),
        ("vision_cfg", "no_ln_pre", True, "only False"),
        ("vision_cfg", "timm_model_name", "vit_base_patch16_siglip_224", "only None"),
        ("vision_cfg", "act_kwargs", {"approximate": "tanh"}, "only None"),
        ("vision_cfg", "norm_kwargs", {"bias": False}, "only 'eps'"),
        ("vision_cfg", "image_size", [16, 32], "only a square"),
        ("vision_cfg", "image_size", 60, "only a multiple of patch_size = 8"),
        ("vision_cfg", "head_width", 5, "do not divide a width of 32"),
        ("vision_cfg", "width", 64, "the config is of other weights"),
        ("vision_cfg", "new_key", 1, r"vision_cfg\.new_key = 1 is not known"),
        ("text_cfg", "tokenizer_kwargs", {"clean": "canonicalize"}, "only None or"),
        ("text_cfg", "hf_tokenizer_name", "bert-base-uncased", "only None"),
        ("text_cfg", "pool_type", "last", "only 'argmax'"),
        ("text_cfg", "heads", 5, "do not divide a width of 24"),
        ("text_cfg", "vocab_size", 32000, "but its tensors have 64"),
        ("", "init_logit_bias", -10, "only None"),
        ("", "multimodal_cfg", {"width": 8}, "only None"),
    ],
)
def test_what_open_clip_would_build_otherwise_is_refused(
    tmp_path, section, key, value, words
):
    folder = open_clip_folder(tmp_path / "a", section, **{key: value})
    with pytest.raises(ValueError, match=words) as error:
        load_clip(folder)
    assert key in str(error.value)
    assert "open_clip_model.safetensors" in str(error.value)


def test_what_changes_nothing_is_read_over(tmp_path):
    plain = load_clip(open_clip_folder(tmp_path / "a"))[0]
    free = {"patch_dropout": 0.5, "act_kwargs": {}, "timm_pool": "avg"}
    assert load_clip(open_clip_folder(tmp_path / "b", "vision_cfg", **free))[0] == plain
    free = {"pad_id": 3, "tokenizer_kwargs": {"clean": "lower"}}
    assert load_clip(open_clip_folder(tmp_path / "c", "text_cfg", **free))[0] == plain


def test_what_open_clip_takes_for_an_absent_key(tmp_path):
    """Eight text heads, and visual heads of 64 channels."""
    with pytest.raises(ValueError, match="head_width = 64, so = 0 attention heads"):
        load_clip(open_clip_folder(tmp_path / "a", "vision_cfg", head_width=64))
    config = {**CONFIG, "text_cfg": {"width": 24, "layers": 2}}
    variant, _ = load_clip(open_clip_folder(tmp_path / "b", **config))
    assert variant.text_heads == 8


def test_layer_norms_eps_is_that_of_both_towers(tmp_path):
    eps = {"norm_kwargs": {"eps": 1e-6}}
    with pytest.raises(ValueError, match="eps of 1e-06 in the visual tower and 1e-05"):
        load_clip(open_clip_folder(tmp_path / "a", "vision_cfg", **eps))
    sections = {k: {**CONFIG[k], **eps} for k in ("vision_cfg", "text_cfg")}
    variant, _ = load_clip(open_clip_folder(tmp_path / "b", **sections))
    assert variant.layer_norm_eps == 1e-6


def test_the_configs_image_size_resizes_the_positions(tmp_path):
    folder = open_clip_folder(tmp_path / "a", "vision_cfg", image_size=32)
    variant, params = load_clip(folder)
    want, resized = load_clip(open_clip_folder(tmp_path / "b"), image_size=32)
    assert variant.image_size == want.image_size == 32
    found, other = (
        p["visual"]["positional_embedding"].tolist() for p in (params, resized)
    )
    assert found == other
    assert load_clip(folder, image_size=16)[0].image_size == 16


@pytest.mark.parametrize(
    ("section", "changes", "words"),
    [
        ("", {"model_type": "blip"}, "model of type 'blip', and only CLIPs"),
        ("", {"model_type": "siglip"}, "only 'clip'"),
        ("vision_config", {"num_channels": 4}, "num_channels = 4 is not supported"),
        ("vision_config", {"num_attention_heads": 5}, "do not divide a width of 32"),
        ("vision_config", {"image_size": [16, 32]}, "only a square"),
        ("vision_config", {"image_size": 32}, "but its tensors have 16"),
        ("text_config", {"vocab_size": 32000}, "but its tensors have 64"),
    ],
)
def test_what_transformers_would_build_otherwise_is_refused(
    tmp_path, section, changes, words
):
    with pytest.raises(ValueError, match=words):
        load_clip(hf_folder(tmp_path / "a", section, **changes))


def test_an_older_config_dict_overrides_with_all_its_defaults(tmp_path):
    """As transformers: what the dict leaves out is its default, not the section's."""
    plain, _ = load_clip(hf_folder(tmp_path / "a"))
    config = json.loads((FOLDER / "clip_toy_gelu_hf" / "config.json").read_text())
    older = {
        f"{t}_config_dict": {**config[f"{t}_config"], "hidden_act": "quick_gelu"}
        for t in ("vision", "text")
    }
    variant, _ = load_clip(hf_folder(tmp_path / "b", **older))
    assert variant == dataclasses.replace(plain, activation="quick_gelu")
    del older["vision_config_dict"]["num_attention_heads"]
    with pytest.raises(ValueError, match="= 12 attention heads do not divide"):
        load_clip(hf_folder(tmp_path / "c", **older))


def test_a_file_of_a_usual_name_is_read_with_the_config_beside_it(tmp_path):
    folder = open_clip_folder(tmp_path / "a")
    file = folder / "open_clip_model.safetensors"
    assert load_clip(file)[0] == load_clip(folder)[0]
    other = file.rename(folder / "epoch_3.safetensors")
    with pytest.raises(ValueError, match="pass heads="):
        load_clip(other)
