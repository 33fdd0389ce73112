"""The choice of alpha: interpolations of the original and the fine-tuned model."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from rsclip_jax.interpolate import sort_blocks
from rsclip_jax.records.budget import mean_curve
from rsclip_jax.records.meta import AlphaChoice, StageMeta
from rsclip_jax.records.metric_names import is_primary
from rsclip_jax.records.results import Result
from rsclip_jax.report.chance import chance_of
from rsclip_jax.report.charts import svg
from rsclip_jax.report.figures import draw_along_alpha, draw_trade
from rsclip_jax.report.names import set_name
from rsclip_jax.report.numbers import value_text
from rsclip_jax.report.render import Chart, Section, render
from rsclip_jax.report.workdir import Workdir

# {dataset: {alpha: value in percent}}
Curves = dict[str, dict[float, float]]


def alpha_curves(run: Workdir) -> Section | None:
    """Task and supported datasets along alpha on validation data, the choice marked."""
    meta = run.metas.get("patch", StageMeta())
    choices: Sequence[AlphaChoice] = meta.rounds or [meta]
    original: dict[str, float] = {}
    rounds = []
    for i, choice in enumerate(choices):
        swept = swept_results(run.records, i + 1 if meta.rounds else None)
        tasks, supported = (
            {name: one for name, one in sweep(swept).items() if name in run.sets(key)}
            for key in ("val", "supported_val")
        )
        if not tasks or min(map(len, tasks.values())) < 2:
            continue
        original = original or {name: c[0.0] for name, c in supported.items()}
        least = {}
        if run.budget is not None:
            budget = run.budget.share((i + 1) / len(choices))
            least = {n: 100 * budget.least(original[n] / 100) for n in supported}
        title = f"Round {i + 1}: {choice.train or ''}" if meta.rounds else ""
        chance = {
            set_name(r): 100 * guess
            for r in swept
            if set_name(r) in {**tasks, **supported}
            if (guess := chance_of(r, run.final())) is not None
        }
        more = {"least": least, "chance": chance, "whiskers": _intervals(swept)}
        rounds.append({"title": title, **_round(tasks, supported, choice, more)})
    if not rounds:
        return None
    return Section("Choice of alpha", render("choice.html", rounds=rounds))


def swept_results(results: Iterable[Result], round_: int | None = None) -> list[Result]:
    """Stage patch's values along alpha, in each dataset's primary metric."""
    return [
        r
        for r in results
        if (r.stage, r.round) == ("patch", round_)
        and r.alpha is not None
        and is_primary(r.task, r.metric)
    ]


def sweep(swept: Iterable[Result]) -> Curves:
    """Those results in percent, by dataset and alpha."""
    found: Curves = {}
    for r in swept:
        if r.value is not None and r.alpha is not None:
            found.setdefault(set_name(r), {})[r.alpha] = 100 * r.value
    return found


def _intervals(swept: Iterable[Result]) -> dict[str, dict[float, list[float]]]:
    found: dict[str, dict[float, list[float]]] = {}
    for r in swept:
        ends = [100 * end for end in r.ci95 or () if end is not None]
        if len(ends) == 2 and r.alpha is not None:
            found.setdefault(set_name(r), {})[r.alpha] = ends
    return found


def _round(
    tasks: Curves, supported: Curves, choice: AlphaChoice, more: dict[str, Any]
) -> dict[str, Any]:
    curves = {**tasks, **supported}
    draw = partial(
        draw_along_alpha,
        curves=curves,
        tasks=len(tasks),
        chosen=choice.alpha,
        interval=choice.alpha_ci95,
        **more,
    )
    description = (
        f"Values along alpha; chosen: {choice.alpha}. A table with them is below."
    )
    title = f"{', '.join(curves)} along alpha"
    caption = "Each dataset along alpha; thin lines are 95 % intervals"
    charts = [Chart(svg(draw, (460, 340), title, description), caption)]
    if supported:
        name = next(iter(tasks)) if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
        draw = partial(
            draw_trade,
            task=(name, mean_curve(list(tasks.values()))),
            supported=supported,
            chosen=choice.alpha,
            least=more["least"],
        )
        title = f"{', '.join(supported)} over {name} along alpha"
        caption = "The price of the gain on the task"
        charts.append(Chart(svg(draw, (460, 340), title, description), caption))
    blocks = choice.alpha_blocks or {}
    return {
        "charts": charts,
        "header": ["alpha", *curves],
        "table": _table(curves),
        "blocks": [
            (name, [("after", 100 * blocks[name])], f"{blocks[name]:g}")
            for name in sort_blocks(blocks)
        ],
    }


def _table(curves: Curves) -> list[list[str]]:
    """A row an alpha, a column a dataset."""
    alphas = sorted({alpha for curve in curves.values() for alpha in curve})
    return [
        [
            f"{alpha:g}",
            *(
                value_text(curve[alpha] / 100, "accuracy") if alpha in curve else ""
                for curve in curves.values()
            ),
        ]
        for alpha in alphas
    ]
