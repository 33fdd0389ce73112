"""Class by class: before and after, and which classes are confused."""

from typing import Any

import numpy as np

from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.report.chance import chance_of
from rsclip_jax.report.changes import Change, find_changes
from rsclip_jax.report.numbers import arrow_text, value_text
from rsclip_jax.report.render import Section, render
from rsclip_jax.report.sections.about import role_of
from rsclip_jax.report.workdir import Workdir

_MOST_CLASSES = 60  # that are shown


def per_class(run: Workdir) -> Section | None:
    """Each class before and after, of patch's test datasets and of align's sensors."""
    tests = run.sets("test", "supported_test")
    charts = []
    for change in find_changes(run.records, run.alpha):
        shown = change.is_headline and change.stage in ("patch", "align")
        if change.stage == "patch" and tests and change.name not in tests:
            continue
        if shown and (rows := class_rows(change)):
            title = f"{role_of(run, change)}: {change.name}"
            title += f" ({change.sensor}, {change.metric})"
            charts.append({"title": title, **_chart(run, change, rows)})
    if not charts:
        return None
    has_chance = any(chart["chance"] is not None for chart in charts)
    body = render("classes.html", charts=charts, has_chance=has_chance)
    return Section("Class by class", body)


def _chart(run: Workdir, change: Change, rows: list) -> dict[str, Any]:
    """Returns all classes, or if there are too many the largest gains and losses."""
    left_out = max(len(rows) - _MOST_CLASSES, 0)
    if left_out:
        end = _MOST_CLASSES // 2
        rows = [*rows[:end], *rows[-end:]]
    assert change.after is not None
    chance = chance_of(change.after, run.final())
    # the share of positives differs from class to class, the guess of a class does not
    if change.metric != "accuracy" or chance is None:
        chance = None
    return {
        "rows": [_bars(*row) for row in rows],
        "left_out": left_out,
        "chance": None if chance is None else 100 * chance,
    }


def class_rows(change: Change) -> list[tuple[str, float, float]]:
    """(class, its value before, after) sorted by the gain; nan if unknown."""
    before, after = (
        (result and result.per_class) or {} for result in (change.before, change.after)
    )
    rows = [
        (name, _number(before[name]), _number(after[name]))
        for name in after
        if name in before
    ]
    rows = [row for row in rows if not np.isnan(row[1:]).all()]  # with examples
    return sorted(rows, key=lambda row: -np.nan_to_num(row[2] - row[1], nan=-1e9))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _bars(name: str, before: float, after: float) -> tuple:
    ends = {"before": before, "after": after}
    widths = [(role, 100 * np.nan_to_num(value)) for role, value in ends.items()]
    text = arrow_text([value_text(value, "accuracy") for value in ends.values()])
    return name, widths, text


def confusion(run: Workdir) -> Section | None:
    """Which classes the final model confuses, of each dataset and sensor."""
    matrices = [
        matrix_of(confusion_counts(outcome, sensor), outcome.classnames)
        | {"title": f"{name}, {sensor}"}
        for name, outcome in run.final().items()
        if outcome.pins["task"] == "single" and outcome.head is not None
        for sensor in outcome.z
    ]
    if not matrices:
        return None
    return Section("Confusion", render("confusion.html", matrices=matrices))


def confusion_counts(outcome: Outcome, sensor: str) -> np.ndarray:
    """[k, k]: how many of each true class (row) were given each class (column)."""
    assert outcome.labels is not None
    k = len(outcome.classnames)
    counts = np.zeros((k, k), np.int64)
    np.add.at(counts, (outcome.labels, outcome.logits(sensor).argmax(axis=1)), 1)
    return counts


def matrix_of(counts: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """What the template shows: (percent, share, words) of each cell; of many, none."""
    totals = counts.sum(axis=1)
    cells = []
    for i in range(len(names)) if len(names) <= _MOST_CLASSES else ():
        shares = 100 * counts[i] / max(totals[i], 1)
        cells.append(
            [
                (
                    f"{share:.0f}" if share >= 0.5 else "",
                    f"{share:.0f}",
                    f"{names[i]} as {names[j]}: {n} of {totals[i]}" if n else "",
                )
                for j, (n, share) in enumerate(zip(counts[i], shares, strict=True))
            ]
        )
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:5]
    worst = [np.unravel_index(i, wrong.shape) for i in order if wrong.flat[i]]
    each = [
        f"{names[i]} as {names[j]} ({wrong[i, j]} of {totals[i]})" for i, j in worst
    ]
    return {"names": names, "cells": cells, "worst": ", ".join(each) or "none"}
