"""The encodings of a stage, for a plan."""

from collections.abc import Sequence
from typing import Any

import jax

from rsclip_jax.data.types import Source
from rsclip_jax.models import inference
from rsclip_jax.models.clip import clip_shapes
from rsclip_jax.models.compute import Compute
from rsclip_jax.models.sensor import SensorSpec, sensor_shapes
from rsclip_jax.models.variants import Variant
from rsclip_jax.stages.shared.job import Pass

Counts = Sequence[tuple[Source, int]]


def rgb_pass(variant: Variant, counts: Counts, compute: Compute) -> Pass:
    """RGB through the visual tower of a variant."""

    def encode(params, batch):
        return inference.encode_rgb(
            params, batch["rgb"], variant=variant, compute=compute
        )

    visual = clip_shapes(variant)["visual"]
    return Pass("rgb", variant, encode, visual, "rgb", variant.image_size, 3, counts)


def sensor_pass(spec: SensorSpec, counts: Counts, compute: Compute) -> Pass:
    """A sensor's images through its encoder."""
    key = spec.modality

    def encode(params, batch):
        return inference.encode_sensor(params, batch[key], spec=spec, compute=compute)

    size, bands = spec.image_size, len(spec.bands)
    return Pass(key, spec, encode, sensor_shapes(spec), key, size, bands, counts)


def tree_bytes(tree: Any) -> int:
    """Bytes of a tree of arrays or ShapeDtypeStructs."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
