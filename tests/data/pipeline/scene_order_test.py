"""Shuffled tiles: every tile once an epoch, few scenes at a time, exact on resume."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from rsclip_jax.data.pipeline.scene_order import SceneOrder
from rsclip_jax.data.sources.wrappers import SharedLabels, Subset, TiledSource
from tests.helpers.numbered import FULL, Numbers, batches_of, resume, take

SIDE, TILE = 16, 2
SCENES, TILES = 60, (SIDE // TILE) ** 2


class Scenes(Numbers):
    """Scenes of which each pixel's colour is the number of its tile."""

    def __init__(self, n=SCENES):
        super().__init__(n)
        self.dataset = dataclasses.replace(self.dataset, sensors={"rgb": "rgb"})
        self.reads = []

    def __getitem__(self, index):
        self.reads.append(index)
        record = super().__getitem__(index)
        grid = np.arange(TILES).reshape(SIDE // TILE, -1)
        rgb = np.kron(grid, np.ones((TILE, TILE))).astype(np.uint8)
        return {**record, "rgb": np.repeat(rgb[..., None], 3, axis=2)}


def tile_batches(source, **options):
    return batches_of(source, sizes={"rgb": TILE}, **options)


def orders(seed=3, scenes=21, tiles=5, window=4, epochs=3):
    order = SceneOrder(scenes, tiles, window, seed)
    count = scenes * tiles
    found = [order(i) for i in range(epochs * count)]
    return np.reshape(found, (epochs, count))


@pytest.mark.parametrize(
    ("scenes", "tiles", "window"),
    [(21, 5, 4), (20, 5, 4), (3, 7, 8), (8, 1, 3), (1, 6, 8), (9, 4, 1)],
)
def test_an_epoch_visits_every_tile_once_and_its_scenes_window_by_window(
    scenes, tiles, window
):
    found = orders(scenes=scenes, tiles=tiles, window=window)
    for epoch in found:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(scenes * tiles))
        spans = [np.flatnonzero(epoch // tiles == i) for i in range(scenes)]
        assert max(np.ptp(span) for span in spans) < window * tiles
    sizes = {len(of_scene) for of_scene in spans}
    assert sizes == {tiles}


def test_every_epoch_has_other_windows_and_every_seed_another_order():
    first, second, _ = orders(window=4)
    assert not np.array_equal(first, second)
    together = [
        {frozenset(np.unique(part // 5)) for part in np.array_split(epoch, 21)}
        for epoch in (first, second)
    ]
    assert together[0] != together[1]
    assert not np.array_equal(first, orders(seed=4)[0])
    np.testing.assert_array_equal(first, orders()[0])


def test_any_tile_may_come_at_any_position_of_a_window():
    """Over many epochs, as often: a chi-squared of 39 degrees of freedom below 90."""
    found = orders(scenes=4, tiles=10, window=4, epochs=4000)
    counts = [np.bincount(found[:, at], minlength=40) for at in (0, 17, 39)]
    for of_position in counts:
        assert ((of_position - 100) ** 2 / 100).sum() < 90
    followed = Counter(zip(found[:, 3], found[:, 4], strict=True))
    assert max(followed.values()) < 16  # of 2.6 on average


@pytest.mark.parametrize("threads", [1, 4])
def test_each_scene_is_read_once_an_epoch_or_nearly_so(threads):
    scenes = Scenes()
    source = TiledSource(scenes, TILE)
    assert 2 * source.window < len(scenes)  # else they are all kept
    scenes.reads.clear()
    read = tile_batches(source, batch_size=32, threads=threads)
    epochs = 3
    batches = take(epochs * SCENES * TILES // 32, read)
    seen = np.reshape([b["records"] for b in batches], (epochs, -1))
    for epoch in seen:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(SCENES * TILES))
    ahead = source.window  # grain reads on, into the next epoch
    assert len(scenes.reads) <= 1.1 * epochs * SCENES + ahead
    for batch in batches:  # the pixels are the tile's own
        np.testing.assert_array_equal(
            batch["rgb"][:, 0, 0, 0], batch["records"] % TILES
        )


def test_a_batch_mixes_the_scenes_of_a_window():
    source = TiledSource(Scenes(), TILE)
    for batch in take(40, tile_batches(source, batch_size=32)):
        assert len(set(batch["records"] // TILES)) >= 4


@pytest.mark.parametrize("stop", [1, 7, 50])
def test_a_restored_state_gives_the_next_batches_of_tiles(stop):
    def start():
        return tile_batches(TiledSource(Scenes(9), TILE), batch_size=12, augment=FULL)

    resume(start, stop)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_tiles_of_a_single_process(count):
    def run(process):
        source = SharedLabels(TiledSource(Scenes(9), TILE), 0, 3)
        return take(60, tile_batches(source, batch_size=16, process=process))

    whole = run((0, 1))
    shares = [run((index, count)) for index in range(count)]
    for step, batch in enumerate(whole):
        for key, rows in batch.items():
            parts = [share[step][key] for share in shares]
            np.testing.assert_array_equal(np.concatenate(parts), rows)


def test_some_tiles_are_shuffled_as_other_records_are():
    source = Subset(TiledSource(Scenes(4), TILE), [0, 70, 3, 200, 5, 6])
    (batch,) = take(1, tile_batches(source, batch_size=6))
    assert sorted(batch["records"]) == list(range(6))
