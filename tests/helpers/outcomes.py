"""Outcomes of a made-up model, at a given distance from the truth."""

import numpy as np

from rsclip_jax.records.outcomes import Outcome

N, D, K = 60, 8, 7


def unit(z: np.ndarray) -> np.ndarray:
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float32)


def make_outcome(seed=0, task="single", noise=1.0, **values) -> Outcome:
    """Embeddings near the head's column of each one's label, or near its captions."""
    world, rng = np.random.default_rng(99), np.random.default_rng(seed)
    head = unit(world.normal(size=(K, D))).T
    labels = world.integers(0, K, N)
    locations = unit(world.normal(size=(N, D)))
    owners = np.repeat(np.arange(N), 3)
    pins = {"task": task, "dataset": "d", "split": "test", "split_digest": "1"}
    centre = locations if task == "captions" else head[:, labels].T
    fields = {
        "z": {s: unit(centre + noise * rng.normal(size=(N, D))) for s in ("rgb", "s1")},
        "labels": labels if task == "single" else world.integers(0, 2, (N, K)),
        "head": head,
        "classnames": tuple("abcdefg"),
    }
    if task in ("none", "captions"):
        fields |= {"labels": None, "head": None, "classnames": ()}
    if task == "captions":
        ztxt = unit(locations[owners] + 0.5 * world.normal(size=(3 * N, D)))
        fields |= {"ztxt": ztxt, "owners": owners}
    ids = tuple(map(str, range(N)))
    return Outcome(**{"pins": {**pins, "prompts": "p"}, "ids": ids, **fields, **values})
