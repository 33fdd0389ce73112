"""The normalisation of a student's input (config.align.normalize)."""

import dataclasses
import json

from rsclip_jax.data.bad_records import error_text
from rsclip_jax.data.inspect.scale import HOW, measure_scale
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.types import Source
from rsclip_jax.stages.align.settings import AlignSettings
from rsclip_jax.stages.align.students import first_source, is_pretrained
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import processes, resume
from rsclip_jax.weights import has_input_scale


def check_scale(run: Run, c: AlignSettings) -> None:
    """Raises ValueError for a scale that is unknown, out of range or not allowed.

    A pretrained student keeps the scale that it was trained on.
    """
    for key in c.sensors:
        check_how(c, c.scales[key], c.students[key])
        sensor = get_sensor(first_source(run, c, key).dataset.sensors[key])
        if c.scales[key] == "sensor" and not sensor.mean and not _is_scaled(c, key):
            raise ValueError(
                f"config.align.normalize = 'sensor': {sensor.name} has no mean and std;"
                " give them there, or measure them with --config.align.normalize=zscore"
            )
    low_high = c.normalize_percentiles
    if len(low_high) != 2 or not 0 <= low_high[0] < low_high[1] <= 100:
        raise ValueError(
            f"config.align.normalize_percentiles = {low_high} must be a low and a high"
            " percentile, between 0 and 100"
        )
    if c.normalize_records < 0:
        raise ValueError(
            f"config.align.normalize_records = {c.normalize_records} is below 0; 0"
            " reads all records"
        )


def _is_scaled(c: AlignSettings, key: str) -> bool:
    student = c.students[key]
    return is_pretrained(student) and has_input_scale(student, c.pretrained["row"])


def check_how(c: AlignSettings, how: str, student: str) -> None:
    """Raises ValueError for a normalisation that is unknown or not allowed."""
    if how not in ("sensor", *HOW):
        raise ValueError(
            f"config.align.normalize = {how!r} is not known; use 'sensor',"
            f" {', '.join(map(repr, HOW))}"
        )
    if how == "sensor" or not is_pretrained(student):
        return
    if has_input_scale(student, c.pretrained["row"]):
        raise ValueError(
            f"config.align.normalize = {how!r}: {student} keeps the scale that it was"
            " trained on; leave config.align.normalize at 'sensor', or use student"
            " 'clip' or 'vit'"
        )


def scaled_sensor(
    run: Run, c: AlignSettings, train: Source, key: str
) -> tuple[Sensor, dict]:
    """(the sensor with its student's scale, {"scale": how it was measured} for meta).

    The dictionary is empty for the sensor's default scale; with several sensors the key
    is "scale_<sensor>". A resumed stage keeps the scale of its checkpoint, because the
    files may have changed.
    """
    sensor = get_sensor(train.dataset.sensors[key])
    if c.scales[key] == "sensor":
        return sensor, {}
    name = c.meta_name("scale", key)

    def decide() -> dict:
        begun = resume.begun_sources(run.workdir / "align")
        return begun.get(name) or find_scale(run, c, train, key)

    scale = processes.first_decides(decide)
    sensor = dataclasses.replace(
        sensor,
        mean=tuple(scale["mean"]),
        std=tuple(scale["std"]),
        clip_sigma=scale["clip_sigma"],
    )
    run.log(describe_scale(sensor, scale))
    return sensor, {name: scale}


def find_scale(run: Run, c: AlignSettings, train: Source, key: str) -> dict:
    """The scale measured on a training source, as JSON returns it."""
    how = c.scales[key]
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
            " --config.align.normalize=sensor uses the sensor's default scale instead"
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
    """One line per band."""
    lines = [
        f"align: {sensor.name} normalised by {scale['how']} of {scale['records']}"
        f" records ({scale['pixels']:,} pixels) of {scale['dataset']}, clipped at"
        f" {scale['clip_sigma']:g}"
    ]
    for band, mean, std in zip(sensor.bands, sensor.mean, sensor.std, strict=True):
        text = f"mean {mean:.6g}, std {std:.6g}"
        if scale["how"] == "percentile":
            text = f"{mean - std:.6g} to {mean + std:.6g} as -1 to 1"
        lines.append(f"  {band}: {text} {sensor.unit}")
    return "\n".join(lines)
