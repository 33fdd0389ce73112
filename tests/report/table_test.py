"""The closing table."""

from rsclip_jax.report.table import closing_records, format_table

BASE = {"stage": "patch", "dataset": "d", "split": "test", "task": "zero_shot"}
BASE |= {"sensor": "rgb", "metric": "accuracy"}


def cells(text):
    return [line.split() for line in text.splitlines()]


def test_before_and_after_stand_on_one_row():
    rows = [{**BASE, "step": 0, "value": 0.1}, {**BASE, "step": 9, "value": 0.25}]
    header, _, row = cells(format_table(rows))
    assert header[-2:] == ["before", "after"]
    assert row[-4:] == ["10.0", "%", "25.0", "%"]


def test_the_chosen_alpha_stands_under_after():
    rows = [
        {**BASE, "step": 9 if a else 0, "alpha": a, "value": v}
        for a, v in ((0.0, 0.1), (0.4, 0.3), (1.0, 0.8))
    ]
    _, _, row = cells(format_table(rows, alpha=0.4))
    assert [c for c in row if c != "%"][-3:] == ["10.0", "30.0", "80.0"]


def test_an_end_that_is_chosen_stands_in_both_columns():
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


def test_tiles_are_told_apart_and_an_evaluation_has_no_before():
    whole = {**BASE, "stage": "evaluate", "value": 0.5, "step": 0}
    _, _, *rows = cells(format_table([whole, {**whole, "tile": 64, "value": 0.6}]))
    assert [row[2] for row in rows] == ["test", "test:64"]
    assert format_table([whole]).splitlines()[0].split()[-2:] == ["metric", "after"]
