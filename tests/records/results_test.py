"""results.jsonl: the contract's fields, kills in mid-line, stages made again."""

import json

import numpy as np
import pytest

from rsclip_jax.records.results import FIELDS, append_results, read_results, start_stage


def record(**changes):
    fields = {
        "stage": "patch",
        "dataset": "Zürich–Łódź",
        "split": "test",
        "sensor": "rgb->s1",
        "task": "retrieval",
        "metric": "recall@1",
        "value": 0.1 + 0.2,
        "n": 7,
        "step": 0,
        "prompts": None,
        "checkpoint": "ab12",
        "split_digest": "cd34",
    }
    return {**fields, **changes}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "results.jsonl"


def test_round_trip_is_exact_and_in_order(path):
    records = [record(), record(alpha=0.3, per_class={"forest": 0.5, "lake": None})]
    append_results(path, records[:1])
    append_results(path, records[1:])
    assert read_results(path) == records
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == records  # one object a line


def test_no_file_is_no_results(path):
    assert read_results(path) == []


@pytest.mark.parametrize("field", FIELDS)
def test_a_record_without_a_field_is_refused_and_nothing_is_written(path, field):
    bad = record()
    del bad[field]
    with pytest.raises(ValueError, match=rf"lacks \['{field}'\]"):
        append_results(path, [record(), bad])
    assert read_results(path) == []


def test_every_missing_field_is_named(path):
    bad = record()
    del bad["metric"], bad["value"]
    with pytest.raises(ValueError, match=r"lacks \['metric', 'value'\]"):
        append_results(path, [bad])


def test_a_line_cut_off_anywhere_is_left_out(path):
    first, last = record(step=0), record(step=1)
    append_results(path, [first])
    whole = len(path.read_bytes())
    append_results(path, [last])
    content = path.read_bytes()
    for end in range(whole, len(content) - 1):
        path.write_bytes(content[:end])
        assert read_results(path) == [first]
    path.write_bytes(content[:-1])  # whole but for its line break
    assert read_results(path) == [first, last]


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "a\x85b", 'a"b\\', "\x1e"])
def test_no_name_breaks_its_line(path, name):
    records = [record(dataset=name), record()]
    append_results(path, records)
    assert read_results(path) == records


def test_start_stage_takes_out_its_stage_only(path):
    kept = [record(stage="pretrain"), record(stage="align"), record(stage="pat")]
    append_results(path, [kept[0], record(), kept[1], record(step=9), kept[2]])
    start_stage(path, "patch")
    assert read_results(path) == kept
    assert [p.name for p in path.parent.iterdir()] == ["results.jsonl"]
    again = record(value=1.0)
    append_results(path, [again])
    assert read_results(path) == [*kept, again]


def test_start_stage_clears_a_cut_off_line_for_what_follows(path):
    append_results(path, [record(stage="pretrain"), record()])
    path.write_bytes(path.read_bytes()[:-20])
    start_stage(path, "patch")
    append_results(path, [record(value=1.0)])
    assert read_results(path) == [record(stage="pretrain"), record(value=1.0)]


def test_start_stage_begins_a_new_file(path):
    start_stage(path, "patch")
    assert read_results(path) == []
    assert path.exists()


@pytest.mark.parametrize("changes", [{"value": float("nan")}, {"ci95": [0, np.inf]}])
def test_what_json_has_not_is_refused_and_nothing_is_written(path, changes):
    with pytest.raises(ValueError, match=r"a value that JSON has not.*recall@1"):
        append_results(path, [record(), record(**changes)])
    assert read_results(path) == []


def test_nan_in_an_older_file_is_no_value(path):
    path.parent.mkdir()
    path.write_text(json.dumps(record(stage="align", value=float("nan"))) + "\n")
    start_stage(path, "patch")
    assert read_results(path) == [record(stage="align", value=None)]
    assert "NaN" not in path.read_text()
