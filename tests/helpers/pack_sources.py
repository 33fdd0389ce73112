"""Sources for the tests of packing, where its worker processes can import them."""

import functools
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from rsclip_jax.data.pack.write import pack_source
from rsclip_jax.data.types import Dataset, Source

ROW = Dataset(
    "numbers",
    "miniature",
    "multi",
    {"rgb": "rgb", "s2": "s2_l1c", "s1": "s1_grd"},
    ("a", "b", "c"),
    ("an a", "a b", "a c"),
)


class Numbers(Source):
    """n records of three sensors, each drawn from its number; slow and broken at will.

    broken: indices that cannot be read. deadly: an index that kills the worker.
    side: in pixels. max_nodata: what it says of itself; no pixel is missing.
    """

    split = "train"

    def __init__(self, n, *, side=6, broken=(), deadly=-1, delay=0.0, max_nodata=0.0):
        self.dataset, self.max_nodata = ROW, max_nodata
        self.ids = [f"scene/{i}" for i in range(n)]
        self.side, self.broken, self.deadly, self.delay = side, broken, deadly, delay

    def __getitem__(self, index):
        if index in self.broken:
            raise ValueError(f"scene/{index}.tif: cut\nshort")
        if index == self.deadly and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.delay)
        rng, s = np.random.default_rng(index), self.side
        return {
            "id": self.ids[index],
            "label": rng.integers(0, 2, 3).astype(np.uint8),
            "rgb": rng.integers(0, 256, (s, s, 3), np.uint8),
            "s2": rng.integers(0, 10000, (s, s, 13), np.uint16),
            "s1": rng.normal(-15, 1, (s, s, 2)).astype(np.float32),
        }


def pack_numbers(folder, n, *, workers=2, shard_mb=0.02, on_error="raise", **options):
    """Packs Numbers into <folder>/numbers/train; False if that was done before."""
    reopen = functools.partial(Numbers, n, **options)
    return pack_source(
        reopen(),
        reopen,
        Path(folder) / "numbers" / "train",
        half=None,
        provenance={"source": "made"},
        shard_mb=shard_mb,
        on_error=on_error,
        workers=workers,
    )


if (
    __name__ == "__main__"
):  # python -m tests.helpers.pack_sources '{"folder": ..., ...}'
    arguments = json.loads(sys.argv[1])
    if limit := arguments.pop("file_limit", 0):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    pack_numbers(**arguments)
    # in KiB, of the largest worker
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
