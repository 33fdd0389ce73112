"""map/quicklook.png: a map of classes beside the scene that it is of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsclip_jax.data.scenes.writing import Colour
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.io.files import naming, replacing
from rsclip_jax.report.contact_sheet import render, views_of

_NONE = (0.93, 0.93, 0.93)


def class_colours(count: int) -> list[Colour]:
    """A colour for each class, as different as so many can be."""
    import matplotlib  # as in charts.py

    if count <= 20:
        chosen = [matplotlib.colormaps["tab20"](i) for i in range(count)]
    else:
        chosen = [matplotlib.colormaps["hsv"](i / count) for i in range(count)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b, _ in chosen]


def save_quicklook(
    path: Path,
    seen: np.ndarray,
    sensor: Sensor,
    classes: np.ndarray,
    names: Sequence[str],
    shares: Sequence[float],
    title: str,
) -> None:
    """Draws the scene, its classes over it, and a legend with each class's share.

    seen: [h, w, bands] in the sensor's unit. classes: uint8 [rows, columns], 0 for
    none, of the same ground.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = [(r / 255, g / 255, b / 255) for r, g, b in class_colours(len(names))]
    view = views_of(sensor)[0]
    (picture,), _ = render([seen], view)
    table = np.array([_NONE, *colours])
    ratio = seen.shape[0] / seen.shape[1]
    width = 5.2
    figure = Figure((2 * width + 3, max(width * ratio, 2.5) + 0.8), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    extent = (0, seen.shape[1], seen.shape[0], 0)
    axes[0].imshow(picture, extent=extent)
    axes[0].set_title(f"{sensor.name}, {view.heading}", fontsize=9, loc="left")
    axes[1].imshow(table[classes], extent=extent, interpolation="nearest")
    axes[1].set_title("classes", fontsize=9, loc="left")
    for one in axes:
        one.set_axis_off()
    handles = [
        Patch(color=colour, label=f"{name}, {100 * share:.1f} %")
        for name, colour, share in zip(names, colours, shares, strict=True)
    ]
    handles.append(Patch(color=_NONE, label="no values"))
    axes[1].legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False
    )
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    with naming(path), replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
