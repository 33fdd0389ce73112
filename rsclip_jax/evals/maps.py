"""From the scores of a scene's tiles to a grid of cells."""

import numpy as np


def blend(tiles: np.ndarray, cells: tuple[int, int], reach: int) -> np.ndarray:
    """The mean over the tiles that cover each cell.

    Args:
        tiles: scores [rows, columns, k] of tiles, one a cell apart; NaN for a tile
            without scores.
        cells: rows and columns of the grid.
        reach: the cells that a tile covers on each side, from its own to the right and
            down.

    Returns float32 [*cells, k], NaN for cells that no tile with scores covers.

    >>> line = np.array([[[0.0], [1.0]]])  # two tiles of two cells, side by side
    >>> blend(line, (1, 3), reach=2)[0, :, 0].tolist()
    [0.0, 0.5, 1.0]
    """
    rows, columns, k = tiles.shape
    known = np.isfinite(tiles).all(-1, keepdims=True)
    scores = np.where(known, tiles, 0)
    total = np.zeros((rows + reach - 1, columns + reach - 1, k))
    count = np.zeros((*total.shape[:2], 1))
    for down in range(reach):
        for right in range(reach):
            part = np.s_[down : down + rows, right : right + columns]
            total[part] += scores
            count[part] += known
    with np.errstate(invalid="ignore"):
        mean = total / np.where(count, count, np.nan)
    return mean[: cells[0], : cells[1]].astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
