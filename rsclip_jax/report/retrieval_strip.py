"""align/retrieval.png: sensor queries and the RGB scenes nearest to them."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.types import Source
from rsclip_jax.report.charts import save_figure
from rsclip_jax.report.contact_sheet import render, views_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_QUERIES, _NEAREST = 6, 5


def plot_retrieval_strip(
    path: Path, source: Source, zquery: np.ndarray, zgallery: np.ndarray, *, sensor: str
) -> None:
    """Writes sensor queries, the RGB scene of each one's location, its five nearest.

    zquery, zgallery [n, d] are the embeddings of source's records by sensor and by RGB.
    Titles give the rank of the same location among all n, and the classes of the found
    scenes where a record has one.
    """
    from matplotlib.figure import Figure  # as in charts.py

    queries = spread_indices(len(zquery), _QUERIES)
    nearest = min(_NEAREST, len(zgallery))
    size = (1.5 * (nearest + 2), 1.75 * len(queries))
    figure = Figure(figsize=size)  # fixed margins: a layout of 42 axes takes seconds
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.94, wspace=0.1, hspace=0.25)
    grid = figure.subplots(len(queries), nearest + 2, squeeze=False)
    view = views_of(get_sensor(source.dataset.sensors[sensor]))[0]
    records = [source[query] for query in queries]
    pictures, _ = render([record[sensor] for record in records], view)
    for axes, query, record, seen in zip(grid, queries, records, pictures, strict=True):
        order = np.argsort(-(zgallery @ zquery[query]), kind="stable")
        rank = 1 + int(np.flatnonzero(order == query)[0])
        _show(axes[0], seen, "black", f"query: {sensor}")
        title = f"same location: rank {rank}/{len(order)}"
        _show(axes[1], record["rgb"], "limegreen", title)
        for i, (ax, index) in enumerate(zip(axes[2:], order, strict=False)):
            colour = "limegreen" if index == query else "lightgrey"
            found = source[index]
            _show(ax, found["rgb"], colour, _class_of(source, found) or f"RGB {i + 1}")
    figure.suptitle(
        f"{source.spec}, nearest RGB scenes of {sensor} queries"
        f" ({view.heading}); green is the same location",
        fontsize=10,
    )
    save_figure(figure, path)


def _class_of(source: Source, record: dict) -> str:
    if source.dataset.task != "single":
        return ""
    name = source.dataset.classnames[record["label"]]
    return "\n".join(textwrap.wrap(name, 26, max_lines=2, placeholder=" ..."))


def _show(ax: "Axes", picture: np.ndarray, colour: str, title: str) -> None:
    ax.set_title(title, fontsize=7)
    ax.imshow(picture, cmap="grey" if picture.ndim == 2 else None)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)
