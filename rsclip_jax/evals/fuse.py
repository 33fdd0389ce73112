"""One embedding of several sensors of a location."""

import re
from collections.abc import Mapping, Sequence

import numpy as np


def fuse(embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of sensors' unit-norm embeddings [n, d], scaled to unit norm again.

    Embeddings that cancel out have no direction: their mean stays zero.
    """
    mean = np.mean(np.stack([np.asarray(z, np.float64) for z in embeddings]), axis=0)
    length = np.linalg.norm(mean, axis=-1, keepdims=True)
    return (mean / np.maximum(length, 1e-12)).astype(np.float32)


def add_fused(embeddings: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The embeddings and, with several sensors beside RGB, their fusion: "s1+s2".

    RGB is left out since the others are compared with it.
    """
    sensors = [key for key in embeddings if key != "rgb"]
    out = dict(embeddings)
    if len(sensors) > 1:
        out["+".join(sensors)] = fuse([out[key] for key in sensors])
    return out


def parts_of(sensor: str) -> list[str]:
    """The encoders that a record's sensor needs: rgb, s1 and s2 for "rgb->s1+s2"."""
    return re.split(r"->|\+", sensor)
