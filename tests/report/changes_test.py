"""What stands as before and after, by hand."""

import pytest

from rsclip_jax.report.changes import (
    find_changes,
    in_words,
    interval_in_words,
    value_in_words,
)
from tests.helpers.workdirs import make_record, make_records


def values(change):
    ends = change.before, change.after, change.full
    return [end and end.value for end in ends]


def test_of_a_sweep_the_chosen_alpha_is_after():
    changes = {
        (c.stage, c.name, c.metric): c for c in find_changes(make_records(), 0.5)
    }
    assert values(changes["patch", "scenes:test", "accuracy"]) == [0.5, 0.625, 1.0]
    found = values(changes["patch", "photos:val", "accuracy"])
    assert found == pytest.approx([0.5, 0.425, 0.2])
    assert values(changes["align", "scenes:test", "accuracy"]) == [0.1, 0.6, None]
    assert values(changes["evaluate", "scenes:test", "median_rank"])[:2] == [None, 12.5]


@pytest.mark.parametrize("turn", [1, -1])
def test_an_alpha_a_block_is_what_came_out(turn):
    blocks = {"alpha": None, "alpha_blocks": {"stem": 0.2}}
    records = [
        make_record("patch", "scenes", 0.5, 0, alpha=0.0),
        make_record("patch", "scenes", 0.6, 9, alpha=0.5),
        make_record("patch", "scenes", 0.7, 9, **blocks),
    ]
    (change,) = find_changes(records[::turn], 0.5)
    assert values(change) == [0.5, 0.7, None]


def test_tiles_of_two_sizes_are_two_sets():
    records = [make_record("align", "scenes", 0.5, 7, tile=t) for t in (64, 128)]
    names = [change.name for change in find_changes(records, None)]
    assert names == ["scenes:test:64", "scenes:test:128"]


@pytest.mark.parametrize(
    ("value", "metric", "said"),
    [
        (0.658, "accuracy", "65.8 %"),
        (1, "recall@10", "100.0 %"),
        (0.07, "ece", "7.0 %"),
        (0.7, "separability", "0.7"),
        (0.5, "median_rank", "0.5"),
        (12.5, "median_rank", "12.5"),
        (0.81234, "cosine_paired", "0.8123"),
        (float("nan"), "mAP_macro", "–"),
        (None, "accuracy", "–"),
    ],
)
def test_a_share_is_said_in_percent(value, metric, said):
    assert in_words(value, metric) == said


def test_a_change_is_said_in_points():
    more = {"task": "forgetting", "ci95": [-0.1, 0.004]}
    record = make_record("patch", "photos", -0.0751, 9, **more)
    assert value_in_words(record) == "−7.5"
    assert interval_in_words(record) == "−10.0 to +0.4"


def test_prompt_sets_are_told_apart():
    records = [
        make_record("evaluate", "scenes", 0.5, 7, prompt_set="dataset"),
        make_record("evaluate", "scenes", 0.6, 7, prompt_set="imagenet80"),
    ]
    names = [change.metric for change in find_changes(records, None)]
    assert names == ["accuracy", "accuracy (imagenet80)"]


def test_an_interval_has_its_unit_once():
    assert interval_in_words(make_record("a", "b", 0.65, 0)) == "62.0 to 67.0 %"
    assert interval_in_words(make_record("a", "b", 0.65, 0, ci95=None)) == ""


def test_what_has_no_value_has_no_interval():
    record = make_record("a", "b", None, 0, ci95=[None, None])
    assert (value_in_words(record), interval_in_words(record)) == ("–", "")
