"""PNG figures: the alpha curve and the retrieval strip."""

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rsclip_jax.alpha import Budget
from rsclip_jax.data.sensors import get_sensor
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
) -> None:
    """Supported against task value along alpha, as PAINT (Ilharco 2022) draws it.

    names[0] and curve[0] are the task's, the others the supported sets'; each curve
    maps alpha to a value in [0, 1]. With one supported set a line shows how far it may
    fall; with none the task's value is drawn along alpha.
    """
    figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    alphas = sorted(curve[0])
    task = np.array([100 * curve[0][a] for a in alphas])
    for name, values in zip(names[1:], curve[1:], strict=True):
        supported = np.array([100 * values[a] for a in alphas])
        _plot_points(axes, task, supported, alphas, chosen, label=name)
    axes.set_xlabel(f"{names[0]}: {metric} (%)")
    axes.set_ylabel("supported set: accuracy (%)")
    if len(curve) == 1:
        _plot_points(axes, np.array(alphas), task, alphas, chosen, label=names[0])
        axes.set_xlabel("alpha")
        axes.set_ylabel(f"{metric} (%)")
    if len(curve) == 2:
        least = 100 * budget.least(curve[1][0.0])
        axes.axhline(
            least, linestyle="--", color="grey", linewidth=1, label="least allowed"
        )
    axes.set_title("Weight interpolation: original to fine-tuned, chosen alpha starred")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False)
    _save(figure, path)


def _plot_points(axes: Axes, x, y, alphas: list[float], chosen: float, label: str):
    axes.plot(x, y, "o-", markersize=4, label=label)
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


def plot_retrieval_strip(
    path: Path, source, zquery: np.ndarray, zgallery: np.ndarray, *, sensor: str
) -> None:
    """Sensor queries, the RGB scene of each one's place, and its five nearest.

    zquery, zgallery [n, d] are the embeddings of source's records by sensor and by RGB.
    The place's rank among all n stands above it; classes where the set has single ones.
    """
    rows = np.linspace(0, len(zquery) - 1, 6).astype(int)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
