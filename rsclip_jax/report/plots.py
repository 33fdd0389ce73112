"""PNG figures: the alpha curve and the retrieval strip."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.io.files import naming, replacing
from rsclip_jax.records.budget import Budget, value_before
from rsclip_jax.report.contact_sheet import render, views_of

matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False})


def plot_alpha_curve(
    path: Path,
    names: list[str],
    curve: list[dict[float, float]],
    chosen: float,
    *,
    budget: Budget,
    metric: str = "accuracy",
    tasks: int = 1,
    with_blocks: Sequence[float] = (),
) -> None:
    """Supported against task value along alpha, as PAINT (Ilharco 2022) draws it.

    The first `tasks` of names and curve are the tasks', the others the supported sets';
    each curve maps alpha to a value in [0, 1]. Of several tasks the mean stands for
    them, and a second picture has each along alpha. A line shows how far a supported
    set may fall; with none the tasks' mean is drawn along alpha. with_blocks: what an
    alpha a block gives, the tasks' mean and each supported set's value.
    """
    several = tasks > 1
    size = (12.0, 4.8) if several else (6.4, 4.8)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes, *second = figure.subplots(1, 1 + several, squeeze=False)[0]
    mean = {a: float(np.mean([c[a] for c in curve[:tasks]])) for a in curve[0]}
    name = f"mean of {tasks} tasks" if several else names[0]
    supported = dict(zip(names[tasks:], curve[tasks:], strict=True))
    _plot_trade(axes, (name, mean), supported, chosen, budget, metric)
    mark = {"marker": "P", "markersize": 11, "color": "darkgreen", "linestyle": ""}
    for i, value in enumerate(with_blocks[1:]):
        label = "an alpha a block" if i == 0 else None
        axes.plot(100 * with_blocks[0], 100 * value, **mark, label=label)
    if len(with_blocks) == 1:
        axes.plot(chosen, 100 * with_blocks[0], **mark, label="an alpha a block")
    axes.legend(loc="best", frameon=False)
    if several:
        _plot_along(
            second[0], {name: mean}, dict(zip(names, curve, strict=True)), chosen
        )
        second[0].set_ylabel(f"{metric} (%)")
    figure.suptitle(
        "Weight interpolation: original to fine-tuned, chosen alpha starred"
    )
    _save(figure, path)


def _plot_trade(axes: Axes, task, supported, chosen: float, budget, metric: str):
    """Each supported set's value over the task's."""
    name, curve = task
    alphas = sorted(a for a in curve if a >= 0)
    x = np.array([100 * curve[a] for a in alphas])
    for label, values in supported.items():
        y = np.array([100 * values[a] for a in alphas])
        colour = _plot_points(axes, x, y, alphas, chosen, label=label)
        axes.axhline(
            100 * budget.least(value_before(values)),
            linestyle="--",
            color=colour,
            linewidth=1,
            label=f"least allowed of {label}",
        )
    axes.set_xlabel(f"{name}: {metric} (%)")
    axes.set_ylabel("supported set: accuracy (%)")
    if not supported:
        _plot_points(axes, np.array(alphas), x, alphas, chosen, label=name)
        axes.set_xlabel("alpha")
        axes.set_ylabel(f"{metric} (%)")
    axes.margins(0.15)
    axes.grid(alpha=0.3)


def _plot_along(axes: Axes, mean, curves, chosen: float) -> None:
    """Every set's value along alpha, the tasks' mean dashed."""
    for curve, style in ((mean, "k--"), (curves, "o-")):
        for label, values in curve.items():
            alphas = sorted(a for a in values if a >= 0)
            y = [100 * values[a] for a in alphas]
            axes.plot(alphas, y, style, markersize=4, label=label)
    axes.axvline(chosen, color="crimson", linewidth=1, label=f"chosen: {chosen:g}")
    axes.set_xlabel("alpha")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False)


def _plot_points(axes: Axes, x, y, alphas: list[float], chosen: float, label: str):
    """The line's colour."""
    (line,) = axes.plot(x, y, "o-", markersize=4, label=label)
    for i, alpha in enumerate(alphas):
        if alpha in (0.0, 1.0, chosen):
            axes.annotate(
                f"α = {alpha:g}",
                (x[i], y[i]),
                textcoords="offset points",
                xytext=(6, 8),
            )
    i = alphas.index(chosen)
    axes.plot(x[i], y[i], "*", markersize=16, color="crimson")
    return line.get_color()


def plot_retrieval_strip(
    path: Path, source, zquery: np.ndarray, zgallery: np.ndarray, *, sensor: str
) -> None:
    """Sensor queries, the RGB scene of each one's place, and its five nearest.

    zquery, zgallery [n, d] are the embeddings of source's records by sensor and by RGB.
    The place's rank among all n stands above it; classes where the set has single ones.
    """
    rows = spread_indices(len(zquery), 6)
    nearest = min(5, len(zgallery))
    figure = Figure(
        figsize=(1.5 * (nearest + 2), 1.75 * len(rows)), dpi=110, layout="constrained"
    )
    grid = figure.subplots(len(rows), nearest + 2, squeeze=False)
    view = views_of(get_sensor(source.dataset.sensors[sensor]))[0]
    records = [source[query] for query in rows]
    pictures, _ = render([record[sensor] for record in records], view)
    for axes, query, record, seen in zip(grid, rows, records, pictures, strict=True):
        order = np.argsort(-(zgallery @ zquery[query]), kind="stable")
        rank = 1 + int(np.flatnonzero(order == query)[0])
        _show(axes[0], seen, "black", f"query: {sensor}")
        title = f"same place: rank {rank}/{len(order)}"
        _show(axes[1], record["rgb"], "limegreen", title)
        for i, (ax, index) in enumerate(zip(axes[2:], order, strict=False)):
            colour = "limegreen" if index == query else "lightgrey"
            found = source[index]
            _show(ax, found["rgb"], colour, _class_of(source, found) or f"RGB {i + 1}")
    figure.suptitle(
        f"{source.dataset.name}:{source.split}, nearest RGB scenes of {sensor} queries"
        f" ({view.heading}); green is the same place"
    )
    _save(figure, path)


def _class_of(source, record: dict) -> str:
    if source.dataset.task != "single":
        return ""
    name = source.dataset.classnames[record["label"]]
    return "\n".join(textwrap.wrap(name, 26, max_lines=2, placeholder=" ..."))


def _show(ax: Axes, picture: np.ndarray, colour: str, title: str) -> None:
    ax.set_title(title, fontsize=7)
    ax.imshow(picture, cmap="grey" if picture.ndim == 2 else None)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)


def _save(figure: Figure, path: Path) -> None:
    with naming(path), replacing(path) as temporary:
        figure.savefig(temporary, format="png")
