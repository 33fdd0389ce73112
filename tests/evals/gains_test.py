"""Gains by label over the mesh against numpy's of whole rows."""

import numpy as np
import pytest

from rsclip_jax import metrics
from rsclip_jax.evals import gains, search
from rsclip_jax.train.sharding import make_mesh
from tests.helpers.search import MEMORIES, unit

N, K = 300, 6


@pytest.fixture(autouse=True)
def no_small(monkeypatch):
    """Lets the devices do even small searches."""
    monkeypatch.setattr(search, "_SMALL", 0)


@pytest.fixture
def left(monkeypatch):
    """For each search, the number of queries for which numpy ranks whole rows."""
    counts, rank = [], metrics.ranked_gains

    def count(queries, *args):
        counts.append(len(queries))
        return rank(queries, *args)

    monkeypatch.setattr(gains.metrics, "ranked_gains", count)
    return counts


def labels_of(rng, task: str, n: int = N) -> np.ndarray:
    if task == "single":
        return rng.choice([0, 1, 1, 3, 4], n)  # classes 2 and 5 have no example
    labels = (rng.random((n, K)) < 0.3).astype(np.uint8)
    labels[:, 2], labels[:3] = 0, 0  # nor a class, nor three locations a label
    return labels


def embeddings_of(rng, kind: str) -> tuple[np.ndarray, np.ndarray]:
    gallery = unit(rng, N)
    queries = unit(rng, N) + gallery
    if kind == "ties":  # whole numbers: many scores are the same
        gallery = rng.integers(-1, 2, (N, 4)).astype(np.float32)
        queries = rng.integers(-1, 2, (N, 4)).astype(np.float32)
    elif kind == "duplicates":
        gallery = gallery[rng.integers(0, N // 20, N)]
    elif kind == "near":  # apart by what float32 cannot tell
        gallery = gallery[:1] + 1e-9 * rng.normal(size=(N, 16))
    elif kind == "equal":
        queries = gallery = np.full((N, 48), 48**-0.5, np.float32)
    elif kind == "zero":
        gallery = np.zeros((N, 16), np.float32)
    return queries, gallery


def check(queries, gallery, labels, k, **options):
    """Checks that gains and known queries are those of whole rows."""
    want = metrics.ranked_gains(queries, gallery, labels.of_rows, k)
    found = gains.nearest_gains(queries, gallery, labels, k, **options)
    for a, b in zip(found, want, strict=True):
        np.testing.assert_array_equal(a, b)


KINDS = ("random", "ties", "duplicates", "near", "equal", "zero")


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("task", ["single", "multi"])
@pytest.mark.parametrize("kind", KINDS)
def test_gains_over_the_mesh_equal_those_of_whole_rows(kind, task, memory):
    rng = np.random.default_rng(KINDS.index(kind))
    queries, gallery = embeddings_of(rng, kind)
    options = {"mesh": make_mesh(), "memory": memory}
    labels = gains.Overlap(labels_of(rng, task), labels_of(rng, task))
    for k in (1, 20):
        check(queries, gallery, labels, k, **options)


@pytest.mark.parametrize("task", ["single", "multi"])
@pytest.mark.parametrize("kind", KINDS)
def test_class_prompts_find_records_with_the_class(kind, task):
    rng = np.random.default_rng(KINDS.index(kind))
    queries, gallery = embeddings_of(rng, kind)
    labels = labels_of(rng, task)
    if task == "single":
        of_class = gains.Overlap(np.arange(K), labels)
    else:
        of_class = gains.Classes(labels)
    check(queries[:K], gallery, of_class, 20, mesh=make_mesh((4, 2)))
    assert not of_class.known()[2]


@pytest.mark.parametrize("task", ["single", "multi"])
def test_whole_rows_are_ranked_only_if_the_candidates_do_not_suffice(task, left):
    rng = np.random.default_rng(0)
    labels = gains.Overlap(*[labels_of(rng, task)] * 2)
    counts = {}
    for kind in ("random", "near", "equal"):
        left.clear()
        gains.nearest_gains(
            *embeddings_of(rng, kind), labels, 20, mesh=make_mesh(), memory=2**14
        )
        counts[kind] = sum(left)
    assert counts == {"random": 0, "near": N, "equal": N}


def test_the_candidates_may_be_the_whole_gallery(left):
    rng = np.random.default_rng(1)
    labels = gains.Overlap(*[labels_of(rng, "multi", 40)] * 2)
    z = np.ones((40, 4), np.float32)
    gains.nearest_gains(z, z, labels, 20, mesh=make_mesh())
    assert not left
    check(z, z, labels, 20, mesh=make_mesh())


@pytest.mark.parametrize("mesh", [False, True])
def test_nan_and_searches_without_a_mesh_use_numpy(mesh, left):
    rng = np.random.default_rng(2)
    queries, gallery = embeddings_of(rng, "random")
    if mesh:
        gallery[7] = np.nan
    labels = gains.Overlap(*[labels_of(rng, "single")] * 2)
    options = {"mesh": make_mesh() if mesh else None}
    gains.nearest_gains(queries, gallery, labels, 5, **options)
    assert left == [N]


@pytest.mark.parametrize("task", ["single", "multi", "classes"])
def test_gains_of_pairs_equal_those_of_rows(task):
    rng = np.random.default_rng(3)
    if task == "classes":
        labels = gains.Classes(labels_of(rng, "multi"))
    else:
        labels = gains.Overlap(labels_of(rng, task, 9), labels_of(rng, task))
    query, row = np.array([4, 0, 5]), rng.integers(0, N, (3, 7))
    whole = labels.of_rows(query)
    found = labels.of_pairs(query, row)
    np.testing.assert_array_equal(found, np.take_along_axis(whole, row, axis=1))
    every = labels.of_rows(slice(None))
    np.testing.assert_array_equal(labels.known(), (every > 0).any(axis=1))
