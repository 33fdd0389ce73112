"""Sensor encoders read from files: timm's ViTs and DOFA, block by block as torch."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.data.sensors import SENSORS, get_sensor
from rsclip_jax.models.clip import normalize_rgb
from rsclip_jax.models.sensor import (
    SensorSpec,
    add_map,
    input_fields,
    make_sensor_encoder,
    normalize_sensor,
    sensor_features,
)
from rsclip_jax.models.variants import get_variant
from rsclip_jax.weights import dofa, load_encoder, save_encoder
from rsclip_jax.weights.encoders import ENCODERS, get_encoder
from tests.golden import FOLDER

BLOCK, END = 1e-5, 1e-4
S1, S2 = SENSORS["s1_grd"], SENSORS["s2_l1c"]
TIMM = {
    "timm_registers": {},
    "timm_mean": {},
    "timm_mean_class": {},
    "timm_clip": {"activation": "quick_gelu"},
}


def read_toy(name, **changes):
    """(spec, params) with timm's head as the map on top."""
    told = {"heads": 2, **TIMM.get(name, {}), **changes}
    spec, params = load_encoder(FOLDER / f"{name}.safetensors", S1, **told)
    file = safetensors.numpy.load_file(FOLDER / f"{name}.safetensors")
    head = {"kernel": file["head.weight"].T, "bias": file["head.bias"]}
    spec = dataclasses.replace(spec, out_dim=5)
    return spec, {**params, "proj": head}


def worst(spec, params, want) -> dict[str, float]:
    encoder = jax.jit(make_sensor_encoder(spec).apply)
    out, features = encoder({"params": params}, want["image"])
    got = {"out": out, **features}
    named = [k for k in want if k in got]
    return {k: np.abs(got[k] - want[k]).max() for k in named}


@pytest.mark.parametrize("name", TIMM)
def test_every_block_equals_timm(golden, name):
    off = worst(*read_toy(name), golden(name))
    assert {"pre", "block_0", "block_1", "out"} <= off.keys()
    for key, value in off.items():
        assert value <= (END if key in ("out", "pooled") else BLOCK), key


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_gradients_equal_timm(golden, name):
    (spec, params), theirs = read_toy(name), golden(name)

    def total(p):
        out, _ = make_sensor_encoder(spec).apply({"params": p}, theirs["image"])
        return jnp.sum(out * theirs["probe"])

    grads = jax.jit(jax.grad(total))(params)
    patch = np.asarray(grads["patch_embed"]["kernel"]).transpose(3, 2, 0, 1)
    qkv = np.asarray(grads["blocks_1"]["attn"]["in_proj"]["kernel"]).T
    for got, want in ((patch, theirs["grad_patch"]), (qkv, theirs["grad_qkv_1"])):
        np.testing.assert_allclose(got, want, atol=END * np.abs(want).max(), rtol=0)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("timm_registers", {"layer_scale": False}),
        ("timm_mean", {"pool": "token"}),
        ("timm_mean_class", {"pool": "token"}),
        ("timm_mean_class", {"heads": 4}),
        ("timm_clip", {"eps": 1e-6}),
        ("timm_clip", {"activation": "gelu"}),
        ("timm_clip", {"ln_pre": False}),
    ],
)
def test_parity_catches_a_wrong_spec(golden, name, fault):
    spec, params = read_toy(name)
    off = worst(dataclasses.replace(spec, **fault), params, golden(name))
    assert off["out"] > END


def test_what_the_shapes_say():
    spec, _ = read_toy("timm_registers")
    assert spec.registers == 2
    assert spec.class_token
    assert not spec.prefix_positions
    assert spec.layer_scale
    assert (spec.image_size, spec.patch_size, spec.layers, spec.width) == (12, 4, 2, 8)
    assert read_toy("timm_mean")[0].pool == "mean"
    assert not read_toy("timm_mean")[0].class_token
    assert read_toy("timm_clip")[0].eps == 1e-5
    assert read_toy("timm_mean")[0].eps == 1e-6


def timm_folder(tmp_path, *drop, **config):
    tensors = safetensors.numpy.load_file(FOLDER / "timm_toy.safetensors")
    tensors = {name: array for name, array in tensors.items() if name not in drop}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_timm_folder_says_heads_activation_and_pool(tmp_path):
    said = {"num_heads": 4, "act_layer": "quick_gelu"}
    folder = timm_folder(tmp_path, global_pool="token", model_args=said)
    spec, _ = load_encoder(folder, S1)
    assert (spec.heads, spec.activation, spec.pool) == (4, "quick_gelu", "token")
    assert load_encoder(folder, S1, heads=2)[0].heads == 2
    with pytest.raises(ValueError, match="act_layer = 'silu' is not supported"):
        load_encoder(timm_folder(tmp_path, model_args={"act_layer": "silu"}), S1)


@pytest.mark.parametrize("pool", ["avg", "map"])
def test_a_pool_behind_the_norm_is_refused(tmp_path, pool):
    with pytest.raises(ValueError, match=rf"global_pool '{pool}' with .*'norm'"):
        load_encoder(timm_folder(tmp_path, global_pool=pool), S1)


def test_without_a_class_token_the_norm_is_behind_the_mean(tmp_path):
    """timm's "gap" ViTs have it before, which their shapes alone show."""
    with pytest.raises(ValueError, match="global_pool 'avg' with timm's 'norm'"):
        load_encoder(timm_folder(tmp_path, "cls_token"), S1)


# DOFA

THREE = dataclasses.replace(
    S2,
    bands=("B04", "B03", "B12"),
    wavelengths=(0.665, 0.56, 2.19),
    **dict.fromkeys(("resolution", "mean", "std"), (10.0,) * 3),
)


def read_dofa(sensor=THREE):
    return load_encoder(
        FOLDER / "dofa_toy.safetensors", sensor, heads=2, row="dofa-vitb16"
    )


def test_dofa_equals_torchgeos(golden):
    spec, params = read_dofa()
    off = worst(spec, params, golden("dofa_toy"))
    assert off["block_0"] <= BLOCK
    assert off["pooled"] <= END
    assert spec.pool == "mean"


@pytest.mark.parametrize("fault", ["wavelengths", "offset", "pool"])
def test_dofa_parity_catches(golden, fault):
    swapped = (0.56, 0.665, 2.19)
    sensor = dataclasses.replace(THREE, wavelengths=swapped)
    spec, params = read_dofa(sensor if fault == "wavelengths" else THREE)
    if fault == "offset":
        spec = dataclasses.replace(spec, patch_offset=0)
    if fault == "pool":
        spec = dataclasses.replace(spec, pool="token")
    off = worst(spec, params, golden("dofa_toy"))
    assert off["pooled"] > END


def test_dofa_takes_any_number_of_bands_and_radar():
    for sensor, count in ((S2, 13), (S1, 2)):
        spec, params = read_dofa(sensor)
        assert params["patch_embed"]["kernel"].shape == (8, 8, count, 8)
        assert spec.bands == sensor.bands
    made, _ = dofa.make_kernel(
        safetensors.numpy.load_file(FOLDER / "dofa_toy.safetensors").__getitem__,
        (dofa.RADAR_UM,) * 2,
    )
    np.testing.assert_array_equal(
        params["patch_embed"]["kernel"], made.transpose(2, 3, 1, 0)
    )


def test_a_sensor_goes_by_its_name_or_the_path_of_its_file(tmp_path):
    spec, _ = read_dofa("s2_l1c")
    assert spec == read_dofa(S2)[0]
    path = tmp_path / "three.toml"
    lines = ['modality = "s2"', 'unit = "DN"', 'dtype = "uint16"']
    for key in ("bands", "wavelengths", "resolution", "mean", "std"):
        lines.append(f"{key} = {list(getattr(THREE, key))}")
    path.write_text("\n".join(lines))
    spec, params = read_dofa(str(path))
    told = input_fields(get_sensor(str(path)))
    assert spec == dataclasses.replace(read_dofa()[0], **told)
    jax.tree.map(np.testing.assert_array_equal, params, read_dofa()[1])
    saved_spec, _ = saved(tmp_path, "a.safetensors", spec, params)
    assert load_encoder(tmp_path / "a.safetensors", str(path), heads=2)[0] == saved_spec


def test_dofas_version_is_asked_for():
    """Its versions have the same names, and another wavelength for radar."""
    with pytest.raises(
        ValueError, match="if this is version 1, pass row='dofa-vitb16'"
    ):
        load_encoder(FOLDER / "dofa_toy.safetensors", THREE, heads=2)


def test_dofa_without_wavelengths_or_sensor_says_so():
    with pytest.raises(ValueError, match=r"a wavelength for each band.*s1_vh_8bit"):
        read_dofa(SENSORS["s1_vh_8bit"])
    with pytest.raises(ValueError, match="does not state its encoder's sensor"):
        load_encoder(FOLDER / "dofa_toy.safetensors", row="dofa-vitb16")


# ResNets


def read_resnet(**told):
    return load_encoder(FOLDER / "timm_resnet_toy.safetensors", S1, **told)


def test_a_resnet_equals_timms(golden):
    want = golden("timm_resnet_toy")
    spec, params = read_resnet()
    assert (spec.layers, spec.width, spec.pooled_width) == ((1, 2, 1, 1), 3, 96)
    image = want["pixels"] / np.float32(32)
    out, features = jax.jit(make_sensor_encoder(spec).apply)({"params": params}, image)
    for name in ("stem", "layer1_0", "layer2_1", "layer4_0"):
        assert np.abs(features[name] - want[name]).max() <= BLOCK, name
    np.testing.assert_array_equal(out, features["pooled"])
    assert np.abs(out - want["pooled"]).max() <= END


def test_a_resnet_takes_images_of_another_size_and_other_bands():
    spec, params = read_resnet(image_size=64, bands=("VH", "VV"))
    assert spec.image_size == 64
    _, plain = read_resnet()
    kernels = [p["conv1"]["kernel"] for p in (params, plain)]
    np.testing.assert_array_equal(kernels[0], kernels[1][:, :, ::-1])


def test_a_resnet_comes_back_bit_for_bit(tmp_path):
    spec, params = add_map(*read_resnet(), 6, jax.random.key(0))
    found, again = saved(tmp_path, "a.safetensors", spec, params)
    assert found == spec
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_a_resnet_of_basic_blocks_is_refused(tmp_path):
    tensors = safetensors.numpy.load_file(FOLDER / "timm_resnet_toy.safetensors")
    basic = {n: a for n, a in tensors.items() if "conv3" not in n and "bn3" not in n}
    safetensors.numpy.save_file(basic, tmp_path / "rn18.safetensors")
    with pytest.raises(ValueError, match="ResNets of bottleneck blocks can be read"):
        load_encoder(tmp_path / "rn18.safetensors", S1)


# What the weights expect


def s2_file(tmp_path, bands=13, **extra):
    """A ViT over another number of bands, with a random kernel for each."""
    tensors = safetensors.numpy.load_file(FOLDER / "timm_toy.safetensors")
    rng = np.random.default_rng(2)
    kernel = rng.standard_normal((32, bands, 4, 4)).astype(np.float32) / 8
    tensors["patch_embed.proj.weight"] = kernel
    path = tmp_path / "s2.safetensors"
    safetensors.numpy.save_file({**tensors, **extra}, path)
    return path


def test_a_row_attaches_bands_and_scale(tmp_path):
    spec, _ = load_encoder(s2_file(tmp_path), row="ssl4eo-moco-vits16-s2", heads=2)
    assert spec.bands == S2.bands
    assert (spec.mean, spec.std, spec.clip_sigma) == ((0,) * 13, (1e4,) * 13, 1.0)
    assert (spec.sensor, spec.modality, spec.out_dim) == ("s2_l1c", "s2", 0)


def test_the_paper_s_input_is_reflectance_within_0_and_1(tmp_path):
    """clamp(DN / 10000, 0, 1): the features of a clamped scene are the scene's."""
    spec, params = load_encoder(s2_file(tmp_path), row="ssl4eo-mae-vits16-s2", heads=2)
    raw = np.random.default_rng(0).integers(0, 20000, (2, 16, 16, 13), np.uint16)
    clamped = np.clip(raw / 10000, 0, 1).astype(np.float32)
    got = jax.jit(sensor_features, static_argnums=2)(params, raw, spec)
    want, _ = jax.jit(make_sensor_encoder(spec).apply)({"params": params}, clamped)
    np.testing.assert_allclose(got, want, atol=1e-5)


def documented(tmp_path):
    """{kind: (raw values as files hold them, what the step sees, by its source)}."""
    rng = np.random.default_rng(6)
    dn = rng.integers(0, 14000, (2, 16, 16, 13)).astype(np.uint16)
    db = rng.normal(-16, 9, (2, 16, 16, 2)).astype(np.float32)
    rgb = rng.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    toy, s2 = FOLDER / "timm_toy.safetensors", s2_file(tmp_path)
    moco, _ = load_encoder(s2, row="ssl4eo-moco-vits16-s2", heads=2)
    mae, _ = load_encoder(toy, row="ssl4eo-mae-vits16-s1", heads=2)
    told, _ = read_dofa(S1)
    mean, std = np.array([-12.59, -20.26]), np.array([5.26, 5.91])
    m = np.array([0.48145466, 0.4578275, 0.40821073])
    s = np.array([0.26862954, 0.26130258, 0.27577711])
    openai, sar = get_variant("ViT-B/32"), np.clip((db - mean) / std, -2, 2)
    return {
        # openai/CLIP, clip.py: ToTensor, Normalize
        "clip": (rgb, partial(normalize_rgb, variant=openai), (rgb / 255 - m) / s),
        # SSL4EO-S12's README: divided by 10000, input clip to [0, 1]
        "moco s2": (dn, partial(normalize_sensor, spec=moco), np.clip(dn / 1e4, 0, 1)),
        # torchgeo's weights: standardised; cut at two sigma as the authors store it
        "mae s1": (db, partial(normalize_sensor, spec=mae), sar),
        # DOFA: each set by its own mean and std; here those of the sensor's row
        "dofa": (db, partial(normalize_sensor, spec=told), sar),
    }


@pytest.mark.parametrize("kind", ["clip", "moco s2", "mae s1", "dofa"])
def test_each_encoder_is_normalised_as_its_source_documents(tmp_path, kind):
    """Within the jitted step, from the values as the files hold them."""
    raw, normalise, want = documented(tmp_path)[kind]
    step = jax.jit(normalise).lower(raw).compile()
    np.testing.assert_allclose(step(raw), want, atol=2e-6)
    assert [a.dtype for a in jax.tree.leaves(step.args_info)] == [raw.dtype]


def test_a_product_without_b10_reads_it_as_zero(tmp_path):
    """L2A through a 13-band encoder equals L1C with a zero B10, at its place."""
    path, l2a = s2_file(tmp_path), SENSORS["s2_l2a"]
    told = {"row": "ssl4eo-moco-vits16-s2", "heads": 2}
    whole, params = load_encoder(path, S2, **told)
    with pytest.raises(ValueError, match=r"s2\.safetensors.*not in the sensor.*'B10'"):
        load_encoder(path, l2a, **told)
    spec, fewer = load_encoder(path, l2a, missing="zero", **told)
    assert spec.bands == l2a.bands
    assert spec.sensor == "s2_l2a"
    raw = np.random.default_rng(1).integers(0, 9000, (2, 16, 16, 13), np.uint16)
    raw[..., 10] = 0
    want = sensor_features(params, raw, whole)
    got = sensor_features(fewer, np.delete(raw, 10, axis=-1), spec)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_units_are_not_mixed(tmp_path):
    with pytest.raises(ValueError, match=r"trained on values in DN.*s1_grd is in dB"):
        load_encoder(
            s2_file(tmp_path),
            S1,
            row="ssl4eo-moco-vits16-s2",
            missing="spread",
            heads=2,
        )


def test_without_a_row_bands_go_by_number_or_by_name(tmp_path):
    path = FOLDER / "timm_toy.safetensors"  # two bands
    spec, _ = load_encoder(path, S1, heads=2)
    assert (spec.mean, spec.std) == (S1.mean, S1.std)
    with pytest.raises(ValueError, match=r"takes 2 bands, not the 13"):
        load_encoder(path, S2, heads=2)
    spec, params = load_encoder(path, S1, bands=("VH", "VV"), heads=2)
    want = safetensors.numpy.load_file(path)["patch_embed.proj.weight"]
    got = params["patch_embed"]["kernel"].transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(got, want[:, ::-1])
    with pytest.raises(ValueError, match="does not state its encoder's sensor"):
        load_encoder(path)
    # three: red, green, blue
    three = s2_file(tmp_path, 3)
    spec, params = load_encoder(three, S1, missing="spread", heads=2)
    rgb = safetensors.numpy.load_file(three)["patch_embed.proj.weight"]
    for band in range(2):
        got = params["patch_embed"]["kernel"][:, :, band].transpose(2, 0, 1)
        np.testing.assert_allclose(got, rgb.sum(axis=1) / 2, atol=1e-6)


def test_a_missing_last_norm_is_the_identity_and_said(tmp_path):
    tensors = safetensors.numpy.load_file(FOLDER / "timm_toy.safetensors")
    for name in ("norm.weight", "norm.bias"):
        del tensors[name]
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(tensors, path)
    with pytest.warns(UserWarning, match="no final LayerNorm"):
        _, params = load_encoder(path, S1, heads=2)
    np.testing.assert_array_equal(params["ln_post"]["scale"], np.ones(32))
    np.testing.assert_array_equal(params["ln_post"]["bias"], np.zeros(32))


def test_another_image_size_resizes_the_patches_positions_alone():
    spec, large = read_toy("timm_registers", image_size=20)
    assert spec.image_size == 20
    assert large["positional_embedding"].shape == (25, 8)
    _, token = read_toy("timm_clip")
    _, grown = read_toy("timm_clip", image_size=20)
    first = "positional_embedding"
    np.testing.assert_array_equal(grown[first][0], token[first][0])
    with pytest.raises(ValueError, match="image_size 18 is not a multiple"):
        read_toy("timm_clip", image_size=18)


def test_unknown_rows_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'ssl4eo-moco-vits16-s2'"):
        get_encoder("ssl4eo-moco-vits16")
    with pytest.raises(ValueError, match=r"no tensor for our .*only timm ViTs and"):
        load_encoder(FOLDER / "clip_toy_gelu.safetensors", S1)


def test_heads_and_activations_that_cannot_be_are_named():
    with pytest.raises(
        ValueError, match=r"activation .relu. is not known; use quick_gelu"
    ):
        load_encoder(FOLDER / "timm_toy.safetensors", S1, activation="relu")
    with pytest.raises(ValueError, match=r"timm_toy.*: 5 heads do not divide 32"):
        load_encoder(FOLDER / "timm_toy.safetensors", S1, heads=5)


def test_rows_name_bands_of_their_sensor():
    for name, row in ENCODERS.items():
        assert name == row.name
        if row.sensor:
            assert row.sensor.bands == SENSORS[row.sensor.name].bands


# Out


def saved(tmp_path, name, spec, params, **settings):
    save_encoder(tmp_path / name, spec, params, **settings)
    return load_encoder(tmp_path / name)


@pytest.mark.parametrize("name", [*TIMM, "timm_toy"])
@pytest.mark.parametrize("target", ["a.safetensors", "folder"])
def test_round_trip_is_bit_exact(tmp_path, name, target):
    spec, params = load_encoder(
        FOLDER / f"{name}.safetensors", S1, heads=2, **TIMM.get(name, {})
    )
    spec, params = add_map(spec, params, 6, jax.random.key(0))
    found, again = saved(tmp_path, target, spec, params)
    assert found == spec
    jax.tree.map(np.testing.assert_array_equal, again, params)
    path = tmp_path / target
    path = path if path.is_file() else path / "model.safetensors"
    theirs = safetensors.numpy.load_file(FOLDER / f"{name}.safetensors")
    ours = safetensors.numpy.load_file(path)
    for key in theirs:
        if not key.startswith("head."):
            assert ours[key].tobytes() == theirs[key].tobytes()


def test_an_encoder_of_clips_shape_gets_a_zero_head_bias(tmp_path):
    spec, params = read_toy("timm_clip")
    spec = dataclasses.replace(spec, proj_bias=False)
    params = {**params, "proj": {"kernel": params["proj"]["kernel"]}}
    found, again = saved(tmp_path, "folder", spec, params)
    assert found == spec
    jax.tree.map(np.testing.assert_array_equal, again, params)
    file = safetensors.numpy.load_file(tmp_path / "folder" / "model.safetensors")
    np.testing.assert_array_equal(file["head.bias"], np.zeros(5))


def test_timms_config_says_sizes_and_scale(tmp_path):
    spec, params = read_toy("timm_registers")
    save_encoder(tmp_path / "a", spec, params)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["model_args"]["in_chans"] == 2
    assert config["model_args"]["reg_tokens"] == 2
    assert config["pretrained_cfg"]["mean"] == list(S1.mean)


def test_what_timm_has_not_is_refused_before_anything_is_written(tmp_path):
    spec, params = read_dofa()
    with pytest.raises(ValueError, match="width = 3"):
        save_encoder(tmp_path / "a", *read_resnet())
    with pytest.raises(ValueError, match="patch_offset = 1"):
        save_encoder(tmp_path / "a", spec, params)
    assert not list(tmp_path.iterdir())
    found, again = saved(tmp_path, "a.safetensors", spec, params)
    assert found == spec
    jax.tree.map(np.testing.assert_array_equal, again, params)
    with pytest.raises(ValueError, match="'int8' is not known"):
        save_encoder(tmp_path / "b.safetensors", spec, params, dtype="int8")


def test_spec_survives_json():
    spec, _ = read_toy("timm_registers")
    assert (
        SensorSpec.from_json(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec
    )
