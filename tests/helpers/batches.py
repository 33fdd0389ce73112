"""A grain iterator that can be poisoned, killed and observed."""

import os
import signal

import grain
import numpy as np


def make_batches(*poison: int, kill: int = 0, seen: list | None = None):
    """A grain iterator: batch i is drawn from i alone; read when asked for.

    Those in poison hold a NaN. Batch i is of the records 8 i to 8 i + 7.
    """

    def draw(i):
        if seen is not None:
            seen.append(i)
        if i == kill:
            os.kill(os.getpid(), signal.SIGTERM)
        x = np.random.default_rng(i).normal(size=(8, 4)).astype(np.float32)
        if i in poison:
            x[0, 0] = np.nan
        return {"x": x, "records": np.arange(8 * i, 8 * i + 8, dtype=np.int32)}

    at_once = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(grain.MapDataset.range(1, 100).map(draw).to_iter_dataset(at_once))
