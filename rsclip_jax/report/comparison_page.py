"""compare.html: runs side by side in one file, from their workdirs and differences."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rsclip_jax.records.comparison import Comparison
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.records.metric_names import find_metric
from rsclip_jax.report.charts import svg
from rsclip_jax.report.comparison import SURE, in_numbers, is_sure, legend, several
from rsclip_jax.report.figures import RUN_ROLES, Points, draw_choices, draw_training
from rsclip_jax.report.names import metric_names, set_name
from rsclip_jax.report.numbers import change_text
from rsclip_jax.report.render import (
    Bar,
    Cell,
    Chart,
    Section,
    render,
    render_page,
    shorten,
)
from rsclip_jax.report.sections.choice import sweep, swept_results
from rsclip_jax.report.sections.results import curve_points
from rsclip_jax.report.workdir import Workdir

_CURVES = ("loss", "grad_norm")
# settings that no number depends on
_IDLE = ("overwrite", "progress", "stages", "data.threads")


def comparison_page(
    runs: Sequence[Workdir],
    comparisons: Sequence[Comparison],
    left_out: Sequence[str] = (),
) -> str:
    """The page. runs: the baseline first. left_out: what was not compared, and why."""
    names = short_names([str(run.path) for run in runs])
    by_path = dict(zip((str(run.path) for run in runs), names, strict=True))
    sections = [
        what_is_compared(runs, names),
        settings(runs, names),
        differences(comparisons, by_path),
        every_difference(comparisons, left_out),
        alpha_curves(runs, names),
        training(runs, names),
    ]
    title = f"{', '.join(names[1:])} against {names[0]}"
    return render_page(title, [s for s in sections if s], "A comparison")


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of the paths, as many as make the names distinct."""
    parts = [path.strip("/").split("/") for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def what_is_compared(runs: Sequence[Workdir], names: Sequence[str]) -> Section:
    """The runs, with the digests of their weights."""
    rows = [
        [
            name + (" (the baseline)" if run is runs[0] else ""),
            stage,
            str(meta.steps or ""),
            shorten(meta.digest),
            shorten(meta.git_commit),
            str(run.path.resolve()),
        ]
        for run, name in zip(runs, names, strict=True)
        for stage, meta in run.metas.items()
    ]
    return Section("What is compared", render("compared.html", runs=rows))


def settings(runs: Sequence[Workdir], names: Sequence[str]) -> Section:
    """The settings in which the runs differ."""
    rows = differing([_config(run) for run in runs])
    lines = [[key, *map(_as_text, values)] for key, values in rows]
    body = render("settings.html", header=("setting", *names), rows=lines)
    return Section("Settings that differ", body)


def _config(run: Workdir) -> Mapping[str, Any]:
    return run.config or next(iter(run.metas.values()), StageMeta()).config or {}


def differing(configs: Sequence[Mapping]) -> list[tuple[str, list[Any]]]:
    """(setting, its value in each config) of the settings that are not equal in all."""
    flat = [_flatten(config) for config in configs]
    keys = sorted(set().union(*flat) - set(_IDLE))
    rows = [(key, [one.get(key) for one in flat]) for key in keys]
    return [
        (key, values) for key, values in rows if any(v != values[0] for v in values)
    ]


def _flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        found |= (
            _flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
        )
    return found


def _as_text(value: Any) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def differences(
    comparisons: Sequence[Comparison], names: Mapping[str, str]
) -> Section | None:
    """The differences with their intervals on one axis, by dataset and run."""
    tested = [
        r
        for r in comparisons
        if r.p_value is not None and find_metric(r.metric).unit == "share"
    ]
    if not tested:
        return None
    low, high = span_of(tested)
    groups: dict[str, list] = {}
    for r in tested:
        title = set_name(r)
        if several(comparisons):
            title += f": {names[r.run_b]}"
        groups.setdefault(title, []).append(_difference(r, low, high))
    body = render(
        "differences.html",
        baseline=names[comparisons[0].run_a],
        sure=SURE,
        groups=groups,
        zero=_position(0, low, high),
        ticks=[(f"{t:g}", _position(t, low, high)) for t in (low, 0, high)],
    )
    return Section("Differences", body)


def span_of(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """The ends of an axis in points, whole numbers, around zero and all intervals."""
    ends = [0.0]
    for r in comparisons:
        ends += [
            100 * end for end in (*(r.ci95 or ()), r.difference) if end is not None
        ]
    return float(min(ends) // 1) or -1.0, float(-(-max(ends) // 1)) or 1.0


def _position(value: float, low: float, high: float) -> float:
    return 100 * (value - low) / (high - low)


def _difference(r: Comparison, low: float, high: float) -> tuple[str, Bar, str]:
    """(name, its bar between low and high, the difference as text)."""
    assert r.difference is not None
    assert r.ci95 is not None
    value, *ends = (
        _position(100 * (v or 0.0), low, high) for v in (r.difference, *r.ci95)
    )
    bar = Bar("after" if is_sure(r) else "before", value, *ends)
    return f"{r.sensor}, {r.metric}", bar, change_text(r.difference, r.metric)


def every_difference(
    comparisons: Sequence[Comparison], left_out: Sequence[str] = ()
) -> Section:
    """The whole table."""
    header = ["dataset", "sensor", "metric"]
    header += ["a", "b", "b - a", "95 % interval", "p", "p (Holm)"]
    rows = []
    for r, name in zip(comparisons, metric_names(comparisons), strict=True):
        a, b, change, *rest = in_numbers(r)
        values = [Cell(a, r.a), Cell(b, r.b), Cell(change.strip(), r.difference)]
        about = [set_name(r), r.sensor, f"{r.task.replace('_', '-')} {name}"]
        run = [r.run_b] if several(comparisons) else []
        rows.append([*run, *about, *values, *rest])
    if several(comparisons):
        header.insert(0, "b is")
    body = render(
        "comparisons.html",
        header=header,
        rows=rows,
        numbers=range(len(header) - 6, len(header)),
        notes=legend(comparisons, left_out),
    )
    return Section("Every difference", body)


def alpha_curves(runs: Sequence[Workdir], names: Sequence[str]) -> Section | None:
    """Each validation dataset of stage patch along alpha, all runs in one chart."""
    swept = [sweep(swept_results(run.records)) for run in runs]
    chosen = dict(zip(names, (run.alpha for run in runs), strict=True))
    roles = {"val": "task", "supported_val": "supported dataset"}
    wanted = {
        s: kind for run in runs for role, kind in roles.items() for s in run.sets(role)
    }
    charts = []
    for name, kind in wanted.items():
        curves = {n: one.get(name, {}) for n, one in zip(names, swept, strict=True)}
        if max(map(len, curves.values())) > 1:
            draw = partial(draw_choices, curves=curves, chosen=chosen)
            description = "; ".join(
                f"{run}: alpha {alpha}" for run, alpha in chosen.items()
            )
            title = f"{name} along alpha in {', '.join(names)}"
            charts.append(
                Chart(svg(draw, (380, 280), title, description), f"{name}, {kind}")
            )
    if not charts:
        return None
    lead = "The validation data that chose alpha; stars are the choices."
    groups = [{"title": "", "charts": charts}]
    body = render("charts.html", lead=lead, groups=groups, notes=_not_drawn(names))
    return Section("Choice of alpha", body)


def _not_drawn(names: Sequence[str]) -> list[str]:
    """A note on the runs beyond the colours."""
    rest = names[len(RUN_ROLES) :]
    return [f"Not drawn: {', '.join(rest)}."] if rest else []


def training(runs: Sequence[Workdir], names: Sequence[str]) -> Section | None:
    """Loss and gradient norm of each training, all runs in one chart."""
    groups = []
    for stage in dict.fromkeys(stage for run in runs for stage in run.curves):
        charts = []
        for key in _CURVES:
            every = [curve_points(run.curves.get(stage, []), key) for run in runs]
            if any(every):
                curves = dict(zip(names, every, strict=True))
                charts.append(_training_chart(stage, key, curves))
        if charts:
            groups.append({"title": stage, "charts": charts})
    if not groups:
        return None
    body = render("charts.html", lead="", groups=groups, notes=_not_drawn(names))
    return Section("Training", body)


def _training_chart(stage: str, key: str, curves: Mapping[str, Points]) -> Chart:
    draw = partial(draw_training, curves=curves, name=key, roles=RUN_ROLES)
    last = [f"{run} {points[-1][1]:.3g}" for run, points in curves.items() if points]
    return Chart(
        svg(draw, (380, 220), f"{key} of {stage}", f"at the end: {', '.join(last)}")
    )
