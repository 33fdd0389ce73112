"""config.align.normalize: at which scale a student sees its sensor."""

import dataclasses
import json

from ml_collections import ConfigDict

from rsclip_jax.data.bad_records import error_text
from rsclip_jax.data.inspect.scale import HOW, measure_scale
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sources.files import split_digest
from rsclip_jax.data.types import Source
from rsclip_jax.stages.align.students import (
    is_pretrained,
    of_sensor,
    sensors_of,
    source_name,
)
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import has_own_scale


def check_scale(run: Run) -> None:
    """Raises ValueError for settings that cannot be meant.

    The scale that a student's weights were trained at is never replaced.
    """
    c = run.config.align
    for key in sensors_of(c):
        check_how(c, of_sensor(c, "normalize", key), of_sensor(c, "student", key))
    low_high = tuple(c.normalize_percentiles)
    if len(low_high) != 2 or not 0 <= low_high[0] < low_high[1] <= 100:
        raise ValueError(
            f"config.align.normalize_percentiles = {low_high} should be a low and a"
            " high one, between 0 and 100"
        )
    if c.normalize_records < 0:
        raise ValueError(
            f"config.align.normalize_records = {c.normalize_records} is below 0; 0"
            " reads all records"
        )


def check_how(c: ConfigDict, how: str, student: str) -> None:
    """Raises ValueError for a way to normalise that a student cannot be given."""
    if how not in ("sensor", *HOW):
        raise ValueError(
            f"config.align.normalize = {how!r} is not known; use 'sensor',"
            f" {', '.join(map(repr, HOW))}"
        )
    if how == "sensor" or not is_pretrained(student):
        return
    if has_own_scale(student, c.pretrained.row):
        raise ValueError(
            f"config.align.normalize = {how!r}: {student} comes with the"
            " scale that it was trained on, which stays; leave config.align.normalize"
            " at 'sensor', or train a student without one ('clip', 'vit')"
        )


def scaled_sensor(run: Run, train: Source, key: str) -> tuple[Sensor, dict]:
    """(the sensor that its student sees, {"scale": how it was measured} for its meta).

    The row's own scale is {}; of several sensors it is "scale_<sensor>". A stage that
    goes on from a checkpoint keeps that one's: the files may have changed since.
    """
    c = run.config.align
    sensor = get_sensor(train.dataset.sensors[key])
    if of_sensor(c, "normalize", key) == "sensor":
        return sensor, {}
    name = source_name(c, "scale", key)
    begun = checkpoint.begun_sources(run.workdir / "align")
    scale = begun.get(name) or find_scale(run, train, key)
    sensor = dataclasses.replace(
        sensor,
        mean=tuple(scale["mean"]),
        std=tuple(scale["std"]),
        clip_sigma=scale["clip_sigma"],
    )
    run.log(describe_scale(sensor, scale))
    return sensor, {name: scale}


def find_scale(run: Run, train: Source, key: str) -> dict:
    """What is measured on the training split, as JSON gives it back."""
    c = run.config.align
    how = of_sensor(c, "normalize", key)
    try:
        scale = measure_scale(
            train,
            key,
            how,
            percentiles=c.normalize_percentiles,
            records=c.normalize_records,
            options=run.read_options("align"),
        )
    except ValueError as error:
        raise ValueError(
            f"config.align.normalize = {how!r}: {error_text(error)};"
            " --config.align.normalize=sensor takes the sensor's row instead"
        ) from error
    made = {
        "how": how,
        "dataset": str(train.spec),
        "split_digest": split_digest(train),
        **dataclasses.asdict(scale),
    }
    if how == "percentile":
        made["percentiles"] = c.normalize_percentiles
    return json.loads(json.dumps(made))


def describe_scale(sensor: Sensor, scale: dict) -> str:
    """A line a band."""
    lines = [
        f"align: {sensor.name} as {scale['how']} of {scale['records']} records"
        f" ({scale['pixels']:,} pixels) of {scale['dataset']}, clipped at"
        f" {scale['clip_sigma']:g}"
    ]
    for band, mean, std in zip(sensor.bands, sensor.mean, sensor.std, strict=True):
        text = f"mean {mean:.6g}, std {std:.6g}"
        if scale["how"] == "percentile":
            text = f"{mean - std:.6g} to {mean + std:.6g} as -1 to 1"
        lines.append(f"  {band}: {text} {sensor.unit}")
    return "\n".join(lines)
