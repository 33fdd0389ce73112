"""The stages that ran, and the headline numbers of the run."""

import datetime
import json
from collections.abc import Mapping
from typing import Any

from rsclip_jax.records.meta import StageMeta
from rsclip_jax.records.metric_names import find_metric
from rsclip_jax.records.results import Result
from rsclip_jax.report.chance import chance_of
from rsclip_jax.report.changes import Change, find_changes, interval_of, text_of
from rsclip_jax.report.numbers import arrow_text, value_text
from rsclip_jax.report.render import Bar, Cell, Section, render, shorten
from rsclip_jax.report.table import describe_alpha
from rsclip_jax.report.workdir import Workdir

_MOST_CARDS = 6


def overview(run: Workdir) -> Section:
    """The stages that ran, their data and weights, and the whole config."""
    stages = [
        [
            stage,
            finished(run, stage),
            meta.devices or "",
            str(meta.steps or ""),
            shorten(meta.digest),
            shorten(meta.git_commit),
        ]
        for stage, meta in run.metas.items()
    ]
    patch = run.metas.get("patch")
    body = render(
        "overview.html",
        stages=stages,
        alpha=describe_alpha(patch) if patch else "",
        warning=patch.alpha_note if patch else "",
        sources=_sources(run.metas),
        config=json.dumps(run.config, indent=2) if run.config else "",
    )
    return Section("What ran", body)


def finished(run: Workdir, stage: str) -> str:
    """When a stage finished; for an old meta.json, when the file was written."""
    if when := run.metas[stage].finished:
        return when
    written = (run.path / stage / "meta.json").stat().st_mtime
    moment = datetime.datetime.fromtimestamp(written, datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _sources(metas: Mapping[str, StageMeta]) -> list[list[str | Cell]]:
    rows: list[list[str | Cell]] = []
    for stage, meta in metas.items():
        for name, source in meta.sources.items():
            if isinstance(source, dict):
                about = source.get("path") or source.get("name") or ""
                rows.append([stage, name, about, shorten(source.get("digest"))])
        for name, digest in meta.data.items():
            rows.append([stage, "data", name, shorten(digest)])
    return rows


def headlines(run: Workdir) -> Section | None:
    """The main values as cards, the others of their kind in a table."""
    cards, others = split_headlines(headline_changes(run))
    if not cards:
        return None
    every = [*cards, *others]
    body = render(
        "headlines.html",
        stages=set(run.metas) | {change.stage for change in every},
        has_recall=any(change.metric == "recall@10" for change in every),
        cards=[_card(run, change) for change in cards],
        rows=[_row(run, change) for change in others],
    )
    return Section("Headline numbers", body)


def headline_changes(run: Workdir) -> list[Change]:
    """Stage patch's test datasets, and align's zero-shot and recall@10 of each sensor.

    Without either, the zero-shot values of stages pretrain and evaluate.
    """
    every = find_changes(run.records, run.alpha)
    tests = run.sets("test", "supported_test")
    zero_shot = [c for c in every if c.is_headline]
    found = [c for c in zero_shot if c.stage == "patch" and c.name in tests]
    found.sort(key=lambda change: tests.index(change.name))
    found += [c for c in zero_shot if c.stage == "align"]
    aligned = [c for c in every if (c.stage, c.task) == ("align", "retrieval")]
    found += [c for c in aligned if c.metric == "recall@10"]
    return found or [c for c in zero_shot if c.stage in ("pretrain", "evaluate")]


def split_headlines(changes: list[Change]) -> tuple[list[Change], list[Change]]:
    """(a few for cards, the rest): the first of each stage, role and sensor.

    Retrieval has a card only where nothing was classified.
    """
    classified = any(c.task == "zero_shot" for c in changes)
    cards: dict[tuple, Change] = {}
    for c in changes:
        if c.task == "zero_shot" or not classified:
            # patch's datasets are the task and the supported ones: one card each
            kind = c.name if c.stage == "patch" else c.sensor
            cards.setdefault((c.stage, kind), c)
    shown = list(cards.values())[:_MOST_CARDS]
    return shown, [c for c in changes if c not in shown]


def _card(run: Workdir, change: Change) -> dict[str, Any]:
    ends = {"before": change.before, "after": change.after}
    values = {role: r for role, r in ends.items() if r is not None}
    last = list(values.values())[-1]
    chance = chance_of(last, run.final())
    notes = [f"95 % interval: {within}"] if (within := interval_of(last)) else []
    if change.before and change.before is not last and interval_of(change.before):
        notes[0] += f" (before: {interval_of(change.before)})"
    guess = "" if chance is None else f"; chance: {value_text(chance, last.metric)}"
    notes.append(f"n = {last.n:,}{guess}")
    if change.full and change.full is not change.after:
        notes.append(f"fine-tuned, not interpolated: {text_of(change.full)}")
    return {
        "role": role_of(run, change),
        "dataset": change.name,
        "metric": f"{change.sensor}, {_metric_text(change)}",
        "text": arrow_text([text_of(r) for r in values.values()]),
        "bars": [bar for role, r in values.items() if (bar := _bar(role, r))],
        "chance": None if chance is None else 100 * chance,
        "notes": notes,
    }


def _metric_text(change: Change) -> str:
    name, *more = change.metric.split(" ", 1)
    words = " ".join([find_metric(name).words, *more])
    return f"{change.task.replace('_', '-')} {words}"


def _bar(role: str, result: Result) -> Bar | None:
    if result.value is None:
        return None
    low, high = result.ci95 or (None, None)
    low = result.value if low is None else low
    high = result.value if high is None else high
    return Bar(role, 100 * result.value, 100 * low, 100 * high)


def _row(run: Workdir, change: Change) -> list[str]:
    ends = [r for r in (change.before, change.after) if r is not None]
    chance = chance_of(ends[-1], run.final())
    return [
        role_of(run, change),
        change.name,
        change.sensor,
        _metric_text(change),
        "" if change.before is None else text_of(change.before),
        "" if change.after is None else text_of(change.after),
        interval_of(ends[-1]),
        f"{ends[-1].n:,}",
        "" if chance is None else value_text(chance, ends[-1].metric),
    ]


def role_of(run: Workdir, change: Change) -> str:
    """A dataset's role: patch's task, a supported dataset of patch, or the stage."""
    if change.stage != "patch":
        return change.stage
    task = run.sets("val", "test")
    is_task = change.name in task or not task
    return "patch, task" if is_task else "patch, supported dataset"
