"""Towers as programs that run without this package: StableHLO (jax.export) and ONNX.

A program holds its weights and its preprocessing of arrays: normalisation, and the clip
of a sensor's values. Resizing and tokenising stay outside. It takes any number of
examples. StableHLO runs on CPUs, NVIDIA GPUs and TPUs.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from rsclip_jax.io.files import naming, replacing
from rsclip_jax.losses import normalize
from rsclip_jax.models.clip import image_features, text_features
from rsclip_jax.models.compute import DTYPES, Compute
from rsclip_jax.models.sensor import SensorSpec, sensor_features, spec_sensor
from rsclip_jax.models.variants import Variant

KINDS = ("stablehlo", "onnx")
PLATFORMS = ("cpu", "cuda", "tpu")
INPUT = "x"  # the name of an ONNX program's input
_MOST = 2**31 - 2**20  # bytes of a flatbuffer or of a protocol buffer
_NUMPY = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


class Program(NamedTuple):
    """run: a batch -> unit-norm float32 [b, d]; shape, dtype: of one example."""

    name: str
    run: Callable[[jax.Array], jax.Array]
    shape: tuple[int, ...]
    dtype: np.dtype


def save_programs(
    folder: str | Path,
    variant: Variant,
    params: Mapping[str, Any],
    sensors: Mapping[str, tuple[SensorSpec, Mapping]] | None = None,
    *,
    kind: str = "stablehlo",
    dtype: str = "float32",
) -> list[Path]:
    """Writes the programs image, text and one a sensor into a folder.

    Returns the files.

    image: uint8 [b, size, size, 3] -> zimg [b, d]. text: int32 ids [b, context_length]
    -> ztxt [b, d]. A sensor, named by its modality: its raw values [b, size, size,
    bands] -> z [b, d]. All embeddings are float32 of unit norm.

    Args:
        kind: "stablehlo", or "onnx", which needs jax2onnx.
        dtype: of weights, products and activations: "float32", or for StableHLO
            "bfloat16".

    Raises ValueError for another kind or dtype and for a tower above 2 GiB, and
    ImportError without jax2onnx.
    """
    check_kind(kind, dtype)
    write = {"stablehlo": _stablehlo, "onnx": _onnx}[kind]
    written = []
    for one in list_programs(variant, params, sensors or {}, dtype):
        path = Path(folder) / f"{one.name}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = write(one)
        with naming(path), replacing(path) as temporary:
            temporary.write_bytes(data)
        written.append(path)
    return written


def check_kind(kind: str, dtype: str) -> None:
    """Raises ValueError for an unknown kind or dtype, ImportError without jax2onnx."""
    known = ("float32",) if kind == "onnx" else DTYPES
    if kind not in KINDS or dtype not in known:
        raise ValueError(
            f"programs of kind {kind!r} in dtype {dtype!r}: kinds are"
            f" {', '.join(KINDS)}, dtypes {' or '.join(known)}"
        )
    if kind == "onnx" and importlib.util.find_spec("jax2onnx") is None:
        raise ImportError(
            "programs in ONNX need jax2onnx: pip install --no-deps jax2onnx onnx"
            " onnx-ir sympy mpmath, in the versions of"
            " tests/helpers/requirements_onnx.txt"
        )


def list_programs(
    variant: Variant,
    params: Mapping[str, Any],
    sensors: Mapping[str, tuple[SensorSpec, Mapping]],
    dtype: str,
) -> list[Program]:
    """The programs of the towers that a CLIP has and of its sensor encoders."""
    compute, side = Compute(dtype), variant.image_size

    def image(p: dict, x: jax.Array) -> jax.Array:
        return image_features(p, x, variant, compute)

    def text(p: dict, x: jax.Array) -> jax.Array:
        return text_features(p, x, variant, compute)

    rgb, ids = (side, side, 3), (variant.context_length,)
    programs = [_program("text", text, params["text"], ids, np.int32, dtype)]
    if "visual" in params:
        made = _program("image", image, params["visual"], rgb, np.uint8, dtype)
        programs.insert(0, made)
    for modality, (spec, tower) in sensors.items():

        def sensor(p: dict, x: jax.Array, spec: SensorSpec = spec) -> jax.Array:
            return sensor_features(p, x, spec, compute)

        shape = (spec.image_size, spec.image_size, len(spec.bands))
        values = spec_sensor(spec).dtype
        programs.append(_program(modality, sensor, tower, shape, values, dtype))
    return programs


def _program(
    name: str,
    features: Callable[[dict, jax.Array], jax.Array],
    tower: Mapping,
    shape: tuple[int, ...],
    values: Any,
    dtype: str,
) -> Program:
    held = jax.tree.map(lambda x: np.asarray(x, _NUMPY[dtype]), dict(tower))
    size = sum(x.nbytes for x in jax.tree.leaves(held))
    if size > _MOST:
        way = "; use dtype bfloat16" if dtype == "float32" else ""
        raise ValueError(
            f"program {name}: its weights of {size / 2**30:.1f} GiB in {dtype} do not"
            f" fit a file of 2 GiB{way}"
        )

    def run(x: jax.Array) -> jax.Array:
        # converted in the program, whose file then holds them as they are
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(jnp.float32), held)
        return normalize(features(wide, x))

    return Program(name, run, shape, np.dtype(values))


def _stablehlo(one: Program) -> bytes:
    from jax import export  # needs flatbuffers

    shape = export.symbolic_shape(",".join(["b", *map(str, one.shape)]))
    example = jax.ShapeDtypeStruct(shape, one.dtype)
    made = export.export(jax.jit(one.run), platforms=PLATFORMS)(example)
    return bytes(made.serialize())


def _onnx(one: Program) -> bytes:
    from jax2onnx import to_onnx

    example = jax.ShapeDtypeStruct(("B", *one.shape), one.dtype)
    made = to_onnx(one.run, [example], model_name=one.name, input_names=[INPUT])
    return made.SerializeToString()
