"""The choice of alpha: the mixtures of the original and the fine-tuned model."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rsclip_jax.interpolate import sort_blocks
from rsclip_jax.records.budget import Budget
from rsclip_jax.records.meta import AlphaChoice, StageMeta
from rsclip_jax.records.results import Result
from rsclip_jax.report import document
from rsclip_jax.report.changes import PRIMARY, set_name
from rsclip_jax.report.chart import legend
from rsclip_jax.report.class_figures import bars
from rsclip_jax.report.document import Section
from rsclip_jax.report.figures import alpha_figure, style_of, trade_figure
from rsclip_jax.report.workdir import Workdir

# {set: {alpha: value in percent}}
Curves = dict[str, dict[float, float]]
Intervals = dict[str, dict[float, Sequence[float]]]


def alpha_curves(run: Workdir) -> Section | None:
    """Task and supported sets along alpha on validation data, the choice marked."""
    meta = run.metas.get("patch", StageMeta())
    choices: Sequence[AlphaChoice] = meta.rounds or [meta]
    parts: list[str] = []
    original: dict[str, float] = {}
    for i, choice in enumerate(choices):
        round_ = i + 1 if meta.rounds else None
        swept = sweep(run.records, round_)
        tasks, supported = (
            {name: swept[name] for name in run.specs(key) if name in swept}
            for key in ("val", "supported_val")
        )
        if not tasks or min(map(len, tasks.values())) < 2:
            continue
        original = original or {name: c[0.0] for name, c in supported.items()}
        budget = _budget(run).share((i + 1) / len(choices))
        least = {n: 100 * budget.least(original[n] / 100) for n in supported}
        if meta.rounds:
            parts.append(document.heading(f"Round {i + 1}: {choice.train or ''}"))
        whiskers = _intervals(run.records, round_)
        parts.append(_round(tasks, supported, least, choice, whiskers))
    lead = (
        "The mixture (1 - alpha) * original + alpha * fine-tuned, on the validation"
        " data that chose alpha: the best task value that no supported set pays for"
        " with more than its budget."
    )
    return Section("Choice of alpha", "".join(parts), lead) if parts else None


def _budget(run: Workdir) -> Budget:
    patch = run.config.get("patch", {})
    drop = patch.get("max_supported_drop", 1.0)
    return Budget(drop, patch.get("min_supported_retained", 0.0))


def sweep(records: Iterable[Result], round_: int | None = None) -> Curves:
    """What stage patch measured along alpha, by the primary metric of each set."""
    found: Curves = {}
    for r in _swept(records, round_):
        if r.value is not None and r.alpha is not None:
            found.setdefault(set_name(r), {})[r.alpha] = 100 * r.value
    return found


def _intervals(records: Iterable[Result], round_: int | None) -> Intervals:
    """The same of the 95 % intervals, where there are."""
    found: Intervals = {}
    for r in _swept(records, round_):
        ends = [100 * end for end in r.ci95 or () if end is not None]
        if len(ends) == 2 and r.alpha is not None:
            found.setdefault(set_name(r), {})[r.alpha] = ends
    return found


def _swept(records: Iterable[Result], round_: int | None) -> list[Result]:
    return [
        r
        for r in records
        if (r.stage, r.task, r.round) == ("patch", "zero_shot", round_)
        and r.alpha is not None
        and r.metric in PRIMARY
    ]


def _round(
    tasks: Curves,
    supported: Curves,
    least: dict[str, float],
    choice: AlphaChoice,
    whiskers: Intervals,
) -> str:
    chosen, interval = choice.alpha, choice.alpha_ci95
    curves = {**tasks, **supported}
    ends: dict[str, Any] = {"chosen": chosen, "least": least}
    along = alpha_figure(
        curves, len(tasks), interval=interval, whiskers=whiskers, **ends
    )
    caption = "All sets along alpha, with 95 % intervals over the examples"
    pictures = [document.figure(along, caption)]
    if supported:
        name = next(iter(tasks)) if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
        mean = {
            alpha: float(np.mean([curve[alpha] for curve in tasks.values()]))
            for alpha in set.intersection(*map(set, tasks.values()))
        }
        trade = trade_figure((name, mean), supported, **ends)
        pictures.append(document.figure(trade, "What the task's gain costs"))
    html = _key(tasks, supported, chosen, interval) + document.tiles(pictures)
    if blocks := choice.alpha_blocks:
        rows = [
            (f"{name}: {blocks[name]:g}", None, 100 * blocks[name])
            for name in sort_blocks(blocks)
        ]
        html += document.heading("An alpha for each block") + bars(rows, form="")
    return html


def _key(tasks: Curves, supported: Curves, chosen, interval) -> str:
    key = []
    for i, name in enumerate([*tasks, *supported]):
        role, shape = style_of(i, len(tasks))
        kind = "task" if i < len(tasks) else "supported"
        key.append((shape, role, f"{kind} {name}"))
    if supported:
        key.append(("dashes", "other", "the least it may fall to"))
    if chosen is not None:
        key.append(("star", "chosen", f"chosen: alpha {chosen:g}"))
    if interval:
        low, high = interval
        words = f"the choice in 95 % of resamples: {low:g} to {high:g}"
        key.append(("area", "chosen", words))
    return legend(key)
