"""Forgetting, training curves and the table of every result."""

from collections.abc import Mapping

import numpy as np

from rsclip_jax.report import changes, document
from rsclip_jax.report.changes import in_words, interval_in_words, set_name
from rsclip_jax.report.document import Cell, Section
from rsclip_jax.report.figures import curve_figure
from rsclip_jax.report.sections.about import shorten
from rsclip_jax.report.workdir import Workdir

_CURVES = ("loss", "grad_norm", "lr")  # of metrics.jsonl
_NUMBERS = ("value", "ci95", "n", "step", "alpha", "round", "seconds", "tile")
_WORDS = ("stage", "dataset", "split", "tile", "sensor", "task", "metric")
_COLUMNS = (*_WORDS, "value", "ci95", "n", "step", "alpha", "round")
_DIGESTS = ("prompts", "checkpoint", "split_digest", "head")
_APART = ("per_class", "alpha_blocks")  # shown in sections of their own


def forgetting(run: Workdir) -> Section | None:
    """What the supported sets lost, and results of the task "forgetting"."""
    tests = run.specs("supported_test")
    lost = [
        _lost_row(change)
        for change in changes.find_changes(run.records, run.alpha)
        if change.stage == "patch" and change.is_headline and change.name in tests
        if change.before and change.after
    ]
    told = [_told_row(r) for r in run.records if r["task"] == "forgetting"]
    html = ""
    if lost:
        header = (
            "supported set",
            "metric",
            "before",
            "95 %",
            "after",
            "95 %",
            "points",
        )
        numbers = (2, 3, 4, 5, 6)
        html += document.table(header, lost, label="Supported sets", numbers=numbers)
    if told:
        columns = ("stage", "set", "sensor", "metric", "value", "95 %")
        html += document.table(columns, told, label="Forgetting", numbers=(4, 5))
    lead = "On test images, which chose nothing: what patching cost of what CLIP knew."
    return Section("Forgetting", html, lead) if html else None


def _lost_row(change: changes.Change) -> list:
    ends = [change.before or {}, change.after or {}]
    lost = ends[1]["value"] - ends[0]["value"]
    row: list = [change.name, change.metric]
    for end in ends:
        row += [in_words(end["value"], change.metric), interval_in_words(end)]
    return [*row, f"{100 * lost:+.1f}".replace("-", "−")]


def _told_row(record: Mapping) -> list[str]:
    about = [record["stage"], set_name(record), record["sensor"], record["metric"]]
    value = in_words(record["value"], record["metric"])
    return [*about, value, interval_in_words(record)]


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
    used = {key for r in run.records for key in r if r[key] is not None}
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


def result_cell(record: Mapping, key: str) -> Cell:
    """One field of a record as the table has it; it sorts by the field's own value."""
    value = record.get(key)
    if value is None:
        return Cell("", key="")
    if key == "value":
        return Cell(in_words(value, record["metric"]), value, repr(value))
    if key == "ci95":
        return Cell(interval_in_words(record), value[0], repr(value))
    if key in _DIGESTS:
        return shorten(str(value))
    return Cell(f"{value:,}" if isinstance(value, int) else str(value), value)
