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
from rsclip_jax.train import processes, sharding

MEMORY = 2**30  # bytes of each device that a search may use
_SMALL = 2**26  # scores that numpy computes in less time than a compilation takes
_WORD = 64  # gallery rows whose results are the bits of one number
_Owners = tuple[np.ndarray, np.ndarray]


def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    *,
    mesh: Mesh,
    memory: int = MEMORY,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds each query's k nearest rows of a gallery by inner product, exactly.

    Of several processes, which all call it with the same rows, each searches for its
    share of the queries on its own devices, and all return all of them.

    Args:
      queries: [m, d]; gallery: [n, d]. Both may be memory-mapped files; the devices
        hold one block of the gallery at a time.
      k: 1 to n.
      mesh: the devices that search.
      memory: bytes of each device that the search may use.

    Returns:
      (scores, gallery rows), both [m, k], best first, in float32; among equal scores
      the earlier row is first.

    Raises:
      ValueError: for a k out of range, and for nan or infinite values.
    """
    if not 0 < k <= len(gallery):
        raise ValueError(
            f"k = {k}: the gallery has {len(gallery)} rows; choose a k from 1 to"
            f" {len(gallery)}"
        )
    for name, z in (("queries", queries), ("gallery", gallery)):
        if not _is_finite(z):
            raise ValueError(
                f"{name}: some values are nan or infinite and cannot be ranked; leave"
                " those rows out"
            )
    own = queries[_own_share(len(queries))]
    found = _nearest(own, gallery, k, _searching_mesh(mesh), memory)
    scores, rows = map(_join, found)
    return scores, rows


def _nearest(
    queries: np.ndarray, gallery: np.ndarray, k: int, mesh: Mesh, memory: int
) -> tuple[np.ndarray, np.ndarray]:
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


def _searching_mesh(mesh: Mesh) -> Mesh:
    """The mesh; with several processes, which all hold all rows, this one's devices."""
    return mesh if processes.count() == 1 else sharding.make_local_mesh()


def _own_share(rows: int) -> slice:
    """This process's share of rows."""
    index, count = processes.index(), processes.count()
    return slice(rows * index // count, rows * (index + 1) // count)


def _join(own: np.ndarray) -> np.ndarray:
    """The rows of all processes' shares."""
    return np.concatenate(processes.gather_rows(own))


def is_for_devices(queries: np.ndarray, gallery: np.ndarray, mesh: Mesh | None) -> bool:
    """Whether the mesh should search: the search is large and all values finite."""
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
    """metrics.match_ranks's ranks [m], also for large galleries.

    The devices compare in float32; rows whose scores are too close to the match's are
    compared again in float64, pair by pair. Where is_for_devices is false,
    metrics.match_ranks computes the ranks. owners: as for metrics.match_ranks. Several
    processes share the queries as in nearest.
    """
    if not is_for_devices(queries, gallery, mesh):
        return metrics.match_ranks(queries, gallery, owners)
    assert mesh is not None
    mine, theirs = metrics.check_owners(queries, gallery, owners)
    own = _own_share(len(queries))
    held = np.asarray(mine)[own], np.asarray(theirs)
    mesh = _searching_mesh(mesh)
    return _join(_match_ranks(queries[own], gallery, held, mesh, memory))


def _match_ranks(
    queries: np.ndarray, gallery: np.ndarray, owners: _Owners, mesh: Mesh, memory: int
) -> np.ndarray:
    mine, theirs = owners
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

    waiting = None  # the devices count one block while numpy settles the previous one
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
    """An upper bound [m] of each query's scores: its length times the longest row's."""
    return _lengths(queries) * _lengths(gallery).max()


def score_slack(queries: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The error bound [m] of scores summed in float32 from d products, in any order."""
    return (queries.shape[1] + 8) * 2.0**-24 * lengths


def best_matches(
    queries: np.ndarray, gallery: np.ndarray, mine: np.ndarray, theirs: np.ndarray
) -> np.ndarray:
    """Each query's highest inner product [m] with rows of its owner, in float64."""
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
    """How a search is tiled: the numbers of queries and of gallery rows at a time.

    A quarter of the memory holds gallery rows, half holds scores and their results.
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
        """(first row, rows on the mesh, which of them are real) of each block."""
        rows = sharding.batch_sharding(self.mesh)
        for start in range(0, len(gallery), self.rows):
            block = np.asarray(gallery[start : start + self.rows], np.float32)
            held = np.arange(self.rows) < len(block)
            empty = np.zeros((self.rows - len(block), block.shape[1]), np.float32)
            block = np.concatenate([block, empty])
            yield start, jax.device_put(block, rows), jax.device_put(held, rows)

    def of_queries(self, queries) -> Iterator[tuple[slice, np.ndarray]]:
        """(their slice, the queries padded with zeros) of each part."""
        for i in range(0, len(queries), self.queries):
            part = slice(i, min(i + self.queries, len(queries)))
            yield part, self.padded(np.asarray(queries[part], np.float32))

    def padded(self, values: np.ndarray) -> np.ndarray:
        """The values of a part, padded with zeros to a whole tile."""
        missing = self.queries - len(values)
        return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))


@functools.lru_cache
def _make_count(mesh: Mesh) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Makes (number of rows that surely score above, undecided rows as bits)."""

    def count(queries, gallery, held, low, high):
        scores = _scores(queries, gallery)
        above = (scores > high[:, None]) & held[None]
        near = (scores >= low[:, None]) & ~above & held[None]
        return jax.lax.psum(above.sum(axis=1), sharding.AXES), jnp.packbits(near, 1)

    rows, columns = P(sharding.AXES), P(None, sharding.AXES)
    sharded = jax.shard_map(
        count, mesh=mesh, in_specs=(P(), rows, rows, P(), P()), out_specs=(P(), columns)
    )
    return jax.jit(sharded)


@functools.lru_cache
def _make_nearest(mesh: Mesh, each: int, k: int):
    """Makes the k best of those known and each device's `each` best rows of a block.

    Known rows come first, then the devices in the order of their rows: among equal
    scores top_k takes the first.
    """

    def find(queries, gallery, held, scores, rows):
        new = jnp.where(held[None], _scores(queries, gallery), -jnp.inf)
        best, indices = jax.lax.top_k(new, each)
        indices += jax.lax.axis_index(sharding.AXES) * gallery.shape[0]
        gather = functools.partial(
            jax.lax.all_gather, axis_name=sharding.AXES, axis=1, tiled=True
        )
        scores = jnp.concatenate([scores, gather(best)], axis=1)
        rows = jnp.concatenate([rows, gather(indices)], axis=1)
        scores, order = jax.lax.top_k(scores, k)
        return scores, jnp.take_along_axis(rows, order, axis=1)

    rows = P(sharding.AXES)
    sharded = jax.shard_map(
        find,
        mesh=mesh,
        in_specs=(P(), rows, rows, P(), P()),
        out_specs=(P(), P()),
        check_vma=False,  # it cannot infer that all devices choose the same
    )
    return jax.jit(sharded)


def _scores(queries: jax.Array, gallery: jax.Array) -> jax.Array:
    # by default accelerators multiply with fewer bits
    return jnp.matmul(queries, gallery.T, precision=jax.lax.Precision.HIGHEST)


def _set_bits(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the ones among [m, n] packed bits [m, n / 8]."""
    words = np.ascontiguousarray(bits).view(np.uint64)  # 64 at a time: most are zero
    row, word = np.nonzero(words != 0)
    ones = np.unpackbits(words[row, word].view(np.uint8).reshape(-1, 8), axis=1)
    which, bit = np.nonzero(ones)
    return row[which], word[which] * _WORD + bit


def _pair_scores(queries, gallery, query: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Inner products in float64 of queries[query] with gallery[row], pair by pair."""
    scores = np.empty(len(query))
    for i in range(0, len(query), 2**14):
        pair = np.asarray(queries[query[i : i + 2**14]], np.float64)
        scores[i : i + 2**14] = np.einsum(
            "nd,nd->n", pair, np.asarray(gallery[row[i : i + 2**14]], np.float64)
        )
    return scores


def _lengths(z: np.ndarray) -> np.ndarray:
    parts = (z[i : i + 2**14] for i in range(0, max(len(z), 1), 2**14))
    return np.concatenate([np.linalg.norm(np.asarray(p, float), axis=1) for p in parts])


def _is_finite(z: np.ndarray) -> bool:
    return all(np.isfinite(z[i : i + 2**14]).all() for i in range(0, len(z), 2**14))
