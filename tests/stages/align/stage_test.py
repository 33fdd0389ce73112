"""Stage align: students, label losses, what it refuses."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax import api
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.models.clip import image_features
from rsclip_jax.models.sensor import init_sensor, sensor_features, vit_spec
from rsclip_jax.models.variants import get_variant
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.stages.align import stage as align
from rsclip_jax.stages.align import students
from rsclip_jax.stages.align.settings import settings_of
from rsclip_jax.stages.shared import clip_init
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import layouts, pretrained, rules, save_encoder
from tests.golden import FOLDER
from tests.helpers.align import (
    SMALL,
    batches_of,
    config_with,
    distil,
    losses_of,
    make_student,
    read_as,
    teacher,
)
from tests.helpers.marks import slow
from tests.helpers.moved import Moved, write_sensor
from tests.helpers.runs import few_scenes, make_run, tiny_config


def test_a_student_from_the_teacher_sees_equal_bands_as_the_teacher_does(tmp_path):
    run = make_run(tmp_path, tiny_config())
    sensor = get_sensor("s1_vh_8bit")
    spec, student = make_student(run, sensor)
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 255, (3, 32, 32, 1), np.uint8), 3, axis=-1)
    got = sensor_features(student, grey[..., :1], spec)
    assert got.shape == (3, 64)
    # the sensor's own mean and std stand for CLIP's: only shape and finiteness agree
    assert np.isfinite(got).all()
    kernel = student["patch_embed"]["kernel"]
    np.testing.assert_allclose(
        kernel.sum(axis=2),
        teacher().params["visual"]["patch_embed"]["kernel"].sum(axis=2),
        rtol=1e-5,
    )


@pytest.mark.slow
def test_a_timm_student_starts_random_or_from_its_file(tmp_path):
    vit = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2}
    run = make_run(tmp_path, config_with(student="vit", vit=vit))
    spec, params = students.make_student(
        run, settings_of(run), teacher(), get_sensor("s1_grd")
    )
    assert params["patch_embed"]["kernel"].shape == (8, 8, 2, 32)
    assert spec.out_dim == 64
    body = {k: v for k, v in params.items() if k != "proj"}
    body = jax.tree.map(lambda x: np.asarray(x) + 1, body)
    path = tmp_path / "vit.safetensors"
    tensors = rules.export_names(body, layouts.timm_vit())
    safetensors.numpy.save_file(tensors, path)
    run = make_run(
        tmp_path, config_with(student=str(path), pretrained=read_as(heads=2))
    )
    found, loaded = students.make_student(
        run, settings_of(run), teacher(), get_sensor("s1_grd")
    )
    assert found == spec
    for name in body:
        jax.tree.map(np.testing.assert_array_equal, loaded[name], body[name])


@pytest.mark.slow
def test_a_pretrained_student_sees_at_its_own_scale_and_trains(tmp_path):
    """A 13-band file on 12-band data: what it was trained on goes before the sensor's.

    The encoder comes from an earlier alignment to a wider CLIP: its map begins anew.
    """
    wide = vit_spec(
        get_sensor("s2_l1c"),
        image_size=32,
        patch_size=8,
        width=32,
        layers=1,
        heads=2,
        out_dim=96,
    )
    save_encoder(tmp_path / "s2", wide, init_sensor(wide, jax.random.key(1)))
    told = read_as(row="ssl4eo-moco-vits16-s2", missing="zero")
    settings = {"student": str(tmp_path / "s2"), "sensor": "s2", "pretrained": told}
    run = make_run(tmp_path, config_with(steps=2, **settings))
    with few_scenes():
        train = run.open("miniature:train")
        sensor = get_sensor("s2_l2a")
        spec, student = make_student(run, sensor)
        assert spec.bands == sensor.bands
        assert spec.out_dim == 64
        sensor = get_sensor(train.dataset.sensors["s2"])
        spec, student = make_student(run, sensor)
        ((_, trained),) = distil(run, {"s2": (spec, student)}, [train], {}).values()
    assert np.isfinite(losses_of(tmp_path)[-1]["loss"])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), trained, student)
    assert moved["blocks_0"]["attn"]["in_proj"]["kernel"] > 0


def test_a_pretrained_student_that_does_not_fit_names_the_setting(tmp_path):
    path = FOLDER / "timm_toy.safetensors"  # two bands
    run = make_run(tmp_path, config_with(student=str(path), sensor="s2"))
    with pytest.raises(ValueError, match=r"config\.align\.pretrained: .*takes 2 bands"):
        make_student(run, get_sensor("s2_l1c"))


@pytest.mark.parametrize(
    ("settings", "metrics"),
    [
        slow({"losses": (("mse", 1.0),)}, {"mse"}),
        ({"losses": (("mse", 1.0), ("labels", 0.5))}, {"mse", "labels"}),
        ({"losses": (("cosine", 1.0), ("info_nce", (0.0, 1.0)))}, {"info_nce"}),
        slow({"losses": (("sigmoid", 1.0), ("relational", 1.0))}, {"sigmoid"}),
        slow({"losses": (("soft_labels", 1.0),)}, {"soft_labels"}),
        slow(
            {
                "losses": (("smooth_l1", 1.0), ("soft_labels", 0.1)),
                "classes_of": "miniature_natural:val",
            },
            {"smooth_l1", "soft_labels"},
        ),
        slow({"train": "miniature_multi:train"}, {"mse", "labels"}),
        slow({"losses": (("mse", 1.0), ("labels", 0.0))}, {"mse"}),
        slow({"sensor": "s2"}, {"mse"}),
        slow({"sensor": "ir"}, {"mse"}),
    ],
)
def test_every_term_and_sensor_trains(tmp_path, settings, metrics):
    config = config_with(steps=3, **settings)
    run = make_run(tmp_path, config)
    with few_scenes():
        train = run.open(config.align.train)
        sensor = get_sensor(train.dataset.sensors[config.align.sensor])
        spec, student = make_student(run, sensor)
        align.distil(
            run,
            settings_of(run),
            teacher(),
            {spec.modality: (spec, student)},
            [train],
            {},
        )
    curve = losses_of(tmp_path)
    assert len(curve) == 3
    assert metrics <= curve[0].keys()
    for i, line in enumerate(curve):
        want = 0.0
        for name, weight in config.align.losses:
            first, last = weight if isinstance(weight, tuple) else (weight, weight)
            want += (first + (last - first) * i / 2) * line.get(name, 0)
        assert line["loss"] == pytest.approx(want, rel=1e-5)


def test_alignment_brings_the_student_to_the_teacher(tmp_path):
    config = config_with(steps=40, batch_size=32, lr=1e-3, losses=(("mse", 1.0),))
    run = make_run(tmp_path, config)
    with few_scenes():
        train = run.open("miniature:train")
        spec, student = students.make_student(
            run, settings_of(run), teacher(), get_sensor("s1_grd")
        )
        before = jax.tree.map(np.copy, teacher().params)
        align.distil(
            run,
            settings_of(run),
            teacher(),
            {spec.modality: (spec, student)},
            [train],
            {},
        )
    jax.tree.map(np.testing.assert_array_equal, before, teacher().params)
    curve = [line["mse"] for line in losses_of(tmp_path)]
    assert np.mean(curve[-5:]) < 0.5 * np.mean(curve[:3])


def test_the_loss_is_between_features_of_the_same_crop_and_flip(tmp_path):
    """An RGB "student" equal to the teacher has no loss only if both see one view."""
    config = config_with(augment={"crop_pixels": 20, "rotate": True})
    run = make_run(tmp_path, config)
    variant, visual = teacher().variant, teacher().params["visual"]
    with few_scenes():
        source = run.open("miniature:train")
        sides = {"rgb": 32, "s2": 32}
        batch = next(batches_of(run, [source], sides))
    stretched = np.clip(batch["s2"][..., [3, 2, 1]] / 3558 * 255, 0, 255)
    seen = image_features(visual, np.rint(stretched).astype(np.uint8), variant)
    own = image_features(visual, batch["rgb"], variant)
    other = image_features(visual, batch["rgb"][:, ::-1], variant)
    near = float(np.mean((seen - own) ** 2))
    assert near < 0.1 * float(np.mean((seen - other) ** 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sensor": "thermal"}, r"config\.align\.sensor = 'thermal'.*rgb, s1, s2, ir"),
        ({"sensor": "rgb"}, r"config\.align\.sensor = 'rgb'"),
        ({"train": "miniature_natural:train"}, "miniature_natural holds rgb"),
        ({"normalize": "minmax"}, r"config\.align\.normalize = 'minmax'"),
        ({"student": "resnet"}, r"config\.align\.student = 'resnet'.*ssl4eo-moco"),
        ({"losses": (("l2", 1.0),)}, r"config\.align\.losses names \['l2'\]"),
        ({"losses": (("mse", 1.0), ("mse", 2.0))}, "at most once"),
        ({"losses": (("mse", 0.0),)}, r"losses = .* has no weight above 0"),
        ({"temperature": 0.0}, r"config\.align\.temperature = 0"),
        ({"train": "miniature"}, "not of the form name:split"),
    ],
)
def test_bad_settings_are_named(tmp_path, settings, message):
    config = config_with(**settings)
    with few_scenes(), pytest.raises(ValueError, match=message):
        align.check_align(make_run(tmp_path, config))


@pytest.mark.parametrize("told", ["file", "workdir", "variant", "name"])
def test_a_student_of_a_resnet_is_refused_before_anything_starts(
    tmp_path, monkeypatch, told
):
    """A teacher that this run pretrains, a file, an earlier run's and a name's."""
    resnet, file = get_variant("RN50"), FOLDER / "clip_rn_toy.safetensors"
    config = config_with(train="miniature:train")
    with config.unlocked():
        if told == "variant":
            config.variant = "RN50"
        else:
            config.update(stages=("align",), variant="", activation="quick_gelu")
            config.init = "RemoteCLIP-RN50" if told == "name" else str(file)
            config.heads = (1, 1)
    if told == "workdir":
        config.init = str(tmp_path / "earlier")
        meta = StageMeta(variant=dataclasses.asdict(resnet))
        checkpoint.save_product(tmp_path / "earlier" / "patch", {"a": np.ones(1)}, meta)
    if told == "name":
        found = pretrained.Found(file, None, {})
        monkeypatch.setattr(api, "find_pretrained", {config.init: found}.get)
    with few_scenes(), pytest.raises(ValueError, match=r"'clip': .* is a ResNet"):
        align.check_align(make_run(tmp_path / "w", config))
    config.align.student = "vit"
    with few_scenes():
        align.check_align(make_run(tmp_path / "w", config))


def test_what_lies_in_the_workdir_is_not_the_teacher_when_it_is_thrown_away(tmp_path):
    meta = StageMeta(variant=dataclasses.asdict(get_variant("RN50")))
    checkpoint.save_product(tmp_path / "patch", {"a": np.ones(1)}, meta)
    config = config_with(train="miniature:train")
    with config.unlocked():
        config.update(stages=("align",), init=str(FOLDER / "clip_toy_gelu.safetensors"))
        config.activation, config.variant, config.heads = "gelu", "", (2, 2)
    with few_scenes(), pytest.raises(ValueError, match=r"RN50 is a ResNet"):
        align.check_align(make_run(tmp_path, config))
    config.overwrite = True
    with few_scenes():
        align.check_align(make_run(tmp_path, config))


def moved_test(run, key, tmp_path, **changes):
    """A test set whose files hold a sensor otherwise, as if it had been opened."""
    row = get_sensor(run.open("miniature:test").dataset.sensors[key])
    held = write_sensor(tmp_path / "held.toml", row, **changes)
    run.opened["moved:test"] = Moved(run.open("miniature:test"), key, held)
    return run.opened["moved:test"]


def test_a_test_set_goes_to_the_student_by_the_names_of_its_bands(tmp_path, capsys):
    """VH before VV: the same embeddings and numbers as of the set itself."""
    config = config_with(student="vit", vit=SMALL, test=("moved:test",))
    with few_scenes():
        run = make_run(tmp_path, config)
        moved = moved_test(run, "s1", tmp_path, bands=("VH", "VV"))
        align.check_align(run)
        assert "bands are matched by name" in capsys.readouterr().out
        spec, student = students.make_student(
            run, settings_of(run), teacher(), get_sensor("s1_grd")
        )
        source, encoders = run.open("miniature:test"), {"s1": (spec, student)}
        z, _ = align.report(run, teacher(), encoders, [source], step=0)["s1"]
        again, _ = align.report(run, teacher(), encoders, [moved], step=0)["s1"]
    np.testing.assert_array_equal(z["s1"], again["s1"])


@pytest.mark.parametrize(
    ("key", "changes", "words"),
    [
        ("s1", {"bands": ("VH",)}, r"\('VV', 'VH'\) in dB, and .* \('VH',\) in dB"),
        ("s1", {"unit": "linear"}, r"in dB, and .* in linear"),
        ("s2", {"bands": get_sensor("s2_l2a").bands}, r"'B10', .*and .*'B09', 'B11'"),
    ],
)
def test_a_test_set_that_does_not_fit_is_refused_with_both_lists(
    tmp_path, key, changes, words
):
    config = config_with(student="vit", sensor=key, test=("moved:test",))
    with few_scenes():
        run = make_run(tmp_path, config)
        moved_test(run, key, tmp_path, **changes)
        with pytest.raises(ValueError, match=r"align\.test = 'moved:test': .*" + words):
            align.check_align(run)


@pytest.mark.parametrize(
    ("term", "message"),
    [("labels", "pairs of sentinel_pairs have none"), ("soft_labels", "classes_of")],
)
def test_unlabelled_pairs_ask_for_another_term(tmp_path, real_data, term, message):
    config = config_with(losses=((term, 1.0),), train="sentinel_pairs:train")
    with config.unlocked():
        config.data_root = str(real_data)
    run = make_run(tmp_path, config)
    with pytest.raises(ValueError, match=message):
        align.head_source(run, settings_of(run), [run.open("sentinel_pairs:train")])


@pytest.mark.slow
def test_the_picture_shows_what_could_be_read(tmp_path, monkeypatch, capsys):
    """With on_error = skip the embeddings are fewer than the records."""
    config = config_with(steps=1)
    with config.unlocked():
        config.data.on_error = "skip"
    shown = {}
    monkeypatch.setattr(
        align, "plot_retrieval_strip", lambda _, source, *z, sensor: shown.update(
            ids=source.ids, n=len(z[0])
        )
    )  # fmt: skip
    with few_scenes():
        run = make_run(tmp_path, config)
        (test,) = config.align.test
        source = run.open(test)
        whole, read = list(source.ids), type(source).__getitem__

        def spoiled(self, index):
            if index == 0 and self.split == source.split:
                raise ValueError("unreadable")
            return read(self, index)

        monkeypatch.setattr(type(source), "__getitem__", spoiled)
        monkeypatch.setattr(
            clip_init, "input_clip", lambda *_: (teacher(), {"path": "here"})
        )
        align.run_align(run)
    assert shown == {"ids": whole[1:], "n": len(whole) - 1}
    assert "unreadable" in capsys.readouterr().err
    listed = (tmp_path / "align" / "skipped.txt").read_text()
    assert listed == f"{source.dataset.name}:test\t{whole[0]}\tunreadable\n"
