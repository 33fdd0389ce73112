"""Stage evaluate on weight files and workdirs; what it refuses."""

import dataclasses
import hashlib
import os
import re

import numpy as np
import pytest

from rsclip_jax import api, metrics
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.models import inference
from rsclip_jax.records.outcomes import load_outcomes
from rsclip_jax.records.results import read_results
from rsclip_jax.stages.evaluate import encoders as encoders_of
from rsclip_jax.stages.evaluate import stage
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import save_clip
from tests.helpers.evaluate import config_of, evaluate_source, model_of, values_of
from tests.helpers.moved import Moved, write_sensor
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config
from tests.helpers.shares import assert_share

L2A = get_sensor("s2_l2a").bands
S2_WITHOUT_B8A = tuple(b for b in get_sensor("s2_l1c").bands if b != "B8A")


def test_a_weight_file_scores_as_its_workdir_does(tiny_run, tmp_path):
    model = api.load(tiny_run)
    path = tmp_path / "clip.safetensors"
    save_clip(path, model.variant, model.params)
    sets = ("miniature:test", "miniature_natural:test")
    from_file = run_tiny(tmp_path / "file", config_of(path, *sets))
    from_workdir = run_tiny(tmp_path / "workdir", config_of(tiny_run, *sets))
    rgb = [r for r in from_workdir if r.sensor in ("rgb", "rgb->text", "text->rgb")]
    assert [(r.value, r.checkpoint) for r in from_file] == [
        (r.value, r.checkpoint) for r in rgb
    ]
    found = {r.sensor for r in from_workdir if r.task != "modality_gap"}
    assert found == {"rgb", "s1", "rgb->s1", "s1->rgb", "text->rgb", "text->s1"}
    kept = checkpoint.load_meta(tmp_path / "file" / "evaluate").sources["clip"]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert kept == {
        "path": str(path),
        "files": {"clip.safetensors": sha256},
        "digest": model.digests["clip"],
    }


def test_the_numbers_are_those_of_the_public_functions(tiny_run, tmp_path):
    results = run_tiny(tmp_path / "w", config_of(tiny_run, "miniature_multi:val"))
    with few_scenes():
        config = tiny_config()
        source = make_run(tmp_path, config).open("miniature_multi:val")
        records = [source[i] for i in range(len(source))]
    model = api.load(tiny_run)
    zrgb = model.encode_image([r["rgb"] for r in records])
    zsar = model.encode([r["s1"] for r in records], sensor="s1")
    labels = np.stack([r["label"] for r in records])
    row = source.dataset
    head = model.zero_shot(row.classnames, row.templates)
    value = {(r.sensor, r.metric): r.value for r in results}
    # the embeddings are the public functions' but for rounding, which may change ranks
    (kept,) = load_outcomes(tmp_path / "w/evaluate/outcomes/after")
    np.testing.assert_allclose(kept.head, head, rtol=1e-5, atol=1e-4)
    for sensor, z in (("rgb", zrgb), ("s1", zsar)):
        np.testing.assert_allclose(kept.z[sensor], z, atol=1e-5)
        for average in ("macro", "micro"):
            want = metrics.mean_ap(kept.logits(sensor), labels, average)
            assert value[sensor, f"mAP_{average}"] == pytest.approx(want, abs=1e-6)
    want = metrics.recall_at_k(kept.z["s1"], kept.z["rgb"], 5)
    assert value["s1->rgb", "recall@5"] == pytest.approx(want, abs=1e-6)
    per_class = next(r for r in results if r.metric == "mAP_macro").per_class
    assert list(per_class) == list(row.classnames)


def test_it_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"config\.datasets is empty"):
        run_tiny(tmp_path / "a", config_of("x"))
    with pytest.raises(ValueError, match=r"set --config\.init to a weight file"):
        run_tiny(tmp_path / "b", config_of("", "miniature:val"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run_tiny(tmp_path / "c", config_of("nowhere", "miniature:val"))
    with pytest.raises(ValueError, match="did you mean 'miniature'"):
        run_tiny(tmp_path / "d", config_of("x", "minature:val"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="workdir of a run"):
        run_tiny(tmp_path / "e", config_of(tmp_path / "empty", "miniature:val"))


def test_a_sensor_of_other_bands_is_not_fed_to_the_encoder(
    tiny_run, tmp_path, real_data, capsys
):
    """s1 in dB and s1 as 8-bit VH share a record key; one encoder fits one of them."""
    config = config_of(tiny_run, "sentinel_pairs:val", data_root=str(real_data))
    with pytest.raises(ValueError, match=r"give no results.*no labels"):
        run_tiny(tmp_path / "w", config)
    said = capsys.readouterr().out
    assert "is skipped: an encoder of s1_grd takes the bands ('VV', 'VH')" in said
    assert "in dB, and s1_vh_8bit holds ('VH',) in 8-bit" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("s1_grd", ("VH", "VV")),
        ("s2_l1c", (*S2_WITHOUT_B8A, "B8A")),
        ("s2_l1c", ("B8A", *S2_WITHOUT_B8A, "SWIR3")),
    ],
)
def test_a_set_of_another_order_gives_the_same_numbers(tmp_path, name, bands):
    """VH before VV, B8A last as in EuroSAT, one band more: bands go by name."""
    row = get_sensor(name)
    held = write_sensor(tmp_path / "held.toml", row, bands=bands)
    model = model_of(row)
    with few_scenes():
        run = make_run(tmp_path, tiny_config())
        source = run.open("miniature:val")
        want = values_of(run, model, source)
        moved = Moved(source, row.modality, held)
        assert not np.array_equal(moved[0][row.modality], source[0][row.modality])
        assert values_of(run, model, moved) == want
    assert (row.modality, "accuracy") in want


@pytest.mark.parametrize(
    ("trained", "changes", "words"),
    [
        ("s2_l1c", {"bands": L2A}, r"'B10', .* in DN, and .* \('B01'.* in DN"),
        ("s1_grd", {"bands": ("VH",)}, r"\('VV', 'VH'\) in dB, and .* \('VH',\) in dB"),
        (
            "s2_l1c",
            {"unit": "reflectance", "dtype": "float32", "valid": (0, 3)},
            r"in DN, and .* in reflectance",
        ),
        ("s1_grd", {"unit": "linear"}, "in dB, and .* in linear"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_lists(
    tmp_path, capsys, trained, changes, words
):
    """L2A in an encoder of L1C, one polarisation, reflectance, linear power."""
    row = get_sensor(trained)
    held = write_sensor(tmp_path / "held.toml", row, **changes)
    model = model_of(row)
    with few_scenes():
        run = make_run(tmp_path, tiny_config())
        moved = Moved(run.open("miniature:val"), row.modality, held)
        found = values_of(run, model, moved)
        sensors = {sensor for sensor, _ in found}
        assert sensors == {"rgb", "rgb->text", "text->rgb"}
        assert re.search(words, capsys.readouterr().out)
        del moved.dataset.sensors["rgb"]
        with pytest.raises(ValueError, match=words):
            values_of(run, model, moved)


def test_a_set_that_the_model_cannot_encode_is_found_before_the_first_is_encoded(
    tmp_path, monkeypatch
):
    """And a sensor whose file is gone is left out, not the end of the evaluation."""
    model, config = model_of(get_sensor("s1_grd")), config_of("x", "miniature:val")
    with few_scenes():
        run = make_run(tmp_path, config)
        source = run.open("miniature:val")
        blind = Moved(source, "ir", "ir_bt")
        blind.dataset = dataclasses.replace(source.dataset, sensors={"ir": "ir_bt"})
        gone = Moved(source, "s1", str(tmp_path / "gone.toml"))
        with config.unlocked():
            config.datasets = ("miniature:val", "blind:val")
        run.opened["blind:val"] = blind
        monkeypatch.setattr(stage, "input_model", lambda run: model)
        with pytest.raises(ValueError, match=r"'blind:val': .* holds .*ir_bt"):
            stage.run_evaluate(run)
        assert not run.results.exists()
        encoders = encoders_of.make_encoders(run, model)
        assert set(encoders_of.feed_all(run, model, encoders, gone.dataset)) == {"rgb"}


def test_bands_go_to_an_encoder_by_name(tmp_path, capsys):
    """The miniature's 13 bands through an encoder of L2A's 12: all but B10."""
    l2a = get_sensor("s2_l2a")
    # in an order of its own, so that places would not do
    model = model_of(dataclasses.replace(l2a, bands=l2a.bands[::-1]))
    spec, params = model.sensors["s2"]
    with few_scenes():
        run = make_run(tmp_path, tiny_config())
        source = run.open("miniature:val")
        evaluate_source(run, model, source)
        records = [source[i] for i in range(len(source))]
    assert "bands are matched by name" in capsys.readouterr().out
    bands = get_sensor("s2_l1c").bands
    places = [bands.index(band) for band in spec.bands]
    x = np.stack([r["s2"][..., places] for r in records])
    z = np.asarray(inference.encode_sensor(params, x, spec=spec))
    head = model.zero_shot(source.dataset.classnames, source.dataset.templates)
    labels = np.array([r["label"] for r in records])
    (found,) = [
        r.value
        for r in read_results(run.results)
        if r.sensor == "s2" and r.metric == "accuracy"
    ]
    assert_share(found, z @ head, labels)


def test_a_killed_evaluation_is_not_done(tiny_run, tmp_path, monkeypatch):
    """What an earlier one left is no sign that this one ended."""
    file = tmp_path / "clip.safetensors"
    model = api.load(tiny_run)
    save_clip(file, model.variant, model.params)
    config = config_of(file, "miniature:val", "miniature:test")
    then = file.stat()
    whole = run_tiny(tmp_path / "w", config)
    os.utime(file, ns=(0, 0))  # changed, and back below
    real = stage.evaluate_source

    def killed(run, model, fed, source, *more):
        if source.split == "test":
            raise KeyboardInterrupt
        return real(run, model, fed, source, *more)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "evaluate_source", killed)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(tmp_path / "w", config)
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert run_tiny(tmp_path / "w", config) == whole


def test_weights_replaced_inside_a_folder_are_other_weights(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    file = folder / "model.safetensors"
    file.write_bytes(b"one")
    then = stage.model_digests(tmp_path / "w", str(folder))
    assert stage.model_digests(tmp_path / "w", str(folder)) == then
    file.write_bytes(b"other")  # which leaves the folder's own time of change
    assert stage.model_digests(tmp_path / "w", str(folder)) != then


def test_a_line_that_was_lost_is_measured_again(tiny_run, tmp_path, capsys):
    config = config_of(tiny_run, "miniature:val")
    whole = run_tiny(tmp_path / "w", config)
    file = tmp_path / "w" / "results.jsonl"
    text = file.read_text()
    file.write_text(text[: len(text) - 40])
    capsys.readouterr()
    assert run_tiny(tmp_path / "w", config) == whole
    assert "1 incomplete line(s)" in capsys.readouterr().out
    assert file.read_text() == text
