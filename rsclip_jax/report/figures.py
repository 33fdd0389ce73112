"""The figures of a run's report, each from plain numbers to HTML."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rsclip_jax.report.chart import SHAPES, Chart, limits

Curve = Mapping[float, float]
_SUPPORTED = ("other", "s2", "ir")  # roles: there is but one sensor where they stand


def alpha_figure(
    curves: Mapping[str, Curve],
    tasks: int,
    *,
    chosen: float | None,
    interval: Sequence[float] | None = None,
    least: Mapping[str, float] | None = None,
    whiskers: Mapping[str, Mapping[float, Sequence[float]]] | None = None,
) -> str:
    """Values in percent along alpha: the first `tasks` sets are the tasks'.

    interval: where the choice lies in 95 % of resamples. least: of supported sets, how
    low they may fall. whiskers: the intervals of the values.
    """
    whiskers, least = whiskers or {}, least or {}
    values = [v for curve in curves.values() for v in curve.values()]
    values += least.values()
    values += [v for n in curves for ends in whiskers.get(n, {}).values() for v in ends]
    chart = Chart((460, 330), (-0.03, 1.03), limits(values), margins=(24, 12, 42, 50))
    chart.axes("alpha: 0 is the original, 1 the fine-tuned model", "value (%)")
    if interval is not None:
        low, high = interval
        chart.band(low, high, "chosen")
    if chosen is not None:
        chart.upright(chosen, "chosen")
        side, step = ("end", -5) if chosen > 0.7 else ("start", 5)
        at = chart.x(chosen) + step
        chart.words(at, chart.top + 10, f"alpha {chosen:g}", side, "halo")
    for i, (name, curve) in enumerate(curves.items()):
        role, shape = style_of(i, tasks)
        if name in least:
            chart.level(least[name], role)
        for alpha, (low, high) in whiskers.get(name, {}).items():
            chart.whisker(alpha, low, high, role)
        points = sorted(curve.items())
        chart.line(points, role)
        said = [f"{name} at alpha {a:g}: {v:.1f} %" for a, v in points]
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
    highest: dict[float, tuple[float, float]] = {}
    for i, (label, values) in enumerate(supported.items()):
        role, shape = style_of(i, 0)
        chart.level(least[label], role)
        points = {a: (curve[a], values[a]) for a in sorted({*curve} & {*values})}
        chart.line(points.values(), role)
        said = [
            f"{label} at alpha {a:g}: {y:.1f} %, {name} {x:.1f} %"
            for a, (x, y) in points.items()
        ]
        chart.marks(points.values(), role, shape=shape, radius=4, titles=said)
        if chosen in points:
            chart.marks([points[chosen]], "chosen", shape="star", radius=10)
        for a, (x, y) in points.items():
            highest[a] = x, max(y, highest.get(a, (x, y))[1])
    _name_ends(chart, highest, chosen)
    return chart.render(f"Supported sets over {name} along alpha, chosen {chosen}")


def style_of(place: int, tasks: int) -> tuple[str, str]:
    """(role, mark) of a set along alpha: the first `tasks` are the tasks'."""
    if place < tasks:
        return "after", SHAPES[place % len(SHAPES)]
    place -= tasks
    return _SUPPORTED[place % len(_SUPPORTED)], SHAPES[place % len(SHAPES)]


def _name_ends(chart: Chart, points: Mapping, chosen: float | None) -> None:
    """Writes alpha above the ends and the choice."""
    for alpha in (a for a in points if a in (0.0, 1.0, chosen)):
        x, y = chart.x(points[alpha][0]), chart.y(points[alpha][1])
        side, step = ("end", -10) if alpha == 1 else ("start", 10)
        if alpha == 0:
            side, step = "middle", 0
        chart.words(x + step, y - 10, f"alpha {alpha:g}", side, "halo")


def interval_figure(rows: Sequence[tuple[str, float, Sequence[float] | None]]) -> str:
    """A line from 0 to 100 % for each (role, value, its interval): dot and whisker."""
    step = 14
    size = (316, step * len(rows) + 24)
    chart = Chart(size, (0, 100), (len(rows), 0), margins=(0, 12, 24, 8))
    for tick in (0, 25, 50, 75, 100):
        chart.upright(tick, "rule")
        chart.words(chart.x(tick), size[1] - 8, f"{tick}", "middle", "tick")
    for i, (role, value, ci95) in enumerate(rows):
        if ci95 is not None:
            ends = [(end, i + 0.5) for end in ci95]
            chart.line(ends, role, 'stroke-opacity=".35"', width=8)
        chart.marks([(value, i + 0.5)], role, radius=4)
    said = ", ".join(f"{role} {value:.1f} %" for role, value, _ in rows)
    return chart.render(said)


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

    before, after: {"rgb", a sensor or "text": [n, d]}. Lines join RGB and the sensors
    at about `pairs` of the n places.
    """
    stacked = np.concatenate([*before.values(), *after.values()]).astype(np.float64)
    mean = stacked.mean(axis=0)
    _, sizes, axes = np.linalg.svd(stacked - mean, full_matrices=False)
    shares = 100 * sizes**2 / max(float((sizes**2).sum()), 1e-12)
    flat = [
        {key: (z - mean) @ axes[:2].T for key, z in each.items()}
        for each in (before, after)
    ]
    every = np.concatenate([points for each in flat for points in each.values()])
    x, y = limits(every[:, 0], 0.05), limits(every[:, 1], 0.05)
    labels = [
        f"{n} principal component ({s:.0f} % of the variance)"
        for n, s in zip(("1st", "2nd"), shares, strict=False)
    ]
    figures = []
    for when, each in zip(("before", "after"), flat, strict=True):
        chart = Chart((470, 420), x, y, margins=(24, 6, 26, 6))
        chart.frame(*labels)
        _draw_map(chart, each, pairs)
        figures.append(chart.render(f"Map of the embeddings {when}"))
    return figures


def map_shapes(kinds: Iterable[str]) -> dict[str, str]:
    """{sensor or "text": the mark that it has in a map}."""
    kinds = list(kinds)
    return {
        kind: "diamond" if kind == "text" else SHAPES[i % 2]
        for i, kind in enumerate(kinds)
    }


def _draw_map(chart: Chart, flat: Mapping[str, np.ndarray], pairs: int) -> None:
    for kind, shape in map_shapes(flat).items():
        if kind != "text":
            chart.marks(
                flat[kind].tolist(), kind, shape=shape, radius=2.6, opacity=0.55
            )
    for kind in set(flat) - {"rgb", "text"} if "rgb" in flat else ():
        step = max(1, len(flat["rgb"]) // pairs)
        for two in zip(flat["rgb"][::step], flat[kind][::step], strict=True):
            chart.line([end.tolist() for end in two], "text", width=1)
    if "text" in flat:
        chart.marks(flat["text"].tolist(), "text", shape="diamond", radius=5)


def histogram_figures(
    cosines: Sequence[tuple[np.ndarray, np.ndarray]], role: str
) -> list[str]:
    """Cosines of pairs (filled) and of what is none (dashed): a picture each, alike."""
    every = np.concatenate([values for two in cosines for values in two])
    x = limits(every.tolist(), 0.02)
    edges = np.linspace(*x, 41)
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    heights = [
        [100 * np.histogram(values, edges)[0] / len(values) for values in two]
        for two in cosines
    ]
    top = 1.08 * max(float(height.max()) for two in heights for height in two)
    figures = []
    for (pairs, others), (paired, unpaired) in zip(heights, cosines, strict=True):
        chart = Chart((420, 240), x, (0, top), margins=(24, 12, 42, 50))
        chart.axes("cosine", "% of them")
        points = list(zip(middles, pairs.tolist(), strict=True))
        chart.area(points, role)
        chart.line(points, role)
        rest = zip(middles, others.tolist(), strict=True)
        chart.line(rest, "text", 'stroke-dasharray="5 3"')
        said = f"Cosines: paired {paired.mean():.2f}, others {unpaired.mean():.2f}"
        figures.append(chart.render(f"{said} on average"))
    return figures
