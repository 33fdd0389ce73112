"""The spec of a sensor encoder's weight file, from its shapes and its config."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from rsclip_jax.data.sensors import Sensor
from rsclip_jax.io.texts import first_of
from rsclip_jax.models.activations import ACTIVATIONS
from rsclip_jax.models.sensor import SensorSpec, input_fields
from rsclip_jax.weights import dino, dofa, layouts, rules
from rsclip_jax.weights.files import WeightFile
from rsclip_jax.weights.timm_table import read_architecture


def read_spec(file: WeightFile, sensor: Sensor) -> SensorSpec:
    """Reads the spec of a timm ViT or a ResNet; timm's defaults fill the gaps."""
    if dino.is_dino(file):
        return dino.read_spec(file, sensor)
    ours = our_shapes(file)
    if _is_resnet(file):
        _from_config(file)
        return SensorSpec(**input_fields(sensor), **_resnet_sizes(ours))
    try:
        sizes = _vit_sizes(ours)
    except KeyError as error:
        raise ValueError(
            f"{file.path}: no tensor for our {error.args[0]}; only timm ViTs and"
            " ResNets of bottleneck blocks can be read, and this file holds"
            f" {first_of(sorted(file.shapes))}"
        ) from error
    is_mean = _norm_of(file) == "fc_norm" or not sizes["class_token"]
    from_dofa = file.config.get("kind") == "dofa"
    told = _from_config(file)
    pool = told.pop("pool", "avg" if is_mean else "token")
    if pool not in ("token", "avg") or (pool == "avg" and "norm.weight" in file.shapes):
        raise ValueError(
            f"{file.path}: global_pool {pool!r} with timm's {_norm_of(file)!r} is not"
            " supported; use 'token', or 'avg' with 'fc_norm'"
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
    """The fields that timm's config.json states and no shape shows."""
    arguments, told = file.config.get("model_args", {}), {}
    if name := file.config.get("architecture"):
        told = read_architecture(file.path, name, _is_resnet(file))
    given = {
        "heads": arguments.get("num_heads"),
        "pool": arguments.get("global_pool") or file.config.get("global_pool"),
    }
    told |= {key: value for key, value in given.items() if value}
    if (activation := arguments.get("act_layer")) is not None:
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"{file.path}: act_layer = {activation!r} is not supported; use"
                f" {', '.join(ACTIVATIONS)}"
            )
        told["activation"] = activation
    return told


def _is_resnet(file: WeightFile) -> bool:
    return "layer1.0.conv3.weight" in file.shapes


def table(file: WeightFile) -> list[rules.Rule]:
    if _is_resnet(file):
        return layouts.TORCHVISION_RESNET
    norm = _norm_of(file)
    return dino.table(file, norm) if dino.is_dino(file) else layouts.timm_vit(norm)


def our_shapes(file: WeightFile) -> dict[str, tuple[int, ...]]:
    return rules.our_shapes(file.shapes, table(file))


def with_norm(file: WeightFile, width: int) -> WeightFile:
    """The file with a final LayerNorm, which some pretraining exports lack."""
    if {"norm.weight", "fc_norm.weight"} & file.shapes.keys():
        return file
    warnings.warn(
        f"{file.path}: the file has no final LayerNorm; it starts as the identity",
        stacklevel=3,
    )
    made = {"norm.weight": np.ones(width), "norm.bias": np.zeros(width)}
    return file.with_tensors(made)


def _norm_of(file: WeightFile) -> str:
    return "fc_norm" if "fc_norm.weight" in file.shapes else "norm"


def _vit_sizes(ours: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Sizes as SensorSpec names them; KeyError with the path that is missing."""
    patch, _, _, width = ours["patch_embed/kernel"]
    tokens = ours["positional_embedding"][0]
    registers = ours.get("register_embedding", (0,))[0]
    class_token = "class_embedding" in ours
    prefix = class_token + registers
    with_prefix = round((tokens - prefix) ** 0.5) ** 2 == tokens - prefix
    grid = round((tokens - prefix * with_prefix) ** 0.5)
    mlp, _ = ours["blocks_0/mlp/c_proj/kernel"]
    return {
        "image_size": grid * patch,
        "patch_size": patch,
        "width": width,
        "layers": rules.count_blocks(ours, "blocks"),
        "heads": 16 if width == 1280 else max(width // 64, 1),  # ViT-H has 16
        "ln_pre": "ln_pre/scale" in ours,
        "patch_bias": "patch_embed/bias" in ours,
        "mlp_width": 0 if mlp == 4 * width else mlp,
        "gated": ours["blocks_0/mlp/c_fc/kernel"][1] == 2 * mlp,
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


# DOFA


def is_dofa(file: WeightFile) -> bool:
    """Whether the file has DOFA's kernel generator instead of a patch embedding."""
    return any(name.startswith(dofa.PREFIXES) for name in file.shapes)


def with_kernel(file: WeightFile, sensor: Sensor) -> WeightFile:
    """A DOFA file with the patch embedding generated for a sensor's wavelengths."""
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
    return dataclasses.replace(rest.with_tensors(made), config={"kind": "dofa"})
