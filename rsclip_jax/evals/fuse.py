"""One embedding of several sensors of a place."""

import re
from collections.abc import Mapping, Sequence

import numpy as np


def fuse(embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of unit-norm embeddings [n, d] of the same places, of unit norm again.

    Where they cancel out there is no direction, and it stays zero.
    """
    mean = np.mean(np.stack([np.asarray(z, np.float64) for z in embeddings]), axis=0)
    length = np.linalg.norm(mean, axis=-1, keepdims=True)
    return (mean / np.maximum(length, 1e-12)).astype(np.float32)


def add_fused(embeddings: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The embeddings, and "s1+s2": all sensors but RGB fused, where there are several.

    RGB is left out: it is what the others are compared with.
    """
    sensors = [key for key in embeddings if key != "rgb"]
    out = dict(embeddings)
    if len(sensors) > 1:
        out["+".join(sensors)] = fuse([out[key] for key in sensors])
    return out


def parts_of(sensor: str) -> list[str]:
    """The encoders behind a record's sensor: "rgb->s1+s2" is of rgb, s1 and s2."""
    return re.split(r"->|\+", sensor)
