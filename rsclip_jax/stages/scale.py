"""config.align.normalize: at which scale a student sees its sensor."""

import dataclasses
import json

import jax

from rsclip_jax import checkpoint
from rsclip_jax.data.scale import HOW, measure_scale
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.skipped import in_words
from rsclip_jax.data.sources import Source, split_digest
from rsclip_jax.stages import common
from rsclip_jax.weights import has_own_scale


def check_scale(run: common.Run, *, pretrained: str) -> None:
    """Raises ValueError for settings that cannot be meant.

    pretrained: the student's weights or "". The scale that they were trained at is
    never replaced.
    """
    c = run.config.align
    if c.normalize not in ("sensor", *HOW):
        raise ValueError(
            f"config.align.normalize = {c.normalize!r} is not known; use 'sensor',"
            f" {', '.join(map(repr, HOW))}"
        )
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
    if c.normalize == "sensor" or not pretrained:
        return
    if has_own_scale(pretrained, c.pretrained.row):
        raise ValueError(
            f"config.align.normalize = {c.normalize!r}: {pretrained} comes with the"
            " scale that it was trained on, which stays; leave config.align.normalize"
            " at 'sensor', or train a student without one ('clip', 'vit')"
        )


def scaled_sensor(run: common.Run, train: Source) -> tuple[Sensor, dict]:
    """(the sensor that the student sees, {"scale": how it was measured} for its meta).

    The row's own scale is {}. A stage that goes on from a checkpoint keeps that one's:
    the files may have changed since.
    """
    c = run.config.align
    sensor = get_sensor(train.dataset.sensors[c.sensor])
    if c.normalize == "sensor":
        return sensor, {}
    begun = checkpoint.begun_sources(run.workdir / "align")
    scale = begun.get("scale") or find_scale(run, train)
    sensor = dataclasses.replace(
        sensor,
        mean=tuple(scale["mean"]),
        std=tuple(scale["std"]),
        clip_sigma=scale["clip_sigma"],
    )
    run.say(describe_scale(sensor, scale))
    return sensor, {"scale": scale}


def find_scale(run: common.Run, train: Source) -> dict:
    """What is measured on the training split, as JSON gives it back."""
    c, data = run.config.align, run.config.data
    try:
        scale = measure_scale(
            train,
            c.sensor,
            c.normalize,
            percentiles=c.normalize_percentiles,
            records=c.normalize_records,
            threads=data.threads,
            on_error=data.on_error,
            progress=run.config.progress and jax.process_index() == 0,
        )
    except ValueError as error:
        raise ValueError(
            f"config.align.normalize = {c.normalize!r}: {in_words(error)};"
            " --config.align.normalize=sensor takes the sensor's row instead"
        ) from error
    made = {
        "how": c.normalize,
        "dataset": f"{train.dataset.name}:{train.split}",
        "split_digest": split_digest(train),
        **dataclasses.asdict(scale),
    }
    if c.normalize == "percentile":
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
