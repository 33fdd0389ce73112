"""Where embeddings lie: their map, and the gap between modalities."""

import numpy as np

from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.report import document
from rsclip_jax.report.chart import legend
from rsclip_jax.report.document import Section
from rsclip_jax.report.figures import histogram_figures, map_figures, map_shapes
from rsclip_jax.report.workdir import Workdir

_MOST_POINTS = 400  # of one kind in a map
_MOST_SETS = 3


def embedding_maps(run: Workdir) -> Section | None:
    """Where RGB, sensors and text lie, before and after."""
    parts = []
    for name, ends in _shown_pairs(run):
        before, after = map(map_points, ends)
        stage = ends[1].pins["stage"]
        captions = [f"{name}, {when} stage {stage}" for when in ("before", "after")]
        pictures = map(document.figure, map_figures(before, after), captions)
        key = [
            (shape, kind, "text (class names)" if kind == "text" else kind)
            for kind, shape in map_shapes(after).items()
        ]
        if len(set(after) - {"text"}) > 1:
            key.append(("line", "text", "the same place, of some"))
        parts.append(legend(key) + document.tiles(pictures))
    lead = (
        "The first two principal components of all embeddings together, before and"
        " after on the same axes. Modalities that form islands are a gap apart."
    )
    return Section("Map of the embeddings", "".join(parts), lead) if parts else None


def _shown_pairs(run: Workdir) -> list[tuple[str, tuple[Outcome, Outcome]]]:
    """The sets with a sensor beside RGB, or else all; no more than three."""
    pairs = list(run.pairs().items())
    several = [(name, pair) for name, pair in pairs if len(pair[1].z) > 1]
    return (several or pairs)[:_MOST_SETS]


def map_points(outcome: Outcome) -> dict[str, np.ndarray]:
    """{sensor or "text": unit-norm embeddings}, thinned; the same places of each."""
    n = len(outcome.ids)
    indices = spread_indices(n, _MOST_POINTS)
    points = {key: z[indices] for key, z in outcome.z.items() if "+" not in key}
    if outcome.head is not None:  # which has the logits' scale in it
        points["text"] = outcome.head.T / np.linalg.norm(outcome.head, axis=0)[:, None]
    elif outcome.ztxt is not None:
        points["text"] = outcome.ztxt[:_MOST_POINTS]
    return points


def gap_histograms(run: Workdir) -> Section | None:
    """Cosines of RGB and each sensor: of the same place, and of two places."""
    parts = []
    for name, ends in _shown_pairs(run):
        z = ends[1].z
        if "rgb" in z and len(z["rgb"]) > 1:
            parts += [_gap(name, ends, key) for key in z if key != "rgb"]
    lead = (
        "Cosines of the embeddings of two sensors. Retrieval lives by the distance"
        " between the two curves, not by where they lie."
    )
    return Section("Modality gap", "".join(parts), lead) if parts else None


def _gap(name: str, ends: tuple[Outcome, Outcome], sensor: str) -> str:
    cosines = [pair_cosines(o.z["rgb"], o.z[sensor]) for o in ends]
    captions = []
    for when, o, (same, _) in zip(("before", "after"), ends, cosines, strict=True):
        mean = mean_unpaired(o.z["rgb"], o.z[sensor])
        gap = np.linalg.norm(o.z["rgb"].mean(axis=0) - o.z[sensor].mean(axis=0))
        captions.append(
            f"{name}, {when}. On average {same.mean():.2f} of the same place and"
            f" {mean:.2f} of two places; the means of rgb and {sensor} are"
            f" {gap:.2f} apart."
        )
    pictures = map(document.figure, histogram_figures(cosines, sensor), captions)
    key = [("area", sensor, f"rgb and {sensor} of the same place")]
    key.append(("dashes", "text", "of two places"))
    return legend(key) + document.tiles(pictures)


def mean_unpaired(a: np.ndarray, b: np.ndarray) -> float:
    """The mean cosine of a[i] and b[j] over all pairs of different places."""
    n, every = len(a), a.sum(axis=0, dtype=float) @ b.sum(axis=0, dtype=float)
    return float(every - (a * b).sum(dtype=float)) / (n * (n - 1))


def pair_cosines(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of a[i] and b[i], and of a[i] with another's b, of unit-norm [n, d]."""
    shift = max(1, len(a) // 3)  # a neighbour may be of the same class or scene
    return (a * b).sum(axis=1), (a * np.roll(b, shift, axis=0)).sum(axis=1)
