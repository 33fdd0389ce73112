"""Results before and after a stage, by hand."""

import pytest

from rsclip_jax.report.changes import find_changes, interval_of, text_of
from tests.helpers.workdirs import make_record, make_records


def values(change):
    ends = change.before, change.after, change.full
    return [end and end.value for end in ends]


def test_the_chosen_alpha_of_a_sweep_is_after():
    changes = {
        (c.stage, c.name, c.metric): c for c in find_changes(make_records(), 0.5)
    }
    assert values(changes["patch", "scenes:test", "accuracy"]) == [0.5, 0.625, 1.0]
    found = values(changes["patch", "photos:val", "accuracy"])
    assert found == pytest.approx([0.5, 0.425, 0.2])
    assert values(changes["align", "scenes:test", "accuracy"]) == [0.1, 0.6, None]
    assert values(changes["evaluate", "scenes:test", "median_rank"])[:2] == [None, 12.5]


@pytest.mark.parametrize("turn", [1, -1])
def test_a_product_with_an_alpha_for_each_block_is_after(turn):
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


def test_prompt_sets_are_told_apart():
    records = [
        make_record("evaluate", "scenes", 0.5, 7, prompt_set="dataset"),
        make_record("evaluate", "scenes", 0.6, 7, prompt_set="imagenet80"),
    ]
    names = [change.metric for change in find_changes(records, None)]
    assert names == ["accuracy", "accuracy (imagenet80)"]


def test_a_result_is_worded_by_its_metric_and_task():
    lost = make_record("patch", "photos", -0.0751, 9, task="forgetting", ci95=[-0.1, 0])
    assert (text_of(lost), interval_of(lost)) == ("-7.5 points", "-10.0 to +0.0 points")
    none = make_record("a", "b", None, 0, ci95=[None, None])
    assert (text_of(none), interval_of(none)) == ("-", "")
