"""Models that open_clip, transformers and timm make and save now: all we see is theirs.

What the committed goldens are too small for: 224 pixels and another size, files by the
libraries' own save functions, all gradients. tests/golden/live.py makes them.
"""

import dataclasses
import functools
import subprocess
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.models import vit
from rsclip_jax.models.clip import CLIP, make_visual
from rsclip_jax.models.resnet import ResNet
from rsclip_jax.models.sensor import make_sensor_encoder
from rsclip_jax.models.variants import Variant
from rsclip_jax.weights import layouts, load_clip, load_encoder, rules
from rsclip_jax.weights.files import open_weights
from tests.conftest import REPO

BLOCK, END, GRAD = 1e-5, 1e-4, 1e-4  # GRAD: of a leaf's largest gradient
ENDS = ("fimg", "ftxt", "zimg", "ztxt", "logit_scale", "pooled")
# What no file of the case tells: a training checkpoint has no config.
CLIPS: dict[str, dict] = {
    "open_clip_224": {},
    "open_clip_96": {"activation": "gelu", "heads": (2, 2)},
    "open_clip_text_112": {},
    "open_clip_resnet_224": {},
    "open_clip_resnet_96": {"activation": "gelu", "heads": (2, 2)},
    "transformers_224": {},
    "transformers_96": {},
}
ENCODERS = {
    "timm_token_224": "s2_l1c",
    "timm_token_96": "s1_grd",
    "timm_mean_224": "s1_grd",
    "timm_mean_96": "s2_l1c",
    "timm_registers_224": "s2_l1c",
    "timm_registers_96": "s1_grd",
}
PIXELS = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))  # live.py's, of open_clip's folders
RESNETS = ("timm_resnet_224", "timm_resnet_96")


@pytest.fixture(scope="module")
def live(torch_python, tmp_path_factory) -> Path:
    """The folder of all cases, made by one run of the libraries."""
    folder = tmp_path_factory.mktemp("live")
    command = [torch_python, REPO / "tests" / "golden" / "live.py", "all", folder]
    subprocess.run(command, check=True, timeout=300)
    return folder


def weights_of(case: Path) -> Path:
    (path,) = case.glob("weights*")
    return path


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


# Comparison


def check(off: dict[str, float]) -> None:
    """off: every output's and leaf's largest difference, in units of its tolerance."""
    wrong = {name: value for name, value in off.items() if not value <= 1}
    assert not wrong


def differences(out: dict, grads: dict, want: dict, want_grads: dict) -> dict:
    """Each output's and gradient leaf's largest difference over its tolerance.

    Every array of the library's that is an output must have one of ours.
    """
    inputs = ("image", "text", "probe", "probe_image", "probe_text")
    off = {}
    for name in want.keys() - set(inputs):
        limit = END if name in ENDS else BLOCK
        off[name] = far(out[name], want[name]) / limit
    got, want = (
        flax.traverse_util.flatten_dict(g, sep="/") for g in (grads, want_grads)
    )
    assert got.keys() == want.keys()
    for name, array in want.items():
        off[f"grad {name}"] = far(got[name], array) / (GRAD * scale_of(name, want))
    return off


def far(got, want) -> float:
    assert got.shape == want.shape
    return float(np.abs(np.asarray(got) - want).max())


def scale_of(name: str, grads: dict[str, np.ndarray]) -> float:
    """The leaf's largest gradient, or what stands for it where that is zero."""
    if name.endswith(("/mean", "/var")):  # statistics, which have no gradient
        return 1.0
    # softmax is blind to what all scores share, as a bias of the keys alone is
    name = name.replace("attnpool/k_proj/bias", "attnpool/q_proj/bias")
    return float(np.abs(grads[name]).max())


# CLIPs


@functools.cache
def clip_step(variant: Variant):
    """(params, want) -> ((total, outputs), gradients), compiled once a variant."""

    def total(params, given):
        inputs = {"params": params}, given["image"], given["text"]
        zimg, ztxt, out = CLIP(variant).apply(*inputs)
        out |= {"zimg": zimg, "ztxt": ztxt}
        one = jnp.sum(zimg * given["probe_image"]) + jnp.sum(ztxt * given["probe_text"])
        return one * jnp.exp(params["logit_scale"]), out

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def clip_differences(case: Path, variant: Variant, params: dict, step=None) -> dict:
    want = arrays_of(case / "out.npz")
    inputs = {k: v for k, v in want.items() if k in ("image", "text") or "probe" in k}
    (_, out), grads = (step or clip_step(variant))(params, inputs)
    _, want_grads = load_clip(case / "grads.safetensors", variant)
    return differences(out, grads, want, want_grads)


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_is_its_librarys(live, name):
    variant, params = load_clip(weights_of(live / name), **CLIPS[name])
    assert variant.image_size == int(name.rpartition("_")[2])
    if CLIPS[name] == {} and name.startswith("open_clip"):  # its folder tells
        assert (variant.image_mean, variant.image_std) == PIXELS
    check(clip_differences(live / name, variant, params))


@pytest.mark.parametrize("size", [160, 320])
def test_another_image_size_is_open_clips(live, size):
    """Coarser and finer than the 224 pixels of the file, each by its own resize."""
    case = live / "open_clip_224"
    variant, params = load_clip(weights_of(case), image_size=size)
    want = arrays_of(case / "resized.npz")
    tower = make_visual(variant)
    visual = jax.jit(lambda p, x: tower.apply({"params": p}, x)[0])
    fimg = visual(params["visual"], want[f"image_{size}"])
    assert far(fimg, want[f"fimg_{size}"]) <= END


# Sensor encoders


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_timms(live, name):
    case, sensor = live / name, SENSORS[ENCODERS[name]]
    spec, params = load_encoder(weights_of(case), sensor)
    _, want_grads = load_encoder(case / "grads.safetensors", sensor)
    encoder = make_sensor_encoder(spec)
    check(encoder_differences(case, encoder, params, want_grads))


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_is_timms(live, name):
    case = live / name
    module = ResNet(bands=13, width=12, layers=(1, 2, 1, 1), out_dim=1)
    unused = {"proj": {"kernel": np.zeros((384, 1)), "bias": np.zeros(1)}}
    params = read_resnet(weights_of(case), module)
    want_grads = read_resnet(case / "grads.safetensors", module)
    check(encoder_differences(case, module, params, want_grads, unused))


def read_resnet(path: Path, module: ResNet) -> dict:
    image = jax.ShapeDtypeStruct((1, 224, 224, module.bands), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    file = open_weights(path)
    return rules.load_strict(
        file.shapes,
        file.read,
        layouts.TORCHVISION_RESNET,
        {k: v for k, v in shapes.items() if k != "proj"},
        where=str(path),
        ignore=layouts.TORCHVISION_IGNORE,
    )


def encoder_differences(
    case: Path, module, params: dict, want_grads: dict, unused: dict | None = None
) -> dict:
    want = arrays_of(case / "out.npz")

    def total(params, given):
        inputs = {"params": {**params, **(unused or {})}}, given["image"]
        _, out = module.apply(*inputs)
        return jnp.sum(out["pooled"] * given["probe"]), out

    inputs = {name: want[name] for name in ("image", "probe")}
    (_, out), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params, inputs)
    return differences(out, grads, want, want_grads)


# Planted faults

PLANTED = ("open_clip_224", "transformers_96")  # both activations


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("fault", ["activation", "eps"])
def test_a_wrong_variant_is_caught(live, name, fault):
    variant, params = load_clip(weights_of(live / name), **CLIPS[name])
    if fault == "activation":
        other = {"gelu": "quick_gelu", "quick_gelu": "gelu"}[variant.activation]
        variant = dataclasses.replace(variant, activation=other)
    else:
        assert variant.layer_norm_eps == 1e-5
        variant = dataclasses.replace(variant, layer_norm_eps=1e-6)
    assert worst_output(clip_differences(live / name, variant, params)) > 10


def worst_output(off: dict[str, float]) -> float:
    return max(value for name, value in off.items() if not name.startswith("grad"))


def transpose(block: dict) -> None:
    block["attn"]["out_proj"]["kernel"] = block["attn"]["out_proj"]["kernel"].T.copy()


def swap_query_and_key(block: dict) -> None:
    for leaf in block["attn"]["in_proj"].values():
        q, k, v = np.split(leaf.copy(), 3, axis=-1)
        leaf[:] = np.concatenate([k, q, v], axis=-1)


def drop_value_bias(block: dict) -> None:
    bias = block["attn"]["in_proj"]["bias"]
    bias[len(bias) * 2 // 3 :] = 0


def drop_mlp_bias(block: dict) -> None:
    block["mlp"]["c_fc"]["bias"][:] = 0


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("tower", ["visual", "text"])
@pytest.mark.parametrize(
    "fault", [transpose, swap_query_and_key, drop_value_bias, drop_mlp_bias]
)
def test_wrong_weights_are_caught(live, name, tower, fault):
    variant, params = load_clip(weights_of(live / name), **CLIPS[name])
    fault(params[tower]["blocks_1"])
    assert worst_output(clip_differences(live / name, variant, params)) > 10


def test_a_wrong_gradient_alone_is_caught(live, monkeypatch):
    """The right values of QuickGELU with a derivative that lacks a term."""
    case = live / "transformers_224"
    variant, params = load_clip(weights_of(case))

    def wrong(x):
        return x * jax.lax.stop_gradient(jax.nn.sigmoid(1.702 * x))

    monkeypatch.setitem(vit.ACTIVATIONS, "quick_gelu", wrong)
    step = clip_step.__wrapped__(variant)
    off = clip_differences(case, variant, params, step)
    assert worst_output(off) <= 1
    assert max(off.values()) > 10
