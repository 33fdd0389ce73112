"""Gains by label of each query's nearest gallery entries: exact, and over the mesh."""

import dataclasses
from typing import Protocol

import numpy as np
from jax.sharding import Mesh

from rsclip_jax import metrics
from rsclip_jax.evals import search

_SPARE = 32  # candidates beyond k: rounding may have ranked a true one behind them
_BLOCK = 2**21  # numbers of the candidates' embeddings at a time, 16 MiB


class Gains(Protocol):
    """The gains, 0 to 1, of m queries from each of a gallery's n rows, by label."""

    def of_rows(self, query: slice | np.ndarray) -> np.ndarray:
        """Gains [p, n] of p queries from all rows."""

    def of_pairs(self, query: slice | np.ndarray, row: np.ndarray) -> np.ndarray:
        """Gains [p, c] of p queries, each from its own c rows: row [p, c]."""

    def known(self) -> np.ndarray:
        """Whether any row has a gain for each query, [m]."""


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Gains are metrics.label_overlap of the queries' and the gallery's labels.

    mine [m] and theirs [n], or multi-hot [m, k] and [n, k].
    """

    mine: np.ndarray
    theirs: np.ndarray

    def of_rows(self, query: slice | np.ndarray) -> np.ndarray:
        return metrics.label_overlap(self.mine[query], self.theirs)

    def of_pairs(self, query: slice | np.ndarray, row: np.ndarray) -> np.ndarray:
        if self.mine.ndim == 1:
            return (self.mine[query][:, None] == self.theirs[row]).astype(float)
        a, b = self.mine[query][:, None] > 0, self.theirs[row] > 0
        both = (a & b).sum(axis=2)
        either = a.sum(axis=2) + b.sum(axis=2) - both
        return both.astype(float) / np.maximum(either, 1)

    def known(self) -> np.ndarray:
        if self.mine.ndim == 1:
            return np.isin(self.mine, self.theirs)
        there = (self.theirs > 0).any(axis=0)
        return np.asarray(((self.mine > 0) & there).any(axis=1))


@dataclasses.dataclass(frozen=True)
class Classes:
    """Query i is class i, with a gain of 1 from rows that have it: theirs [n, k]."""

    theirs: np.ndarray

    def of_rows(self, query: slice | np.ndarray) -> np.ndarray:
        return (self.theirs.T[query] > 0).astype(float)

    def of_pairs(self, query: slice | np.ndarray, row: np.ndarray) -> np.ndarray:
        classes = np.arange(self.theirs.shape[1])[query]
        return (self.theirs[row, classes[:, None]] > 0).astype(float)

    def known(self) -> np.ndarray:
        return np.asarray((self.theirs > 0).any(axis=0))


def nearest_gains(
    queries: np.ndarray,
    gallery: np.ndarray,
    gains: Gains,
    k: int,
    *,
    mesh: Mesh | None,
    memory: int = search.MEMORY,
) -> tuple[np.ndarray, np.ndarray]:
    """metrics.ranked_gains's (gains [m, k], known [m]), also for large galleries.

    The devices find somewhat more than k candidates in float32, which numpy ranks in
    float64. Where float32 cannot exclude another row from a query's first k, and where
    search.is_for_devices is false, metrics.ranked_gains computes the gains.
    """
    if not search.is_for_devices(queries, gallery, mesh):
        return metrics.ranked_gains(queries, gallery, gains.of_rows, k)
    assert mesh is not None
    found, settled = _rank_candidates(queries, gallery, gains, k, mesh, memory)
    left = np.flatnonzero(~settled)
    if len(left):
        found[left], _ = metrics.ranked_gains(
            queries[left], gallery, lambda rows: gains.of_rows(left[rows]), k
        )
    return found, gains.known()


def _rank_candidates(
    queries: np.ndarray, gallery: np.ndarray, gains: Gains, k: int, mesh, memory: int
) -> tuple[np.ndarray, np.ndarray]:
    """(gains [m, k] of the best candidates, whether all other rows are excluded)."""
    count = min(k + _SPARE, len(gallery))
    scores, rows = search.nearest(queries, gallery, count, mesh=mesh, memory=memory)
    lengths = search.score_lengths(queries, gallery)
    worst = scores[:, -1].astype(float)
    # an upper bound of all other rows' keys: a gain only lowers a key
    bound = (worst + search.score_slack(queries, lengths)) / np.maximum(lengths, 1e-300)
    if count == len(gallery):
        bound[:] = -np.inf
    found, last = np.empty((len(queries), k)), np.empty(len(queries))
    each = max(1, _BLOCK // (count * gallery.shape[1]))
    for i in range(0, len(queries), each):
        part = slice(i, min(i + each, len(queries)))
        near = np.asarray(gallery[rows[part]], float)
        exact = (near @ np.asarray(queries[part], float)[:, :, None])[:, :, 0]
        of_part = gains.of_pairs(part, rows[part])
        found[part], keys = metrics.rank_gains(exact, of_part, lengths[part], k)
        last[part] = keys[:, -1]
    return found, (last > bound) & np.isfinite(worst)
