"""Stage compare on workdirs written here with known answers, and on a whole run."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import compare
from rsclip_jax.evals import search
from rsclip_jax.main import run_stages
from rsclip_jax.metrics import top_k_accuracy
from rsclip_jax.records.outcomes import save_outcome
from rsclip_jax.records.results import append_results, read_results
from rsclip_jax.stats.paired_tests import compare_shares, holm
from tests.helpers.outcomes import make_outcome
from tests.helpers.results import make_result


def record(value, stage="align", **fields):
    base = {"sensor": "s1", "n": 60, "step": 5}
    return make_result(**{**base, **fields}, value=value, stage=stage)


def write_run(folder: Path, outcomes=(), results=(), stages=("align",), **config):
    """A finished workdir of these stages."""
    folder.mkdir(parents=True)
    settings = {"stages": stages, "seed": 0, "align": {"lr": 0.1}, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    for stage in stages:
        (folder / stage / "params").mkdir(parents=True)
        (folder / stage / "meta.json").write_text(json.dumps({"digest": "c"}))
    for outcome in outcomes:
        stage = outcome.pins["stage"]
        save_outcome(folder / stage / "outcomes" / "after", outcome)
    append_results(folder / "results.jsonl", results)
    return folder


def outcome(seed, noise, stage="align", dataset="d", task="single", **pins):
    made = make_outcome(seed, task, noise)
    own = {"stage": stage, "dataset": dataset, "checkpoint": {}, **pins}
    return make_outcome(seed, task, noise, pins={**made.pins, **own})


def compare_workdirs(workdir, *runs):
    config = compare.get_config()
    config.update(runs=tuple(map(str, runs)), progress=False)
    run_stages(config.lock(), workdir)
    lines = (workdir / "compare" / "comparison.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def one(records, **match):
    (found,) = (r for r in records if all(r[k] == v for k, v in match.items()))
    return found


def test_the_search_is_over_the_run_s_devices(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_SMALL", 0)
    used = []
    tiles = search._Tiles.of
    monkeypatch.setattr(search._Tiles, "of", lambda *z: used.append(z[2]) or tiles(*z))
    runs = [
        write_run(tmp_path / name, [outcome(i, 1.0)]) for i, name in enumerate("ab")
    ]
    compare_workdirs(tmp_path / "w", *runs)
    # of both runs each pair of sensors, by place and by label
    assert [mesh.size for mesh in used] == [jax.device_count()] * 8


def test_differences_are_those_of_the_examples(tmp_path, capsys):
    first, second = outcome(0, 1.4), outcome(1, 0.3)
    a = write_run(tmp_path / "a", [first])
    b = write_run(tmp_path / "b", [second], align={"lr": 0.2})
    records = compare_workdirs(tmp_path / "w", a, b)
    found = one(records, sensor="s1", metric="accuracy")
    hits = [np.argmax(x.logits("s1"), axis=1) == x.labels for x in (first, second)]
    want = compare_shares(*hits)
    assert found["a"] == top_k_accuracy(first.logits("s1"), first.labels)
    assert found["difference"] == pytest.approx(want.difference)
    assert found["ci95"] == [round(end, 6) for end in want.ci95]
    assert found["p_value"] == pytest.approx(want.p_value, abs=1e-6)
    assert (found["run_a"], found["run_b"], found["n"]) == (str(a), str(b), 60)
    adjusted = holm([r["p_value"] for r in records])
    assert [r["p_holm"] for r in records] == pytest.approx(adjusted, abs=1e-6)
    assert {r["sensor"] for r in records} == {"rgb", "s1", "rgb->s1", "s1->rgb"}
    table = (tmp_path / "w" / "compare" / "table.txt").read_text()
    assert table in capsys.readouterr().out
    assert re.search(r"s1 +accuracy .* \+\d+\.\d \* +[+-]\d+\.\d to ", table)
    page = (tmp_path / "w" / "compare" / "compare.html").read_text()
    assert "<td>align.lr</td><td>0.1</td><td>0.2</td>" in page


def test_the_latest_stage_s_outcome_counts(tmp_path):
    old, new = outcome(0, 1.0, "align"), outcome(1, 0.2, "evaluate")
    a = write_run(tmp_path / "a", [old, new], stages=("align", "evaluate"))
    b = write_run(tmp_path / "b", [outcome(2, 0.7)])
    found = one(compare_workdirs(tmp_path / "w", a, b), sensor="rgb", metric="accuracy")
    assert (found["stage_a"], found["stage_b"]) == ("evaluate", "align")
    assert found["a"] == top_k_accuracy(new.logits("rgb"), new.labels)


def test_numbers_without_embeddings_stand_side_by_side_untested(tmp_path):
    probe = {"task": "knn", "sensor": "rgb", "metric": "accuracy"}
    a = write_run(
        tmp_path / "a",
        [outcome(0, 1.0)],
        [record(0.1, step=0), record(0.4), record(0.5, **probe)],
    )
    b = write_run(tmp_path / "b", [], [record(0.7), record(0.4, **probe)])
    records = compare_workdirs(tmp_path / "w", a, b)
    assert len(records) == 2  # b kept nothing
    found = one(records, task="zero_shot")
    assert (found["a"], found["b"]) == (0.4, 0.7)
    assert found["difference"] == pytest.approx(0.3)
    assert found["ci95"] is found["p_value"] is found["p_holm"] is None
    assert one(records, task="knn")["difference"] == pytest.approx(-0.1)
    table = (tmp_path / "w" / "compare" / "table.txt").read_text()
    assert table.count("not tested") == 3  # two rows, and what it means


def test_what_both_have_alike_is_no_test(tmp_path):
    first, second = outcome(0, 1.4), outcome(1, 0.3)
    second = dataclasses.replace(second, z={**second.z, "rgb": first.z["rgb"]})
    runs = [
        write_run(tmp_path / name, [one]) for name, one in (("a", first), ("b", second))
    ]
    records = compare_workdirs(tmp_path / "w", *runs)
    alike = [r for r in records if r.get("same")]
    assert {r["sensor"] for r in alike} == {"rgb"}
    assert {(r["difference"], r["p_value"]) for r in alike} == {(0.0, None)}
    least = min(r["p_value"] for r in records if r["p_value"] is not None)
    tests = len(records) - len(alike)
    assert min(r["p_holm"] for r in records if r["p_holm"]) == pytest.approx(
        tests * least, abs=1e-5
    )
    assert "same: both runs" in (tmp_path / "w" / "compare" / "table.txt").read_text()


def test_prompt_sets_and_shots_are_told_apart(tmp_path):
    runs = []
    for name, shift in (("a", 0.0), ("b", 0.1)):
        results = [
            record(0.5, stage="evaluate", prompt_set="dataset"),
            record(0.1 + shift, stage="evaluate", prompt_set="single", prompts="s"),
            record(0.2 + shift, stage="evaluate", task="linear_probe", shots=1),
            record(0.4 + shift, stage="evaluate", task="linear_probe", shots=2),
        ]
        kept = [outcome(len(runs), 1.0, "evaluate")]
        runs.append(write_run(tmp_path / name, kept, results, ("evaluate",)))
    records = compare_workdirs(tmp_path / "w", *runs)
    tested = [r for r in records if r["p_value"] is not None]
    assert one(tested, sensor="s1", metric="accuracy")["a"] != 0.5  # the outcome's
    untested = [(r["a"], r["b"]) for r in records if r["p_value"] is None]
    assert untested == [(0.1, 0.2), (0.2, pytest.approx(0.3)), (0.4, 0.5)]
    table = (tmp_path / "w" / "compare" / "table.txt").read_text()
    assert "accuracy (single)" in table
    assert "accuracy, 2 a class" in table


def test_of_a_patch_the_product_on_its_test_sets_is_compared(tmp_path):
    patch = {"val": "d:val", "test": "d:test", "supported_test": []}
    found = []
    for name, value in (("a", 0.3), ("b", 0.6)):
        results = [
            record(0.1, "patch", alpha=0.0, checkpoint="0", step=0, sensor="rgb"),
            record(value, "patch", alpha=0.5, sensor="rgb"),
            record(0.9, "patch", alpha=1.0, checkpoint="1", sensor="rgb"),
            record(0.2, "patch", alpha=0.5, sensor="rgb", split="val"),
        ]
        found.append(write_run(tmp_path / name, [], results, ("patch",), patch=patch))
    (only,) = compare_workdirs(tmp_path / "w", *found)
    assert (only["split"], only["a"], only["b"]) == ("test", 0.3, 0.6)


def test_several_runs_are_each_compared_with_the_first(tmp_path):
    runs = [
        write_run(tmp_path / name, [outcome(i, 1.0)]) for i, name in enumerate("abc")
    ]
    records = compare_workdirs(tmp_path / "w", *runs)
    assert {(r["run_a"], r["run_b"]) for r in records} == {
        (str(runs[0]), str(other)) for other in runs[1:]
    }
    table = (tmp_path / "w" / "compare" / "table.txt").read_text()
    assert table.startswith("b is")
    # a comparison is made anew, also of other runs in the same workdir
    again = compare_workdirs(tmp_path / "w", *runs[1:])
    assert {r["run_a"] for r in again} == {str(runs[1])}


def test_what_ablate_made_of_a_combination_is_a_run(tmp_path):
    runs = [
        write_run(tmp_path / name, [outcome(i, 1.0)]) for i, name in enumerate("ab")
    ]
    for run, lr in zip(runs, (0.1, 0.5), strict=True):
        (run / "config.json").unlink()
        meta = {"digest": "c", "config": {"align": {"lr": lr}}}
        (run / "align" / "meta.json").write_text(json.dumps(meta))
    assert compare_workdirs(tmp_path / "w", *runs)
    page = (tmp_path / "w" / "compare" / "compare.html").read_text()
    assert "<td>align.lr</td><td>0.1</td><td>0.5</td>" in page


def refused(tmp_path, said, *runs):
    with pytest.raises(ValueError, match=said):
        compare_workdirs(tmp_path / "w", *runs)
    assert not (tmp_path / "w").exists()


def test_other_examples_are_refused(tmp_path):
    a = write_run(tmp_path / "a", [outcome(0, 1.0)], [record(0.5, sensor="x")])
    b = write_run(tmp_path / "b", [outcome(0, 1.0, split_digest="2")])
    refused(tmp_path, rf"d:test: split_digest is '1' in {a} and '2' in {b}", a, b)
    c = write_run(tmp_path / "c", [outcome(0, 1.0, split_digest="2", prompts="q")])
    refused(tmp_path, rf"d:test: split_digest is '1' in {a} and '2' in {c}", a, c)
    d = write_run(tmp_path / "d", [], [record(0.5, sensor="x", split_digest="3")])
    refused(tmp_path, rf"d:test: split_digest is '1' in {a} and '3' in {d}", a, d)


def test_prompts_are_of_no_account_between_sensors(tmp_path):
    a = write_run(tmp_path / "a", [outcome(0, 1.0, task="none", prompts=None)])
    b = write_run(tmp_path / "b", [outcome(1, 1.0, task="captions", prompts="x")])
    records = compare_workdirs(tmp_path / "w", a, b)
    assert {r["task"] for r in records} == {"retrieval"}


def test_of_other_prompts_what_needs_none_is_compared(tmp_path):
    """And their numbers with the prompts that both have stand side by side."""
    runs = []
    for name, main in (("a", "dataset"), ("b", "single")):
        results = [
            record(0.5 + 0.1 * len(runs), "evaluate", prompt_set=of, prompts=of)
            for of in ("dataset", "single")
            if name == "b" or of == main
        ]
        pins = {"prompts": main, "prompt_set": main}
        kept = [outcome(len(runs), 1.0, "evaluate", **pins)]
        runs.append(write_run(tmp_path / name, kept, results, ("evaluate",)))
    records = compare_workdirs(tmp_path / "w", *runs)
    tested = {r["sensor"] for r in records if r["p_value"] is not None}
    assert tested == {"rgb->s1", "s1->rgb"}
    found = one(records, task="zero_shot")
    assert (found["prompt_set"], found["a"], found["b"]) == ("dataset", 0.5, 0.6)
    said = f"d:test: tests of rgb, s1: prompts is 'dataset' in {runs[0]} and 'single'"
    for file in ("table.txt", "table.md"):
        text = (tmp_path / "w" / "compare" / file).read_text()
        assert f"left out: {said}" in text
    assert "left out: d:test" in (tmp_path / "w/compare/compare.html").read_text()


def test_of_other_prompts_where_all_needs_them_is_refused(tmp_path):
    whole = [outcome(0, 1.0, prompts=name) for name in "pq"]
    rgb = [dataclasses.replace(o, z={"rgb": o.z["rgb"]}) for o in whole]
    a, b = (write_run(tmp_path / o.pins["prompts"], [o]) for o in rgb)
    said = rf"no comparable result:\n  d:test: tests of rgb: prompts is 'p' in {a}"
    refused(tmp_path, said, a, b)


def test_probes_of_other_training_sets_are_told_apart(tmp_path):
    runs = [
        write_run(
            tmp_path / name,
            results=[
                record(v + more, "evaluate", task="knn", train=train)
                for train, more in (("d:train", 0.0), ("e:train", 0.2))
            ],
            stages=("evaluate",),
        )
        for name, v in (("a", 0.1), ("b", 0.4))
    ]
    records = compare_workdirs(tmp_path / "w", *runs)
    assert [(r["train"], r["a"], r["b"]) for r in records] == [
        ("d:train", 0.1, 0.4),
        ("e:train", pytest.approx(0.3), pytest.approx(0.6)),
    ]
    table = (tmp_path / "w" / "compare" / "table.txt").read_text()
    assert "accuracy, train d:train" in table
    assert "accuracy, train e:train" in table


@pytest.mark.parametrize(
    ("pin", "about"),
    [
        ("train_digest", {"task": "knn"}),
        ("k", {"task": "knn"}),
        ("val_digest", {"task": "linear_probe"}),
        ("reference", {"task": "forgetting"}),
    ],
)
def test_what_is_not_of_the_same_is_left_out_and_said(tmp_path, pin, about):
    alike = record(0.5, "evaluate")
    runs = [
        write_run(
            tmp_path / name,
            results=[record(0.5, "evaluate", **about, **{pin: name}), alike],
            stages=("evaluate",),
        )
        for name in "ab"
    ]
    (found,) = compare_workdirs(tmp_path / "w", *runs)
    assert found["task"] == "zero_shot"
    table = (tmp_path / "w" / "compare" / "table.txt").read_text()
    assert f"d:test: {about['task']} of s1: {pin} is 'a' in" in table


def test_runs_without_a_number_in_common_are_refused(tmp_path):
    """One record has no retrieval, and no labels here."""
    whole = outcome(0, 1.0, task="none")
    z = {sensor: each[:1] for sensor, each in whole.z.items()}
    alone = dataclasses.replace(whole, z=z, ids=whole.ids[:1])
    runs = [write_run(tmp_path / name, [alone]) for name in "ab"]
    with pytest.raises(ValueError, match=r"a and .*b have no number in common"):
        compare_workdirs(tmp_path / "w", *runs)


def test_what_cannot_be_compared_is_refused(tmp_path):
    a = write_run(tmp_path / "a", [outcome(0, 1.0)])
    other = write_run(tmp_path / "other", [outcome(0, 1.0, dataset="e")])
    said = rf"no dataset in common: {a} has d:test; .*other has e:test"
    refused(tmp_path, said, a, other)
    refused(tmp_path, r"config\.runs = \('.*a',\): name two workdirs or more", a)
    refused(tmp_path, "names one workdir twice", a, tmp_path / "other" / ".." / "a")
    refused(tmp_path, "nowhere, but there is no such folder", a, tmp_path / "nowhere")
    (tmp_path / "plain").mkdir()
    refused(tmp_path, "plain, which is not the workdir", a, tmp_path / "plain")
    cut = write_run(tmp_path / "cut", [outcome(0, 1.0)])
    (cut / "align" / "params").rmdir()
    refused(tmp_path, "cut, whose stage 'align' has not finished", a, cut)
    begun = write_run(tmp_path / "begun", [outcome(0, 1.0)])
    settings = json.loads((begun / "config.json").read_text())
    settings["stages"] = ["align", "evaluate"]
    (begun / "config.json").write_text(json.dumps(settings))
    refused(tmp_path, "begun, whose stage 'evaluate' has not finished", a, begun)
    broken = write_run(tmp_path / "broken", [outcome(0, 1.0)])
    (file,) = broken.glob("align/outcomes/after/*.npz")
    file.write_bytes(b"no")
    refused(tmp_path, r"^.*d-test\.npz: .*not a file of kept embeddings", a, broken)


@pytest.mark.slow
def test_a_whole_run_is_no_other_than_its_copy(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "copy")
    records = compare_workdirs(tmp_path / "w", tiny_run, tmp_path / "copy")
    assert {r["difference"] for r in records} == {0.0}
    assert {r["p_value"] for r in records} == {None}
    assert {r["same"] for r in records if r["metric"] == "accuracy@5"} == {True}
    named = ("dataset", "sensor", "task", "metric", "shots")
    values = {
        tuple(getattr(r, key) for key in named): r.value
        for r in read_results(tiny_run / "results.jsonl")
        if r.stage in ("evaluate", "align")
    }
    keys = [tuple(r.get(key) for key in named) for r in records]
    assert len(keys) == len(set(keys))
    for r, key in zip(records, keys, strict=True):
        if key in values:
            assert r["a"] == pytest.approx(values[key], abs=1e-6)
    assert set(keys) >= set(values)
    supported = {"dataset": "miniature_natural", "task": "zero_shot"}
    tested = [r for r in records if supported.items() <= r.items()]
    assert [r["stage_a"] for r in tested if r["metric"] == "accuracy"] == ["patch"]
