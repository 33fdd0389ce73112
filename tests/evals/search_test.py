"""Search over the mesh against sorting and against numpy's ranks."""

import numpy as np
import pytest

from rsclip_jax import metrics
from rsclip_jax.evals import search
from rsclip_jax.train.sharding import make_mesh
from tests.helpers.search import MEMORIES, unit


@pytest.fixture
def no_small(monkeypatch):
    """Lets the devices do even small searches."""
    monkeypatch.setattr(search, "_SMALL", 0)


def sorted_by_hand(queries, gallery, k):
    """Rows of the k nearest: higher scores first, earlier rows first in a tie."""
    scores = queries.astype(float) @ gallery.astype(float).T
    return [sorted(range(len(s)), key=lambda j, s=s: (-s[j], j))[:k] for s in scores]


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("shape", [(8, 1), (4, 2)])
def test_the_nearest_equal_a_sorted_list(shape, memory):
    rng = np.random.default_rng(0)
    queries, gallery = unit(rng, 37), unit(rng, 1100)
    scores, rows = search.nearest(
        queries, gallery, 9, mesh=make_mesh(shape), memory=memory
    )
    assert rows.tolist() == sorted_by_hand(queries, gallery, 9)
    np.testing.assert_allclose(
        scores, np.take_along_axis(queries @ gallery.T, rows, axis=1), atol=1e-6
    )


def test_the_search_is_split_into_tiles():
    tiles = search._Tiles.of(np.ones((37, 16)), np.ones((1100, 16)), make_mesh(), 2**14)
    assert tiles.rows < 1100
    assert tiles.queries < 37


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_earlier_row_of_equal_scores_is_first(memory):
    # whole numbers: equal scores are equal in any order of adding
    rng = np.random.default_rng(1)
    gallery = rng.integers(-1, 2, (1100, 4)).astype(np.float32)
    queries = rng.integers(-1, 2, (5, 4)).astype(np.float32)
    _, rows = search.nearest(queries, gallery, 700, mesh=make_mesh(), memory=memory)
    assert rows.tolist() == sorted_by_hand(queries, gallery, 700)


def test_all_of_a_gallery_with_negative_scores():
    # the zeros that fill a block up would score higher
    gallery = -np.ones((3, 2), np.float32) * [[1], [3], [2]]
    queries = np.ones((1, 2), np.float32)
    scores, rows = search.nearest(queries, gallery, 3, mesh=make_mesh())
    assert rows.tolist() == [[0, 2, 1]]
    assert scores.tolist() == [[-2, -4, -6]]


@pytest.mark.parametrize("k", [0, 4])
def test_a_k_out_of_range_is_refused(k):
    z = np.ones((3, 2), np.float32)
    with pytest.raises(ValueError, match=f"k = {k}: the gallery has 3 rows"):
        search.nearest(z, z, k, mesh=make_mesh())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["queries", "gallery"])
def test_nan_and_infinite_values_are_refused(name, bad):
    given = {"queries": np.ones((3, 2)), "gallery": np.ones((5, 2))}
    given[name][2, 1] = bad
    with pytest.raises(ValueError, match=f"^{name}: some values are nan or infinite"):
        search.nearest(**given, k=1, mesh=make_mesh())


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("shape", [(8, 1), (2, 4)])
@pytest.mark.usefixtures("no_small")
def test_ranks_equal_numpys(shape, memory):
    rng = np.random.default_rng(2)
    gallery = unit(rng, 700)
    queries = gallery + 1.5 * unit(rng, 700)
    expected = metrics.match_ranks(queries, gallery)
    assert np.median(expected) > 1
    found = search.match_ranks(queries, gallery, mesh=make_mesh(shape), memory=memory)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("no_small")
def test_scores_that_float32_cannot_separate_are_separated():
    # rivals of query 0 that score 1e-8 more or less than its match, or the same
    match = np.array([1.0, 0, 0, 0])
    more, less = match * (1 + 1e-8), match * (1 - 1e-8)
    gallery = np.stack([match, more, less, match, more, more, less])
    found = search.match_ranks(gallery, gallery, mesh=make_mesh())
    assert found.tolist() == [5, 3, 7, 5, 3, 3, 7]  # a tie counts against
    np.testing.assert_array_equal(found, metrics.match_ranks(gallery, gallery))


@pytest.mark.usefixtures("no_small")
def test_equal_embeddings_all_rank_last():
    z = np.full((300, 48), 48**-0.5, np.float32)
    assert set(search.match_ranks(z, z, mesh=make_mesh()).tolist()) == {300}


@pytest.mark.usefixtures("no_small")
def test_captions_find_their_image_and_images_any_caption():
    rng = np.random.default_rng(3)
    owners = np.repeat(np.arange(90), rng.integers(1, 6, 90))
    z = unit(rng, 90)
    ztxt = z[owners] + 0.4 * unit(rng, len(owners))
    ztxt[5] = ztxt[0]
    images = np.arange(90)
    for queries, gallery, pair in [
        (ztxt, z, (owners, images)),
        (z, ztxt, (images, owners)),
    ]:
        found = search.match_ranks(queries, gallery, pair, mesh=make_mesh())
        np.testing.assert_array_equal(
            found, metrics.match_ranks(queries, gallery, pair)
        )


@pytest.mark.usefixtures("no_small")
def test_nan_and_missing_matches_are_handled_as_by_numpy():
    rng = np.random.default_rng(4)
    z, gallery = unit(rng, 20), unit(rng, 20)
    gallery[3] = np.nan
    np.testing.assert_array_equal(
        search.match_ranks(z, gallery, mesh=make_mesh()),
        metrics.match_ranks(z, gallery),
    )
    owners = np.arange(20), np.arange(1, 21)
    with pytest.raises(ValueError, match=r"owner\(s\) \[0\] have no match"):
        search.match_ranks(z, z, owners, mesh=make_mesh())


def test_memory_mapped_files_are_searched(tmp_path):
    rng = np.random.default_rng(5)
    z = unit(rng, 400)
    np.save(tmp_path / "z.npy", z)
    mapped = np.load(tmp_path / "z.npy", mmap_mode="r")
    _, rows = search.nearest(mapped, mapped, 1, mesh=make_mesh(), memory=2**14)
    assert rows[:, 0].tolist() == list(range(400))


@pytest.mark.parametrize("queries", [1, 37])  # with one, a process has none
def test_processes_divide_the_queries(queries, no_small, monkeypatch):
    rng = np.random.default_rng(0)
    z, gallery = unit(rng, queries), unit(rng, 300)
    owners = np.arange(queries) % 7, np.arange(300) % 7
    mesh = make_mesh()

    def find():
        ranks = search.match_ranks(z, gallery, owners, mesh=mesh)
        return *search.nearest(z, gallery, 9, mesh=mesh), ranks

    whole = find()
    monkeypatch.setattr(search, "_join", lambda own: own)  # instead of gathering
    monkeypatch.setattr(search.processes, "count", lambda: 2)
    parts = []
    for index in (0, 1):
        monkeypatch.setattr(search.processes, "index", lambda index=index: index)
        parts.append(find())
    for one, *shares in zip(whole, *parts, strict=True):
        assert all(len(share) <= -(-queries // 2) for share in shares)
        np.testing.assert_array_equal(np.concatenate(shares), one)
