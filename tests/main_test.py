"""The four stages in a row: what they leave for the reader and for each other."""

import hashlib
import json

import jax
import numpy as np
import pytest

import rsclip_jax
from rsclip_jax.interpolate import interpolate
from rsclip_jax.main import run_stages
from rsclip_jax.records.results import FIELDS, read_results
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import save_clip
from tests.helpers.processes import toy_variant
from tests.helpers.runs import few_scenes, run_tiny, tiny_config


def of(results, **match):
    return [r for r in results if all(getattr(r, k) == v for k, v in match.items())]


@pytest.fixture(scope="module")
def results(tiny_run):
    return read_results(tiny_run / "results.jsonl")


def test_every_line_keeps_the_contract(results):
    tasks = {"zero_shot", "retrieval", "linear_probe", "knn", "modality_gap"}
    tasks.add("forgetting")
    for r in results:
        assert all(field in r.to_json() for field in FIELDS)
        least = -1 if r.task == "forgetting" else 0
        low, high = {
            "median_rank": (1, r.n),
            "centroid_distance": (0, 2),
            "alignment": (0, 4),
            "uniformity": (-8, 0),
            "cosine_paired": (-1, 1),
            "cosine_unpaired": (-1, 1),
        }.get(r.metric, (least, 1))
        assert low <= r.value <= high
        assert r.n > 0
        asked = "text" in r.sensor.split("->")
        with_text = asked or r.task in ("zero_shot", "forgetting")
        assert (r.prompts is not None) == with_text
    assert {r.task for r in results} == tasks
    assert {r.stage for r in results} == {"pretrain", "patch", "align", "evaluate"}


@pytest.mark.slow
def test_eight_devices_report_what_one_does(tmp_path):
    """The stages see the mesh; the values of trained towers may differ by rounding."""
    config = tiny_config(variant="toy")
    with toy_variant():
        on_one = run_tiny(tmp_path / "one", config)
        on_all = run_tiny(tmp_path / "all", config, with_all_devices=True)

    def lines(found):
        return [(r.stage, r.dataset, r.split, r.sensor, r.metric) for r in found]

    assert sorted(lines(on_all)) == sorted(lines(on_one))
    curves = [
        (folder / "pretrain" / "metrics.jsonl").read_text().splitlines()
        for folder in (tmp_path / "one", tmp_path / "all")
    ]
    one, eight = (json.loads(curve[0])["loss"] for curve in curves)
    assert one == pytest.approx(eight, rel=1e-5)  # before any step


def test_each_trained_stage_tells_before_and_after(results):
    for stage in ("pretrain", "align"):
        assert {r.step for r in of(results, stage=stage)} == {0, 6}
    for r in of(results, stage="patch"):
        assert r.step == (0 if r.alpha == 0 else 6)


def test_the_sweep_covers_task_and_supported_sets(results):
    for name in ("miniature", "miniature_natural"):
        key = {"stage": "patch", "dataset": name, "metric": "accuracy"}
        swept = of(results, **key, split="val")
        assert [r.alpha for r in swept] == [0.0, 0.5, 1.0]
        tested = of(results, **key, split="test", task="zero_shot")
        assert {0.0, 1.0} <= {r.alpha for r in tested}


def test_what_the_patch_forgot_is_the_difference_of_what_it_reported(results):
    (lost,) = of(results, stage="patch", task="forgetting")
    alpha = lost.alpha
    assert (lost.dataset, lost.split) == ("miniature_natural", "test")
    key = {"stage": "patch", "dataset": "miniature_natural", "split": "test"}
    key |= {"task": "zero_shot", "metric": "accuracy"}
    (before,) = of(results, alpha=0.0, **key)
    (after,) = of(results, alpha=alpha, **key)
    assert lost.value == pytest.approx(after.value - before.value)
    assert lost.before == before.value
    assert lost.checkpoint == after.checkpoint
    assert lost.reference == before.checkpoint
    for name, change in lost.per_class.items():
        ends = (r.per_class[name] for r in (after, before))
        assert change == pytest.approx(np.subtract(*ends), abs=2e-6)


def test_alpha_0_is_the_pretrained_clip_number_for_number(results):
    before = of(results, stage="pretrain", dataset="miniature", step=6)
    at_0 = of(results, stage="patch", dataset="miniature", split="test", alpha=0.0)
    assert before[0].value == at_0[0].value
    assert before[0].checkpoint == at_0[0].checkpoint
    assert before[0].split_digest == at_0[0].split_digest


def test_retrieval_goes_both_ways_and_zero_shot_comes_from_the_sensor(results):
    for step in (0, 6):
        aligned = of(results, stage="align", step=step)
        found = {r.sensor for r in aligned if r.task != "modality_gap"}
        assert found == {"s1", "rgb->s1", "s1->rgb", "text->rgb", "text->s1"}
        asked = {r.sensor for r in aligned if r.prompts}
        assert asked >= {"s1", "text->rgb", "text->s1"}


def test_the_gap_is_told_before_and_after_and_again(results):
    """By patch on every test set, by align and evaluate on theirs."""
    gap = of(results, task="modality_gap", metric="centroid_distance")
    patch = {(r.dataset, r.split, r.sensor, r.step) for r in gap if r.stage == "patch"}
    assert patch == {
        (name, "test", "rgb->text", step)
        for name in ("miniature", "miniature_natural")
        for step in (0, 6)
    }
    for step in (0, 6):
        aligned = of(gap, stage="align", step=step)
        pairs = ["rgb->s1", "rgb->text", "s1->text"]
        assert [r.sensor for r in aligned] == pairs
    for r in aligned:
        (again,) = of(gap, stage="evaluate", dataset="miniature", sensor=r.sensor)
        for key in ("value", "ci95", "n", "prompts", "checkpoint"):
            assert getattr(again, key) == getattr(r, key)


def test_evaluate_covers_both_label_kinds_and_both_encoders(results):
    found = {
        (r.dataset, r.sensor, r.metric)
        for r in of(results, stage="evaluate", task="zero_shot")
    }
    assert found == {
        (name, sensor, metric)
        for sensor in ("rgb", "s1")
        for name, metric in (
            ("miniature", "accuracy"),
            ("miniature", "accuracy@5"),
            ("miniature", "mean_recall"),
            ("miniature", "ece"),
            ("miniature_multi", "mAP_macro"),
            ("miniature_multi", "mAP_micro"),
            ("miniature_multi", "ece"),
        )
    }


def test_evaluate_repeats_what_align_reported(results):
    for sensor, metric, task in (
        ("s1", "accuracy", "zero_shot"),
        ("rgb->s1", "recall@5", "retrieval"),
    ):
        key = {"dataset": "miniature", "sensor": sensor, "metric": metric, "task": task}
        (aligned,) = of(results, stage="align", step=6, **key)
        (again,) = of(results, stage="evaluate", **key)
        assert aligned.value == again.value


def test_the_patched_clip_is_the_mixture_and_its_text_tower_the_old_one(tiny_run):
    before, _ = checkpoint.load_product(tiny_run / "pretrain")
    after, meta = checkpoint.load_product(tiny_run / "patch")
    tuned = last_params(tiny_run / "patch")
    jax.tree.map(np.testing.assert_array_equal, before["text"], after["text"])
    want = interpolate(before["visual"], tuned, meta.alpha)
    jax.tree.map(np.testing.assert_array_equal, want, after["visual"])
    assert meta.sources["theta_0"]["digest"] == checkpoint.params_digest(before)
    assert meta.sources["theta_1"]["digest"] == checkpoint.params_digest(tuned)


def last_params(stage_dir):
    return checkpoint.read_tree(checkpoint.last_checkpoint(stage_dir) / "params")


def test_products_say_where_they_come_from(tiny_run):
    patched, align = (
        json.loads((tiny_run / stage / "meta.json").read_text())
        for stage in ("patch", "align")
    )
    assert align["sources"]["teacher"]["digest"] == patched["digest"]
    assert align["config"]["align"]["sensor"] == "s1"
    assert align["spec"]["bands"] == ["VV", "VH"]


def test_a_run_ends_with_its_report(tiny_run):
    text = (tiny_run / "report.html").read_text(encoding="utf-8")
    for title in ("Choice of alpha", "Confusion", "Retrieval", "Modality gap"):
        assert f"<h2>{title}</h2>" in text
    assert text.count('<img src="data:image/png;base64,') > 30
    meta = checkpoint.load_meta(tiny_run / "patch")
    assert meta.finished in text
    assert meta.devices == "8 x cpu"


def test_checkpoints_hold_no_frozen_weights(tiny_run):
    step = tiny_run / "align" / "checkpoints" / "6"
    kept = {p.name for p in step.iterdir() if p.is_dir()}
    assert kept == {"params", "train", "data", "meta"}
    meta = json.loads((step / "meta" / "metadata").read_text())
    assert meta["stage"] == "align"
    assert meta["step"] == 6
    student, _ = checkpoint.load_product(tiny_run / "align")
    jax.tree.map(
        np.testing.assert_array_equal, last_params(tiny_run / "align"), student
    )


def test_training_curves_are_on_disk(tiny_run):
    for stage in ("pretrain", "patch", "align"):
        lines = (tiny_run / stage / "metrics.jsonl").read_text().splitlines()
        curve = [json.loads(line) for line in lines]
        assert [c["step"] for c in curve] == [1, 2, 3, 4, 5, 6]
        timed = {"examples_per_second", "input_wait"}
        assert {"loss", "grad_norm", "lr", *timed} <= curve[0].keys()
        assert curve[0]["lr"] == 0
        assert max(c["lr"] for c in curve) == pytest.approx(
            tiny_config()[stage].lr, rel=0.1
        )


def test_pictures_and_table_are_there(tiny_run):
    for name in ("patch/alpha_curve.png", "align/retrieval.png"):
        assert (tiny_run / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "mAP_macro" in (tiny_run / "evaluate" / "table.txt").read_text()


def test_a_finished_run_is_not_run_again(tiny_run, capsys):
    stamps = {p: p.stat().st_mtime_ns for p in (tiny_run / "align").rglob("*")}
    before = read_results(tiny_run / "results.jsonl")
    with few_scenes():
        run_stages(tiny_config(), tiny_run)
    said = capsys.readouterr().out
    assert said.count("already done, skipped") == 4
    assert "recall@10" in said  # the closing table all the same
    assert read_results(tiny_run / "results.jsonl") == before
    assert {p: p.stat().st_mtime_ns for p in (tiny_run / "align").rglob("*")} == stamps


@pytest.mark.slow
def test_another_process_goes_on_where_a_stage_was_done(tiny_run, tmp_path):
    """config.init = a workdir serves the stages that this workdir does not have."""
    config = tiny_config(stages=("align",))
    with config.unlocked():
        config.init = str(tiny_run)
    results = run_tiny(tmp_path / "align", config)
    teacher = checkpoint.load_meta(tiny_run / "patch").digest
    meta = checkpoint.load_meta(tmp_path / "align" / "align")
    assert meta.sources["teacher"] == {"path": str(tiny_run), "digest": teacher}
    first = read_results(tiny_run / "results.jsonl")
    assert of(results, stage="align") == of(first, stage="align")
    model = rsclip_jax.load(tmp_path / "align")
    assert model.digests["clip"] == teacher


@pytest.mark.slow
def test_a_named_clip_is_kept_with_its_files_and_found_again(
    tiny_run, tmp_path, monkeypatch
):
    """config.init = the name of hand-placed weights, for align and then for load."""
    monkeypatch.setenv("RSCLIP_WEIGHTS", str(tmp_path / "placed"))
    patched = rsclip_jax.load(tiny_run)
    file = tmp_path / "placed" / "me--mini" / "mini.safetensors"
    save_clip(file, patched.variant, patched.params)
    config = tiny_config(("align",))
    with config.unlocked():
        config.init = "hf:me/mini/mini.safetensors"
    run_tiny(tmp_path / "run", config)
    meta = checkpoint.load_meta(tmp_path / "run" / "align")
    assert meta.sources["teacher"] == {
        "name": "hf:me/mini/mini.safetensors",
        "path": str(file),
        "files": {"mini.safetensors": hashlib.sha256(file.read_bytes()).hexdigest()},
        "digest": patched.digests["clip"],
    }
    model = rsclip_jax.load(tmp_path / "run")
    assert set(model.sensors) == {"s1"}
    assert model.digests["clip"] == patched.digests["clip"]


def test_evaluate_finds_the_numbers_of_training_again_bit_for_bit(results):
    def what(r):
        keys = ("dataset", "split", "sensor", "task", "metric", "prompts", "checkpoint")
        return tuple(getattr(r, key) for key in (*keys, "split_digest"))

    again = {what(r): r for r in results if r.stage == "evaluate"}
    found = [r for r in results if r.stage != "evaluate" and what(r) in again]
    assert {"patch", "align"} <= {r.stage for r in found}
    for r in found:
        assert r.value == again[what(r)].value
        assert r.ci95 == again[what(r)].ci95
