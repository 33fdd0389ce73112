"""The map of the embeddings, and the gap between modalities."""

from functools import partial

import numpy as np

from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.report.charts import svg
from rsclip_jax.report.figures import draw_cosines, draw_map, principal_axes
from rsclip_jax.report.render import Chart, Section, render
from rsclip_jax.report.workdir import Workdir

_MOST_POINTS = 400  # of one modality in a map
_MOST_SETS = 3


def embedding_maps(run: Workdir) -> Section | None:
    """Maps of RGB, sensor and text embeddings, before and after."""
    groups = []
    for name, (before, after) in _shown_pairs(run):
        flat, labels = principal_axes(map_points(before), map_points(after))
        every = np.concatenate([xy for each in flat for xy in each.values()])
        room = 0.05 * np.ptp(every, axis=0)
        ends = zip(every.min(axis=0) - room, every.max(axis=0) + room, strict=True)
        limits = [(float(low), float(high)) for low, high in ends]
        charts = []
        for when, points in zip(("before", "after"), flat, strict=True):
            caption = f"{name}, {when} stage {after.pins['stage']}"
            draw = partial(draw_map, points=points, labels=labels, limits=limits)
            description = f"{labels[1]} over {labels[0]} of {', '.join(points)}"
            title = f"Map of the embeddings, {caption}"
            charts.append(Chart(svg(draw, (470, 430), title, description), caption))
        groups.append({"title": "", "charts": charts})
    if not groups:
        return None
    lead = (
        "Each mark is an embedding, on the first two principal components of all of"
        " them; before and after share their axes. Modalities that lie in separate"
        " groups have a gap between them."
    )
    body = render("charts.html", lead=lead, groups=groups, notes=())
    return Section("Map of the embeddings", body)


def _shown_pairs(run: Workdir) -> list[tuple[str, tuple[Outcome, Outcome]]]:
    """The datasets with a sensor beside RGB, or else all; no more than three."""
    pairs = list(run.pairs().items())
    several = [(name, pair) for name, pair in pairs if len(pair[1].z) > 1]
    return (several or pairs)[:_MOST_SETS]


def map_points(outcome: Outcome) -> dict[str, np.ndarray]:
    """{sensor or "text": unit-norm embeddings}, of some records, the same of each."""
    n = len(outcome.ids)
    indices = spread_indices(n, _MOST_POINTS)
    points = {key: z[indices] for key, z in outcome.z.items() if "+" not in key}
    if outcome.head is not None:  # which includes the logits' scale
        points["text"] = outcome.head.T / np.linalg.norm(outcome.head, axis=0)[:, None]
    elif outcome.ztxt is not None:
        points["text"] = outcome.ztxt[:_MOST_POINTS]
    return points


def gap_histograms(run: Workdir) -> Section | None:
    """Cosines between RGB and each sensor, at the same and at different locations."""
    groups = []
    for name, ends in _shown_pairs(run):
        z = ends[1].z
        if "rgb" in z and len(z["rgb"]) > 1:
            for sensor in (key for key in z if key != "rgb"):
                groups.append({"title": "", "charts": _gap(name, ends, sensor)})
    if not groups:
        return None
    lead = (
        "Cosine similarities of RGB and another sensor. Retrieval works where the"
        " curve of the same location lies to the right of that of two locations. The"
        " modality gap shifts both curves, which does not harm retrieval."
    )
    return Section(
        "Modality gap", render("charts.html", lead=lead, groups=groups, notes=())
    )


def _gap(name: str, ends: tuple[Outcome, Outcome], sensor: str) -> list[Chart]:
    cosines = [pair_cosines(o.z["rgb"], o.z[sensor]) for o in ends]
    every = np.concatenate([values for two in cosines for values in two])
    room = 0.02 * (np.ptp(every) or 1)
    edges = np.linspace(every.min() - room, every.max() + room, 41)
    heights = [np.histogram(x, edges)[0].max() / len(x) for two in cosines for x in two]
    charts = []
    for when, o, two in zip(("before", "after"), ends, cosines, strict=True):
        gap = np.linalg.norm(o.z["rgb"].mean(axis=0) - o.z[sensor].mean(axis=0))
        caption = (
            f"{name}, {when}. Mean cosine {two[0].mean():.2f} of the same location and"
            f" {mean_unpaired(o.z['rgb'], o.z[sensor]):.2f} of two locations; the mean"
            f" embeddings of rgb and {sensor} are {gap:.2f} apart."
        )
        draw = partial(
            draw_cosines,
            same=two[0],
            others=two[1],
            sensor=sensor,
            edges=edges,
            top=108 * max(heights),
        )
        title = f"Cosines of rgb and {sensor}, {name}, {when}"
        charts.append(Chart(svg(draw, (420, 260), title, caption), caption))
    return charts


def mean_unpaired(a: np.ndarray, b: np.ndarray) -> float:
    """The mean cosine of a[i] and b[j] over all pairs of different indices."""
    n, every = len(a), a.sum(axis=0, dtype=float) @ b.sum(axis=0, dtype=float)
    return float(every - (a * b).sum(dtype=float)) / (n * (n - 1))


def pair_cosines(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of a[i] and b[i], and of a[i] with another's b, of unit-norm [n, d]."""
    shift = max(1, len(a) // 3)  # a neighbour may be of the same class or scene
    return (a * b).sum(axis=1), (a * np.roll(b, shift, axis=0)).sum(axis=1)
