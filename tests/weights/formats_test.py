"""CLIP files as their own libraries wrote them: all are the same weights."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.models.variants import VARIANTS, Variant
from rsclip_jax.weights import load_clip
from rsclip_jax.weights.load import resize_positions
from tests.golden import FOLDER, toy_variant
from tests.helpers.trees import same

OPEN_CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16},
        "text_cfg": {"context_length": 12, "width": 24, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
}


@pytest.fixture(scope="module")
def params():
    path = FOLDER / "clip_toy_quick_gelu.safetensors"
    return load_clip(path, toy_variant("quick_gelu"))[1]


def open_clip_folder(folder, name="open_clip_model.safetensors", **changes):
    folder.mkdir()
    shutil.copy(FOLDER / "clip_toy_quick_gelu.safetensors", folder / name)
    model = {**OPEN_CLIP_CONFIG["model_cfg"], **changes}
    config = {**OPEN_CLIP_CONFIG, "model_cfg": model}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parity
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_hugging_face_folder_tells_all(activation):
    variant, found = load_clip(FOLDER / f"clip_toy_{activation}_hf")
    expected = toy_variant(activation, name=variant.name)
    assert variant == expected
    path = FOLDER / f"clip_toy_{activation}.safetensors"
    same(found, load_clip(path, expected)[1])


def test_an_open_clip_folder_tells_all(tmp_path, params):
    variant, found = load_clip(open_clip_folder(tmp_path / "a"))
    pixels = {"image_mean": (0.5, 0.4, 0.3), "image_std": (0.2, 0.3, 0.4)}
    assert variant == toy_variant("quick_gelu", name=variant.name, **pixels)
    same(found, params)
    plain = open_clip_folder(tmp_path / "b", quick_gelu=False)
    assert load_clip(plain)[0].activation == "gelu"
    assert load_clip(plain, activation="quick_gelu")[0].activation == "quick_gelu"


@pytest.mark.parity
def test_a_training_checkpoint_is_unwrapped(params):
    """state_dict inside, "module." before every name, half precision."""
    path = FOLDER / "clip_toy_training.pt"
    same(load_clip(path, toy_variant("quick_gelu"))[1], params, half=True)


@pytest.mark.parity
def test_openais_archive_has_openais_activation(params):
    """What no file tells is the number of heads: a head of 64, where no row fits."""
    path = FOLDER / "clip_toy_script.pt"
    told, _ = load_clip(path)
    assert told == toy_variant(
        "quick_gelu", name="clip_toy_script", vision_heads=1, text_heads=1
    )
    _, found = load_clip(path, toy_variant("quick_gelu"))
    same(found, params, half=True)


def renamed(tmp_path, rename, drop=()):
    tensors = safetensors.numpy.load_file(FOLDER / "clip_toy_quick_gelu.safetensors")
    tensors = {rename(k): v for k, v in tensors.items() if k not in drop}
    safetensors.numpy.save_file(tensors, tmp_path / "renamed.safetensors")
    return tmp_path / "renamed.safetensors"


def test_a_custom_text_tower_has_text_before_its_names(tmp_path, params):
    def rename(name):
        return name if name.startswith(("visual.", "logit")) else f"text.{name}"

    path = renamed(tmp_path, rename)
    same(load_clip(path, toy_variant("quick_gelu"))[1], params)


def test_a_second_text_tower_is_not_dropped_in_silence(tmp_path):
    tensors = safetensors.numpy.load_file(FOLDER / "clip_toy_quick_gelu.safetensors")
    tensors["text.ln_final.bias"] = tensors["ln_final.bias"] + 1
    safetensors.numpy.save_file(tensors, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match=r"unknown tensor text\.ln_final\.bias"):
        load_clip(tmp_path / "two.safetensors", toy_variant("quick_gelu"))


def test_shards_are_put_together(tmp_path):
    whole = safetensors.numpy.load_file(
        FOLDER / "clip_toy_gelu_hf" / "model.safetensors"
    )
    shutil.copy(FOLDER / "clip_toy_gelu_hf" / "config.json", tmp_path)
    where = {}
    for i in (0, 1):
        part = dict(list(whole.items())[i::2])
        name = f"model-0000{i + 1}-of-00002.safetensors"
        safetensors.numpy.save_file(part, tmp_path / name)
        where |= dict.fromkeys(part, name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    variant, found = load_clip(tmp_path)
    assert variant.activation == "gelu"
    same(found, load_clip(FOLDER / "clip_toy_gelu_hf")[1])
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="not there: model-00002-of-00002"):
        load_clip(tmp_path)


def test_sizes_come_from_shapes_and_only_the_rest_is_asked_for():
    path = FOLDER / "clip_toy_quick_gelu.safetensors"
    with pytest.raises(
        ValueError, match=r"its model's activation.*activation='quick_gelu'"
    ):
        load_clip(path, heads=(2, 2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "relu"}, r"hidden_act = 'relu' is not supported"),
        ({"eos_token_id": 5}, r"eos_token_id = 5 is not the largest of 64"),
        ({"layer_norm_eps": 1e-6}, r"layer_norm_eps is 1e-05 in the visual"),
    ],
)
def test_what_a_config_asks_for_and_is_not_read_is_named(tmp_path, change, words):
    shutil.copytree(FOLDER / "clip_toy_gelu_hf", tmp_path / "hf")
    file = tmp_path / "hf" / "config.json"
    config = json.loads(file.read_text())
    config["text_config"] |= change
    if "hidden_act" in change:
        config["vision_config"] |= change
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load_clip(tmp_path / "hf")


def test_a_folder_or_file_of_something_else_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weight file in this folder"):
        load_clip(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"a\.txt: not the name of a weight file"):
        load_clip(tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"not a CLIP in the layout.*blocks\.0\.attn"):
        load_clip(FOLDER / "timm_toy.safetensors")


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14"]
)
def test_every_row_is_found_by_its_sizes(name):
    import flax.traverse_util

    from rsclip_jax.models.clip import clip_shapes
    from rsclip_jax.weights import infer

    row: Variant = VARIANTS[name]
    flat = flax.traverse_util.flatten_dict(clip_shapes(row), sep="/")
    sizes = infer.read_sizes({k: v.shape for k, v in flat.items()})
    assert {key: getattr(row, key) for key in sizes} == sizes


@pytest.mark.parametrize("grid", [4, 12])
def test_positions_are_resized_as_open_clip_does_it(golden, grid):
    want = golden("positions")
    found = resize_positions(want["positions"], grid)
    np.testing.assert_allclose(found, want[f"to_{grid}"], atol=1e-5)


def test_another_image_size_is_a_model_of_that_size(params):
    path = FOLDER / "clip_toy_quick_gelu.safetensors"
    variant, found = load_clip(path, toy_variant("quick_gelu"), image_size=32)
    assert variant == toy_variant("quick_gelu", image_size=32)
    assert found["visual"]["positional_embedding"].shape == (17, 32)
    rest = {k: v for k, v in found["visual"].items() if k != "positional_embedding"}
    want = {k: params["visual"][k] for k in rest}
    same(rest, want)
