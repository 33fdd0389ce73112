"""Two sensors in one alignment: what is made, read back, measured and refused."""

import dataclasses
import shutil
import sys

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

import rsclip_jax
from configs import align_sar, evaluate, export
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sources.wrappers import Wrapper
from rsclip_jax.main import run_stages
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.records.results import read_results
from rsclip_jax.stages.align import stage as align
from rsclip_jax.stages.align import students
from rsclip_jax.stages.align.settings import AlignSettings, settings_of
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import load_encoder
from tests.helpers.align import SMALL, config_with, losses_of, make_student, teacher
from tests.helpers.moved import Moved, write_sensor
from tests.helpers.runs import few_scenes, make_run, run_tiny
from tests.helpers.shares import assert_share


class Without(Wrapper):
    """A source that lacks a sensor."""

    def __init__(self, source, key):
        super().__init__(source)
        self.key = key
        sensors = {k: v for k, v in source.dataset.sensors.items() if k != key}
        self.dataset = dataclasses.replace(
            source.dataset, name=f"no_{key}", sensors=sensors
        )

    def read(self, index, keys):
        record = self.source[index]
        return {key: x for key, x in record.items() if key != self.key}


def config(**settings):
    told = {
        "sensor": ("s1", "s2"),
        "student": (("s1", "vit"), ("s2", "clip")),
        "normalize": (("s1", "zscore"), ("s2", "sensor")),
        "losses": (("mse", 1.0), ("info_nce", 0.5)),
        "train": ("miniature:train", "no_s1:train"),
        "vit": SMALL,
        "steps": 3,
    }
    return config_with(**{**told, **settings})


def open_run(workdir, settings):
    """A run on the miniature, on the miniature without S1, and a CLIP beside it."""
    if not checkpoint.has_product(workdir / "pretrain"):
        meta = StageMeta(variant=dataclasses.asdict(teacher().variant))
        checkpoint.save_product(workdir / "pretrain", teacher().params, meta)
    run = make_run(workdir, settings)
    for split in ("train", "test"):
        without = Without(run.open(f"miniature:{split}"), "s1")
        run.opened[f"no_s1:{split}"] = without
    return run


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """The workdir of an alignment of two sensors."""
    workdir = tmp_path_factory.mktemp("several") / "w"
    with few_scenes():
        run = open_run(workdir, config())
        align.check_align(run)
        align.run_align(run)
    return workdir


@pytest.mark.slow
def test_the_curve_has_each_sensor_and_term(aligned):
    curve = losses_of(aligned)
    assert len(curve) == 3
    for line in curve:
        each = [
            line[f"{key}/mse"] + 0.5 * line[f"{key}/info_nce"] for key in ("s1", "s2")
        ]
        assert line["loss"] == pytest.approx(np.mean(each), rel=1e-5)
    present = np.mean([line["s1/present"] for line in curve])
    assert 0.2 < present < 0.8
    assert {line["s2/present"] for line in curve} == {1.0}


@pytest.mark.slow
def test_what_was_made_loads_as_an_encoder_a_sensor(aligned):
    model = rsclip_jax.load(aligned)
    assert list(model.sensors) == ["s1", "s2"]
    stored, meta = checkpoint.load_product(aligned / "align")
    for key, (spec, params) in model.sensors.items():
        assert spec.modality == key
        jax.tree.map(np.testing.assert_array_equal, params, stored[key])
        assert model.digests[key] == checkpoint.params_digest(params)
        assert model.steps[key] == 3
    scale = meta.sources["scale_s1"]
    assert list(model.sensors["s1"].spec.mean) == scale["mean"]
    assert "scale_s2" not in meta.sources
    assert model.sensors["s1"].spec.width == SMALL["width"]
    assert model.sensors["s2"].spec.width == teacher().variant.vision_width
    assert sorted(p.name for p in (aligned / "align").glob("*.png")) == [
        "retrieval_s1.png",
        "retrieval_s2.png",
    ]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.slow
def test_the_numbers_are_numpys_also_of_the_fused(aligned, tmp_path):
    """Of the report, and of stage evaluate on that workdir."""
    settings = evaluate.get_config()
    settings.update(init=str(aligned), datasets=("miniature:test",), progress=False)
    settings.eval_batch_size = 16
    again = run_tiny(tmp_path / "w", settings.lock())
    model = rsclip_jax.load(aligned)
    with few_scenes():
        source = make_run(tmp_path, settings).open("miniature:test")
        records = [source[i] for i in range(len(source))]
    z = {"rgb": model.encode_image([r["rgb"] for r in records])}
    for key in ("s1", "s2"):
        z[key] = model.encode([r[key] for r in records], sensor=key)
    z["s1+s2"] = unit(z["s1"].astype(float) + z["s2"])
    head = model.zero_shot(source.dataset.classnames, source.dataset.templates)
    labels = [r["label"] for r in records]
    after = [r for r in read_results(aligned / "results.jsonl") if r.step == 3]
    for found in (after, again):
        value = {(r.sensor, r.metric): r for r in found}
        for key in ("s1", "s2", "s1+s2"):
            assert_share(value[key, "accuracy"].value, z[key] @ head, labels)
        for a, b in (("rgb", "s1+s2"), ("s1+s2", "rgb"), ("s1", "s2"), ("rgb", "s2")):
            got = value[f"{a}->{b}", "recall@10"].value
            assert_share(got, z[a] @ z[b].T, np.arange(len(z[a])), 10)
        assert ("s1", "s1+s2") not in value
        digests = model.digests["s1"], model.digests["s2"]
        assert value["s1+s2", "accuracy"].checkpoint == "+".join(digests)
        pair = value["rgb->s1+s2", "recall@1"].checkpoint
        assert pair == "+".join((model.digests["clip"], *digests))


@pytest.mark.slow
def test_it_goes_on_from_its_checkpoint(aligned, tmp_path):
    begun = tmp_path / "begun"
    shutil.copytree(aligned, begun)
    shutil.rmtree(begun / "align" / "params")
    with few_scenes():
        align.run_align(open_run(begun, config()))
    was, now = (checkpoint.load_meta(w / "align") for w in (aligned, begun))
    assert was.digests == now.digests
    assert was.sources["scale_s1"] == now.sources["scale_s1"]


@pytest.mark.slow
def test_an_export_holds_each_encoder(aligned, tmp_path):
    settings = export.get_config()
    settings.update(init=str(aligned), progress=False)
    run_stages(settings.lock(), tmp_path / "w")
    folder = tmp_path / "w" / "export"
    for key, (spec, params) in rsclip_jax.load(aligned).sensors.items():
        path = (
            folder / key if (folder / key).exists() else folder / f"{key}.safetensors"
        )
        found_spec, found = load_encoder(path)
        assert found_spec == spec
        jax.tree.map(np.testing.assert_array_equal, found, params)
    card = (folder / "README.md").read_text()
    assert "**Aligned** (s1)" in card
    assert "**Aligned** (s2)" in card
    assert "| s1+s2 | accuracy |" in card


@pytest.mark.slow
def test_one_sensor_in_a_tuple_is_that_sensor(tmp_path):
    """The same weights bit for bit, laid out the same."""
    made = []
    for name, sensor in (("a", "s1"), ("b", ("s1",))):
        one = {"sensor": sensor, "student": "vit", "train": "miniature:train"}
        settings = config(normalize="sensor", steps=2, **one)
        with few_scenes():
            run = open_run(tmp_path / name, settings)
            start = students.make_student(
                run, settings_of(run), teacher(), get_sensor("s1_grd")
            )
            train = [run.open("miniature:train")]
            trained = align.distil(
                run, settings_of(run), teacher(), {"s1": start}, train, {}
            )
        assert "mse" in losses_of(tmp_path / name)[0]
        digest = checkpoint.params_digest(students.pack(trained))
        made.append((digest, students.describe_students(trained)))
    assert made[0] == made[1]
    assert list(made[0][1]) == ["spec"]


ONE = {"student": "vit", "normalize": "sensor"}  # for whatever sensors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sensor": ("s1", "s1")}, r"config\.align\.sensor = \('s1', 's1'\): name"),
        ({"sensor": ()}, r"config\.align\.sensor = \(\): name a sensor"),
        ({"sensor": ("rgb", "s2"), **ONE}, "'rgb' and another sensor"),
        (
            {"sensor": ("s2", "thermal"), **ONE},
            "config.align.train has 'thermal': miniature:train holds rgb, s1",
        ),
        (
            {"train": "no_s1:train"},
            "no dataset of config.align.train has 's1': no_s1:train holds rgb, s2, ir",
        ),
        ({"student": (("s1", "vit"),)}, "give one for all, or one for each of s1"),
        ({"student": (("s1", "vit"), ("s3", "vit"))}, "one for each of s1, s2"),
        ({"normalize": (("s1", "zscore"), ("s2", "minmax"))}, "normalize = 'minmax'"),
        ({"student": (("s1", "vit"), ("s2", "resnet"))}, "student = 'resnet'"),
        ({"weights": (1.0,)}, r"config\.align\.weights = \(1\.0,\) has 1 numbers"),
        ({"weights": (1.0, 0.0)}, r"config\.align\.weights .* all be above 0"),
        ({"test": ("miniature_natural:test",)}, "miniature_natural holds rgb; align"),
        (
            {
                "train": ("miniature:train", "miniature_multi:train"),
                "losses": (("labels", 1.0),),
            },
            "miniature and miniature_multi of config.align.train have different cl",
        ),
    ],
)
def test_bad_settings_are_named(tmp_path, settings, message):
    with few_scenes(), pytest.raises(ValueError, match=message):
        align.check_align(open_run(tmp_path, config(**settings)))


def test_one_or_several_can_be_given_on_the_command_line(monkeypatch):
    given = [
        "main",
        "--config.align.sensor=('s1', 's2')",
        "--config.align.student=(('s1','vit'),('s2','clip'))",
        "--config.align.train=eurosat_ms:train[:90%]",
        "--config.align.normalize=zscore",
    ]
    monkeypatch.setattr(sys, "argv", given)  # where ml_collections looks for settings
    values, told = flags.FlagValues(), align_sar.get_config()
    config_flags.DEFINE_config_dict("config", told, flag_values=values)
    values(given)
    c = AlignSettings.of(values.config.align)
    assert c.sensors == ("s1", "s2")
    assert c.students == {"s1": "vit", "s2": "clip"}
    assert c.scales == {"s1": "zscore", "s2": "zscore"}
    assert c.train == ("eurosat_ms:train[:90%]",)


def test_a_further_training_set_needs_the_bands(tmp_path):
    row = get_sensor("s2_l1c")
    with few_scenes():
        run = open_run(tmp_path, config(train=("miniature:train", "moved:train")))
        held = write_sensor(tmp_path / "held.toml", row, bands=row.bands[:4])
        run.opened["moved:train"] = Moved(run.open("miniature:train"), "s2", held)
        with pytest.raises(ValueError, match=r"align\.train = 'moved:train': an enc"):
            align.check_align(run)


def test_a_test_without_a_sensor_is_measured_on_the_others(tmp_path):
    run_settings = config(test=("no_s1:test",))
    with few_scenes():
        run = open_run(tmp_path, run_settings)
        align.check_align(run)
        held = {
            key: get_sensor(name) for key, name in (("s1", "s1_grd"), ("s2", "s2_l1c"))
        }
        encoders = {k: make_student(run, s) for k, s in held.items()}
        tests = [run.open(f"{name}:test") for name in ("no_s1", "miniature")]
        found = align.report(run, teacher(), encoders, tests[:1], step=0)
        assert list(found) == ["s2"]
        assert list(found["s2"][0]) == ["rgb", "s2"]
        first = {
            k: seen
            for k, (_, seen) in align.report(
                make_run(tmp_path / "b", run_settings),
                teacher(),
                encoders,
                tests,
                step=0,
            ).items()
        }
    assert first == {"s1": tests[1], "s2": tests[0]}  # of which the pictures are
    found = read_results(run.results)
    gap = {r.sensor for r in found if r.task == "modality_gap"}
    assert gap == {"rgb->s2", "rgb->text", "s2->text", "rgb", "s2"}
    other = {r.sensor for r in found if r.task != "modality_gap"}
    assert other == {"s2", "rgb->s2", "s2->rgb", "text->rgb", "text->s2"}
