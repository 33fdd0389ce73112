"""Forgetting, training curves and the table of every result."""

import dataclasses

import numpy as np

from rsclip_jax.records.results import Result
from rsclip_jax.report import changes, document
from rsclip_jax.report.changes import (
    interval_in_words,
    set_name,
    value_in_words,
)
from rsclip_jax.report.document import Cell, Section
from rsclip_jax.report.figures import curve_figure
from rsclip_jax.report.sections.about import shorten
from rsclip_jax.report.table import metric_of
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
_APART_BY = ("alpha", "prompt_set", "shots")  # what tells rows of one metric apart
_COLUMNS = (*_WORDS, *_APART_BY, "value", "ci95", "n", "step", "round")
_DIGESTS = ("prompts", "checkpoint", "reference", "split_digest", "head")
_APART = ("per_class", "alpha_blocks")  # shown in sections of their own


def forgetting(run: Workdir) -> Section | None:
    """What the supported sets lost, and the other results of the task "forgetting"."""
    tests = run.specs("supported_test")
    told = [r for r in run.records if r.task == "forgetting"]
    lost = [
        change
        for change in changes.find_changes(run.records, run.alpha)
        if change.stage == "patch" and change.is_headline and change.name in tests
        if change.before and change.after
    ]
    shown = [match for change in lost if (match := _told_of(change, told))]
    html = ""
    if lost:
        header = ("supported set", "metric", "before", "after", "points", "95 %", "p")
        rows = [_lost_row(change, _told_of(change, told)) for change in lost]
        numbers = (2, 3, 4, 5, 6)
        html += document.table(header, rows, label="Supported sets", numbers=numbers)
    if others := [_told_row(r) for r in told if r not in shown]:
        columns = ("stage", "set", "sensor", "metric", "points", "95 %", "p")
        html += document.table(columns, others, label="Forgetting", numbers=(4, 5, 6))
    lead = "On test images, which chose nothing: what is lost of what was known before."
    return Section("Forgetting", html, lead) if html else None


def _told_of(change: changes.Change, told: list[Result]) -> Result | None:
    """The record of forgetting that is about a change."""
    about = (change.stage, change.name, change.sensor, change.metric)
    for r in told:
        if (r.stage, set_name(r), r.sensor, metric_of(r)) == about:
            return r
    return None


def _lost_row(change: changes.Change, told: Result | None) -> list[str]:
    before, after = change.before, change.after
    assert before is not None
    assert after is not None
    a, b = before.value, after.value
    points = None if a is None or b is None else b - a
    lost = dataclasses.replace(after, task="forgetting", value=points, ci95=None)
    told = told or lost
    words = [value_in_words(before), value_in_words(after)]
    return [change.name, change.metric, *words, *_points_row(told)]


def _told_row(record: Result) -> list[str]:
    about = [record.stage, set_name(record), record.sensor, metric_of(record)]
    return [*about, *_points_row(record)]


def _points_row(record: Result) -> list[str]:
    p = record.p_value
    words = "" if p is None else f"{p:.2g}"
    return [value_in_words(record), interval_in_words(record), words]


def training(run: Workdir) -> Section | None:
    """Loss, gradient norm and learning rate of each training."""
    parts = []
    for name, rows in run.curves.items():
        curves = {key: _points(rows, key) for key in _CURVES}
        pictures = [
            document.figure(curve_figure(points, key, "after"))
            for key, points in curves.items()
            if points
        ]
        if pictures:
            parts.append(document.heading(name) + document.tiles(pictures))
    return Section("Training", "".join(parts)) if parts else None


def _points(rows: list[dict], key: str) -> list[tuple[float, float]]:
    points = [(row["step"], row.get(key)) for row in rows if "step" in row]
    return [(s, v) for s, v in points if isinstance(v, int | float) and np.isfinite(v)]


def results_table(run: Workdir) -> Section | None:
    """All of results.jsonl."""
    if not run.records:
        return None
    lines = [r.to_json() for r in run.records]
    used = {key for line in lines for key, x in line.items() if x is not None}
    more = sorted(used - {*_COLUMNS, *_DIGESTS, *_APART})
    columns = [key for key in (*_COLUMNS, *more, *_DIGESTS) if key in used]
    header = ["95 %" if key == "ci95" else key.replace("_", " ") for key in columns]
    body = document.table(
        header,
        [[result_cell(r, key) for key in columns] for r in run.records],
        label="Every result",
        numbers=[i for i, key in enumerate(columns) if key in _NUMBERS],
        sortable=True,
    )
    lead = (
        "Every line of results.jsonl. A click on a heading sorts; digests are shortened"
        " and stand whole on hovering."
    )
    return Section("All results", body, lead)


def result_cell(record: Result, key: str) -> Cell:
    """One field of a record as the table has it; it sorts by the field's own value."""
    value = getattr(record, key, record.more.get(key))
    if value is None:
        return Cell("–" if key == "value" else "", key="")
    if key == "value":
        return Cell(value_in_words(record), value, repr(value))
    if key == "ci95":
        low = value[0] if value[0] is not None else ""
        return Cell(interval_in_words(record), low, repr(value))
    if key in _DIGESTS:
        return shorten(str(value))
    if isinstance(value, float):
        return Cell(f"{value:.4g}", value)
    return Cell(f"{value:,}" if isinstance(value, int) else str(value), value)
