"""A shuffled order of tiles that reads each scene about once an epoch."""

import functools
import sys

import grain
import numpy as np

from rsclip_jax.data.types import Source


class SceneOrder:
    """Position in endless training -> index of a tile, as a function of the seed alone.

    An epoch visits every tile once. Scenes are shuffled, and taken in windows of equal
    size; the tiles of a window's scenes are shuffled together. So batches mix the tiles
    of a window's scenes, and another epoch has other windows.

    Args:
      scenes: the number of scenes.
      tiles: the tiles of each, which follow each other.
      window: the largest number of scenes in a window.
      seed: the source's.
    """

    def __init__(self, scenes: int, tiles: int, window: int, seed: int):
        self._scenes, self._tiles, self._seed = scenes, tiles, seed
        self._windows = -(-scenes // window)
        # threads work on neighbouring windows, at times of two epochs
        self._scene_order = functools.lru_cache(4)(self._shuffle_scenes)
        self._tile_order = functools.lru_cache(16)(self._shuffle_window)

    def __call__(self, position: int) -> int:
        epoch, at = divmod(position, self._scenes * self._tiles)
        scene = at // self._tiles
        # the inverse of _first: the last window that begins at this scene or before
        window = ((scene + 1) * self._windows - 1) // self._scenes
        begun = self._first(window) * self._tiles
        return int(self._tile_order(epoch, window)[at - begun])

    def _first(self, window: int) -> int:
        return window * self._scenes // self._windows

    def _shuffle_scenes(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, 0, epoch]).permutation(self._scenes)

    def _shuffle_window(self, epoch: int, window: int) -> np.ndarray:
        """The tiles' indices [scenes of the window * tiles], in their order."""
        part = slice(self._first(window), self._first(window + 1))
        firsts = self._scene_order(epoch)[part] * self._tiles
        tiles = (firsts[:, None] + np.arange(self._tiles)).ravel()
        # apart from the scenes' generator: numpy ignores zeros at a seed's end
        rng = np.random.default_rng([self._seed, 1, epoch, window])
        return rng.permutation(tiles)


def shuffled(source: Source, seed: int) -> grain.MapDataset:
    """An endless dataset of a source's shuffled indices, each once an epoch."""
    if source.window:
        scenes = len(source) // source.tiles
        order = SceneOrder(scenes, source.tiles, source.window, seed)
        return grain.MapDataset.range(sys.maxsize).seed(seed).map(order)
    return grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
