"""PNG figures: the alpha curve and the retrieval strip."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False})


def plot_alpha_curve(
    path: Path, names: list[str], curve: list[dict[float, float]], chosen: float
) -> None:
    """Supported against task value along alpha, as PAINT (Ilharco 2022) draws it.

    names[0] and curve[0] are the task's, the others the supported sets'; each curve
    maps alpha to a value in [0, 1].
    """
    figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    alphas = sorted(curve[0])
    task = np.array([100 * curve[0][a] for a in alphas])
    for name, values in zip(names[1:], curve[1:], strict=True):
        supported = np.array([100 * values[a] for a in alphas])
        axes.plot(task, supported, "o-", markersize=4, label=name)
        for i, alpha in enumerate(alphas):
            if alpha in (0.0, 1.0, chosen):
                axes.annotate(
                    f"α = {alpha:g}",
                    (task[i], supported[i]),
                    textcoords="offset points",
                    xytext=(6, 8),
                )
        i = alphas.index(chosen)
        axes.plot(task[i], supported[i], "*", markersize=16, color="crimson")
    axes.set_xlabel(f"{names[0]} (%)")
    axes.set_ylabel("supported set (%)")
    if len(curve) > 1:
        axes.legend(loc="best", frameon=False)
    else:  # nothing to support: the task alone, along alpha
        axes.plot(alphas, task, "o-", markersize=4)
        axes.plot(chosen, 100 * curve[0][chosen], "*", markersize=16, color="crimson")
        axes.set_xlabel("alpha")
        axes.set_ylabel(f"{names[0]} (%)")
    axes.set_title("Weight interpolation: original to fine-tuned, chosen alpha starred")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    _save(figure, path)


def plot_retrieval_strip(
    path: Path, source, zquery: np.ndarray, zgallery: np.ndarray, *, sensor: str
) -> None:
    """Sensor queries and each one's five nearest RGB scenes, the true one framed green.

    zquery, zgallery [n, d] are the embeddings of source's records by sensor and by RGB.
    """
    rows = np.linspace(0, len(zquery) - 1, 6).astype(int)
    columns = min(5, len(zgallery))
    figure = Figure(
        figsize=(1.5 * (columns + 1), 1.6 * len(rows)), dpi=110, layout="constrained"
    )
    grid = figure.subplots(len(rows), columns + 1, squeeze=False)
    for axes, query in zip(grid, rows, strict=True):
        best = np.argsort(-(zgallery @ zquery[query]), kind="stable")[:columns]
        _show(axes[0], to_picture(source[query][sensor]), "black")
        for ax, index in zip(axes[1:], best, strict=True):
            colour = "limegreen" if index == query else "lightgrey"
            _show(ax, source[index]["rgb"], colour)
    grid[0, 0].set_title(f"{sensor} query")
    for i in range(columns):
        grid[0, i + 1].set_title(f"RGB {i + 1}")
    figure.suptitle(f"{source.dataset.name}:{source.split}, green = the same place")
    _save(figure, path)


def to_picture(array: np.ndarray) -> np.ndarray:
    """The first band [h, w] stretched between its 2 % and 98 % quantiles, as uint8."""
    band = array[..., 0].astype(np.float32)
    low, high = np.nanquantile(band, (0.02, 0.98))
    scaled = (band - low) / max(high - low, 1e-6)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _show(ax: Axes, picture: np.ndarray, colour: str) -> None:
    ax.imshow(picture, cmap="grey" if picture.ndim == 2 else None)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
