"""Sensor encoders of other tools as a spec and params of ours."""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.models.sensor import (
    SensorSpec,
    adapt_kernel,
    input_fields,
    sensor_shapes,
    spec_sensor,
)
from rsclip_jax.models.vit import ACTIVATIONS
from rsclip_jax.weights import dofa, layouts, rules
from rsclip_jax.weights.encoders import get_encoder
from rsclip_jax.weights.files import WeightFile, open_weights
from rsclip_jax.weights.hub import commit_of, fetch
from rsclip_jax.weights.load import resize_positions


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
) -> tuple[SensorSpec, dict]:
    """(spec, params) of a sensor encoder, with the input that its weights expect.

    source: a name in ENCODERS, fetched from the hub, or the path of a timm ViT or a
    ResNet of bottleneck blocks, alone or within a MoCo, DINO or MAE checkpoint, of
    DOFA, or of a file or folder that save_encoder wrote, which says all by itself.
    row: for a path, the name in ENCODERS that says what it was trained on. sensor: what
    it shall see (a row, its name or a .toml), by default what it was trained on; it
    sees it at the row's scale, without a row at the sensor's own.

    bands: the file's, in its order, where neither row nor their number tells it. They
    are moved to the sensor's by name, `missing` as in adapt_kernel; DOFA's are made of
    the sensor's wavelengths. image_size: another than the file's, its position
    embeddings resized. heads, activation: where they are not timm's (64 channels a
    head, exact GELU). The spec's out_dim is 0 where the file has no map to CLIP's
    width: add_map puts one. Raises ValueError naming the file and what does not fit.
    """
    path, origin = find_encoder(source)
    row = row or origin.get("name", "")
    file = _encoder_alone(open_weights(path))
    stored = _stored_spec(file)
    trained = get_encoder(row).sensor if row else None
    sensor = get_sensor(sensor) if isinstance(sensor, str) else sensor or trained
    if sensor is None:
        if stored is None:
            raise ValueError(
                f"{path}: nothing says which sensor this encoder is for; give sensor="
                + ("" if row else ", or row= with a name of ENCODERS")
            )
        spec = _told(stored, heads, activation, path)
        return _resized(spec, _read_params(file, spec), image_size)
    if is_dofa(file):
        file, bands = _with_kernel(file, sensor), sensor.bands
    spec = _told(stored or _read_spec(file, sensor), heads, activation, path)
    file = file if spec.is_resnet else _with_norm(file, spec.width)
    count = _our_shapes(file)[f"{spec.first_layer}/kernel"][2]
    bands = tuple(bands) or _bands_of(file, count, stored or trained, sensor)
    params = _read_params(file, dataclasses.replace(spec, bands=bands))
    params = _see_bands(params, spec.first_layer, bands, sensor.bands, missing, path)
    spec = dataclasses.replace(spec, **_input(sensor, stored or trained, str(path)))
    return _resized(spec, params, image_size)


def find_encoder(source: str | Path) -> tuple[Path, dict[str, Any]]:
    """(local path, where it came from: "path", and of a name its "name", "revision").

    A name in ENCODERS is fetched where it is not there yet; a path goes before a name.
    Raises FileNotFoundError saying what to place where, ValueError with the nearest
    name and all for what is neither.
    """
    path = Path(source)
    if path.exists():
        return path, {"path": str(path.resolve())}
    if path.suffix:
        raise FileNotFoundError(f"{path}: there is no such weight file")
    row = get_encoder(str(source))
    path = fetch(row.repository, row.file)
    origin = {"name": row.name, "path": f"hf:{row.repository}/{row.file}"}
    if commit := commit_of(path):
        origin["revision"] = commit
    return path, origin


def has_own_scale(source: str | Path, row: str = "") -> bool:
    """Whether load_encoder gives it the scale that it was trained on, not the sensor's.

    So it is where a row of ENCODERS or the file itself tells it. DOFA, whose authors
    standardise each dataset by its own mean and std, has none.
    """
    path, origin = find_encoder(source)
    row = row or origin.get("name", "")
    if _stored_spec(_encoder_alone(open_weights(path))) is not None:
        return True
    return bool(row) and get_encoder(row).sensor is not None


def _stored_spec(file: WeightFile) -> SensorSpec | None:
    """The spec that save_encoder put into the file's header."""
    text = file.metadata.get("spec")
    return SensorSpec.from_json(json.loads(text)) if text else None


def _encoder_alone(file: WeightFile) -> WeightFile:
    for prefix in layouts.ENCODER_PREFIXES:
        names = {n.removeprefix(prefix): n for n in file.shapes if n.startswith(prefix)}
        if names:
            return file.renamed(names)
    return file


# DOFA


def is_dofa(file: WeightFile) -> bool:
    """Whether the file has DOFA's generator in place of a patch embedding."""
    return any(name.startswith(dofa.PREFIXES) for name in file.shapes)


def _with_kernel(file: WeightFile, sensor: Sensor) -> WeightFile:
    """A DOFA file with the patch embedding of a sensor's wavelengths put in."""
    waves = sensor.wavelengths
    if sensor.unit == "dB":
        waves = (dofa.RADAR_UM,) * len(waves)
    if not np.isfinite(waves).all():
        raise ValueError(
            f"{file.path}: DOFA needs a wavelength for each band, and sensor"
            f" {sensor.name} has {waves} um"
        )
    kernel, bias = dofa.make_kernel(file.read, waves)
    made = {"patch_embed.proj.weight": kernel, "patch_embed.proj.bias": bias}
    names = [name for name in file.shapes if not name.startswith(dofa.PREFIXES)]
    rest = file.renamed({name: name for name in names})
    return dataclasses.replace(_with_tensors(rest, made), config={"kind": "dofa"})


def _with_tensors(file: WeightFile, made: Mapping[str, np.ndarray]) -> WeightFile:
    return dataclasses.replace(
        file,
        shapes={**file.shapes, **{name: array.shape for name, array in made.items()}},
        read=lambda name: made[name] if name in made else file.read(name),
    )


# Architecture


def _read_spec(file: WeightFile, sensor: Sensor) -> SensorSpec:
    """What the shapes say of a timm ViT, and timm's defaults for what they do not."""
    ours = _our_shapes(file)
    if _is_resnet(file):
        return SensorSpec(**input_fields(sensor), **_resnet_sizes(ours))
    try:
        sizes = _vit_sizes(ours)
    except KeyError as error:
        raise ValueError(
            f"{file.path}: no tensor for our {error.args[0]}; a timm ViT and a ResNet"
            " of bottleneck blocks are read here, and this holds"
            f" {', '.join(sorted(file.shapes)[:5])}, ..."
        ) from error
    is_mean = _norm_of(file) == "fc_norm" or not sizes["class_token"]
    from_dofa = file.config.get("kind") == "dofa"
    told = _from_config(file)
    pool = told.pop("pool", "avg" if is_mean else "token")
    if pool not in ("token", "avg") or (pool == "avg" and "norm.weight" in file.shapes):
        raise ValueError(
            f"{file.path}: global_pool {pool!r} behind timm's {_norm_of(file)!r} is not"
            " read here; 'token' is, and 'avg' before 'fc_norm'"
        )
    spec = SensorSpec(
        **input_fields(sensor),
        **sizes,
        out_dim=0,
        eps=1e-5 if sizes["ln_pre"] else 1e-6,  # CLIP's towers in timm; all others
        pool="mean" if pool == "avg" or from_dofa else "token",
        patch_offset=int(from_dofa),  # its convolution pads by one pixel
    )
    return dataclasses.replace(spec, **told)


def _from_config(file: WeightFile) -> dict[str, Any]:
    """What the config.json of a folder that timm wrote says, and no shape does."""
    arguments = file.config.get("model_args", {})
    told = {"heads": arguments.get("num_heads"), "pool": file.config.get("global_pool")}
    if (activation := arguments.get("act_layer")) is not None:
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"{file.path}: act_layer = {activation!r} is not read here;"
                f" {', '.join(ACTIVATIONS)} are"
            )
        told["activation"] = activation
    return {key: value for key, value in told.items() if value}


def _is_resnet(file: WeightFile) -> bool:
    return "layer1.0.conv3.weight" in file.shapes


def _table(file: WeightFile) -> list[rules.Rule]:
    is_resnet = _is_resnet(file)
    return layouts.TORCHVISION_RESNET if is_resnet else layouts.timm_vit(_norm_of(file))


def _our_shapes(file: WeightFile) -> dict[str, tuple[int, ...]]:
    return rules.our_shapes(file.shapes, _table(file))


def _with_norm(file: WeightFile, width: int) -> WeightFile:
    """The file with a last LayerNorm, which some exports of pretraining leave out."""
    if {"norm.weight", "fc_norm.weight"} & file.shapes.keys():
        return file
    warnings.warn(
        f"{file.path}: no last LayerNorm in the file; it begins as the identity",
        stacklevel=3,
    )
    made = {"norm.weight": np.ones(width), "norm.bias": np.zeros(width)}
    return _with_tensors(file, made)


def _norm_of(file: WeightFile) -> str:
    return "fc_norm" if "fc_norm.weight" in file.shapes else "norm"


def _vit_sizes(ours: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Sizes in SensorSpec's terms; KeyError with the path that is missing."""
    patch, _, _, width = ours["patch_embed/kernel"]
    tokens = ours["positional_embedding"][0]
    registers = ours.get("register_embedding", (0,))[0]
    class_token = "class_embedding" in ours
    prefix = class_token + registers
    with_prefix = round((tokens - prefix) ** 0.5) ** 2 == tokens - prefix
    grid = round((tokens - prefix * with_prefix) ** 0.5)
    mlp = ours["blocks_0/mlp/c_fc/kernel"][1]
    return {
        "image_size": grid * patch,
        "patch_size": patch,
        "width": width,
        "layers": rules.count_blocks(ours, "blocks"),
        "heads": 16 if width == 1280 else max(width // 64, 1),  # ViT-H has 16
        "ln_pre": "ln_pre/scale" in ours,
        "patch_bias": "patch_embed/bias" in ours,
        "mlp_width": 0 if mlp == 4 * width else mlp,
        "class_token": class_token,
        "registers": registers,
        "prefix_positions": with_prefix,
        "layer_scale": "blocks_0/scale_1" in ours,
    }


def _resnet_sizes(ours: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {
        "image_size": 224,
        "patch_size": 32,
        "width": ours["conv1/kernel"][3],
        "layers": tuple(rules.count_blocks(ours, f"layer{i}") for i in (1, 2, 3, 4)),
        "heads": 1,
        "out_dim": 0,
    }


def _told(
    spec: SensorSpec, heads: int | None, activation: str | None, path: Path
) -> SensorSpec:
    """The spec with what the caller says of it; ValueError for what cannot be."""
    heads, activation = heads or spec.heads, activation or spec.activation
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation {activation!r} is not known; use {', '.join(ACTIVATIONS)}"
        )
    if spec.width % heads:
        raise ValueError(f"{path}: {heads} heads do not divide {spec.width} channels")
    return dataclasses.replace(spec, heads=heads, activation=activation)


# Input


def _see_bands(
    params: dict,
    layer: str,
    bands: tuple[str, ...],
    wanted: tuple[str, ...],
    missing: str,
    path: Path,
) -> dict:
    """The params with their first layer's bands moved to the sensor's."""
    try:
        kernel = adapt_kernel(params[layer]["kernel"], bands, wanted, missing=missing)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return {**params, layer: {**params[layer], "kernel": kernel}}


def _bands_of(
    file: WeightFile, count: int, trained: SensorSpec | Sensor | None, sensor: Sensor
) -> tuple[str, ...]:
    """The names of the file's bands."""
    if count == 3 and trained is None:
        return ("R", "G", "B")  # what is trained on three bands, where nothing tells
    for known in (trained, sensor):
        if known is not None and len(known.bands) == count:
            return known.bands
    told = trained or sensor
    raise ValueError(
        f"{file.path}: its first layer is over {count} bands, not the"
        f" {len(told.bands)} of {told.bands}; say which they are with bands=, or with"
        " row= what the encoder was trained on"
    )


def _input(
    sensor: Sensor, trained: SensorSpec | Sensor | None, where: str
) -> dict[str, Any]:
    """The input fields: the sensor's, at the scale of what the encoder was trained on.

    A band that it was not trained on keeps the sensor's scale.
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
        own = dict(zip(sensor.bands, getattr(sensor, key), strict=True))
        theirs = dict(zip(trained.bands, getattr(trained, key), strict=True))
        fields[key] = tuple({**own, **theirs}[band] for band in sensor.bands)
    return {**fields, "clip_sigma": trained.clip_sigma}


# Weights


def _read_params(file: WeightFile, spec: SensorSpec) -> dict:
    if spec.is_resnet:
        head, ignore = layouts.TORCHVISION_HEAD, list(layouts.TORCHVISION_IGNORE)
    else:
        head, ignore = layouts.TIMM_HEAD, list(layouts.TIMM_IGNORE)
    if spec.out_dim:  # one that save_encoder wrote: its head is the map to CLIP
        ignore.remove(head)
        ignore += [] if spec.proj_bias else [r"head\.bias"]
    return rules.load_strict(
        file.shapes,
        file.read,
        _table(file),
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
    if spec.is_resnet:
        return dataclasses.replace(spec, image_size=image_size), params
    prefix = (spec.class_token + spec.registers) * spec.prefix_positions
    grid = image_size // spec.patch_size
    positions = resize_positions(params["positional_embedding"], grid, prefix)
    spec = dataclasses.replace(spec, image_size=image_size)
    return spec, {**params, "positional_embedding": positions}
