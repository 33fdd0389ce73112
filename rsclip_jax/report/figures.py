"""What each chart shows: functions that draw plain numbers on matplotlib's axes."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsclip_jax.records.budget import Budget, mean_curve, value_before
from rsclip_jax.report.charts import Draw, colour, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Mapping[float, float]
Points = Sequence[tuple[float, float]]
# Runs of a comparison; the baseline is grey. Further runs are not drawn.
RUN_ROLES = ("before", "after", "s1", "rgb", "s2", "ir")
_SUPPORTED = ("other", "s2", "ir")
_MARKS = "osD"


def style_of(index: int, tasks: int) -> dict:
    """Colour and mark of a dataset along alpha; the first `tasks` are the tasks'."""
    nth = index if index < tasks else index - tasks
    role = "after" if index < tasks else _SUPPORTED[nth % len(_SUPPORTED)]
    return {"color": colour(role), "marker": _MARKS[nth % len(_MARKS)]}


def draw_along_alpha(
    axes: "Axes",
    curves: Mapping[str, Curve],
    *,
    tasks: int = 1,
    chosen: float | None = None,
    interval: Sequence[float] | None = None,
    least: Mapping[str, float] | None = None,
    whiskers: Mapping[str, Mapping[float, Sequence[float]]] | None = None,
    chance: Mapping[str, float] | None = None,
) -> None:
    """Draws values in percent along alpha: the tasks, then the supported datasets.

    interval: the alphas chosen in 95 % of bootstrap samples. least: how low each
    supported dataset may fall. whiskers: intervals of the values. chance: values of a
    guess.
    """
    if interval is not None:
        span = f"{interval[0]:g} to {interval[1]:g}"
        words = f"chosen in 95 % of bootstrap samples: {span}"
        axes.axvspan(*interval, color=colour("chosen"), alpha=0.15, lw=0, label=words)
    if chosen is not None:
        words = f"chosen: alpha {chosen:g}"
        axes.axvline(chosen, color=colour("chosen"), lw=1.5, label=words)
    for i, (name, curve) in enumerate(curves.items()):
        style = style_of(i, tasks)
        for alpha, ends in ((whiskers or {}).get(name) or {}).items():
            axes.plot([alpha] * 2, ends, color=style["color"], lw=1.5, alpha=0.45)
        kind = "task" if i < tasks else "supported"
        axes.plot(*_columns(curve), **style, label=f"{kind}: {name}")
        _draw_level(
            axes, style, (least or {}).get(name), "--", f"budget: least for {name}"
        )
    for level in dict.fromkeys((chance or {}).values()):
        names = ", ".join(n for n, v in (chance or {}).items() if v == level)
        words = f"chance {level:.1f} %: {names}"
        _draw_level(axes, {"color": colour("quiet")}, level, ":", words)
    axes.set(
        title="value (%)", xlabel="alpha: 0 is the original, 1 the fine-tuned model"
    )


def _draw_level(axes: "Axes", style: Mapping, level, line: str, words: str) -> None:
    if level is not None:
        axes.axhline(level, ls=line, lw=1.5, color=style["color"], label=words)


def _columns(curve: Curve) -> tuple:
    """(alphas from 0, values); not the value before any patching."""
    points = sorted((alpha, value) for alpha, value in curve.items() if alpha >= 0)
    return tuple(zip(*points, strict=True))


def draw_trade(
    axes: "Axes",
    task: tuple[str, Curve],
    supported: Mapping[str, Curve],
    *,
    chosen: float | None,
    least: Mapping[str, float],
    with_blocks: Sequence[float] = (),
) -> None:
    """Each supported dataset over the task, as PAINT (Ilharco 2022) draws it.

    with_blocks: values of the task and of each supported dataset with an alpha a block.
    """
    name, curve = task
    for i, (label, values) in enumerate(supported.items()):
        style = style_of(i, 0)
        alphas = sorted(a for a in {*curve} & {*values} if a >= 0)
        x, y = [curve[a] for a in alphas], [values[a] for a in alphas]
        axes.plot(x, y, **style, label=f"supported: {label}")
        _draw_level(axes, style, least[label], "--", f"budget: least for {label}")
        for alpha, *point in zip(alphas, x, y, strict=True):
            if alpha == chosen:
                axes.plot(*point, "*", ms=16, color=colour("chosen"))
            if i == 0 and alpha in (0.0, 1.0, chosen):
                outer = point[0] > (min(x) + max(x)) / 2
                # in the frame, and on the side on which a falling curve is not
                aside, ha = ((-8, -14), "right") if outer else ((7, 7), "left")
                axes.annotate(
                    f"alpha {alpha:g}",
                    (point[0], point[1]),
                    aside,
                    textcoords="offset points",
                    ha=ha,
                )
    if with_blocks:
        points = zip([with_blocks[0]] * len(supported), with_blocks[1:], strict=True)
        style = {"color": colour("rgb"), "marker": "P", "ms": 10, "ls": ""}
        axes.plot(*zip(*points, strict=True), **style, label="an alpha for each block")
    axes.margins(0.15)
    axes.set(title="supported dataset (%)", xlabel=f"{name} (%)")


def plot_alpha_curve(
    path: Path,
    names: Sequence[str],
    curves: Sequence[Curve],
    chosen: float,
    *,
    budget: Budget,
    metric: str = "accuracy",
    tasks: int = 1,
    with_blocks: Sequence[float] = (),
) -> None:
    """Writes a PNG of the values along alpha, and of what the task's gain costs.

    The first `tasks` of names and curves are the tasks', the others the supported
    datasets'; each curve maps alpha to a value in [0, 1]. with_blocks: the tasks' mean
    and each supported dataset's value with an alpha for each block.
    """
    percent = [{a: 100 * v for a, v in curve.items()} for curve in curves]
    every = dict(zip(names, percent, strict=True))
    supported = dict(list(every.items())[tasks:])
    before = {n: value_before(c) for n, c in zip(names, curves, strict=True)}
    least = {name: 100 * budget.least(before[name]) for name in supported}
    draws: list[Draw] = [
        partial(draw_along_alpha, curves=every, tasks=tasks, chosen=chosen, least=least)
    ]
    if supported:
        task = f"mean of {tasks} tasks" if tasks > 1 else names[0]
        each = mean_curve(percent[:tasks])
        shown: dict[str, Any] = {"chosen": chosen, "least": least}
        shown["with_blocks"] = [100 * value for value in with_blocks]
        named = (f"{task}: {metric}", each)
        draws.append(partial(draw_trade, task=named, supported=supported, **shown))
    title = "Interpolation of the original and the fine-tuned weights"
    save_png(path, draws, (460, 360), title)


def draw_choices(
    axes: "Axes", curves: Mapping[str, Curve], chosen: Mapping[str, float | None]
) -> None:
    """A dataset's value along alpha in each run, the chosen alphas starred."""
    for (run, curve), role in zip(curves.items(), RUN_ROLES, strict=False):
        if curve:
            axes.plot(*_columns(curve), color=colour(role), label=run)
        alpha = chosen[run]
        if alpha is not None and alpha in curve:
            axes.plot(alpha, curve[alpha], "*", ms=14, color=colour(role))
    axes.set(
        title="value (%)", xlabel="alpha: 0 is the original, 1 the fine-tuned model"
    )


def draw_training(
    axes: "Axes", curves: Mapping[str, Points], name: str, roles: Sequence[str]
) -> None:
    """A quantity over the steps of one or several trainings.

    Logarithmic where it spans orders of magnitude; a learning rate starts at 0.
    """
    for (label, points), role in zip(curves.items(), roles, strict=False):
        if points:
            axes.plot(*zip(*points, strict=True), color=colour(role), label=label)
    values = [value for points in curves.values() for _, value in points]
    log = name != "lr" and min(values) > 0 and max(values) / min(values) > 100
    axes.set_yscale("log" if log else "linear")
    if name == "lr":
        axes.set_ylim(bottom=0)
    axes.set(title=name + (" (logarithmic)" if log else ""), xlabel="step")


def principal_axes(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> tuple[list[dict[str, np.ndarray]], list[str]]:
    """Both on the first two principal components of all: ([n, 2] each, axis labels)."""
    stacked = np.concatenate([*before.values(), *after.values()]).astype(np.float64)
    mean = stacked.mean(axis=0)
    _, sizes, axes = np.linalg.svd(stacked - mean, full_matrices=False)
    shares = 100 * sizes**2 / max(float((sizes**2).sum()), 1e-12)
    flat = [
        {key: (z - mean) @ axes[:2].T for key, z in each.items()}
        for each in (before, after)
    ]
    labels = [
        f"{n} principal component ({share:.0f} % of the variance)"
        for n, share in zip(("1st", "2nd"), shares, strict=False)
    ]
    return flat, labels


def draw_map(
    axes: "Axes",
    points: Mapping[str, np.ndarray],
    labels: Sequence[str],
    limits: Sequence[tuple[float, float]],
    pairs: int = 12,
) -> None:
    """Embeddings in two dimensions: {"rgb", a sensor or "text": [n, 2]}.

    Lines join RGB and the sensors at about `pairs` of the n locations.
    """
    for i, (kind, xy) in enumerate(points.items()):
        is_text = kind == "text"
        mark, size = ("D", 7) if is_text else (_MARKS[i % 2], 5)
        style: dict[str, Any] = {"color": colour(kind), "mec": "none", "ls": ""}
        style |= {"marker": mark, "ms": size}
        label = "text (class names or captions)" if is_text else kind
        style |= {"alpha": 1 if is_text else 0.55, "zorder": 2 + is_text}
        axes.plot(*xy.T, **style, label=label)
    label = "same location (a few)"
    for kind in [k for k in points if k not in ("rgb", "text") and "rgb" in points]:
        step = max(1, len(points["rgb"]) // pairs)
        ends = np.stack([points["rgb"][::step], points[kind][::step]])
        axes.plot(*ends.T.transpose(0, 2, 1), color=colour("text"), lw=1)
        axes.plot([], [], color=colour("text"), lw=1, label=label)
        label = "_"
    axes.grid(visible=False)
    axes.set(title=labels[1], xlabel=labels[0], xlim=limits[0], ylim=limits[1])
    axes.set(xticks=[], yticks=[])


def draw_cosines(
    axes: "Axes",
    same: np.ndarray,
    others: np.ndarray,
    sensor: str,
    edges: np.ndarray,
    top: float,
) -> None:
    """Histograms of the cosines of the same location and of two locations."""
    middles = (edges[:-1] + edges[1:]) / 2
    heights = [100 * np.histogram(x, edges)[0] / len(x) for x in (same, others)]
    label = f"rgb and {sensor}, same location"
    axes.fill_between(middles, heights[0], color=colour(sensor), alpha=0.25, lw=0)
    axes.plot(middles, heights[0], color=colour(sensor), label=label)
    axes.plot(middles, heights[1], "--", color=colour("text"), label="two locations")
    axes.set(title="share of the pairs (%)", xlabel="cosine", ylim=(0, top))
    axes.set_xlim(edges[0], edges[-1])
