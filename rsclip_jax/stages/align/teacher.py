"""config.align.cache: how the frozen teacher's features come to the student's batches.

off: the teacher's tower is part of each step. exact and d4: its features are made once
(feature_cache), and neither the tower nor RGB takes part in training.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rsclip_jax import api
from rsclip_jax.data.pipeline.augment import possible_views
from rsclip_jax.data.types import Source
from rsclip_jax.models.clip import image_features
from rsclip_jax.models.variants import Variant
from rsclip_jax.stages.shared import training
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import objectives, sharding
from rsclip_jax.train.feature_cache import (
    EncodePictures,
    Reading,
    check_meta,
    describe_source,
    open_taught,
)

_CACHES = ("off", "exact", "d4")


@dataclasses.dataclass(frozen=True)
class Teaching:
    """The teacher's part in training.

    train: the pairs, with its features where they were made before. frozen: what
    encode(frozen, batch) -> fteacher needs on the device. sizes: what is read for it.
    """

    train: Sequence[Source]
    frozen: Any
    sizes: dict[str, int]
    encode: objectives.Encode


def check_cache(run: Run, train: Sequence[Source]) -> None:
    """Raises ValueError for a cache that is not known, or of what has no end.

    And where features lie that are not of this run's pictures.
    """
    c = run.config.align
    if c.cache not in _CACHES:
        raise ValueError(
            f"config.align.cache = {c.cache!r} is not known; use"
            f" {', '.join(map(repr, _CACHES))}"
        )
    if c.cache_dir and c.cache == "off":
        raise ValueError(
            f"config.align.cache_dir = {c.cache_dir!r} is of no use with"
            " config.align.cache = 'off': set that to 'exact' or 'd4'"
        )
    if c.cache == "off":
        return
    views, thrown_away = list(cached_views(run, train)), run.config.overwrite
    for source, folder in cache_folders(run, train):
        if (folder / "meta.json").exists() and (c.cache_dir or not thrown_away):
            check_meta(folder, {"dataset": describe_source(source), "views": views})


def cache_folders(run: Run, train: Sequence[Source]) -> list[tuple[Source, Path]]:
    """(source, where its features lie): of several each has a folder of its name."""
    own = run.workdir / "align" / "teacher_features"
    folder = Path(run.config.align.cache_dir or own)
    if len(train) == 1:
        return [(train[0], folder)]
    names = [f"{s.dataset.name}_{s.split}" for s in train]
    return [
        (source, folder / re.sub(r"[^\w.-]+", "_", name))
        for source, name in zip(train, names, strict=True)
    ]


def cached_views(run: Run, train: Sequence[Source]) -> tuple[int, ...]:
    """The views that config.align.cache asks for; ValueError where there are others."""
    c = run.config.align
    keys = {key for source in train for key in source.dataset.sensors} - {"rgb"}
    augment = training.make_augment(run, "align", train, ("rgb", *sorted(keys)))
    try:
        drawn = possible_views(augment)
    except ValueError as error:
        raise ValueError(
            f"config.align.cache = {c.cache!r}, but config.align.{error}, or"
            " --config.align.cache=off"
        ) from error
    return drawn if c.cache == "exact" else tuple(range(8))


def make_teaching(
    run: Run, teacher: api.Model, train: Sequence[Source], sensors: Sequence[str]
) -> Teaching:
    """The teacher for students of these sensors, as config.align.cache says."""
    c, variant = run.config.align, teacher.variant
    if c.cache == "off":
        return Teaching(
            train,
            teacher.params["visual"],
            {"rgb": variant.image_size},
            lambda p, batch: image_features(p, batch["rgb"], variant),
        )
    encode = make_encoder(teacher, run.config.eval_batch_size)
    taught = []
    for source, folder in cache_folders(run, train):
        held = [key for key in sensors if key in source.dataset.sensors]
        opened = open_taught(
            folder,
            source,
            encode,
            teacher={"digest": teacher.digests["clip"], **visual_settings(variant)},
            size=variant.image_size,
            dim=variant.embed_dim,
            views=cached_views(run, train),
            reading=make_reading(run, ("rgb", *held)),
        )
        taught.append(opened)
    return Teaching(taught, {}, {}, lambda _, batch: batch["teacher"])


def make_reading(run: Run, keys: Sequence[str]) -> Reading:
    """How the pictures are read and what is shown of it, by the run's settings."""
    return Reading(
        keys=keys,
        options=run.read_options("align"),
        log=lambda text: run.log(f"align: {text}"),
    )


def visual_settings(variant: Variant) -> dict[str, Any]:
    """What the features depend on and the params do not tell."""
    names = ("image_size", "vision_heads", "activation", "layer_norm_eps")
    return {
        name: getattr(variant, name) for name in (*names, "image_mean", "image_std")
    }


def make_encoder(teacher: api.Model, block: int) -> EncodePictures:
    """uint8 [m, size, size, 3] -> un-normalised features, on this process's devices.

    At most a block at a time, filled up to a power of two: few programs are compiled.
    """
    mesh, variant = sharding.make_local_mesh(), teacher.variant
    visual = sharding.put_params(teacher.params["visual"], mesh)
    encode = jax.jit(functools.partial(image_features, variant=variant))

    def encode_pictures(pictures: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(pictures), block):
            part = pictures[start : start + block]
            rows = mesh.size
            while rows < len(part):
                rows *= 2
            padded = np.zeros((rows, *part.shape[1:]), part.dtype)
            padded[: len(part)] = part
            batch = sharding.put_batch({"rgb": padded}, mesh)
            parts.append(np.asarray(encode(visual, batch["rgb"]))[: len(part)])
        return np.concatenate(parts)

    return encode_pictures
