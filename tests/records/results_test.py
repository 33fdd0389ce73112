"""results.jsonl: the contract's fields, kills in mid-line, stages made again."""

import json

import numpy as np
import pytest

from rsclip_jax.records.results import (
    FIELDS,
    Result,
    append_results,
    count_cut,
    read_results,
    start_stage,
)


def record(**changes):
    fields = {
        "stage": "patch",
        "prompts": None,
        "dataset": "Zürich–Łódź",
        "split": "test",
        "split_digest": "cd34",
        "sensor": "rgb->s1",
        "task": "retrieval",
        "n": 7,
        "metric": "recall@1",
        "value": 0.1 + 0.2,
        "step": 0,
        "checkpoint": "ab12",
    }
    return {**fields, **changes}


def result(**changes):
    return Result(**record(**changes))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "results.jsonl"


def test_round_trip_is_exact_and_in_order(path):
    results = [result(), result(alpha=0.3, per_class={"forest": 0.5, "lake": None})]
    append_results(path, results[:1])
    append_results(path, results[1:])
    assert read_results(path) == results
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [  # one object a line
        record(alpha=None),
        record(alpha=0.3, per_class={"forest": 0.5, "lake": None}),
    ]


@pytest.mark.parametrize("given", [False, True])
def test_optional_fields_are_absent_where_they_do_not_apply(path, given):
    more = {"tile": 64, "prompt_set": "dataset", "seconds": 1.5} if given else {}
    append_results(path, [result(stage="align", **more)])
    (line,) = path.read_text().splitlines()
    assert json.loads(line) == record(stage="align", **more)


ORDERS = [
    (
        {"stage": "evaluate", "task": "zero_shot", "ci95": [0, 1], "per_class": {}}
        | {"metric": "accuracy", "prompt_set": "dataset"},
        "stage prompts dataset split split_digest sensor task n metric value ci95"
        " per_class prompt_set step checkpoint",
    ),
    (
        {"metric": "median_rank", "ci95": [1, 2], "alpha": 0.5},
        "stage prompts dataset split split_digest sensor task n value metric ci95"
        " alpha step checkpoint",
    ),
    (
        {"stage": "evaluate", "task": "knn", "metric": "accuracy", "ci95": [0, 1]}
        | {"k": 5, "train": "d:train", "train_digest": "e", "tile": 64},
        "stage prompts dataset split split_digest tile sensor task metric value ci95 n"
        " k train train_digest step checkpoint",
    ),
    (
        {"task": "forgetting", "metric": "accuracy", "ci95": [0, 1], "reference": "f"},
        "stage dataset split split_digest prompts step checkpoint reference task sensor"
        " metric ci95 p_value n value before alpha",
    ),
]


@pytest.mark.parametrize(
    ("more", "keys"), ORDERS, ids=["shares", "rank", "knn", "lost"]
)
def test_keys_come_in_the_order_of_earlier_versions(path, more, keys):
    append_results(path, [result(**more)])
    assert list(json.loads(path.read_text())) == keys.split()


def test_no_file_is_no_results(path):
    assert read_results(path) == []
    assert count_cut(path) == 0


@pytest.mark.parametrize("field", FIELDS)
def test_a_line_without_a_field_is_refused_by_name(path, field):
    bad = record()
    del bad[field]
    path.parent.mkdir()
    path.write_text(json.dumps(record()) + "\n" + json.dumps(bad) + "\n")
    with pytest.raises(
        ValueError, match=rf"results\.jsonl, line 2: .*lacks \['{field}'\]"
    ):
        read_results(path)


def test_every_missing_field_is_named():
    bad = record()
    del bad["metric"], bad["value"]
    with pytest.raises(ValueError, match=r"lacks \['metric', 'value'\]"):
        Result.from_json(bad)


def test_keys_of_another_version_are_kept(path):
    values = record(stage="align", kappa=0.5)
    path.parent.mkdir()
    path.write_text(json.dumps(values) + "\n")
    (found,) = read_results(path)
    assert found.more == {"kappa": 0.5}
    assert found.to_json() == values


def test_a_line_cut_off_anywhere_is_left_out(path):
    first, last = result(step=0), result(step=1)
    append_results(path, [first])
    whole = len(path.read_bytes())
    append_results(path, [last])
    content = path.read_bytes()
    for end in range(whole, len(content) - 1):
        path.write_bytes(content[:end])
        assert read_results(path) == [first]
        assert count_cut(path) == (end > whole)
    path.write_bytes(content[:-1])  # whole but for its line break
    assert read_results(path) == [first, last]


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "a\x85b", 'a"b\\', "\x1e"])
def test_no_name_breaks_its_line(path, name):
    results = [result(dataset=name), result()]
    append_results(path, results)
    assert read_results(path) == results


def test_start_stage_removes_its_stage_only_and_no_other_byte(path):
    kept = [result(stage="pretrain"), result(stage="align"), result(stage="pat")]
    odd = '{"stage": "align",  "old": 1}\n'  # another version's, spaced otherwise
    append_results(path, [kept[0], result(), kept[1], result(step=9), kept[2]])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([odd, *lines]))
    start_stage(path, "patch")
    assert path.read_text() == "".join([odd, *lines[::2]])
    assert [p.name for p in path.parent.iterdir()] == ["results.jsonl"]


def test_start_stage_clears_a_cut_off_line_for_what_follows(path):
    append_results(path, [result(stage="pretrain"), result()])
    path.write_bytes(path.read_bytes()[:-20])
    start_stage(path, "patch")
    append_results(path, [result(value=1.0)])
    assert read_results(path) == [result(stage="pretrain"), result(value=1.0)]


def test_start_stage_begins_a_new_file(path):
    start_stage(path, "patch")
    assert read_results(path) == []
    assert path.exists()


@pytest.mark.parametrize("changes", [{"value": float("nan")}, {"ci95": [0, np.inf]}])
def test_what_json_lacks_is_refused_and_nothing_is_written(path, changes):
    with pytest.raises(
        ValueError, match=r"a value that JSON cannot represent.*recall@1"
    ):
        append_results(path, [result(), result(**changes)])
    assert read_results(path) == []


def test_nan_in_an_older_file_is_no_value(path):
    path.parent.mkdir()
    path.write_text(json.dumps(record(stage="align", value=float("nan"))) + "\n")
    start_stage(path, "patch")
    assert read_results(path) == [result(stage="align", value=None)]
