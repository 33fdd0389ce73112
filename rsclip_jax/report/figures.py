"""The figures of a run's report, each from plain numbers to HTML."""

from collections.abc import Mapping, Sequence

import numpy as np

from rsclip_jax.alpha import Budget, value_before
from rsclip_jax.report.chart import Chart, colour, legend, limits, number, svg
from rsclip_jax.report.document import escape

_SHAPES = ("circle", "square", "diamond")
Curve = Mapping[float, float]


def alpha_figure(
    curves: Mapping[str, Curve],
    tasks: int,
    *,
    chosen: float | None,
    interval: Sequence[float] | None = None,
    least: Mapping[str, float] | None = None,
) -> str:
    """Values in percent along alpha: the first `tasks` sets are the tasks'.

    interval: where the choice lies in 95 % of resamples. least: of supported sets, how
    low they may fall.
    """
    values = [v for curve in curves.values() for v in curve.values()]
    values += (least or {}).values()
    chart = Chart((460, 330), (-0.03, 1.03), limits(values), margins=(24, 12, 42, 50))
    chart.axes("alpha: 0 is the original, 1 the fine-tuned model", "%")
    if interval is not None:
        chart.band(*interval, "chosen")
    if chosen is not None:
        chart.upright(chosen, "chosen")
        side, step = ("end", -5) if chosen > 0.7 else ("start", 5)
        chart.words(chart.x(chosen) + step, chart.top + 10, f"alpha {chosen:g}", side)
    for name, value in (least or {}).items():
        chart.level(value, "other")
        chart.words(chart.right, chart.y(value) - 4, f"least of {name}", "end", "tick")
    for i, (name, curve) in enumerate(curves.items()):
        role = "after" if i < tasks else "other"
        points = sorted(curve.items())
        chart.line(points, role)
        said = [f"{name} at alpha {a:g}: {v:.1f} %" for a, v in points]
        shape = _SHAPES[(i if i < tasks else i - tasks) % len(_SHAPES)]
        chart.marks(points, role, shape=shape, radius=4, titles=said)
    label = f"Value of {', '.join(curves)} along alpha, chosen {chosen}"
    return chart.render(label)


def trade_figure(
    task: tuple[str, Curve],
    supported: Mapping[str, Curve],
    *,
    chosen: float | None,
    least: Mapping[str, float],
) -> str:
    """Each supported set's value over the task's, as PAINT (Ilharco 2022) draws it."""
    name, curve = task
    ys = [v for c in supported.values() for v in c.values()]
    chart = Chart(
        (460, 330),
        limits(curve.values(), 0.12),
        limits([*ys, *least.values()], 0.12),
        margins=(24, 12, 42, 50),
    )
    chart.axes(f"{name} (%)", "supported set (%)")
    for i, (label, values) in enumerate(supported.items()):
        chart.level(least[label], "other")
        chart.words(
            chart.left + 4, chart.y(least[label]) + 13, "least allowed", "", "tick"
        )
        alphas = sorted(set(curve) & set(values))
        points = [(curve[a], values[a]) for a in alphas]
        chart.line(points, "other")
        said = [
            f"alpha {a:g}: {x:.1f} %, {y:.1f} %"
            for a, (x, y) in zip(alphas, points, strict=True)
        ]
        shape = _SHAPES[i % len(_SHAPES)]
        chart.marks(points, "other", shape=shape, radius=4, titles=said)
        for a, (x, y) in zip(alphas, points, strict=True):
            if a == chosen:
                chart.marks([(x, y)], "chosen", shape="star", radius=10)
            if a in (0.0, 1.0, chosen):
                side, step = ("end", -9) if a == 1.0 else ("start", 9)
                chart.words(chart.x(x) + step, chart.y(y) - 7, f"alpha {a:g}", side)
    return chart.render(f"Supported sets over {name} along alpha, chosen {chosen}")


def bars(rows: Sequence[tuple[str, float | None, float | None]], *, unit=" %") -> str:
    """A row a name: bars of the values before and after, in percent of the width."""
    items = []
    for name, before, after in rows:
        each = [("before", before), ("after", after)]
        tracks = "".join(
            f'<i style="width:{number(max(0.0, v))}%;background:{colour(role)}"></i>'
            for role, v in each
            if v is not None
        )
        said = " → ".join(
            "–" if np.isnan(v) else f"{v:.1f}" for _, v in each if v is not None
        )
        items.append(
            f'<li><span>{escape(name)}</span><span class="track" aria-hidden="true">'
            f"{tracks}</span><span>{said}{escape(unit)}</span></li>"
        )
    return f'<ul class="bars">{"".join(items)}</ul>'


def interval_figure(
    rows: Sequence[tuple[str, float, Sequence[float] | None]],
) -> str:
    """A line 0 to 100 % a row of (role, value, its interval): whisker and dot."""
    width, step = 236, 13
    x = lambda v: 4 + v / 100 * (width - 8)  # noqa: E731
    height = step * len(rows) + 16
    parts = []
    for value in (0, 50, 100):
        at = number(x(value))
        anchor = {0: "start", 50: "middle", 100: "end"}[value]
        parts.append(f'<path class="rule" d="M{at} 0V{height - 14}"/>')
        parts.append(
            f'<text class="tick" x="{at}" y="{height - 2}" text-anchor="{anchor}">'
            f"{value}</text>"
        )
    for i, (role, value, ci95) in enumerate(rows):
        y = number(step * (i + 0.5) + 1)
        if ci95 is not None:
            low, high = (number(x(v)) for v in ci95)
            parts.append(
                f'<path d="M{low} {y}H{high}" stroke-width="5" stroke-opacity=".35"'
                f' style="stroke:{colour(role)}"/>'
            )
        parts.append(
            f'<circle cx="{number(x(value))}" cy="{y}" r="4.5"'
            f' style="fill:{colour(role)}"/>'
        )
    said = ", ".join(f"{role} {value:.1f} %" for role, value, _ in rows)
    return svg((width, height), said, parts)


def confusion_figure(counts: np.ndarray, names: Sequence[str]) -> str:
    """Rows the true classes, columns the predicted; shares of each row as darkness."""
    k = len(names)
    side = 34 if k <= 12 else 24 if k <= 20 else 15
    room = int(min(7 * max(map(len, names)) + 12, 230))
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = counts / totals
    parts = []
    for i, name in enumerate(names):
        middle = number(room + side * (i + 0.5) + 4)
        short = escape(_short(name, 31))
        parts.append(
            f'<text x="{room - 6}" y="{middle}" text-anchor="end">{short}</text>'
        )
        parts.append(
            f'<text transform="translate({middle} {room - 6}) rotate(-90)">{short}</text>'
        )
    for i, j in np.argwhere(counts > 0):
        x, y = room + side * int(j), room + side * int(i)
        said = f"{names[i]} as {names[j]}: {counts[i, j]} of {totals[i, 0]}"
        parts.append(
            f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill-opacity='
            f'"{shares[i, j]:.2f}" style="fill:{colour("after")}"><title>'
            f"{escape(said)}</title></rect>"
        )
        if side >= 34 and shares[i, j] >= 0.005:
            light = ' style="fill:var(--paper)"' if shares[i, j] > 0.55 else ""
            parts.append(
                f'<text class="tick" pointer-events="none" x="{x + side / 2:g}" y='
                f'"{y + side / 2 + 4:g}" text-anchor="middle"{light}>'
                f"{100 * shares[i, j]:.0f}</text>"
            )
    edge = room + side * k
    lines = "".join(
        f"M{room + side * i} {room}V{edge}M{room} {room + side * i}H{edge}"
        for i in range(k + 1)
    )
    diagonal = "".join(
        f"M{room + side * i} {room + side * i}h{side}v{side}h-{side}z" for i in range(k)
    )
    parts.append(f'<path class="rule" d="{lines}"/><path class="axis" d="{diagonal}"/>')
    size = (edge + 2, edge + 2)
    return svg(size, "Confusion matrix: rows true, columns predicted classes", parts)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def curve_figure(points: Sequence[tuple[float, float]], name: str, role: str) -> str:
    """A training curve over steps; logarithmic where it spans orders of magnitude."""
    points = [(s, v) for s, v in points if np.isfinite(v)]
    values = [v for _, v in points]
    log = min(values) > 0 and max(values) / min(values) > 100 and name != "lr"
    y = (
        (min(values), max(values))
        if log
        else limits([*values, 0.0] if name == "lr" else values)
    )
    chart = Chart(
        (330, 190),
        limits([s for s, _ in points], 0),
        y,
        log=log,
        margins=(24, 14, 42, 56),
    )
    chart.axes("step", name + (" (logarithmic)" if log else ""))
    chart.line(points, role)
    return chart.render(
        f"{name}: {values[0]:.3g} at first, {values[-1]:.3g} at the end"
    )


def map_figures(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], pairs: int = 12
) -> list[str]:
    """Two maps on the same axes: the first principal components of all embeddings.

    before, after: {"rgb", a sensor or "text": unit-norm [n, d]}. Lines join the first
    `pairs` places' RGB with each other sensor.
    """
    stacked = np.concatenate([*before.values(), *after.values()]).astype(np.float64)
    mean = stacked.mean(axis=0)
    _, sizes, axes = np.linalg.svd(stacked - mean, full_matrices=False)
    shares = 100 * sizes**2 / max(float((sizes**2).sum()), 1e-12)
    flat = (stacked - mean) @ axes[:2].T
    x, y = limits(flat[:, 0], 0.04), limits(flat[:, 1], 0.04)
    figures = []
    for when, z in (("before", before), ("after", after)):
        chart = Chart((420, 380), x, y, margins=(24, 10, 42, 14))
        chart.axes(
            f"1st component ({shares[0]:.0f} % of variance)",
            f"2nd component ({shares[1]:.0f} %)",
            x_ticks=(),
            y_ticks=(),
        )
        flat = {key: ((v - mean) @ axes[:2].T).tolist() for key, v in z.items()}
        for key in flat:
            if key not in ("rgb", "text") and "rgb" in flat:
                for a, b in list(zip(flat["rgb"], flat[key], strict=True))[:pairs]:
                    chart.line([a, b], "text", 'stroke-opacity=".55" stroke-width="1"')
        for i, (key, points) in enumerate(flat.items()):
            shape = "diamond" if key == "text" else _SHAPES[i % 2]
            mark = (
                {"radius": 5.0, "opacity": 1.0}
                if key == "text"
                else {"radius": 2.5, "opacity": 0.55}
            )
            chart.marks(points, key, shape=shape, **mark)
        figures.append(chart.render(f"Map of the embeddings {when}"))
    return figures


def histogram_figure(
    paired: np.ndarray, unpaired: np.ndarray, role: str, x: tuple[float, float]
) -> str:
    """Cosines of pairs (filled) and of what does not belong together (dashed)."""
    edges = np.linspace(*x, 41)
    heights = [np.histogram(v, edges)[0] / max(len(v), 1) for v in (unpaired, paired)]
    top = 100 * max(float(h.max()) for h in heights)
    chart = Chart((420, 240), x, (0, 1.08 * top or 1), margins=(24, 12, 42, 50))
    chart.axes("cosine", "% of them")
    middles = (edges[:-1] + edges[1:]) / 2
    for height, kind in zip(heights, ("text", role), strict=True):
        points = [
            (float(m), 100 * float(h)) for m, h in zip(middles, height, strict=True)
        ]
        if kind == "text":
            chart.line(points, kind, 'stroke-dasharray="5 3"')
        else:
            chart.area(points, kind)
            chart.line(points, kind)
    said = (
        f"Cosines: paired {paired.mean():.2f}, others {unpaired.mean():.2f} on average"
    )
    return chart.render(said)


def least_of(curves: Mapping[str, Curve], budget: Budget) -> dict[str, float]:
    """How low each may fall, in percent, of curves in percent."""
    one = {name: {a: v / 100 for a, v in c.items()} for name, c in curves.items()}
    return {name: 100 * budget.least(value_before(c)) for name, c in one.items()}
