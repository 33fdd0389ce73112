"""The table of an ablation, cell by cell."""

import csv
import dataclasses
import io

from rsclip_jax.report.ablation import Row, format_csv, format_markdown
from tests.helpers.results import make_result


def record(sensor, metric, value, dataset="a"):
    task = "retrieval" if "@" in metric else "zero_shot"
    return make_result(
        dataset=dataset, sensor=sensor, task=task, metric=metric, value=value
    )


def row(losses, *records):
    return Row({"align.losses": losses, "seed": "0"}, records)


ROWS = [
    row("mse", record("rgb->s1", "recall@1", 0.125), record("s1", "accuracy", 0.5)),
    row("both", record("rgb->s1", "recall@1", 0.25), record("s1", "accuracy", 0.5)),
    row("cosine", record("s2", "accuracy", 0.75), record("rgb->s1", "recall@1", 0.0)),
]
METRICS = ["s1 accuracy", "s2 accuracy", "rgb->s1 R@1"]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_rows_are_settings_and_the_best_of_a_column_is_bold():
    head, rule, *lines = format_markdown(ROWS).splitlines()
    assert cells(head) == [
        "losses",
        "seed",
        "s1 accuracy",
        "s2 accuracy",
        "rgb->s1 R@1",
    ]
    assert set(rule) <= set("|-: ")
    assert [cells(line) for line in lines] == [
        ["mse", "0", "**50.0**", "", "12.5"],
        ["both", "0", "**50.0**", "", "**25.0**"],
        ["cosine", "0", "", "75.0", "0.0"],  # alone it is not the best of any
    ]
    assert {len(line) for line in (head, rule, *lines)} == {len(head)}


def test_columns_name_the_dataset_if_there_are_several():
    tiled = dataclasses.replace(record("s1", "accuracy", 0.5, "b"), tile=64)
    text = format_markdown([Row({"seed": "0"}, [*ROWS[0].records, tiled])])
    head = cells(text.splitlines()[0])
    assert head[1:] == [
        "a:test s1 accuracy",
        "b:test:64 s1 accuracy",
        "a:test rgb->s1 R@1",
    ]


def test_a_spreadsheet_gets_all_digits():
    rows = list(csv.reader(io.StringIO(format_csv(ROWS))))
    assert rows[0] == ["align.losses", "seed", *METRICS]
    assert rows[1] == ["mse", "0", "0.5", "", "0.125"]
    assert rows[3] == ["cosine", "0", "", "0.75", "0.0"]
