"""Towers as StableHLO programs, which jax runs without this package (jax.export).

A program holds its weights and its preprocessing of arrays: normalisation, and the clip
of a sensor's values. Resizing and tokenising stay outside. It takes any number of
examples and runs on CPUs, NVIDIA GPUs and TPUs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from rsclip_jax.data.sensors import Sensor
from rsclip_jax.io.files import naming, replacing
from rsclip_jax.losses import normalize
from rsclip_jax.models.clip import image_features, text_features
from rsclip_jax.models.compute import DTYPES, Compute
from rsclip_jax.models.sensor import SensorSpec, sensor_features, spec_sensor
from rsclip_jax.models.variants import Variant

PLATFORMS = ("cpu", "cuda", "tpu")
SUFFIX = ".stablehlo"
_MOST = 2**31 - 2**20  # bytes; a program's file is a flatbuffer


def save_programs(
    folder: str | Path,
    variant: Variant,
    params: Mapping[str, Any],
    sensors: Mapping[str, tuple[SensorSpec, Mapping]] | None = None,
    *,
    dtype: str = "float32",
) -> list[Path]:
    """Writes image.stablehlo, text.stablehlo and <modality>.stablehlo into a folder.

    image: uint8 [b, size, size, 3] -> zimg [b, d]; text: int32 ids [b, context_length]
    -> ztxt [b, d]; a sensor: its raw values [b, size, size, bands] -> z [b, d]. All
    embeddings are float32 of unit norm.

    Args:
        dtype: of weights, products and activations: "float32" or "bfloat16".

    Raises ValueError for another dtype, and for a tower above 2 GiB.
    """
    if dtype not in DTYPES:
        raise ValueError(
            f"dtype {dtype!r}: programs are written in {' or '.join(DTYPES)}"
        )
    compute = Compute(dtype)
    programs: dict[str, tuple[Callable, Mapping, Any]] = {
        "image": (
            lambda p, x: image_features(p, x, variant, compute),
            params["visual"],
            _example(variant.image_size, 3, np.uint8),
        ),
        "text": (
            lambda p, x: text_features(p, x, variant, compute),
            params["text"],
            _symbolic((variant.context_length,), np.int32),
        ),
    }
    for modality, (spec, tower) in (sensors or {}).items():
        programs[modality] = (
            lambda p, x, spec=spec: sensor_features(p, x, spec, compute),
            tower,
            _example(spec.image_size, len(spec.bands), _dtype_of(spec_sensor(spec))),
        )
    written = []
    for name, (features, tower, example) in programs.items():
        written.append(Path(folder) / f"{name}{SUFFIX}")
        _save(written[-1], features, tower, example, dtype)
    return written


def _save(
    path: Path, features: Callable, tower: Mapping, example: Any, dtype: str
) -> None:
    from jax import export  # which needs flatbuffers

    held = jax.tree.map(lambda x: np.asarray(x, _NUMPY[dtype]), dict(tower))
    size = sum(x.nbytes for x in jax.tree.leaves(held))
    if size > _MOST:
        raise ValueError(
            f"{path.name}: its weights of {size / 2**30:.1f} GiB in {dtype} do not fit"
            " a program's 2 GiB"
            + ("; use dtype bfloat16" if dtype == "float32" else "")
        )

    def run(x: jax.Array) -> jax.Array:
        # converted in the program, whose file then holds them as they are
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(jnp.float32), held)
        return normalize(features(wide, x))

    made = export.export(jax.jit(run), platforms=PLATFORMS)(example)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), replacing(path) as temporary:
        temporary.write_bytes(made.serialize())


_NUMPY = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


def _symbolic(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """The shape of any number b of examples."""
    from jax import export

    (b,) = export.symbolic_shape("b")
    return jax.ShapeDtypeStruct((b, *shape), dtype)


def _example(size: int, bands: int, dtype: Any) -> jax.ShapeDtypeStruct:
    return _symbolic((size, size, bands), dtype)


def _dtype_of(sensor: Sensor) -> np.dtype:
    return np.dtype(sensor.dtype)
