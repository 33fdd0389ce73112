"""ResNets against open_clip and timm: every block, ends, gradients; planted faults."""

import dataclasses
import functools
import json
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.models import resnet
from rsclip_jax.models.clip import CLIP, clip_shapes, make_visual
from rsclip_jax.models.resnet import Bottleneck, FrozenBatchNorm, ResNet
from rsclip_jax.models.sensor import clip_spec
from rsclip_jax.models.variants import VARIANTS, Variant
from rsclip_jax.train.optim import make_optimizer
from rsclip_jax.train_step import make_state, train_step
from rsclip_jax.weights import layouts, load_clip, rules
from tests.golden import FOLDER, toy_resnet

BLOCK, END = 1e-5, 1e-4
CLIP_BLOCKS = ("layer1_0", "layer2_0", "layer2_1", "layer3_0", "layer4_0")


def with_image(arrays: dict) -> dict:
    return arrays | {"image": arrays["pixels"] / np.float32(32)}


@pytest.fixture
def toy(golden):
    """(variant, params, torch's arrays) of the toy CLIP."""
    variant = toy_resnet()
    _, params = load_clip(FOLDER / "clip_rn_toy.safetensors", variant)
    return variant, params, with_image(golden("clip_rn_toy"))


@pytest.fixture
def plain(golden):
    """(module, params, torch's arrays) of the plain ResNet, with a random map to 16."""
    module = ResNet(bands=2, width=3, layers=(1, 2, 1, 1), out_dim=16)
    arrays = with_image(golden("timm_resnet_toy"))
    shapes = jax.eval_shape(module.init, jax.random.key(0), arrays["image"])["params"]
    tensors = safetensors.numpy.load_file(FOLDER / "timm_resnet_toy.safetensors")
    tensors["fc.weight"] = np.zeros((10, 96))  # MoCo's and torchvision's last layer
    params = rules.load_strict(
        {name: array.shape for name, array in tensors.items()},
        tensors.__getitem__,
        layouts.TORCHVISION_RESNET,
        {k: v for k, v in shapes.items() if k != "proj"},
        where="timm_resnet_toy",
        ignore=layouts.TORCHVISION_IGNORE,
    )
    kernel = np.random.default_rng(0).normal(size=(96, 16)).astype(np.float32) / 10
    params["proj"] = {"kernel": kernel, "bias": np.full(16, 0.5, np.float32)}
    return module, params, arrays


def run(module, params, *inputs):
    """apply, compiled as one: several times faster than operation by operation."""
    return jax.jit(lambda p: module.apply({"params": p}, *inputs))(params)


def worst(got: dict, golden: dict, prefix: str = "") -> float:
    """The largest difference of any block's output."""
    names = [f"{prefix}{name}" for name in ("stem", *CLIP_BLOCKS)]
    return max(np.abs(np.asarray(got[k]) - golden[k]).max() for k in names)


def close(got, want, atol):
    np.testing.assert_allclose(got, want, atol=atol, rtol=0)


def test_every_block_equals_open_clip(toy):
    variant, params, golden = toy
    zimg, ztxt, out = run(CLIP(variant), params, golden["image"], golden["text"])
    assert worst(out, golden, "visual_") <= BLOCK
    for name in ("text_block_0", "text_block_1"):
        close(out[name], golden[name], BLOCK)
    for name, got in {"zimg": zimg, "ztxt": ztxt, **out}.items():
        if name in golden:
            close(got, golden[name], END)


def test_every_block_equals_timm(plain):
    module, params, golden = plain
    feats, out = run(module, params, golden["image"])
    assert worst(out, golden) <= BLOCK
    close(out["pooled"], golden["pooled"], END)
    want = golden["pooled"] @ params["proj"]["kernel"] + params["proj"]["bias"]
    close(feats, want, END)
    assert feats.dtype == jnp.float32


@pytest.mark.slow
def test_gradients_equal_open_clips(toy):
    variant, params, golden = toy

    def total(visual):
        fimg, _ = make_visual(variant).apply({"params": visual}, golden["image"])
        return jnp.sum(fimg * golden["probe"])

    grads = jax.device_get(jax.jit(jax.grad(total))(params["visual"]))
    conv1 = grads["conv1"]["kernel"].transpose(3, 2, 0, 1)
    q_proj = grads["attnpool"]["q_proj"]["kernel"].T
    for got, name in (conv1, "grad_conv1"), (q_proj, "grad_q_proj"):
        close(got, golden[name], END * np.abs(golden[name]).max())


@pytest.mark.slow
def test_gradients_equal_timms(plain):
    module, params, golden = plain

    def total(p):
        _, out = module.apply({"params": p}, golden["image"])
        return jnp.sum(out["pooled"] * golden["probe"])

    grad = jax.device_get(jax.jit(jax.grad(total))(params))["conv1"]["kernel"]
    want = golden["grad_conv1"]
    close(grad.transpose(3, 2, 0, 1), want, END * np.abs(want).max())


def wrong_module(monkeypatch, fault):
    """Puts one known mistake into the module."""
    if fault == "eps":
        monkeypatch.setattr(resnet, "BATCH_NORM_EPS", 1e-3)
    elif fault == "strides are the other family's":
        run, called = resnet.run_stages, "antialias"
        monkeypatch.setattr(
            resnet,
            "run_stages",
            lambda x, **settings: run(x, **settings | {called: not settings[called]}),
        )
    elif fault == "pool only subsamples":
        monkeypatch.setattr(resnet, "_mean_pool", lambda x, n: x[:, ::n, ::n])
    elif fault == "stride in the first convolution":
        convolve = resnet.convolve

        def early(x, channels, size, stride, name, compute):
            if name == "conv2":
                # all before it is pointwise, so its input is what conv1 would have left
                x, stride = x[:, ::stride, ::stride], 1
            return convolve(x, channels, size, stride, name, compute)

        monkeypatch.setattr(resnet, "convolve", early)


def wrong_params(params, fault):
    """The params with one known mistake."""
    params = jax.tree.map(np.copy, params)
    pool = params["visual"]["attnpool"]
    if fault == "query and key swapped":
        pool["q_proj"], pool["k_proj"] = pool["k_proj"], pool["q_proj"]
    elif fault == "value bias dropped":
        pool["v_proj"]["bias"][:] = 0
    elif fault == "transposed projection":
        pool["v_proj"]["kernel"] = pool["v_proj"]["kernel"].T.copy()
    elif fault == "mean's position last":
        moved = np.roll(pool["positional_embedding"], -1, axis=0)
        pool["positional_embedding"] = moved
    elif fault == "mean and variance swapped":
        norm = params["visual"]["layer3_0"]["bn2"]
        norm["mean"], norm["var"] = norm["var"], np.abs(norm["mean"])
    elif fault == "norm's bias dropped":
        params["visual"]["layer3_0"]["bn1"]["bias"][:] = 0
    return params


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["eps", "strides are the other family's", "pool only subsamples"]
)
def test_parity_catches_a_wrong_modified_resnet(toy, monkeypatch, fault):
    variant, params, golden = toy
    wrong_module(monkeypatch, fault)
    _, _, out = run(CLIP(variant), params, golden["image"], None)
    assert worst(out, golden, "visual_") > 10 * BLOCK


@pytest.mark.parametrize(
    "fault",
    ["eps", "strides are the other family's", "stride in the first convolution"],
)
def test_parity_catches_a_wrong_resnet(plain, monkeypatch, fault):
    module, params, golden = plain
    wrong_module(monkeypatch, fault)
    _, out = run(module, params, golden["image"])
    assert worst(out, golden) > 10 * BLOCK


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        "query and key swapped",
        "value bias dropped",
        "transposed projection",
        "mean's position last",
        "mean and variance swapped",
        "norm's bias dropped",
    ],
)
def test_parity_catches_wrong_params(toy, fault):
    variant, params, golden = toy
    wrong = wrong_params(params, fault)
    _, _, out = run(CLIP(variant), wrong, golden["image"], None)
    assert np.abs(out["fimg"] - golden["fimg"]).max() > 10 * END


def test_batch_norm_by_hand():
    params = {"scale": 3.0, "bias": 0.5, "mean": 2.0, "var": 4.0}
    params = {k: np.full(1, v, np.float32) for k, v in params.items()}
    x = np.full((1, 1, 1, 1), 6.0, np.float32)
    got = FrozenBatchNorm().apply({"params": params}, x)
    close(got, (6 - 2) / np.sqrt(4 + 1e-5) * 3 + 0.5, 1e-6)


def loss_fn(variant):
    def loss(params, frozen, batch):
        fimg, _ = make_visual(variant).apply({"params": params}, batch["image"])
        return jnp.mean((fimg - batch["probe"]) ** 2), {}

    return loss


@pytest.mark.slow
def test_training_leaves_the_statistics_bit_for_bit(toy):
    """Also where weights decay and gradients are clipped; all else is trained."""
    variant, params, golden = toy
    schedule = optax.constant_schedule(1e-2)
    tx = make_optimizer(schedule, weight_decay=0.1, clip_norm=1.0)
    before = jax.tree.map(jnp.asarray, params["visual"])
    state = make_state(before, tx)
    batch = {k: golden[k] for k in ("image", "probe")}
    step = jax.jit(functools.partial(train_step, loss_fn=loss_fn(variant), tx=tx))
    for _ in range(2):
        state, _ = step(state, {}, batch)
    before, after = (
        flax.traverse_util.flatten_dict(jax.device_get(tree), sep="/")
        for tree in (before, state.params)
    )
    kinds = {"mean": 0, "var": 0}
    for name, array in before.items():
        if (kind := name.rsplit("/")[-1]) in kinds:
            kinds[kind] += 1
            assert after[name].tobytes() == array.tobytes(), name
        else:
            assert not np.array_equal(after[name], array), name
    assert kinds == {"mean": 22, "var": 22}  # 3 + 5 x 3 + 4 shortcuts


# As open_clip 3.3 builds them: parameters, and running means and variances, which are
# buffers there and params here.
COUNTS = {
    "RN50": (102_007_137, 53_248),
    "RN101": (119_688_033, 105_472),
    "RN50x4": (178_300_601, 109_760),
    "RN50x16": (290_979_217, 193_920),
    "RN50x64": (623_258_305, 410_624),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count_is_open_clips(name):
    flat = flax.traverse_util.flatten_dict(clip_shapes(name), sep="/")
    statistics = [k for k in flat if re.fullmatch(r".*/(mean|var)", k)]
    held = sum(flat[k].size for k in statistics)
    total = sum(x.size for x in flat.values())
    assert (total - held, held) == COUNTS[name]


def test_the_plain_one_is_resnet_50_by_its_count():
    """torchvision's 25,557,032 less the classifier's 2,049,000, and 53,120 statistics.

    With thirteen bands there are 7 x 7 x 10 x 64 more in the first convolution.
    """
    module = ResNet(bands=13, width=64, layers=(3, 4, 6, 3), out_dim=512)
    image = jnp.zeros((1, 64, 64, 13))
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    del shapes["proj"]
    total = sum(x.size for x in jax.tree.leaves(shapes))
    assert total == 25_557_032 - 2_049_000 + 53_120 + 7 * 7 * 10 * 64


def test_rows_have_both_activations():
    for name in COUNTS:
        row = VARIANTS[name]
        assert row.activation == "quick_gelu"  # as OpenAI's own
        again = VARIANTS[f"{name}-quickgelu"]
        assert dataclasses.replace(again, name=name) == row
        assert VARIANTS[f"{name}-gelu"].activation == "gelu"
        assert row.vision_head_width == 64


def test_a_row_survives_json_and_refuses_what_cannot_be():
    row = VARIANTS["RN50x4"]
    assert Variant.from_json(json.loads(json.dumps(dataclasses.asdict(row)))) == row
    with pytest.raises(ValueError, match=r"4 stages and patch_size 32.*\(1, 1, 1\)"):
        toy_resnet(vision_layers=(1, 1, 1))
    with pytest.raises(ValueError, match="patch_size 16"):
        toy_resnet(patch_size=16)
    with pytest.raises(ValueError, match="image_size 80 is not a multiple"):
        toy_resnet(image_size=80)


def test_a_block_begins_as_its_shortcut():
    x = np.random.default_rng(0).random((1, 4, 4, 8), np.float32)
    block = Bottleneck(planes=2, stride=1, antialias=True)
    got, _ = block.init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(got, x)


def test_wrong_images_say_which(toy, plain):
    variant, params, _ = toy
    with pytest.raises(ValueError, match=r"\(64, 64, 3\), got \(32, 32, 3\)"):
        CLIP(variant).apply({"params": params}, np.zeros((1, 32, 32, 3)), None)
    module, params, _ = plain
    with pytest.raises(ValueError, match="2 bands, got 13"):
        module.apply({"params": params}, np.zeros((1, 32, 32, 13)))
    larger = np.zeros((1, 64, 96, 2), np.float32)
    seen = jax.eval_shape(module.apply, {"params": params}, larger)[0]
    assert seen.shape == (1, 16)


def test_a_resnet_is_no_student_by_inflation():
    with pytest.raises(ValueError, match=r"student 'clip'.*RN50.*'vit'"):
        clip_spec(SENSORS["s1_grd"], VARIANTS["RN50"])
