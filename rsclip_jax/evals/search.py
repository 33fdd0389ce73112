"""Exact search among millions of embeddings, a block at a time, over the mesh."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from rsclip_jax import metrics
from rsclip_jax.train import sharding

MEMORY = 2**30  # bytes that a search may take of each device
_SMALL = 2**26  # scores; as many are made by numpy before a program is compiled
_WORD = 64  # rows of the gallery whose answers come back as bits of one number
_Owners = tuple[np.ndarray, np.ndarray]


def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    *,
    mesh: Mesh,
    memory: int = MEMORY,
) -> tuple[np.ndarray, np.ndarray]:
    """(scores, rows of the gallery) [m, k] of each query's k nearest, best first.

    queries [m, d], gallery [n, d]: nearness is the inner product, of float32; of equal
    scores the earlier row comes first. Every row is looked at. Both may be memory-
    mapped files: of the gallery a block at a time is on the devices. Raises ValueError
    for a k that is not in 1..n, and for nan and infinite values.
    """
    if not 0 < k <= len(gallery):
        raise ValueError(f"k = {k}: the gallery has {len(gallery)} rows")
    for name, z in (("queries", queries), ("gallery", gallery)):
        if not _is_finite(z):
            raise ValueError(
                f"{name}: some values are no finite numbers, and no row is nearest to"
                " or among them: leave those rows out"
            )
    mesh = _own(mesh)
    tiles = _Tiles.of(queries, gallery, mesh, memory)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.zeros((len(queries), k), np.int64)
    find = _make_nearest(mesh, min(k, tiles.rows // mesh.size), k)
    for start, block, held in tiles.of_gallery(gallery):
        for part, zquery in tiles.of_queries(queries):
            known = scores[part], (rows[part] - start).astype(np.int32)
            found = find(zquery, block, held, *map(tiles.padded, known))
            scores[part], rows[part] = (
                np.asarray(x)[: part.stop - part.start] for x in found
            )
            rows[part] += start
    return scores, rows


def _own(mesh: Mesh) -> Mesh:
    """The mesh; of several processes, each of which has all rows, its own devices."""
    return mesh if jax.process_count() == 1 else sharding.make_local_mesh()


def is_for_devices(queries: np.ndarray, gallery: np.ndarray, mesh: Mesh | None) -> bool:
    """Whether there are devices, enough to search for them, and only finite values."""
    if mesh is None or len(queries) * len(gallery) <= _SMALL:
        return False
    return _is_finite(queries) and _is_finite(gallery)


def match_ranks(
    queries: np.ndarray,
    gallery: np.ndarray,
    owners: _Owners | None = None,
    *,
    mesh: Mesh | None,
    memory: int = MEMORY,
) -> np.ndarray:
    """The same ranks [m] as metrics.match_ranks gives, for any number of rows.

    The devices compare in float32; what is too near to the match for that is compared
    again in float64, pair by pair. What is_for_devices leaves to numpy, metrics.
    match_ranks does.
    """
    if not is_for_devices(queries, gallery, mesh):
        return metrics.match_ranks(queries, gallery, owners)
    assert mesh is not None
    mesh = _own(mesh)
    mine, theirs = metrics.check_owners(queries, gallery, owners)
    best = best_matches(queries, gallery, mine, theirs)
    lengths = score_lengths(queries, gallery)
    slack = score_slack(queries, lengths)
    low = np.nextafter((best - slack).astype(np.float32), np.float32(-np.inf))
    high = np.nextafter((best + slack).astype(np.float32), np.float32(np.inf))
    least = best - metrics.TIE * lengths
    tiles, count = _Tiles.of(queries, gallery, mesh, memory), _make_count(mesh)
    ranks = np.ones(len(queries), np.int64)

    def settle(start: int, part: slice, above: jax.Array, near: jax.Array) -> None:
        ranks[part] += np.asarray(above)[: part.stop - part.start]
        query, row = _set_bits(np.asarray(near)[: part.stop - part.start])
        query, row = query + part.start, row + start
        rival = mine[query] != theirs[row]
        query, row = query[rival], row[rival]
        beaten = _pair_scores(queries, gallery, query, row) >= least[query]
        np.add.at(ranks, query[beaten], 1)

    waiting = None  # the devices count one block while numpy settles the one before
    for start, block, held in tiles.of_gallery(gallery):
        for part, zquery in tiles.of_queries(queries):
            ends = tiles.padded(low[part]), tiles.padded(high[part])
            counted = start, part, *count(zquery, block, held, *ends)
            if waiting:
                settle(*waiting)
            waiting = counted
    if waiting:
        settle(*waiting)
    return ranks


def score_lengths(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """What no score of a query is above, [m]: its length by the gallery's longest."""
    return _lengths(queries) * _lengths(gallery).max()


def score_slack(queries: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """What float32 can make of a sum of d products, in any order, and its summands."""
    return (queries.shape[1] + 8) * 2.0**-24 * lengths


def best_matches(
    queries: np.ndarray, gallery: np.ndarray, mine: np.ndarray, theirs: np.ndarray
) -> np.ndarray:
    """Each query's highest inner product [m] with what has its owner, in float64."""
    order = np.argsort(theirs, kind="stable")
    first = np.searchsorted(theirs[order], mine, "left")
    last = np.searchsorted(theirs[order], mine, "right")
    best = np.empty(len(queries))
    for i in range(0, len(queries), 4096):
        counts = (last - first)[i : i + 4096]
        starts = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(starts, counts)
        rows = order[np.repeat(first[i : i + 4096], counts) + within]
        scores = _pair_scores(
            queries, gallery, i + np.repeat(np.arange(len(counts)), counts), rows
        )
        best[i : i + 4096] = np.maximum.reduceat(scores, starts)
    return best


@dataclasses.dataclass(frozen=True)
class _Tiles:
    """How a search is cut: so many queries at a time by so many rows of the gallery.

    A quarter of the memory is the gallery's, half the scores' and what is made of them.
    """

    queries: int
    rows: int
    mesh: Mesh

    @classmethod
    def of(cls, queries, gallery, mesh: Mesh, memory: int) -> "_Tiles":
        unit = _WORD * mesh.size
        most = max(unit, memory // (16 * queries.shape[1]) * mesh.size // unit * unit)
        rows = min(most, -(-len(gallery) // unit) * unit)
        each = max(1, memory // 16 // (rows // mesh.size))
        return cls(min(each, max(1, len(queries))), rows, mesh)

    def of_gallery(self, gallery) -> Iterator[tuple[int, jax.Array, jax.Array]]:
        """(first row, rows on the mesh, which of them are some) for each block."""
        rows = sharding.batch_sharding(self.mesh)
        for start in range(0, len(gallery), self.rows):
            block = np.asarray(gallery[start : start + self.rows], np.float32)
            held = np.arange(self.rows) < len(block)
            empty = np.zeros((self.rows - len(block), block.shape[1]), np.float32)
            block = np.concatenate([block, empty])
            yield start, jax.device_put(block, rows), jax.device_put(held, rows)

    def of_queries(self, queries) -> Iterator[tuple[slice, np.ndarray]]:
        """(where they lie, so many queries with zeros behind them) for each part."""
        for i in range(0, len(queries), self.queries):
            part = slice(i, min(i + self.queries, len(queries)))
            yield part, self.padded(np.asarray(queries[part], np.float32))

    def padded(self, values: np.ndarray) -> np.ndarray:
        """Zeros behind the values of the last queries."""
        missing = self.queries - len(values)
        return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))


@functools.lru_cache
def _make_count(mesh: Mesh) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """(how many rows surely score above, the undecided as bits [m, rows / 8])."""

    def count(queries, gallery, held, low, high):
        scores = _scores(queries, gallery)
        above = (scores > high[:, None]) & held[None]
        near = (scores >= low[:, None]) & ~above & held[None]
        return jax.lax.psum(above.sum(axis=1), sharding.AXES), jnp.packbits(near, 1)

    rows, columns = P(sharding.AXES), P(None, sharding.AXES)
    sharded = jax.shard_map(
        count,
        mesh=mesh,
        in_specs=(P(), rows, rows, P(), P()),
        out_specs=(P(), columns),
    )
    return jax.jit(sharded)


@functools.lru_cache
def _make_nearest(mesh: Mesh, each: int, k: int):
    """Of the k best known and the rows of a block, each device's `each` best, the k.

    What was known comes first, and then the devices in the order of their rows: of
    equal scores top_k takes the first.
    """

    def find(queries, gallery, held, scores, rows):
        new = jnp.where(held[None], _scores(queries, gallery), -jnp.inf)
        best, places = jax.lax.top_k(new, each)
        places += jax.lax.axis_index(sharding.AXES) * gallery.shape[0]
        gather = functools.partial(
            jax.lax.all_gather, axis_name=sharding.AXES, axis=1, tiled=True
        )
        scores = jnp.concatenate([scores, gather(best)], axis=1)
        rows = jnp.concatenate([rows, gather(places)], axis=1)
        scores, order = jax.lax.top_k(scores, k)
        return scores, jnp.take_along_axis(rows, order, axis=1)

    rows = P(sharding.AXES)
    sharded = jax.shard_map(
        find,
        mesh=mesh,
        in_specs=(P(), rows, rows, P(), P()),
        out_specs=(P(), P()),
        check_vma=False,  # it cannot tell that all devices choose the same
    )
    return jax.jit(sharded)


def _scores(queries: jax.Array, gallery: jax.Array) -> jax.Array:
    # accelerators would round to fewer bits
    return jnp.matmul(queries, gallery.T, precision=jax.lax.Precision.HIGHEST)


def _set_bits(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the ones in what packbits made [m, n / 8] of [m, n]."""
    words = np.ascontiguousarray(bits).view(np.uint64)  # most are zero: 64 at a look
    row, word = np.nonzero(words != 0)
    ones = np.unpackbits(words[row, word].view(np.uint8).reshape(-1, 8), axis=1)
    which, place = np.nonzero(ones)
    return row[which], word[which] * _WORD + place


def _pair_scores(queries, gallery, query: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Inner products in float64 of queries[query] and gallery[row], pair by pair."""
    scores = np.empty(len(query))
    for i in range(0, len(query), 2**14):
        pair = np.asarray(queries[query[i : i + 2**14]], np.float64)
        scores[i : i + 2**14] = np.einsum(
            "nd,nd->n", pair, np.asarray(gallery[row[i : i + 2**14]], np.float64)
        )
    return scores


def _lengths(z: np.ndarray) -> np.ndarray:
    parts = (z[i : i + 2**14] for i in range(0, len(z), 2**14))
    return np.concatenate([np.linalg.norm(np.asarray(p, float), axis=1) for p in parts])


def _is_finite(z: np.ndarray) -> bool:
    return all(np.isfinite(z[i : i + 2**14]).all() for i in range(0, len(z), 2**14))
