"""A source whose pixels hold their own coordinates."""

import numpy as np

from rsclip_jax.data.types import Dataset, Source


class Scenes(Source):
    """Scenes of coordinates: the value of a pixel is its scene, row and column."""

    split = "all"
    dataset = Dataset("scenes", "", "none", {"s1": "s1_grd", "ir": "ir_bt"})

    def __init__(self, n, height, width):
        self.n, self.shape, self.reads = n, (height, width), []
        self.ids = [f"scene{i}" for i in range(n)]

    def __getitem__(self, index):
        self.reads.append(index)
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        s1 = np.stack([1000 * index + y, x], -1).astype(np.float32)
        ir = (1000 * y + x)[..., None].astype(np.float32)
        return {"id": self.ids[index], "label": index, "s1": s1, "ir": ir}
