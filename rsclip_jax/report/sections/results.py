"""Forgetting, training curves and the table of every result."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from rsclip_jax.records.results import Result
from rsclip_jax.report.changes import (
    Change,
    find_changes,
    interval_of,
    text_of,
)
from rsclip_jax.report.charts import svg
from rsclip_jax.report.figures import Points, draw_training
from rsclip_jax.report.names import metric_of, set_name
from rsclip_jax.report.numbers import interval_text, p_text, value_text
from rsclip_jax.report.render import Cell, Chart, Section, render, shorten
from rsclip_jax.report.workdir import Workdir

_CURVES = ("loss", "grad_norm", "lr")  # of metrics.jsonl
_NUMBERS = (
    "value",
    "ci95",
    "n",
    "step",
    "alpha",
    "round",
    "seconds",
    "tile",
    "p_value",
)
_WORDS = ("stage", "dataset", "split", "tile", "sensor", "task", "metric")
_APART_BY = (
    "alpha",
    "prompt_set",
    "shots",
)  # fields that distinguish rows of one metric
_COLUMNS = (*_WORDS, *_APART_BY, "value", "ci95", "n", "step", "round")
_DIGESTS = ("prompts", "checkpoint", "reference", "split_digest", "head")
_APART = ("per_class", "alpha_blocks")  # shown in sections of their own


def forgetting(run: Workdir) -> Section | None:
    """The losses of the supported datasets, and other results of task "forgetting"."""
    tests = run.sets("supported_test")
    tested = [r for r in run.records if r.task == "forgetting"]
    lost = [
        change
        for change in find_changes(run.records, run.alpha)
        if change.stage == "patch" and change.is_headline and change.name in tests
        if change.before and change.after
    ]
    shown = [test for change in lost if (test := _test_of(change, tested))]
    others = [
        [r.stage, set_name(r), r.sensor, metric_of(r), *_change_row(r)]
        for r in tested
        if r not in shown
    ]
    if not lost and not others:
        return None
    rows = [_lost_row(change, _test_of(change, tested)) for change in lost]
    return Section("Forgetting", render("forgetting.html", lost=rows, others=others))


def _test_of(change: Change, tested: list[Result]) -> Result | None:
    """The paired test of a change."""
    about = (change.stage, change.name, change.sensor, change.metric)
    for r in tested:
        if (r.stage, set_name(r), r.sensor, metric_of(r)) == about:
            return r
    return None


def _lost_row(change: Change, test: Result | None) -> list[str]:
    assert change.before is not None
    assert change.after is not None
    a, b = change.before.value, change.after.value
    points = None if a is None or b is None else b - a
    row = [change.name, change.metric, text_of(change.before), text_of(change.after)]
    if test is None:
        return [*row, value_text(points, change.metric, "forgetting"), "", ""]
    return [*row, *_change_row(test)]


def _change_row(result: Result) -> list[str]:
    return [text_of(result), interval_of(result), p_text(result.p_value)]


def training(run: Workdir) -> Section | None:
    """Loss, gradient norm and learning rate of each training."""
    groups = []
    for name, rows in run.curves.items():
        curves = {key: points for key in _CURVES if (points := curve_points(rows, key))}
        charts = [_curve(name, key, points) for key, points in curves.items()]
        if charts:
            groups.append({"title": name, "charts": charts})
    if not groups:
        return None
    lead = (
        "The loss that each stage minimises, the norm of its gradient before clipping,"
        " and the learning rate, over the optimiser's steps."
    )
    return Section(
        "Training", render("charts.html", lead=lead, groups=groups, notes=())
    )


def _curve(stage: str, key: str, points: Points) -> Chart:
    draw = partial(draw_training, curves={"_": points}, name=key, roles=("after",))
    first, last = points[0][1], points[-1][1]
    description = f"{first:.3g} at first, {last:.3g} at the end"
    return Chart(svg(draw, (330, 200), f"{key} of {stage}", description))


def curve_points(rows: list[dict], key: str) -> list[tuple[float, float]]:
    """(step, value) of a training's lines, those that are finite."""
    points = [(row["step"], row.get(key)) for row in rows if "step" in row]
    return [(s, v) for s, v in points if isinstance(v, int | float) and np.isfinite(v)]


def results_table(run: Workdir) -> Section | None:
    """All of results.jsonl."""
    if not run.records:
        return None
    lines = [result.to_json() for result in run.records]
    used = {key for line in lines for key in line if line[key] is not None}
    more = sorted(used - {*_COLUMNS, *_DIGESTS, *_APART})
    columns = [key for key in (*_COLUMNS, *more, *_DIGESTS) if key in used]
    body = render(
        "results.html",
        header=["95 %" if key == "ci95" else key.replace("_", " ") for key in columns],
        rows=[[result_cell(line, key) for key in columns] for line in lines],
        numbers=[i for i, key in enumerate(columns) if key in _NUMBERS],
    )
    return Section("All results", body)


def result_cell(line: Mapping[str, Any], key: str) -> Cell:
    """One field of a result as the table has it; it sorts by the field's own value."""
    value = line.get(key)
    if value is None:
        return Cell("-" if key == "value" else "", key="")
    about = line["metric"], line["task"]
    if key == "value":
        return Cell(value_text(value, *about), value, repr(value))
    if key == "ci95":
        low = value[0] if value[0] is not None else ""
        return Cell(interval_text(value, *about), low, repr(value))
    if key in _DIGESTS:
        return shorten(str(value))
    if isinstance(value, float):
        return Cell(f"{value:.4g}", value)
    return Cell(f"{value:,}" if isinstance(value, int) else str(value), value)
