"""CLIPs whose visual tower takes a sensor's bands in place of RGB, in and out.

MS-CLIP (Marimo et al. 2025, arXiv 2503.15969) publishes such a CLIP over ten bands of
Sentinel-2; stage align makes them by student "clip". In a file only the first kernel
differs from open_clip's CLIP, and nothing says which bands it takes.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.io.files import write_json
from rsclip_jax.models.sensor import (
    SensorSpec,
    clip_spec,
    input_fields,
    spec_sensor,
)
from rsclip_jax.models.variants import Variant
from rsclip_jax.weights import layouts, load, rules
from rsclip_jax.weights.infer import Heads
from rsclip_jax.weights.save import cast, check_dtype, variant_header, write_tensors
from rsclip_jax.weights.tool_configs import open_clip_config


class Towers(NamedTuple):
    """A CLIP from a file.

    params: of "text" and "logit_scale", and of "visual" where the CLIP takes RGB.
    spec, encoder: the visual tower that takes a sensor's bands instead, and its params;
    None where there is none.
    """

    variant: Variant
    params: dict
    spec: SensorSpec | None = None
    encoder: dict | None = None


def load_towers(
    path: str | Path,
    variant: str | Variant | None = None,
    *,
    sensor: str | Sensor | None = None,
    activation: str | None = None,
    heads: Heads = None,
    image_size: int | None = None,
    ema: bool = True,
) -> Towers:
    """A CLIP of RGB or of a sensor's bands; see load_clip for the other arguments.

    sensor: the bands of the visual tower in its order, their unit and scale: a name in
    SENSORS, a .toml, or a Sensor. A file of save_sensor_clip states them.

    Raises ValueError for a tower of other bands than RGB without a sensor, and for a
    sensor of another number of bands, without mean and std, or for a CLIP that states
    its own.
    """
    opened = load.open_clip_file(path, ema)
    found = _find_sensor(opened, sensor)
    v, params = load.read_clip(opened, variant, activation, heads, image_size)
    if found is None:
        return Towers(v, params)
    spec = _spec(found, v)
    text = {name: tree for name, tree in params.items() if name != "visual"}
    return Towers(v, text, spec, params["visual"])


def read_bands(
    path: str | Path, variant: Variant, sensor: str | Sensor | None = None
) -> SensorSpec | None:
    """The spec that load_towers would find, from tensor names and shapes alone."""
    found = _find_sensor(load.open_clip_file(path), sensor)
    return None if found is None else _spec(found, variant)


def _spec(found: SensorSpec | Sensor, variant: Variant) -> SensorSpec:
    """The spec of a tower of this variant, which may have got another image size."""
    if isinstance(found, SensorSpec):
        return dataclasses.replace(found, image_size=variant.image_size)
    return clip_spec(found, variant)


def _find_sensor(
    opened: load.ClipFile, sensor: str | Sensor | None
) -> SensorSpec | Sensor | None:
    """What the visual tower takes: the file's own spec, or the sensor; None for RGB."""
    file, bands = opened.file, opened.bands
    told = file.told("spec")
    if told is not None and sensor is not None:
        raise ValueError(
            f"{file.path}: the file states its bands, those of {told.get('sensor')!r}:"
            " omit sensor="
        )
    if told is not None:
        return SensorSpec.from_json(told)
    if sensor is None and bands == 3:
        return None
    if sensor is None:
        raise ValueError(
            f"{file.path}: the visual tower of this CLIP takes {bands} bands, and the"
            " file does not state which: give sensor= (a name in SENSORS, or a .toml"
            " with the bands in the tower's order, their unit, mean and std)"
        )
    sensor = get_sensor(sensor) if isinstance(sensor, str) else sensor
    if len(sensor.bands) != bands or not sensor.mean:
        problem = (
            f"has the {len(sensor.bands)} bands {sensor.bands}"
            if len(sensor.bands) != bands
            else "has no mean and std"
        )
        raise ValueError(
            f"{file.path}: its visual tower takes {bands} bands at a fixed scale, and"
            f" sensor {sensor.name} {problem}: give a .toml with the tower's bands in"
            " its order, their mean and std"
        )
    return sensor


def save_sensor_clip(
    path: str | Path,
    variant: Variant,
    params: dict,
    spec: SensorSpec,
    encoder: dict,
    *,
    dtype: str = "float32",
) -> None:
    """Writes a sensor encoder and CLIP's text tower as one CLIP in open_clip's names.

    Args:
        path: a folder, which gets open_clip_config.json too. open_clip builds its CLIP
            for RGB: replace visual.conv1 by one of as many bands before its
            load_state_dict. The config's mean and std are in the sensor's unit.
        variant, params: of the CLIP whose "text" and "logit_scale" are written.
        spec, encoder: of an encoder that is the CLIP's own visual tower over other
            bands (student "clip").

    Raises ValueError for another encoder and an unknown dtype.
    """
    path = Path(path)
    check_dtype(dtype)
    check_is_tower(spec, variant)
    v = variant.at_size(spec.image_size)
    text = {name: tree for name, tree in params.items() if name != "visual"}
    tensors = rules.export_names({**text, "visual": encoder}, layouts.OPEN_CLIP)
    header = {"spec": json.dumps(dataclasses.asdict(spec)), **variant_header(v)}
    config = open_clip_config(v)
    config["preprocess_cfg"] |= {"mean": list(spec.mean), "std": list(spec.std)}
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "open_clip_config.json", config, sort_keys=False)
    name = "open_clip_model.safetensors"
    write_tensors(path / name, cast(tensors, dtype), header)


def check_is_tower(spec: SensorSpec, variant: Variant) -> None:
    """Raises ValueError unless an encoder is this CLIP's visual tower over other bands.

    Only its input, image size and first kernel may differ.
    """
    problem = ""
    if isinstance(variant.vision_layers, tuple):
        problem = "the CLIP's visual tower is a ResNet"
    elif variant.family != "clip" or variant.tokenizer is not None:
        problem = "open_clip has no CLIP with this one's tokenizer"
    else:
        sensor = spec_sensor(spec)
        free = {"image_size", "pixels", "metres", *input_fields(sensor)}
        built: dict[str, Any] = dataclasses.asdict(clip_spec(sensor, variant))
        has = dataclasses.asdict(spec)
        has["mlp_width"] = has["mlp_width"] or 4 * spec.width
        built["mlp_width"] = built["mlp_width"] or 4 * variant.vision_width
        problem = ", ".join(
            f"{key} {has[key]} for {value}"
            for key, value in built.items()
            if key not in free and has[key] != value
        )
    if problem:
        raise ValueError(
            f"the encoder of {spec.sensor} cannot be the visual tower of one CLIP with"
            f" the text tower ({problem}): train it with student 'clip', or export it"
            " alone"
        )
