"""A grain iterator that can be poisoned, killed and observed."""

import os
import signal

import grain
import numpy as np


def make_batches(poison: int = 0, kill: int = 0, seen: list | None = None):
    """A grain iterator: batch i is drawn from i alone; read when asked for."""

    def draw(i):
        if seen is not None:
            seen.append(i)
        if i == kill:
            os.kill(os.getpid(), signal.SIGTERM)
        x = np.random.default_rng(i).normal(size=(8, 4)).astype(np.float32)
        if i == poison:
            x[0, 0] = np.nan
        return {"x": x}

    at_once = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(grain.MapDataset.range(1, 100).map(draw).to_iter_dataset(at_once))
