"""Normalisation is the encoder's: measured once, kept with the params, in the step."""

import dataclasses
import shutil

import jax
import numpy as np
import optax
import pytest

import rsclip_jax
from rsclip_jax.data.sensors import SENSORS, get_sensor
from rsclip_jax.data.sources.wrappers import Wrapper
from rsclip_jax.models.clip import image_features
from rsclip_jax.models.sensor import (
    init_sensor,
    make_sensor_encoder,
    normalize_sensor,
    vit_spec,
)
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.stages.align import stage as align
from rsclip_jax.stages.align.scale import check_scale
from rsclip_jax.stages.align.settings import settings_of
from rsclip_jax.stages.align.students import planned_students
from rsclip_jax.stages.shared import training
from rsclip_jax.train import checkpoint, loop, resume
from rsclip_jax.train_step import make_state
from rsclip_jax.weights import load_encoder, save_encoder
from tests.golden import FOLDER
from tests.helpers.align import (
    SMALL,
    batches_of,
    config_with,
    distil,
    make_student,
    read_as,
    scaled_sensor,
    teacher,
)
from tests.helpers.marks import slow
from tests.helpers.runs import few_scenes, make_run


def config(**settings):
    settings = {"student": "vit", "vit": SMALL, "losses": (("mse", 1.0),), **settings}
    return config_with(**{"train": "miniature:train", "steps": 2, **settings})


def pixels(source, key):
    arrays = [source[i][key] for i in range(len(source))]
    return np.concatenate([a.reshape(-1, a.shape[-1]) for a in arrays]).astype(float)


@pytest.mark.parametrize(
    ("key", "dtype", "how"),
    [
        slow("s2", "uint16", "sensor"),
        slow("s2", "uint16", "percentile"),
        ("s1", "float32", "zscore"),
        slow("ir", "float32", "percentile"),
    ],
)
def test_the_step_takes_raw_values_and_normalises_them(
    tmp_path, monkeypatch, key, dtype, how
):
    """The stage's own loss, jitted as the loop does it, on the batches it is given."""
    run = make_run(tmp_path, config(sensor=key, normalize=how, batch_size=16))
    seen = {}
    monkeypatch.setattr(
        training, "fit", lambda *x, **more: seen.update(more, data=x[3])
    )
    with few_scenes():
        train = run.open("miniature:train")
        sensor, scale = scaled_sensor(run, train, key)
        spec, student = make_student(run, sensor)
        student = jax.device_get(student)  # the step donates its state
        distil(run, {key: (spec, student)}, [train], scale)
        batch = next(batches_of(run, [train], seen["data"].sizes))
        raw = pixels(train, key)
    assert batch[key].dtype == dtype
    assert raw.min() <= batch[key].min()  # in the files' units: as read, but resized
    assert batch[key].max() <= raw.max()
    tx = optax.sgd(0.0)  # a state needs one; no update is looked at
    state = make_state(student, tx)
    step = loop.make_step(
        state, seen["frozen"], loss_fn=seen["loss_fn"], tx=tx, mesh=run.mesh
    )
    lowered = step.lower(state, seen["frozen"], batch)
    (_, _, taken), _ = lowered.args_info
    assert taken[key].dtype == dtype
    if dtype == "uint16":
        assert f"tensor<16x32x32x{len(sensor.bands)}xui16>" in lowered.as_text()
    _, metrics = lowered.compile()(state, seen["frozen"], batch)
    x = batch[key].astype(np.float64)
    if how == "percentile":
        raw[raw == sensor.nodata] = np.nan
        low, high = np.nanpercentile(raw, [2, 98], axis=0)
        x = 2 * np.clip((x - low) / (high - low), 0, 1) - 1
    elif how == "zscore":
        x = np.clip((x - raw.mean(axis=0)) / raw.std(axis=0), -2, 2)
    else:
        x = np.clip((x - 2000) / 2000, -5, 5)
    encoder = make_sensor_encoder(spec)
    fstudent, _ = encoder.apply({"params": student}, x.astype(np.float32))
    visual = teacher().params["visual"]
    fteacher = image_features(visual, batch["rgb"], teacher().variant)
    want = float(np.mean((fstudent - fteacher) ** 2))
    assert float(metrics["mse"]) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("how", ["zscore", "percentile"])
def test_a_dropped_band_is_zero_at_the_scale_that_the_student_sees(
    tmp_path, monkeypatch, how
):
    """In the batches that the loop is given."""
    augment = {"band_dropout": 0.5, "flip_lr": False}
    settings = config(sensor="s2", normalize=how, batch_size=16, augment=augment)
    run, given = make_run(tmp_path, settings), []
    monkeypatch.setattr(
        loop, "train", lambda _, frozen, batches, **__: given.append(next(batches))
    )
    with few_scenes():
        train = run.open("miniature:train")
        sensor, scale = scaled_sensor(run, train, "s2")
        spec, student = make_student(run, sensor)
        distil(run, {"s2": (spec, student)}, [train], scale)
    x = np.asarray(normalize_sensor(given[0]["s2"], spec))
    flat = np.ptp(x, axis=(1, 2)) == 0
    assert 0.3 < flat.mean() < 0.7
    half = 0.51 / min(spec.std)  # the files hold whole numbers
    assert np.abs(x[:, 0, 0][flat]).max() < half < 0.05


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A workdir with a CLIP and a student of measured scale; its run and output."""
    workdir = tmp_path_factory.mktemp("scale") / "w"
    model = teacher()
    meta = StageMeta(variant=dataclasses.asdict(model.variant))
    checkpoint.save_product(workdir / "pretrain", model.params, meta)
    settings = config(normalize="percentile", normalize_records=9, checkpoint_every=1)
    with few_scenes():
        align.run_align(make_run(workdir, settings))
    return workdir, settings


@pytest.mark.slow
def test_what_was_measured_is_kept_with_the_params(aligned, tmp_path):
    workdir, _ = aligned
    meta = checkpoint.load_meta(workdir / "align")
    scale = meta.sources["scale"]
    assert scale == resume.begun_sources(workdir / "align")["scale"]
    assert (scale["how"], scale["records"]) == ("percentile", 9)
    assert scale["percentiles"] == [2, 98]
    assert scale["dataset"] == "miniature:train"
    spec, params = rsclip_jax.load(workdir).sensors["s1"]
    assert list(spec.mean) == scale["mean"] != list(SENSORS["s1_grd"].mean)
    assert list(spec.std) == scale["std"]
    assert spec.clip_sigma == 1
    save_encoder(tmp_path / "s1.safetensors", spec, params)
    again, _ = load_encoder(tmp_path / "s1.safetensors")
    assert again == spec


@pytest.mark.slow
def test_a_line_a_band_says_what_was_measured(aligned, tmp_path, capsys):
    _, settings = aligned
    with few_scenes():
        run = make_run(tmp_path, settings)
        sensor, made = scaled_sensor(run, run.open("miniature:train"), "s1")
    first, *lines = capsys.readouterr().out.splitlines()
    assert "s1_grd normalised by percentile of 9 records" in first
    for band, mean, std, line in zip(
        sensor.bands, made["scale"]["mean"], made["scale"]["std"], lines, strict=True
    ):
        words = line.split()
        assert (words[0], words[-1]) == (f"{band}:", "dB")
        np.testing.assert_allclose(
            [float(words[1]), float(words[3])], [mean - std, mean + std], rtol=1e-5
        )


class Repainted(Wrapper):
    """The records of one source with the pixels of another."""

    def __init__(self, source, pixels):
        super().__init__(source)
        self.pixels = pixels

    def read(self, i, keys):
        own = {key: self.source[i][key] for key in ("id", "label")}
        return {**self.pixels[i % len(self.pixels)], **own}


@pytest.mark.slow
def test_a_resumed_run_keeps_the_scale_that_it_began_with(aligned, tmp_path):
    """Though the pixels are others by now: measured anew they would give another."""
    workdir, settings = aligned
    kept = checkpoint.load_meta(workdir / "align").sources["scale"]
    begun = tmp_path / "begun"
    shutil.copytree(workdir, begun)
    shutil.rmtree(begun / "align" / "params")  # killed before it was done
    with few_scenes():
        other = make_run(tmp_path / "new", settings)
        train = Repainted(other.open("miniature:train"), other.open("miniature:val"))
        _, anew = scaled_sensor(other, train, "s1")
        run = make_run(begun, settings)
        run.opened["miniature:train"] = train
        align.run_align(run)
    assert anew["scale"]["mean"] != kept["mean"]
    meta = checkpoint.load_meta(begun / "align")
    assert meta.sources["scale"] == kept
    assert meta.spec["mean"] == kept["mean"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"normalize": "minmax"}, r"normalize = 'minmax'.*'zscore', 'percentile'"),
        ({"normalize_percentiles": (98.0, 2.0)}, r"normalize_percentiles = \(98"),
        ({"normalize_percentiles": (2.0, 101.0)}, "between 0 and 100"),
        ({"normalize_records": -1}, "normalize_records = -1 is below 0; 0 reads all"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(tmp_path, settings, words):
    run = make_run(tmp_path, config(**settings))
    with pytest.raises(ValueError, match=words):
        check_scale(run, settings_of(run))


def test_a_sensor_without_mean_and_std_needs_a_measured_scale(tmp_path, monkeypatch):
    bare = dataclasses.replace(get_sensor("s1_grd"), mean=(), std=())
    monkeypatch.setitem(SENSORS, "s1_grd", bare)
    run = make_run(tmp_path, config(normalize="sensor"))
    with pytest.raises(ValueError, match=r"s1_grd has no mean .*normalize=zscore"):
        check_scale(run, settings_of(run))
    run = make_run(tmp_path, config(normalize="zscore"))
    c = settings_of(run)
    with few_scenes():
        check_scale(run, c)
        (spec, _) = planned_students(run, c, teacher().variant)["s1"]
        assert len(spec.mean) == 2  # a stand-in
        sensor, _ = scaled_sensor(run, run.open("miniature:train"), "s1")
    assert len(sensor.mean) == 2


def test_the_scale_of_a_pretrained_encoder_stays(tmp_path):
    spec = vit_spec(get_sensor("s1_grd"), **SMALL, out_dim=8)
    mine = tmp_path / "mine.safetensors"
    save_encoder(mine, spec, init_sensor(spec, jax.random.key(0)))
    toy = FOLDER / "timm_toy.safetensors"
    told = read_as(row="ssl4eo-mae-vits16-s1")
    for path, pretrained in ((mine, read_as()), (toy, told)):
        settings = {"student": str(path), "pretrained": pretrained}
        run = make_run(tmp_path, config(normalize="zscore", **settings))
        with pytest.raises(ValueError, match=r"normalize = 'zscore'.*trained on"):
            check_scale(run, settings_of(run))


def test_an_encoder_without_a_scale_of_its_own_takes_the_measured_one(tmp_path):
    """A timm file says nothing of its input; nor does DOFA."""
    toy = FOLDER / "timm_toy.safetensors"
    settings = {"student": str(toy), "pretrained": read_as(heads=2)}
    run = make_run(tmp_path, config(normalize="zscore", **settings))
    with few_scenes():
        check_scale(run, settings_of(run))
        sensor, made = scaled_sensor(run, run.open("miniature:train"), "s1")
    spec, _ = make_student(run, sensor)
    assert list(spec.mean) == made["scale"]["mean"]


def test_a_constant_band_names_itself_and_the_way_out(tmp_path, monkeypatch):
    run = make_run(tmp_path, config(sensor="s2", normalize="zscore"))
    with few_scenes():
        train = run.open("miniature:train")
        read = type(train).__getitem__

        def without_cirrus(self, index):
            record = read(self, index)
            s2 = record["s2"].copy()
            s2[..., 10] = 12
            return {**record, "s2": s2}

        monkeypatch.setattr(type(train), "__getitem__", without_cirrus)
        with pytest.raises(ValueError, match=r"B10 .*12 DN.*normalize=sensor"):
            scaled_sensor(run, train, "s2")
