"""Class by class: before and after, and which are taken for which."""

import numpy as np

from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.report import changes, document
from rsclip_jax.report.changes import Change
from rsclip_jax.report.chart import legend
from rsclip_jax.report.class_figures import bars, confusion_figure
from rsclip_jax.report.document import Section
from rsclip_jax.report.sections.about import role_of
from rsclip_jax.report.workdir import Workdir

_MOST_CLASSES = 60  # that are drawn


def per_class(run: Workdir) -> Section | None:
    """Each class before and after, of patch's test sets and of align's sensors."""
    validation = run.specs("val", "supported_val")
    tests = run.specs("test", "supported_test")
    parts = []
    for change in changes.find_changes(run.records, run.alpha):
        swept = change.stage == "patch" and change.name in set(validation) - set(tests)
        mine = change.is_headline and change.stage in ("patch", "align")
        if mine and not swept and (rows := class_rows(change)):
            title = f"{role_of(run, change)}: {change.name}"
            title += f" ({change.sensor}, {change.metric})"
            parts.append(document.heading(title) + _shown_bars(rows))
    key = legend([("square", "before", "before"), ("square", "after", "after")])
    lead = "In percent, the largest gain first and the largest loss last."
    return Section("Class by class", key + "".join(parts), lead) if parts else None


def _shown_bars(rows: list[tuple[str, float, float]]) -> str:
    """All classes; of very many the ends."""
    if len(rows) <= _MOST_CLASSES:
        return bars(rows)
    end = _MOST_CLASSES // 2
    left_out = f"{len(rows) - 2 * end:,} classes between these are left out."
    return bars([*rows[:end], *rows[-end:]]) + document.note(left_out)


def class_rows(change: Change) -> list[tuple[str, float, float]]:
    """(class, its value before, after) in percent, sorted by the gain."""
    before, after = (
        (record.per_class or {}) if record else {}
        for record in (change.before, change.after)
    )
    rows = [
        (name, _percent(before[name]), _percent(after[name]))
        for name in after
        if name in before
    ]
    rows = [row for row in rows if not np.isnan(row[1:]).all()]  # with examples
    return sorted(rows, key=lambda row: -np.nan_to_num(row[2] - row[1], nan=-1e9))


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value


def confusion(run: Workdir) -> Section | None:
    """Which classes the final model takes for which, of each set and sensor."""
    pictures = [
        _confusion(outcome, sensor, name)
        for name, outcome in run.final().items()
        if outcome.pins["task"] == "single" and outcome.head is not None
        for sensor in outcome.z
    ]
    lead = (
        "Rows are the true classes, columns what the final model says, the colour the"
        " share of the row, in percent where there is room. The outlined diagonal is"
        " right."
    )
    return Section("Confusion", document.tiles(pictures), lead) if pictures else None


def confusion_counts(outcome: Outcome, sensor: str) -> np.ndarray:
    """[k, k]: how many of each true class (row) were given each class (column)."""
    assert outcome.labels is not None
    k = len(outcome.classnames)
    counts = np.zeros((k, k), np.int64)
    np.add.at(counts, (outcome.labels, outcome.logits(sensor).argmax(axis=1)), 1)
    return counts


def _confusion(outcome: Outcome, sensor: str, name: str) -> str:
    counts, names = confusion_counts(outcome, sensor), outcome.classnames
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:5]
    worst = [np.unravel_index(i, wrong.shape) for i in order if wrong.flat[i]]
    each = [
        f"{names[i]} as {names[j]} ({wrong[i, j]} of {counts[i].sum()})"
        for i, j in worst
    ]
    caption = f"{name}, {sensor}. Most often: {', '.join(each) or 'nothing'}."
    if len(names) > _MOST_CLASSES:
        return document.note(f"{caption} ({len(names)} classes are too many to draw.)")
    picture = document.scroll(confusion_figure(counts, names), f"{name}, {sensor}")
    return document.figure(picture, caption)
