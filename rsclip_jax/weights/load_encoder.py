"""Loads sensor encoders written by other tools."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.models.activations import ACTIVATIONS
from rsclip_jax.models.sensor import (
    SensorSpec,
    adapt_kernel,
    input_fields,
    sensor_shapes,
    spec_sensor,
)
from rsclip_jax.weights import dino, layouts, rules
from rsclip_jax.weights.encoder_spec import (
    is_dofa,
    our_shapes,
    read_spec,
    table,
    with_kernel,
    with_norm,
)
from rsclip_jax.weights.encoders import get_encoder
from rsclip_jax.weights.files import WeightFile, open_weights
from rsclip_jax.weights.hub import commit_of, fetch
from rsclip_jax.weights.load import resize_positions
from rsclip_jax.weights.pins import PINS


def load_encoder(
    source: str | Path,
    sensor: Sensor | str | None = None,
    *,
    row: str = "",
    bands: Sequence[str] = (),
    missing: str = "error",
    image_size: int | None = None,
    heads: int | None = None,
    activation: str | None = None,
    ema: bool = True,
) -> tuple[SensorSpec, dict]:
    """(spec, params) of a sensor encoder, with the input scale that its weights expect.

    The spec's out_dim is 0 if the file has no map to CLIP's width; add_map adds one.

    Args:
        source: a name in ENCODERS, downloaded from the hub, or the path of a timm ViT,
            a DINOv2 or DINOv3 of transformers, timm or Meta, a ResNet of bottleneck
            blocks (alone or within a MoCo, DINO or MAE checkpoint), DOFA, or a file
            written by save_encoder.
        sensor: the sensor to encode (a Sensor, its name or a .toml); by default the one
            that the encoder was trained on. Values are scaled as in the training of
            `row`, or without `row` by the sensor's mean and std.
        row: for a path, the name of the same encoder in ENCODERS.
        bands: the file's bands, if neither `row` nor their number determines them. They
            are matched to the sensor's by name. DOFA's kernel is generated from the
            sensor's wavelengths instead.
        missing: what to do about bands that differ; see adapt_kernel.
        image_size: resizes the position embeddings.
        heads, activation: if they are not timm's (64 channels per head, exact GELU).
        ema: whether averaged weights are read where a checkpoint has raw ones too.

    Raises ValueError naming the file and what does not fit.
    """
    path, origin = find_encoder(source)
    row = row or origin.get("name", "")
    file = dino.as_timm(_encoder_alone(open_weights(path, ema)))
    stored = _stored_spec(file)
    trained = get_encoder(row).sensor if row else None
    sensor = get_sensor(sensor) if isinstance(sensor, str) else sensor or trained
    if sensor is None:
        if stored is None:
            raise ValueError(
                f"{path}: the file does not state its encoder's sensor; give sensor="
                + ("" if row else ", or row= with a name of ENCODERS")
            )
        spec = _told(stored, heads, activation, path)
        return _resized(spec, _read_params(file, spec), image_size)
    if is_dofa(file):
        _check_dofa(path, row)
        file, bands = with_kernel(file, sensor), sensor.bands
    spec = _told(stored or read_spec(file, sensor), heads, activation, path)
    file = file if spec.is_resnet else with_norm(file, spec.width)
    count = our_shapes(file)[f"{spec.first_layer}/kernel"][2]
    bands = tuple(bands) or _bands_of(file, count, stored or trained, sensor)
    params = _read_params(file, dataclasses.replace(spec, bands=bands))
    params = _with_bands(params, spec.first_layer, bands, sensor.bands, missing, path)
    spec = dataclasses.replace(spec, **_input(sensor, stored or trained, str(path)))
    return _resized(spec, params, image_size)


def find_encoder(source: str | Path) -> tuple[Path, dict[str, Any]]:
    """(local path, origin) of an encoder's weights.

    origin: "path"; for a name in ENCODERS, which is downloaded unless it is cached,
    also "name" and "revision". An existing path takes precedence over a name. Raises
    FileNotFoundError saying where to put the file, ValueError for an unknown name.
    """
    path = Path(source)
    if path.exists():
        return path, {"path": str(path.resolve())}
    if path.suffix:
        raise FileNotFoundError(f"{path}: there is no such weight file")
    row = get_encoder(str(source))
    path = fetch(row.repository, row.file, pin=PINS.get(row.repository))
    origin = {"name": row.name, "path": f"hf:{row.repository}/{row.file}"}
    if commit := commit_of(path):
        origin["revision"] = commit
    return path, origin


def has_input_scale(source: str | Path, row: str = "") -> bool:
    """Whether load_encoder scales the input as in training, not by the sensor's scale.

    It does if ENCODERS or the file itself holds that scale. DOFA has none: its authors
    standardise each dataset by the dataset's mean and std.
    """
    path, origin = find_encoder(source)
    row = row or origin.get("name", "")
    if _stored_spec(_encoder_alone(open_weights(path))) is not None:
        return True
    return bool(row) and get_encoder(row).sensor is not None


def _check_dofa(path: Path, row: str) -> None:
    """Raises ValueError unless the row says that it is DOFA's first version."""
    if not row:
        raise ValueError(
            f"{path}: DOFA's versions name their tensors alike, but differ in radar's"
            f" wavelength and in the kernel's order of axes: if this is version 1, pass"
            " row='dofa-vitb16' or 'dofa-vitl16'; version 2 is not supported"
        )


def _stored_spec(file: WeightFile) -> SensorSpec | None:
    """The spec that save_encoder wrote into the file's header."""
    told = file.told("spec")
    return SensorSpec.from_json(told) if told else None


def _encoder_alone(file: WeightFile) -> WeightFile:
    for prefix in layouts.ENCODER_PREFIXES:
        names = {n.removeprefix(prefix): n for n in file.shapes if n.startswith(prefix)}
        if names:
            return file.renamed(names)
    return file


def _told(
    spec: SensorSpec, heads: int | None, activation: str | None, path: Path
) -> SensorSpec:
    """The spec with the caller's heads and activation; ValueError if they are wrong."""
    heads, activation = heads or spec.heads, activation or spec.activation
    if not heads:
        raise ValueError(
            f"{path}: nothing tells the number of heads of {spec.width} channels; pass"
            " heads="
        )
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation {activation!r} is not known; use {', '.join(ACTIVATIONS)}"
        )
    if spec.width % heads:
        raise ValueError(f"{path}: {heads} heads do not divide {spec.width} channels")
    return dataclasses.replace(spec, heads=heads, activation=activation)


# Input


def _with_bands(
    params: dict,
    layer: str,
    bands: tuple[str, ...],
    wanted: tuple[str, ...],
    missing: str,
    path: Path,
) -> dict:
    try:
        kernel = adapt_kernel(params[layer]["kernel"], bands, wanted, missing=missing)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return {**params, layer: {**params[layer], "kernel": kernel}}


def _bands_of(
    file: WeightFile, count: int, trained: SensorSpec | Sensor | None, sensor: Sensor
) -> tuple[str, ...]:
    if count == 3 and trained is None:
        return ("R", "G", "B")  # the usual three bands
    for known in (trained, sensor):
        if known is not None and len(known.bands) == count:
            return known.bands
    told = trained or sensor
    raise ValueError(
        f"{file.path}: its first layer takes {count} bands, not the"
        f" {len(told.bands)} of {told.bands}; name them with bands=, or give the"
        " encoder's name in ENCODERS with row="
    )


def _input(
    sensor: Sensor, trained: SensorSpec | Sensor | None, where: str
) -> dict[str, Any]:
    """The sensor's input fields at the scale that the encoder was trained on.

    Bands that it was not trained on keep the sensor's scale.
    """
    fields = input_fields(sensor)
    if trained is None:
        return fields
    unit = (trained if isinstance(trained, Sensor) else spec_sensor(trained)).unit
    if unit != sensor.unit:
        raise ValueError(
            f"{where}: this encoder was trained on values in {unit}, and sensor"
            f" {sensor.name} is in {sensor.unit}"
        )
    for key in ("mean", "std"):
        known = dict(zip(sensor.bands, getattr(sensor, key), strict=False))
        known |= dict(zip(trained.bands, getattr(trained, key), strict=True))
        if lost := [band for band in sensor.bands if band not in known]:
            raise ValueError(
                f"{where}: this encoder was trained on other bands than {lost}, and"
                f" {sensor.name} has no {key} for them; give it there"
            )
        fields[key] = tuple(known[band] for band in sensor.bands)
    return {**fields, "clip_sigma": trained.clip_sigma}


# Weights


def _read_params(file: WeightFile, spec: SensorSpec) -> dict:
    if spec.is_resnet:
        head, ignore = layouts.TORCHVISION_HEAD, list(layouts.TORCHVISION_IGNORE)
    else:
        head, ignore = layouts.TIMM_HEAD, list(layouts.TIMM_IGNORE)
    if spec.out_dim:  # written by save_encoder: its head is the map to CLIP
        ignore.remove(head)
        ignore += [] if spec.proj_bias else [r"head\.bias"]
    return rules.load_strict(
        file.shapes,
        file.read,
        table(file),
        sensor_shapes(spec),
        where=f"{file.path} as a {_kind(spec)} over {spec.bands}",
        ignore=ignore,
    )


def _kind(spec: SensorSpec) -> str:
    return f"ResNet of {spec.layers}" if spec.is_resnet else f"{spec.layers}-block ViT"


def _resized(
    spec: SensorSpec, params: dict, image_size: int | None
) -> tuple[SensorSpec, dict]:
    if image_size in (None, spec.image_size):
        return spec, params
    if image_size % spec.patch_size:
        raise ValueError(
            f"image_size {image_size} is not a multiple of the encoder's patches of"
            f" {spec.patch_size} pixels"
        )
    if spec.is_resnet or spec.rope:
        return dataclasses.replace(spec, image_size=image_size), params
    prefix = (spec.class_token + spec.registers) * spec.prefix_positions
    grid = image_size // spec.patch_size
    positions = resize_positions(params["positional_embedding"], grid, prefix)
    spec = dataclasses.replace(spec, image_size=image_size)
    return spec, {**params, "positional_embedding": positions}
