"""The figures of a comparison: differences with intervals, runs' curves overlaid."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from rsclip_jax.report.chart import Chart, colour, limits, ticks
from rsclip_jax.report.document import escape

# a run's colour, by place; the baseline is grey. Of more runs the first are drawn.
ROLES = ("before", "after", "s1", "rgb", "s2", "ir")
Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Row:
    """One difference of a forest, in the units of its axis; sure: significant."""

    name: str
    difference: float
    ci95: tuple[float, ...]
    sure: bool
    said: str


def forest(rows: Sequence[Row], span: tuple[float, float] | None = None) -> str:
    """A row a difference: its interval as a line, itself as a dot, zero upright.

    All on one axis, whose ticks stand below; span: its ends, as of forest_span.
    """
    low, high = span or forest_span(rows)

    def place(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}"

    items = [
        f"<li><span>{escape(row.name)}</span>{_track(row, place)}"
        f"<span>{escape(row.said)}</span></li>"
        for row in rows
    ]
    marks = "".join(
        f'<span style="position:absolute;left:{place(value)}%;'
        f'color:var(--quiet);transform:translateX(-50%)">{value:g}</span>'
        for value in ticks(low, high, 4)
    )
    axis = (
        '<li aria-hidden="true"><span></span><span class="ticks" style="position:'
        f'relative;height:1.2em;text-align:left">{marks}</span><span></span></li>'
    )
    style = "columns:auto;max-width:46rem"  # one column: the axis is for all rows
    return f'<ul class="bars" style="{style}">{"".join(items)}{axis}</ul>'


def forest_span(rows: Sequence[Row]) -> tuple[float, float]:
    """Ends of an axis that holds zero and every interval."""
    ends = [end for row in rows for end in (*row.ci95, row.difference, 0.0)]
    return limits(ends)


def _track(row: Row, place: Callable[[float], str]) -> str:
    role = "after" if row.sure else "before"
    low, high = (place(end) for end in row.ci95)
    at, zero = place(row.difference), place(0.0)
    line = 'vector-effect="non-scaling-stroke" stroke-linecap="round"'
    return (
        '<svg viewBox="0 0 100 20" preserveAspectRatio="none" width="100%" height="20"'
        f' role="img" aria-label="{escape(row.said)} [{row.ci95[0]:.1f},'
        f' {row.ci95[1]:.1f}]">'
        f'<path d="M{zero} 0V20" {line} style="stroke:var(--quiet)" stroke-width="1"/>'
        f'<path d="M{low} 10H{high}" {line} style="stroke:{colour(role)}"'
        ' stroke-width="3" stroke-opacity=".55"/>'
        f'<path d="M{at} 10h0" {line} style="stroke:{colour(role)}" stroke-width="9"/>'
        "</svg>"
    )


def alpha_overlay(
    name: str,
    curves: Sequence[Mapping[float, float]],
    chosen: Sequence[float | None],
    names: Sequence[str],
) -> str:
    """A set's value in percent along alpha in each run, the choices starred."""
    values = [v for curve in curves for v in curve.values()]
    chart = Chart((380, 270), (-0.03, 1.03), limits(values), margins=(24, 12, 42, 50))
    chart.axes("alpha: 0 original, 1 fine-tuned", "%")
    for curve, role in zip(curves, ROLES, strict=False):
        if curve:
            chart.line(sorted(curve.items()), role)
    for curve, alpha, role, run in zip(curves, chosen, ROLES, names, strict=False):
        if alpha is not None and alpha in curve:
            said = f"{run}: alpha {alpha:g}, {curve[alpha]:.1f} %"
            point = [(alpha, curve[alpha])]
            chart.marks(point, role, shape="star", radius=9, titles=[said])
    return chart.render(f"{name} along alpha in {', '.join(names)}")


def curve_overlay(
    name: str, curves: Sequence[Sequence[Point]], names: Sequence[str]
) -> str:
    """A training curve of each run; logarithmic where it spans orders of magnitude."""
    values = [v for points in curves for _, v in points]
    log = min(values) > 0 and max(values) / min(values) > 100
    y = (min(values), max(values)) if log else limits(values)
    steps = [s for points in curves for s, _ in points]
    size, margins = (380, 220), (24, 14, 42, 56)
    chart = Chart(size, limits(steps, 0), y, log=log, margins=margins)
    chart.axes("step", name + (" (logarithmic)" if log else ""))
    said = []
    for points, role, run in zip(curves, ROLES, names, strict=False):
        if points:
            chart.line(points, role)
            said.append(f"{run} {points[-1][1]:.3g}")
    return chart.render(f"{name} at the end: {', '.join(said)}")
