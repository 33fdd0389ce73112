"""The closing table."""

import pytest

from rsclip_jax.records.meta import AlphaChoice, StageMeta
from rsclip_jax.report import table
from rsclip_jax.report.table import align_markdown, describe_alpha
from tests.helpers.results import make_results

BASE = {"stage": "patch", "dataset": "d", "split": "test", "task": "zero_shot"}
BASE |= {"sensor": "rgb", "metric": "accuracy"}


def format_table(records, alpha=None):
    return table.format_table(make_results(*records), alpha)


def closing_records(records, tests):
    """Those of the records that the closing table shows."""
    made = make_results(*records)
    shown = table.closing_records(made, tests)
    return [fields for fields, r in zip(records, made, strict=True) if r in shown]


def cells(text):
    return [line.split() for line in text.splitlines()]


def test_before_and_after_share_a_row():
    rows = [{**BASE, "step": 0, "value": 0.1}, {**BASE, "step": 9, "value": 0.25}]
    header, _, row = cells(format_table(rows))
    assert header[-2:] == ["before", "after"]
    assert row[-4:] == ["10.0", "%", "25.0", "%"]


def test_the_chosen_alpha_is_under_after():
    rows = [
        {**BASE, "step": 9 if a else 0, "alpha": a, "value": v}
        for a, v in ((0.0, 0.1), (0.4, 0.3), (1.0, 0.8))
    ]
    _, _, row = cells(format_table(rows, alpha=0.4))
    assert [c for c in row if c != "%"][-3:] == ["10.0", "30.0", "80.0"]


def test_an_end_that_is_chosen_is_in_both_columns():
    rows = [
        {**BASE, "step": 9 if a else 0, "alpha": a, "value": v}
        for a, v in ((0.0, 0.1), (1.0, 0.8))
    ]
    _, _, row = cells(format_table(rows, alpha=1.0))
    assert [c for c in row if c != "%"][-3:] == ["10.0", "80.0", "80.0"]
    _, _, row = cells(format_table(rows, alpha=0.0))
    assert [c for c in row if c != "%"][-3:] == ["10.0", "10.0", "80.0"]


def test_validation_sweeps_stay_out():
    val = {**BASE, "split": "val", "value": 0.5, "step": 0}
    test = {**BASE, "value": 0.6, "step": 0}
    other = {**val, "stage": "evaluate"}
    assert closing_records([val, test, other], ["d:test"]) == [test, other]
    assert closing_records([val], ["d:val"]) == [val]  # both at once: it is a test set


def test_a_row_that_an_earlier_stage_has_is_not_repeated():
    end = {**BASE, "stage": "pretrain", "value": 0.4, "step": 9}
    start = {**BASE, "value": 0.4, "step": 0, "alpha": 0.0}
    chosen = {**BASE, "value": 0.7, "step": 9, "alpha": 0.5}
    again = {**BASE, "stage": "evaluate", "value": 0.7, "step": 9}
    records = [end, start, chosen, again]
    assert closing_records(records, ["d:test"]) == [end, start, chosen]
    for other in ({"value": 0.71}, {"sensor": "s1"}, {"split": "val"}, {"tile": 64}):
        new = {**again, **other}
        assert closing_records([*records, new], ["d:test"])[-1] == new


@pytest.mark.parametrize(
    ("task", "shown", "left_out"),
    [
        (
            "zero_shot",
            ("accuracy", "mAP_macro", "mAP_micro"),
            ("accuracy@5", "mean_recall", "ece"),
        ),
        (
            "retrieval",
            ("recall@1", "recall@10", "recall@50"),
            ("recall@5", "recall@20", "median_rank", "mAP@20", "mAP@50"),
        ),
        ("modality_gap", ("centroid_distance",), ("classifier_accuracy",)),
        ("linear_probe", ("accuracy", "mAP_macro"), ()),
        ("forgetting", ("accuracy_drop",), ()),
    ],
)
def test_the_closing_table_has_the_main_metrics(task, shown, left_out):
    base = {**BASE, "stage": "evaluate", "task": task, "value": 0.5, "step": 0}
    records = [{**base, "metric": metric} for metric in (*left_out, *shown)]
    assert [r["metric"] for r in closing_records(records, [])] == list(shown)


def test_ranks_and_distances_are_not_percentages():
    base = {**BASE, "stage": "evaluate", "step": 0}
    records = [
        {**base, "metric": "ece", "value": 0.125},
        {**base, "task": "retrieval", "metric": "median_rank", "value": 12.5},
        {**base, "task": "retrieval", "metric": "recall@1", "value": 0.5},
        {**base, "task": "modality_gap", "metric": "x", "value": 1.23456},
    ]
    _, _, *rows = cells(format_table(records))
    assert [" ".join(row[6:]) for row in rows] == ["12.5 %", "12.5", "50.0 %", "1.235"]


def test_prompt_sets_have_rows_of_their_own():
    base = {**BASE, "stage": "evaluate", "step": 0}
    records = [
        {**base, "prompt_set": name, "value": value}
        for name, value in (("dataset", 0.25), ("openai7", 0.5))
    ]
    text = format_table(records)
    assert "accuracy            25.0 %" in text
    assert "accuracy (openai7)  50.0 %" in text


def test_tiles_are_told_apart_and_an_evaluation_has_no_before():
    whole = {**BASE, "stage": "evaluate", "value": 0.5, "step": 0}
    _, _, *rows = cells(format_table([whole, {**whole, "tile": 64, "value": 0.6}]))
    assert [row[2] for row in rows] == ["test", "test:64"]
    assert format_table([whole]).splitlines()[0].split()[-2:] == ["metric", "after"]


def test_the_interpolation_is_described_in_words():
    one = {"alpha": 0.4, "alpha_chosen_by": "validation"}
    assert describe_alpha(StageMeta(**one)) == "alpha 0.4, chosen on validation data"
    given = StageMeta(alpha=0.4, alpha_chosen_by="config.patch.alpha")
    assert describe_alpha(given) == "alpha 0.4, given as config.patch.alpha"
    alphas = {"blocks_10": 0.9, "blocks_2": 0.5, "stem": 0.1}
    blocks = StageMeta(**one, alpha_blocks=alphas)
    assert "an alpha for each block" in describe_alpha(blocks)
    assert "(stem 0.1, blocks_2 0.5, blocks_10 0.9)" in describe_alpha(blocks)
    rounds = [
        AlphaChoice(train="a:train", **one),
        AlphaChoice(train="b:train", **{**one, "alpha": 0.7}),
    ]
    text = describe_alpha(StageMeta(rounds=rounds))
    assert text == (
        "a:train at alpha 0.4, chosen on validation data, then b:train at alpha 0.7,"
        " chosen on validation data"
    )


def test_an_interpolation_by_block_is_under_after():
    single = {**BASE, "sensor": "rgb", "metric": "accuracy", "step": 6}
    records = [
        {**single, "value": v, "alpha": a, "step": 6 * (a != 0)}
        for a, v in ((0.0, 0.1), (0.5, 0.2), (1.0, 0.3))
    ]
    records.append({**single, "value": 0.25, "alpha": None, "alpha_blocks": {}})
    row = format_table(records, 0.5).splitlines()[-1]
    assert row.split()[-6:] == ["10.0", "%", "25.0", "%", "30.0", "%"]


def test_a_missing_value_is_a_dash():
    row = format_table([{**BASE, "step": 9, "value": None}]).splitlines()[-1]
    assert row.split()[-2:] == ["accuracy", "-"]
    gap = {**BASE, "task": "modality_gap", "step": 9, "value": None}
    assert format_table([gap]).splitlines()[-1].split()[-1] == "-"


def test_probes_of_other_training_sets_have_rows_of_their_own():
    base = {**BASE, "stage": "evaluate", "step": 0, "train": "d:train"}
    knn = [
        {**base, "task": "knn", "train": train, "value": value}
        for train, value in (("d:train", 0.25), ("e:train", 0.5))
    ]
    probe = {**base, "task": "linear_probe", "value": 0.75, "val": "d:val"}
    text = format_table([*knn, probe])
    assert "accuracy, train d:train  25.0 %" in text
    assert "accuracy, train e:train  50.0 %" in text
    assert "accuracy                 75.0 %" in text
    text = format_table([probe, {**probe, "val": "e:val"}])
    assert "accuracy, val d:val" in text
    assert "accuracy, val e:val" in text
    later = {**knn[1], "stage": "later", "value": 0.25}  # as the other in evaluate
    assert closing_records([*knn, later], []) == [*knn, later]


def test_a_change_is_in_points_and_markdown_has_rules_of_three():
    record = {**BASE, "task": "forgetting", "step": 9}
    assert "-8.8 points" in format_table([{**record, "value": -0.088}])
    assert "+2.0 points" in format_table([{**record, "value": 0.02}])
    _, rule, _ = align_markdown([["a", "n"], ["b", "8"]], left=1).splitlines()
    assert rule == "| --- | --: |"
