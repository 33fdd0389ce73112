"""The content of the sections, against other libraries and by hand."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from rsclip_jax.report.changes import Change
from rsclip_jax.report.sections.about import (
    headline_changes,
    headlines,
    overview,
    split_headlines,
)
from rsclip_jax.report.sections.choice import alpha_curves, sweep, swept_results
from rsclip_jax.report.sections.classes import (
    class_rows,
    confusion,
    confusion_counts,
    matrix_of,
    per_class,
)
from rsclip_jax.report.sections.embeddings import (
    map_points,
    mean_unpaired,
    pair_cosines,
)
from rsclip_jax.report.sections.results import forgetting
from rsclip_jax.report.workdir import read_workdir
from tests.helpers.pages import Page
from tests.helpers.workdirs import (
    lines,
    make_outcome,
    make_record,
    make_records,
    make_workdir,
    put,
)


def test_the_confusion_counts_are_scikit_learns():
    outcome = make_outcome("scenes", seed=3)
    predicted = outcome.logits("rgb").argmax(axis=1)
    wanted = confusion_matrix(outcome.labels, predicted, labels=range(3))
    assert 0 < np.trace(wanted) < len(outcome.ids)
    np.testing.assert_array_equal(confusion_counts(outcome, "rgb"), wanted)


def test_a_confusion_matrix_of_a_class_without_examples_is_shown():
    matrix = matrix_of(np.array([[1, 3], [0, 0]]), ("a", "b"))
    assert matrix["cells"][0] == [
        ("25", "25", "a as a: 1 of 4"),
        ("75", "75", "a as b: 3 of 4"),
    ]
    assert matrix["cells"][1] == [("", "0", "")] * 2
    assert matrix["worst"] == "a as b (3 of 4)"


def test_long_class_names_are_whole_in_the_confusion_matrix(tmp_path):
    name = "broad-leaved forest with a very long name"
    outcome = make_outcome("scenes")
    outcome = dataclasses.replace(outcome, classnames=("river", "forest", name))
    run = read_workdir(make_workdir(tmp_path), print)
    run = dataclasses.replace(run, outcomes={("align", "after"): [outcome]})
    page = Page(str(confusion(run).body))
    assert page.text_of("th").count(name) == page.text_of("span").count(name) == 1


def test_classes_are_sorted_by_their_gain_and_the_unknown_come_last():
    before = make_record(
        "patch", "a", 0, 0, per_class={"x": 0.5, "y": None, "z": 0.1, "w": None}
    )
    after = make_record(
        "patch", "a", 0, 1, per_class={"x": 0.4, "y": 0.2, "z": 0.3, "w": None}
    )
    rows = class_rows(
        Change("patch", "a:test", "rgb", "zero_shot", "accuracy", before, after)
    )
    assert [name for name, _, _ in rows] == ["z", "x", "y"]


def test_the_headlines_are_the_tests_and_the_sensors(tmp_path):
    run = read_workdir(make_workdir(tmp_path), print)
    found = [(c.stage, c.name, c.sensor, c.metric) for c in headline_changes(run)]
    assert found == [
        ("patch", "scenes:test", "rgb", "accuracy"),
        ("patch", "photos:test", "rgb", "accuracy"),
        ("align", "scenes:test", "s1", "accuracy"),
        ("align", "scenes:test", "rgb->s1", "recall@10"),
    ]
    bare = dataclasses.replace(run, records=run.records[-1:])
    assert headline_changes(bare) == []


def test_the_cards_are_few_with_three_sensors_and_the_rest_is_in_the_table():
    def change(stage, sensor, metric="accuracy", name="a:test"):
        task = "retrieval" if "@" in metric else "zero_shot"
        return Change(stage, name, sensor, task, metric)

    sensors = ("s1", "s2", "ir")
    changes = [change("patch", "rgb"), change("patch", "rgb", name="b:test")]
    changes += [
        change("align", s, name=n) for n in ("a:test", "c:test") for s in sensors
    ]
    pairs = itertools.permutations(("rgb", *sensors), 2)
    changes += [change("align", "->".join(pair), "recall@10") for pair in pairs]
    assert len(changes) == 20
    cards, rest = split_headlines(changes)
    assert [(c.stage, c.name, c.sensor) for c in cards] == [
        ("patch", "a:test", "rgb"),
        ("patch", "b:test", "rgb"),
        *(("align", "a:test", sensor) for sensor in sensors),
    ]
    assert sorted(map(id, [*cards, *rest])) == sorted(map(id, changes))
    # where nothing was classified, retrieval has the cards
    cards, _ = split_headlines(changes[8:])
    assert len(cards) == 6


def test_a_card_has_its_interval_its_n_and_chance(tmp_path):
    text = str(headlines(read_workdir(make_workdir(tmp_path), print)).body)
    card = text.split("<figure>")[1]
    assert "50.0 → 62.5 %" in card
    assert "95 % interval: 59.5 to 64.5 % (before: 47.0 to 52.0 %)" in card
    assert "n = 1,009; chance: 33.3 %" in card
    assert '<i class="line" style="left:33.33%">' in card
    assert text.index("supported dataset</dt>") < text.index("<figure>")


def test_chance_is_drawn_along_alpha(tmp_path):
    text = str(alpha_curves(read_workdir(make_workdir(tmp_path), print)).body)
    assert "chance 33.3 %: scenes:val, photos:val" in text
    assert "budget: least for photos:val" in text


def test_a_workdir_of_an_earlier_version_has_its_datasets_from_its_config(tmp_path):
    folder = make_workdir(tmp_path)
    meta = json.loads((folder / "patch/meta.json").read_text())
    new = read_workdir(folder, print)
    del meta["sets"], meta["budget"]
    patch = {"val": "scenes:val", "test": "scenes:test", "max_supported_drop": 0.1}
    patch |= {"supported_val": ["photos:val"], "supported_test": ["photos:test"]}
    put(folder / "patch/meta.json", json.dumps({**meta, "config": {"patch": patch}}))
    old = read_workdir(folder, print)
    assert old.sets("val", "supported_test") == ["scenes:val", "photos:test"]
    assert old.metas["patch"].sets == new.metas["patch"].sets
    assert old.budget == new.budget


def test_a_sweep_is_of_its_round_alone():
    records = [
        make_record("patch", "a", 0.5, 0, alpha=0.0, round=1),
        make_record("patch", "a", 0.7, 9, alpha=1.0, round=2),
        make_record("patch", "a", 0.6, 9, alpha=None),
        make_record("patch", "a", -0.1, 9, alpha=1.0, round=2, task="forgetting"),
    ]
    assert sweep(swept_results(records, 1)) == {"a:test": {0.0: 50}}
    assert sweep(swept_results(records, 2)) == {"a:test": {1.0: 70}}
    assert swept_results(records) == []


def test_the_texts_of_a_map_are_of_unit_norm():
    points = map_points(make_outcome("scenes", ("rgb", "s1")))
    assert list(points) == ["rgb", "s1", "text"]
    np.testing.assert_allclose(np.linalg.norm(points["text"], axis=1), 1, rtol=1e-6)


def test_pairs_are_of_the_same_location_and_others_never():
    a, b = np.eye(4), np.eye(4)
    same, other = pair_cosines(a, b)
    assert same.tolist() == [1] * 4
    assert other.tolist() == [0] * 4
    same, other = pair_cosines(a[:2], b[:2])
    assert (same.tolist(), other.tolist()) == ([1, 1], [0, 0])


def test_forgetting_has_the_paired_interval_of_its_record(tmp_path):
    more = {"task": "forgetting", "ci95": [-0.1, -0.05], "p_value": 0.001}
    tested = make_record("patch", "photos", -0.075, 9, **more)
    other = make_record("evaluate", "clouds", 0.02, 9, **more)
    run = read_workdir(make_workdir(tmp_path), print)
    section = forgetting(
        dataclasses.replace(run, records=[*run.records, tested, other])
    )
    lost, evaluated = section.body.split('<div class="table">')[1:]
    cells = re.findall("<td[^>]*>([^<]*)</td>", lost)
    wanted = (
        "photos:test accuracy 50.0_% 42.5_% -7.5_points -10.0_to_-5.0_points 0.0010"
    )
    assert cells == [word.replace("_", " ") for word in wanted.split()]
    assert "clouds:test" in evaluated
    assert "photos" not in evaluated


def test_the_report_warns_of_a_product_that_is_the_original(tmp_path):
    run = read_workdir(make_workdir(tmp_path), print)
    assert "Warning" not in overview(run).body
    meta = dataclasses.replace(run.metas["patch"], alpha_note="alpha 0 was chosen")
    run = dataclasses.replace(run, metas={**run.metas, "patch": meta})
    assert "Warning: alpha 0 was chosen." in overview(run).body


def test_a_supported_dataset_that_limits_nothing_is_not_shown_as_the_task(tmp_path):
    """It was at chance: meta.json does not list it among those that limit alpha."""
    run = read_workdir(make_workdir(tmp_path), print)
    sets = {**run.metas["patch"].sets, "supported_val": []}
    meta = dataclasses.replace(run.metas["patch"], sets=sets)
    run = dataclasses.replace(run, metas={**run.metas, "patch": meta})
    body = per_class(run).body
    assert "patch, supported dataset: photos:test" in body
    assert "photos:val" not in body


def test_the_largest_changes_are_shown(tmp_path):
    run = read_workdir(make_workdir(tmp_path), print)
    gains = {f"class {i}": i / 1000 for i in range(200)}
    ends = [
        make_record("align", "many", 0, step, per_class=classes)
        for step, classes in ((0, dict.fromkeys(gains, 0.0)), (9, gains))
    ]
    body = per_class(dataclasses.replace(run, records=ends)).body
    shown = re.findall(r"<span>class (\d+)</span>", body)
    assert shown == [str(i) for i in (*range(199, 169, -1), *range(29, -1, -1))]
    assert "140 classes between these are not shown" in body


def test_a_set_without_a_value_is_a_dash_on_the_page(tmp_path):
    folder, none = make_workdir(tmp_path), {"value": None, "ci95": [None, None]}
    rows = [
        dataclasses.replace(r, **none) if r.dataset == "photos" else r
        for r in make_records()
    ]
    photos = next(r for r in rows if r.dataset == "photos")
    rows.append(dataclasses.replace(photos, task="forgetting"))
    put(folder / "results.jsonl", lines([r.to_json() for r in rows]))
    run = read_workdir(folder, print)
    assert sweep(swept_results(run.records)).keys() == {"scenes:val", "scenes:test"}
    row = r'<td>photos:test</td><td>accuracy</td>(<td class="number">-</td>){3}'
    assert re.search(row, forgetting(run).body)
    assert "- → -" in headlines(run).body


def test_the_mean_of_two_locations_is_over_all_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 3)).astype(np.float32)
    pairs = [float(a[i] @ b[j]) for i in range(7) for j in range(7) if i != j]
    assert mean_unpaired(a, b) == pytest.approx(np.mean(pairs), abs=1e-6)
