"""load(...) and the encoders, as a notebook uses them."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import rsclip_jax
from rsclip_jax.data import datasets
from rsclip_jax.data.sensors import get_sensor, table
from rsclip_jax.data.sensors.custom import load_sensor
from rsclip_jax.io.files import write_json
from rsclip_jax.models import inference
from rsclip_jax.models.clip import CLIP, init_clip, normalize_rgb
from rsclip_jax.models.sensor import SensorEncoder, init_sensor, input_fields, vit_spec
from rsclip_jax.models.variants import get_variant
from rsclip_jax.weights import save_clip
from rsclip_jax.weights.load import resize_positions
from tests.golden import FOLDER
from tests.helpers.moved import write_sensor
from tests.helpers.runs import few_scenes


@pytest.fixture(scope="module")
def model(tiny_run):
    return rsclip_jax.load(tiny_run)


@pytest.fixture(scope="module")
def records():
    with few_scenes():
        source = datasets.open_source("miniature", split="val")
        return [source[i] for i in range(5)]


def assert_unit(z, n, d=64):
    assert z.shape == (n, d)
    assert z.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)


def test_images_may_be_arrays_pictures_or_paths(model, records, tmp_path):
    arrays = np.stack([r["rgb"] for r in records])
    z = model.encode_image(arrays)
    assert_unit(z, 5)
    pictures = [Image.fromarray(a) for a in arrays]
    np.testing.assert_array_equal(model.encode_image(pictures), z)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    np.testing.assert_array_equal(model.encode_image(paths), z)
    alone = model.encode_image([str(paths[0])])
    np.testing.assert_allclose(alone, z[:1], atol=1e-6)  # another block rounds apart
    for one in (paths[0], str(paths[0]), pictures[0]):
        np.testing.assert_array_equal(model.encode_image(one), alone)


def test_it_is_clips_own_apply(model, records):
    rgb = np.stack([r["rgb"] for r in records])
    from rsclip_jax.data.tokenizer import tokenize

    text = tokenize(["a photo of a lake", "forest"], model.variant.context_length)
    zimg, ztxt, _ = jax.jit(CLIP(model.variant).apply)(
        {"params": model.params}, normalize_rgb(rgb, model.variant), text
    )
    np.testing.assert_allclose(model.encode_image(rgb), zimg, atol=1e-6)
    np.testing.assert_allclose(
        model.encode_text(["a photo of a lake", "forest"]), ztxt, atol=1e-6
    )


def clip_preprocess(picture, variant):
    """open_clip's image transform of a PIL image, with Pillow and numpy alone."""
    size = variant.image_size
    w, h = picture.size
    scale = size / min(w, h)
    wide = (
        size if w <= h else int(size * w / h),
        size if h <= w else int(size * h / w),
    )
    assert abs(wide[0] - w * scale) < 1
    picture = picture.resize(wide, Image.Resampling.BICUBIC)
    left, top = round((wide[0] - size) / 2), round((wide[1] - size) / 2)
    picture = picture.crop((left, top, left + size, top + size)).convert("RGB")
    pixels = np.asarray(picture)
    mean, std = (
        np.array(x, np.float32) for x in (variant.image_mean, variant.image_std)
    )
    return ((pixels.astype(np.float32) / 255 - mean) / std)[None]


@pytest.mark.parametrize("shape", [(20, 20), (64, 64), (300, 211), (33, 97), (32, 500)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pictures_of_any_size_are_fitted_as_open_clip_fits_them(model, shape, mode):
    rng = np.random.default_rng(shape[0])
    channels = {"RGB": 3, "L": 1, "RGBA": 4}[mode]
    pixels = rng.integers(0, 256, (*shape, channels), np.uint8)
    picture = Image.fromarray(pixels if channels > 1 else pixels[..., 0])
    want, _, _ = CLIP(model.variant).apply(
        {"params": model.params}, clip_preprocess(picture, model.variant), None
    )
    np.testing.assert_allclose(model.encode_image(picture), want, atol=1e-5)


def test_zero_shot_is_the_mean_of_the_templates(model, records):
    names, templates = ["river", "lake"], ("a photo of a {c}.", "{c} from above")
    head = model.zero_shot(names, templates)
    assert head.shape == (64, 2)
    for k, name in enumerate(names):
        z = model.encode_text([t.format(c=name) for t in templates]).mean(axis=0)
        want = z / np.linalg.norm(z) * np.exp(model.params["logit_scale"])
        np.testing.assert_allclose(head[:, k], want, rtol=1e-4, atol=1e-5)
    one = model.zero_shot(names)
    np.testing.assert_allclose(
        one.T / np.linalg.norm(one, axis=0)[:, None],
        model.encode_text([f"a satellite photo of {n}." for n in names]),
        atol=1e-5,
    )


def test_any_number_of_images_from_a_block_on_is_one_compiled_program(model, records):
    rgb = [r["rgb"] for r in records]
    model.encode_image(rgb[:3], block=3)
    before = inference.encode_rgb._cache_size()
    for n in (3, 4, 5):
        assert len(model.encode_image(rgb[:n], block=3)) == n
    assert inference.encode_rgb._cache_size() == before


def test_another_image_size_resizes_the_positions(tmp_path):
    params = jax.device_get(init_clip("mini", jax.random.key(0)))
    save_clip(tmp_path / "a.safetensors", "mini", params)
    model = rsclip_jax.load(tmp_path / "a.safetensors", image_size=48)
    assert model.variant.image_size == 48
    visual = params["visual"]["positional_embedding"]
    want = resize_positions(visual, 6)
    got = model.params["visual"]["positional_embedding"]
    np.testing.assert_array_equal(got, want)
    row = dataclasses.replace(get_variant("mini"), image_size=48)  # told already
    again = rsclip_jax.load(tmp_path / "a.safetensors", variant=row, image_size=48)
    assert again.digests == model.digests
    assert_unit(model.encode_image(np.zeros((9, 9, 3), np.uint8)), 1)


def test_a_workdir_s_models_keep_their_size(tiny_run):
    for told in ({"image_size": 64}, {"activation": "gelu"}, {"heads": 2}):
        with pytest.raises(ValueError, match=f"omit {next(iter(told))}"):
            rsclip_jax.load(tiny_run, **told)


def test_a_sensor_encoder_is_no_clip_and_says_what_reads_it():
    with pytest.raises(ValueError, match=r"weights\.load_encoder"):
        rsclip_jax.load(FOLDER / "timm_toy.safetensors")
    with pytest.raises(FileNotFoundError, match="is a sensor encoder, which weights"):
        rsclip_jax.load("ssl4eo-mae-vits16-s1")


def test_blocks_and_their_padding_change_nothing(model, records):
    rgb = [r["rgb"] for r in records]
    np.testing.assert_allclose(
        model.encode_image(rgb, block=2), model.encode_image(rgb), atol=1e-6
    )
    assert model.encode_image([]).shape == (0, 64)
    assert model.encode_text([]).shape == (0, 64)


def test_sensors_are_encoded_from_physical_units(model, records):
    s1 = [r["s1"] for r in records]
    assert_unit(model.encode(s1, sensor="s1"), 5)
    wide = [np.repeat(np.repeat(x, 2, 0), 2, 1) for x in s1]  # any size is fitted
    with pytest.warns(
        UserWarning, match=r"64 pixels, .* of 32 pixels: .* are 2 times smaller"
    ):
        z = model.encode(wide, sensor="s1")
    np.testing.assert_allclose(z, model.encode(s1, sensor="s1"), atol=1e-3)
    np.testing.assert_array_equal(
        model.encode([r["rgb"] for r in records], sensor="rgb"),
        model.encode_image([r["rgb"] for r in records]),
    )


def test_one_text_may_be_bare_and_a_long_one_is_refused(model):
    assert_unit(model.encode_text("a lake"), 1)
    with pytest.raises(ValueError, match="lake lake"):
        model.encode_text("lake " * 50)
    assert_unit(model.encode_text("lake " * 50, truncate=True), 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[..., :1], r"array 0.*\(32, 32, 1\).*VV"),
        (lambda x: x.astype(np.uint8), "array 0.*uint8"),
        (lambda x: np.where(x == x[0, 0, 0], np.nan, x), "array 0.*NaN"),
    ],
)
def test_wrong_arrays_are_named(model, records, spoil, message):
    with pytest.raises(ValueError, match=message):
        model.encode([spoil(records[0]["s1"])], sensor="s1")


def test_an_encoder_of_a_sensors_file_takes_what_the_file_says(
    model, records, tmp_path
):
    spec, params = model.sensors["s1"]
    path = tmp_path / "radar.toml"
    lines = ['modality = "s1"', 'unit = "dB"', 'dtype = "float32"', "valid = [-90, 20]"]
    for key in ("bands", "mean", "std"):
        lines.append(f"{key} = {list(getattr(spec, key))}")
    lines += [f"clip_sigma = {spec.clip_sigma}"]
    lines += ["wavelengths = [nan, nan]", "resolution = [10, 10]"]
    path.write_text("\n".join(lines))
    spec = dataclasses.replace(spec, **input_fields(get_sensor(str(path))))
    own = dataclasses.replace(model, sensors={"s1": SensorEncoder(spec, params, "b")})
    array = records[0]["s1"].copy()
    z = own.encode([array], sensor="s1")
    np.testing.assert_array_equal(z, model.encode([array], sensor="s1"))
    array[0, 0, 0] = 21
    with pytest.raises(ValueError, match=r"array 0: .* outside -90 to 20 dB"):
        own.encode([array], sensor="s1")


@pytest.mark.parametrize("kept", [True, False])
def test_an_encoder_of_a_sensors_file_works_where_the_file_is_not(
    tiny_run, model, records, tmp_path, monkeypatch, kept
):
    """From a workdir, too, of the time when only the file's name was kept."""
    workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(tiny_run, workdir)
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    path = Path("radar.toml")
    write_sensor(path, get_sensor("s1_grd"), valid=(-90, math.inf), nodata=-99)
    meta = json.loads((workdir / "align" / "meta.json").read_text())
    meta["spec"] |= input_fields(load_sensor(path))
    if not kept:
        for name in ("unit", "dtype", "valid", "nodata", "level"):
            del meta["spec"][name]
    write_json(workdir / "align" / "meta.json", meta)
    assert "Infinity" not in (workdir / "align" / "meta.json").read_text()
    array = records[0]["s1"].copy()
    want = model.encode([array], sensor="s1")
    for folder in (tmp_path, elsewhere):
        monkeypatch.chdir(folder)
        table._load_once.cache_clear()
        own = rsclip_jax.load(workdir)
        if not kept and folder == elsewhere:
            with pytest.raises(FileNotFoundError, match=r"radar\.toml: .*not exist"):
                own.encode([array], sensor="s1")
            continue
        np.testing.assert_array_equal(own.encode([array], sensor="s1"), want)
        low, none = array.copy(), array.copy()
        low[0, 0, 0], none[0, 0, 0] = -91, -99
        own.encode([none], sensor="s1")
        with pytest.raises(ValueError, match=r"outside -90 to inf dB, .* -91"):
            own.encode([low], sensor="s1")


def with_encoder(model, name):
    """The model with a random encoder of another sensor."""
    row = get_sensor(name)
    sizes = {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "heads": 1}
    spec = vit_spec(row, **sizes, out_dim=64)
    params = jax.device_get(init_sensor(spec, jax.random.key(1)))
    encoder = SensorEncoder(spec, params, digest="b")
    return dataclasses.replace(model, sensors={**model.sensors, row.modality: encoder})


@pytest.mark.parametrize("order", [(1, 0), (1, 0, 1)])
def test_arrays_of_a_named_sensor_go_to_the_encoder_by_name(
    model, records, tmp_path, order
):
    """VH before VV, and a band that no encoder asks for."""
    row, bands = get_sensor("s1_grd"), ("VH", "VV", "HH")[: len(order)]
    held = write_sensor(tmp_path / "held.toml", row, bands=bands)
    s1 = [r["s1"] for r in records]
    want = model.encode(s1, sensor="s1")
    np.testing.assert_array_equal(model.encode(s1, sensor="s1_grd"), want)
    moved = [x[..., list(order)] for x in s1]
    np.testing.assert_array_equal(model.encode(moved, sensor=held), want)


def test_sentinel_2_goes_from_l1c_and_from_b8a_last_into_l2a(model, records, tmp_path):
    l1c, l2a = get_sensor("s2_l1c"), get_sensor("s2_l2a")
    own = with_encoder(model, "s2_l2a")
    s2 = [r["s2"] for r in records]
    want = own.encode([np.delete(x, 10, axis=-1) for x in s2], sensor="s2")
    np.testing.assert_array_equal(own.encode(s2, sensor="s2_l1c"), want)
    last = [b for b in l1c.bands if b != "B8A"] + ["B8A"]  # as EuroSAT's files
    held = write_sensor(tmp_path / "eurosat.toml", l1c, bands=last)
    moved = [x[..., [l1c.bands.index(b) for b in last]] for x in s2]
    np.testing.assert_array_equal(own.encode(moved, sensor=held), want)
    assert want.shape == (5, 64)
    other = with_encoder(model, "s2_l1c")
    words = r"s2_l1c takes the bands .*'B10'.* in DN, and s2_l2a holds"
    with pytest.raises(ValueError, match=words):
        other.encode([np.delete(x, 10, axis=-1) for x in s2], sensor="s2_l2a")
    assert l2a.bands != l1c.bands


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bands": ("VH",)}, r"takes the bands \('VV', 'VH'\) in dB, and .*\('VH',\)"),
        ({"unit": "linear", "valid": (0, 9)}, r"in dB, and .*\('VV', 'VH'\) in linear"),
    ],
)
def test_arrays_of_a_sensor_that_does_not_fit_are_refused_with_both(
    model, records, tmp_path, changes, words
):
    held = write_sensor(tmp_path / "held.toml", get_sensor("s1_grd"), **changes)
    with pytest.raises(ValueError, match=words):
        model.encode([records[0]["s1"]], sensor=held)
    with pytest.raises(ValueError, match=r"in dB, and s1_vh_8bit holds .* in 8-bit"):
        model.encode([np.zeros((32, 32, 1), np.uint8)], sensor="s1_vh_8bit")


def test_reflectance_is_no_dn(model, records, tmp_path):
    """By its name, where it has one, and by its dtype."""
    own = with_encoder(model, "s2_l1c")
    reflectance = [(r["s2"] / 10000).astype(np.float32) for r in records]
    changes = {"unit": "reflectance", "dtype": "float32"}
    held = write_sensor(tmp_path / "held.toml", get_sensor("s2_l1c"), **changes)
    with pytest.raises(ValueError, match=r"in DN, and .* in reflectance"):
        own.encode(reflectance, sensor=held)
    with pytest.raises(
        ValueError, match=r"looks like reflectance; s2_l1c is in DN: multiply by 10000"
    ):
        own.encode(reflectance, sensor="s2")


def test_a_sensor_without_encoder_lists_those_that_have(model, records):
    with pytest.raises(ValueError, match=r"no encoder for sensor 'ir'; it has rgb, s1"):
        model.encode([records[0]["ir"]], sensor="ir")
    with pytest.raises(ValueError, match=r"sensor 'ir_bt'; it has rgb, s1"):
        model.encode([records[0]["ir"]], sensor="ir_bt")
    with pytest.raises(ValueError, match=r"uint8 \[h, w, 3\], got float32"):
        model.encode_image([np.zeros((32, 32, 3), np.float32)])


def test_a_weight_file_has_no_sensors(tmp_path):
    params = init_clip("mini", jax.random.key(0))
    save_clip(tmp_path / "a.safetensors", "mini", params)
    model = rsclip_jax.load(tmp_path / "a.safetensors")
    assert model.variant.name == "mini"
    assert model.sensors == {}
    assert_unit(model.encode_text(["x"]), 1)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a weight file"):
        rsclip_jax.load(tmp_path / "none")


def test_an_encoder_and_the_clip_it_was_not_aligned_to_do_not_mix(tiny_run, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(tiny_run, mixed)
    meta = json.loads((mixed / "align" / "meta.json").read_text())
    meta["sources"]["teacher"]["digest"] = "0" * 16
    (mixed / "align" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=r"digest 0{16}.*run align again"):
        rsclip_jax.load(mixed)


def test_a_model_is_told_in_a_line(tiny_run):
    told = repr(rsclip_jax.load(tiny_run))
    assert told.startswith("Model(mini, sensors {s1: s1_grd}, digests clip ")
    assert len(told) < 200


def test_models_are_compared_by_identity(model, tiny_run):
    assert model == model
    assert model != rsclip_jax.load(tiny_run)
    assert len({model, model}) == 1


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("lake", r"class names 'lake': give a list of names"),
        ([], r"class names \[\]: give a list of names"),
        ((name for name in ["lake", "sea"]), r"class names <gen.*: give a list of nam"),
        (None, r"class names None: give a list of names"),
        ((), r"class names \(\)"),
        (["lake", "lake"], r"appear twice: \['lake'\]"),
        (["lake", ""], "have no name"),
        (["lake", 3], r"class names must be strings, and not \[3\]"),
    ],
)
def test_class_names_that_make_no_classifier_are_refused(model, names, words):
    with pytest.raises(ValueError, match=words):
        model.zero_shot(names)


@pytest.mark.parametrize("templates", ["a photo", ["{c}", "a photo"], "", []])
def test_templates_without_a_placeholder_are_refused(model, templates):
    with pytest.raises(ValueError, match=r"template"):
        model.zero_shot(["lake"], templates)


def test_a_whole_scene_is_not_one_embedding(model):
    side = 8 * model.variant.image_size + 1
    rgb = np.zeros((side, side, 3), np.uint8)
    s1 = np.full((side, side, 2), -9, np.float32)
    for encode in (
        lambda **told: model.encode_image(rgb, **told),
        lambda **told: model.encode(rgb, sensor="rgb", **told),
        lambda **told: model.encode(s1, sensor="s1", **told),
    ):
        with pytest.raises(ValueError, match=r"Encode tiles .*'name:split:tile'"):
            encode()
        assert_unit(encode(max_shrink=None), 1)


def test_one_text_is_one_embedding(model):
    z = model.encode_text("lake")
    assert_unit(z, 1)
    np.testing.assert_array_equal(z, model.encode_text(["lake"]))
    with pytest.raises(TypeError, match=r"texts\[1\] is int, not str"):
        model.encode_text(["lake", 3])


def test_a_stage_whose_product_is_anothers_is_refused(tiny_run, tmp_path):
    """Its meta still has the right digest; only the values tell."""
    for stage in ("pretrain", "patch"):
        shutil.copytree(tiny_run / stage, tmp_path / stage)
    rsclip_jax.load(tmp_path)
    shutil.rmtree(tmp_path / "patch" / "params")
    shutil.copytree(tmp_path / "pretrain" / "params", tmp_path / "patch" / "params")
    with pytest.raises(ValueError, match=r"patch/params has the digest .* replaced"):
        rsclip_jax.load(tmp_path)
