"""CLIPs with a ResNet, read as OpenAI and open_clip write them, and written."""

import json

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.models.clip import clip_shapes, make_visual
from rsclip_jax.models.variants import VARIANTS
from rsclip_jax.weights import infer, load_clip, save_clip
from rsclip_jax.weights.files import WeightFile
from rsclip_jax.weights.load import resize_positions
from tests.golden import (
    FOLDER,
    OPENAI_HEADS,
    random_params,
    toy_resnet,
)
from tests.helpers.marks import slow
from tests.helpers.trees import same

TOY = FOLDER / "clip_rn_toy.safetensors"
COUNTER = "visual.layer2.1.bn3.num_batches_tracked"


@pytest.fixture(scope="module")
def toy():
    return load_clip(TOY, toy_resnet())


@pytest.fixture
def tensors():
    return safetensors.numpy.load_file(TOY)


def test_half_precision_is_read_with_every_tensor_in_its_place(toy, tensors):
    _, params = toy
    assert {a.dtype for a in tensors.values()} == {np.dtype("f2"), np.dtype("i8")}
    visual = params["visual"]
    for got, name, axes in (
        (visual["conv2"]["kernel"], "conv2.weight", (2, 3, 1, 0)),
        (visual["layer2_1"]["conv2"]["kernel"], "layer2.1.conv2.weight", (2, 3, 1, 0)),
        (visual["layer4_0"]["downsample_bn"]["var"], "layer4.0.downsample.1", None),
        (visual["attnpool"]["c_proj"]["kernel"], "attnpool.c_proj.weight", (1, 0)),
    ):
        key = f"visual.{name}" if axes else f"visual.{name}.running_var"
        want = tensors[key].transpose(axes) if axes else tensors[key]
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, want.astype(np.float32))


def test_the_same_layout_is_bit_exact(tmp_path, toy, tensors):
    """With the counters that torch's strict loading asks for."""
    assert tensors[COUNTER].dtype == np.int64
    save_clip(tmp_path / "a.safetensors", *toy, dtype="float16")
    again = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert again.keys() == tensors.keys()
    for name, array in tensors.items():
        assert again[name].dtype == array.dtype
        assert again[name].shape == array.shape
        assert again[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(
    ("layout", "name"),
    [("open_clip", "a.safetensors"), ("open_clip", "dir")],
)
def test_every_layout_gives_the_same_weights_back(tmp_path, toy, layout, name):
    save_clip(tmp_path / name, *toy, layout)
    variant, params = load_clip(tmp_path / name)
    assert variant == toy[0]
    same(params, toy[1])


def test_openais_layout_gives_the_same_weights_back(tmp_path):
    variant = toy_resnet(**OPENAI_HEADS)
    params = random_params(variant)
    save_clip(tmp_path / "a.safetensors", variant, params, "openai")
    found, again = load_clip(tmp_path / "a.safetensors")
    assert found == variant
    same(again, params)


def test_hugging_face_has_no_resnets(tmp_path, toy):
    with pytest.raises(ValueError, match="cannot be the ResNet toy; use 'open_clip'"):
        save_clip(tmp_path / "hf", *toy, "hf")
    assert not list(tmp_path.iterdir())


def test_an_open_clip_folder_tells_all(tmp_path, toy, tensors):
    """Its config as save_clip writes it, but weights that say nothing of ours."""
    save_clip(tmp_path, *toy)
    vision = json.loads((tmp_path / "open_clip_config.json").read_text())
    vision = vision["model_cfg"]["vision_cfg"]
    # 64 channels, 32 times the stem's, in two heads
    assert vision == {"image_size": 64, "layers": [1, 2, 1, 1], "width": 2} | {
        "head_width": 32
    }
    safetensors.numpy.save_file(tensors, tmp_path / "open_clip_model.safetensors")
    variant, params = load_clip(tmp_path)
    assert variant == toy_resnet(name=variant.name)
    same(params, toy[1])


def test_openais_marks_tell_the_activation(tmp_path, tensors):
    """Only the heads are guessed: 64 wide, where no row fits."""
    path = tmp_path / "bare.safetensors"
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError, match="its model's activation"):
        load_clip(path, heads=(1, 1))
    marks = {"input_resolution": 64, "context_length": 8, "vocab_size": 64}
    tensors |= {name: np.array(value) for name, value in marks.items()}
    safetensors.numpy.save_file(tensors, path)
    found, _ = load_clip(path)
    assert found == toy_resnet(name="bare", vision_heads=1, text_heads=1)


@pytest.mark.parametrize(
    "name", ["RN50", "RN101", "RN50x4", slow("RN50x16"), slow("RN50x64")]
)
def test_every_row_is_found_by_its_sizes(name):
    row = VARIANTS[name]
    flat = flax.traverse_util.flatten_dict(clip_shapes(row), sep="/")
    ours = {k: v.shape for k, v in flat.items()}
    shapes = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), ())

    def found(**told):
        file = WeightFile(TOY, told.pop("shapes", {}), {}.__getitem__, **told)
        return infer.infer_variant(file, ours)

    assert found(shapes=shapes) == row
    vision = {"width": row.vision_width, "layers": list(row.vision_layers)}
    text = {"heads": row.text_heads}
    config = {"kind": "open_clip", "vision_cfg": vision, "text_cfg": text}
    assert found(config=config) == VARIANTS[f"{name}-gelu"]  # open_clip's plain name
    with pytest.raises(ValueError, match=rf"activation.* {name} or .*{name}-gelu"):
        found()


def test_another_image_size_resizes_the_attention_pools_positions(toy, golden):
    """Features against open_clip's, at that size, with torch's resize."""
    variant, params = load_clip(TOY, toy_resnet(), image_size=96)
    assert variant == toy_resnet(image_size=96)
    positions = params["visual"]["attnpool"]["positional_embedding"]
    before = toy[1]["visual"]["attnpool"]["positional_embedding"]
    assert (before.shape, positions.shape) == ((5, 64), (10, 64))
    np.testing.assert_array_equal(positions[0], before[0])  # the mean's own
    np.testing.assert_array_equal(positions, resize_positions(before, 3))

    want = golden("clip_rn_toy")
    image = want["pixels"] / np.float32(32)
    image = np.pad(image, ((0, 0), (0, 32), (0, 32), (0, 0)), mode="wrap")
    tower = make_visual(variant)
    fimg, _ = jax.jit(lambda p: tower.apply({"params": p}, image))(params["visual"])
    np.testing.assert_allclose(fimg, want["fimg_96"], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="image_size 80 is not a multiple"):
        load_clip(TOY, toy_resnet(), image_size=80)


def test_every_problem_is_in_one_message(tmp_path, tensors):
    del tensors["visual.layer2.1.bn3.running_var"]
    tensors["visual.layer5.0.conv1.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    tensors["visual.attnpool.k_proj.weight"] = np.zeros((64, 63), np.float32)
    tensors["visual.proj"] = np.zeros((64, 16), np.float32)
    path = tmp_path / "bad.safetensors"
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError, match="4 tensor") as error:
        load_clip(path, toy_resnet())
    for part in (
        "missing tensor visual.layer2.1.bn3.running_var (our visual/layer2_1/bn3/var",
        "extra tensor visual.layer5.0.conv1.weight",
        "misshapen tensor visual.attnpool.k_proj.weight: (63, 64) in the file",
        "unknown tensor visual.proj",
    ):
        assert part in str(error.value)
