"""The teacher's features for the students' batches (config.align.cache).

off: each step runs the teacher's tower. exact, d4: the features are computed once
(feature_cache), and training needs neither the tower nor RGB.
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
from rsclip_jax.io.paths import as_path, is_remote
from rsclip_jax.models.clip import clip_shapes, image_features
from rsclip_jax.models.compute import FLOAT32, Compute
from rsclip_jax.models.variants import Variant
from rsclip_jax.stages.align.settings import AlignSettings
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.stages.shared.training import named
from rsclip_jax.train import objectives, sharding
from rsclip_jax.train.feature_cache import (
    EncodePictures,
    Reading,
    Taught,
    check_meta,
    describe_source,
    open_taught,
)

_CACHES = ("off", "exact", "d4")


@dataclasses.dataclass(frozen=True)
class Teaching:
    """The teacher's part in training.

    train: the pairs, with cached features if there are any. frozen: the arrays that
    encode(frozen, batch) -> fteacher needs on the device. sizes: record key -> side in
    pixels of the images that it needs.
    """

    train: Sequence[Source]
    frozen: Any
    sizes: dict[str, int]
    encode: objectives.Encode


def check_cache(run: Run, c: AlignSettings, train: Sequence[Source]) -> None:
    """Raises ValueError for an unknown cache, unbounded views, or a folder that does
    not fit."""
    if c.cache not in _CACHES:
        raise ValueError(
            f"config.align.cache = {c.cache!r} is not known; use"
            f" {', '.join(map(repr, _CACHES))}"
        )
    if c.cache_dir and c.cache == "off":
        raise ValueError(
            f"config.align.cache_dir = {c.cache_dir!r} has no effect with"
            " config.align.cache = 'off': set the cache to 'exact' or 'd4'"
        )
    if c.cache == "off":
        return
    views, overwrite = list(cached_views(c)), run.config.overwrite
    for source, folder in cache_folders(run, c, train):
        if (folder / "meta.json").exists() and (c.cache_dir or not overwrite):
            wanted = {"dataset": describe_source(source), "views": views}
            with named(f"config.align.cache = {c.cache!r}: "):
                check_meta(folder, wanted)


def cache_folders(
    run: Run, c: AlignSettings, train: Sequence[Source]
) -> list[tuple[Source, Path]]:
    """(source, folder of its features); each of several sources has a subfolder."""
    folder = run.workdir / "align" / "teacher_features"
    if c.cache_dir:
        folder = as_path(c.cache_dir)
    if is_remote(folder):
        raise ValueError(
            f"config.align.cache = {c.cache!r}: features in {folder} cannot be mapped"
            " into memory: set config.align.cache_dir to a local folder, or"
            " config.align.cache to 'off'"
        )
    if len(train) == 1:
        return [(train[0], folder)]
    names = [f"{s.dataset.name}_{s.split}" for s in train]
    return [
        (source, folder / re.sub(r"[^\w.-]+", "_", name))
        for source, name in zip(train, names, strict=True)
    ]


def cached_views(c: AlignSettings) -> tuple[int, ...]:
    """The views to cache; ValueError if augmentation draws others."""
    try:
        drawn = possible_views(c.training.augment)
    except ValueError as error:
        raise ValueError(
            f"config.align.cache = {c.cache!r}, but config.align.{error}, or"
            " --config.align.cache=off"
        ) from error
    return drawn if c.cache == "exact" else tuple(range(8))


def make_teaching(
    run: Run,
    c: AlignSettings,
    teacher: api.Model,
    train: Sequence[Source],
    sensors: Sequence[str],
) -> Teaching:
    """The teacher for students of these sensors, cached or not by the settings."""
    variant = teacher.variant
    if c.cache == "off":
        return _in_step(train, teacher.params["visual"], variant, run.compute)
    encode = make_encoder(teacher, run.config.eval_batch_size, run.compute)
    taught = []
    for source, folder in cache_folders(run, c, train):
        held = [key for key in sensors if key in source.dataset.sensors]
        opened = open_taught(
            folder,
            source,
            encode,
            teacher=identity(teacher, run.compute),
            size=variant.image_size,
            dim=variant.embed_dim,
            views=cached_views(c),
            reading=make_reading(run, ("rgb", *held)),
        )
        taught.append(opened)
    return _cached(taught)


def teaching_shapes(
    run: Run, c: AlignSettings, variant: Variant, train: Sequence[Source]
) -> Teaching:
    """make_teaching of a teacher in shapes; cached features are all zero."""
    if c.cache == "off":
        visual = clip_shapes(variant)["visual"]
        return _in_step(train, visual, variant, run.compute)
    views = cached_views(c)
    zero = np.zeros((), np.float32)  # takes no memory, whatever its broadcast shape
    taught = [
        Taught(
            source,
            np.broadcast_to(zero, (len(source), len(views), variant.embed_dim)),
            np.broadcast_to(True, len(source)),
            views,
        )
        for source in train
    ]
    return _cached(taught)


def cache_bytes(c: AlignSettings, variant: Variant, train: Sequence[Source]) -> int:
    """Bytes of the cached features; 0 without a cache."""
    if c.cache == "off":
        return 0
    return sum(map(len, train)) * len(cached_views(c)) * variant.embed_dim * 4


def _in_step(
    train: Sequence[Source], visual: Any, variant: Variant, compute: Compute
) -> Teaching:
    return Teaching(
        train,
        visual,
        {"rgb": variant.image_size},
        lambda p, batch: image_features(p, batch["rgb"], variant, compute),
    )


def _cached(taught: Sequence[Source]) -> Teaching:
    return Teaching(taught, {}, {}, lambda _, batch: batch["teacher"])


def make_reading(run: Run, keys: Sequence[str]) -> Reading:
    """How the images are read and progress is logged, by the run's settings."""
    return Reading(
        keys=keys,
        options=run.read_options("align"),
        log=lambda text: run.log(f"align: {text}"),
    )


def visual_settings(variant: Variant) -> dict[str, Any]:
    """The settings of a tower that change its features but not its params."""
    names = ("image_size", "vision_heads", "activation", "layer_norm_eps")
    return {
        name: getattr(variant, name) for name in (*names, "image_mean", "image_std")
    }


def identity(teacher: api.Model, compute: Compute) -> dict[str, Any]:
    """What a teacher's features depend on besides the images.

    Features of float32 are called what they were before there were others.
    """
    narrow = {} if compute.dtype == "float32" else {"precision": compute.dtype}
    settings = visual_settings(teacher.variant)
    return {"digest": teacher.digests["clip"], **settings, **narrow}


def make_encoder(
    teacher: api.Model, block: int, compute: Compute = FLOAT32
) -> EncodePictures:
    """uint8 [m, size, size, 3] -> un-normalised features, on this process's devices.

    Encodes at most a block at a time, padded to a power of two, so that few programs
    are compiled.
    """
    mesh, variant = sharding.make_local_mesh(), teacher.variant
    visual = sharding.put_params(teacher.params["visual"], mesh)
    encode = jax.jit(
        functools.partial(image_features, variant=variant, compute=compute)
    )

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
