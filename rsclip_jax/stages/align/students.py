"""The sensors of stage align, the datasets that hold them, and their encoders."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from rsclip_jax import api
from rsclip_jax.data.inspect.ground import measure_ground
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sensors.bands import band_indices
from rsclip_jax.data.types import Source
from rsclip_jax.models.sensor import (
    SensorSpec,
    add_map,
    clip_spec,
    inflate_params,
    init_sensor,
    sensor_shapes,
    vit_spec,
)
from rsclip_jax.models.variants import Variant
from rsclip_jax.stages.align.settings import AlignSettings
from rsclip_jax.stages.shared import clip_init, sensor_feeds
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, processes, sharding
from rsclip_jax.weights import ENCODERS, file_digests, find_encoder, load_encoder

# sensor -> its encoder
Students = dict[str, tuple[SensorSpec, Any]]


def check_sensors(run: Run, c: AlignSettings) -> None:
    """Raises ValueError unless the datasets pair RGB with the sensors' bands.

    Each dataset must hold one of the sensors, and some training dataset each sensor.
    """
    for spec in (*c.train, *c.test):
        dataset = run.open(spec).dataset
        if "rgb" in c.sensors or not held_by(run, c, spec):
            raise ValueError(
                f"config.align.sensor = {c.sensor}: dataset {dataset.name} holds"
                f" {', '.join(dataset.sensors)}; align needs 'rgb' and another sensor"
                " of the same location"
            )
    for key in c.sensors:
        seen = get_sensor(first_source(run, c, key).dataset.sensors[key])
        for setting, specs in (("train", c.train), ("test", c.test)):
            for spec in (s for s in specs if key in held_by(run, c, s)):
                dataset = run.open(spec).dataset
                sensor = get_sensor(dataset.sensors[key])
                encoder = f"config.align.{setting} = {spec!r}: an encoder of"
                band_indices(sensor, seen.bands, seen.unit, f"{encoder} {seen.name}")
                sensor_feeds.log_moved(run, "align", dataset, sensor.name, seen.name)


def held_by(run: Run, c: AlignSettings, spec: str) -> list[str]:
    """The sensors to align that a dataset holds."""
    held = run.open(spec).dataset.sensors
    return [key for key in c.sensors if key in held]


def first_source(run: Run, c: AlignSettings, sensor: str) -> Source:
    """The first training source with a sensor; it defines the encoder's input.

    Raises ValueError if no training source has the sensor.
    """
    for spec in c.train:
        if sensor in held_by(run, c, spec):
            return run.open(spec)
    held = "; ".join(
        f"{s} holds {', '.join(run.open(s).dataset.sensors)}" for s in c.train
    )
    raise ValueError(
        f"config.align.sensor = {c.sensor}: no dataset of config.align.train has"
        f" {sensor!r}: {held}"
    )


def check_students(run: Run, c: AlignSettings) -> None:
    """Raises ValueError for students that do not fit; reads their weight files, if any.

    Also for a student "clip" if the teacher's tower cannot be widened.
    """
    for key in c.sensors:
        student = c.students[key]
        sensor = get_sensor(first_source(run, c, key).dataset.sensors[key])
        if student == "clip" and (variant := clip_init.input_variant(run)):
            clip_spec(sensor, variant)
        if not is_pretrained(student):
            continue
        if student not in ENCODERS and not Path(student).exists():
            raise ValueError(
                f"config.align.student = {student!r} is not known; use 'clip', 'vit',"
                " the path of a sensor encoder's weight file, or one of"
                f" {', '.join(ENCODERS)}"
            )
        read_student(c, sensor)


def read_student(c: AlignSettings, sensor: Sensor) -> tuple[SensorSpec, dict]:
    """The pretrained encoder of a sensor, read as the settings say."""
    told = {k: x for k, x in c.pretrained.items() if x}  # 0 and "": read from the file
    try:
        return load_encoder(c.students[sensor.modality], sensor, **told)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(
            f"config.align.student, config.align.pretrained: {error}"
        ) from error


def is_pretrained(student: str) -> bool:
    """Whether a student is the name or path of weights."""
    return student not in ("clip", "vit")


def make_student(
    run: Run, c: AlignSettings, teacher: api.Model, sensor: Sensor
) -> tuple[SensorSpec, dict]:
    """A sensor's initial encoder.

    Student "clip" is the teacher's tower with an inflated patch embedding, "vit" a
    random timm ViT of the settings' size; a name in ENCODERS or a path is that
    pretrained encoder.
    """
    student, v = c.students[sensor.modality], teacher.variant
    if student == "clip":
        visual = teacher.params["visual"]
        return clip_spec(sensor, v), inflate_params(visual, len(sensor.bands))
    if student == "vit":
        spec = vit_spec(sensor, **c.vit, out_dim=v.embed_dim)
        rng = jax.random.key(run.config.seed)
        return spec, sharding.on_host(init_sensor(spec, rng, run.mesh))
    return fit_student(run, c, v, sensor)


def fit_student(
    run: Run, c: AlignSettings, variant: Variant, sensor: Sensor
) -> tuple[SensorSpec, dict]:
    """A pretrained student, with a random map to the teacher's width if it has none."""
    spec, params = read_student(c, sensor)
    if spec.out_dim == variant.embed_dim:
        return spec, params
    if spec.out_dim:
        run.log(
            f"align: the projection of {c.students[sensor.modality]} to {spec.out_dim}"
            " channels is replaced by a random one"
        )
    body = {name: x for name, x in params.items() if name != "proj"}
    return add_map(spec, body, variant.embed_dim, jax.random.key(run.config.seed))


def student_shapes(
    run: Run, c: AlignSettings, variant: Variant, sensor: Sensor
) -> tuple[SensorSpec, Any]:
    """make_student's encoder in shapes, for a teacher of this variant.

    Reads the weight file of a pretrained student.
    """
    student = c.students[sensor.modality]
    if student == "clip":
        spec = clip_spec(sensor, variant)
    elif student == "vit":
        spec = vit_spec(sensor, **c.vit, out_dim=variant.embed_dim)
    else:
        spec, params = fit_student(run, c, variant, sensor)
        return spec, jax.eval_shape(lambda: params)
    return spec, sensor_shapes(spec)


def planned_students(run: Run, c: AlignSettings, variant: Variant) -> Students:
    """The students in shapes, with their sensors' default scales."""
    found = {}
    for key in c.sensors:
        sensor = get_sensor(first_source(run, c, key).dataset.sensors[key])
        if not sensor.mean:  # a stand-in for the scale that will be measured
            ones = (1.0,) * len(sensor.bands)
            sensor = dataclasses.replace(sensor, mean=ones, std=ones)
        found[key] = student_shapes(run, c, variant, sensor)
    return found


def pretrained_sources(c: AlignSettings, students: Students) -> dict[str, dict]:
    """The entries of meta.json about pretrained students."""
    found = {}
    for key, (_, params) in students.items():
        student = c.students[key]
        if is_pretrained(student):
            path, origin = find_encoder(student)
            digest, files = checkpoint.params_digest(params), file_digests(path)
            made = {**origin, "digest": digest, "files": files}
            found[c.meta_name("student", key)] = made
    return found


def pack(students: Students) -> Any:
    """The tree to train and store: one student's params, or {sensor: params}."""
    trees = {key: params for key, (_, params) in students.items()}
    return trees if len(trees) > 1 else next(iter(trees.values()))


def unpack(students: Students, params: Any) -> Students:
    """The students with the params of a packed tree."""
    several = len(students) > 1
    return {
        key: (spec, params[key] if several else params)
        for key, (spec, _) in students.items()
    }


def describe_students(students: Students) -> dict[str, Any]:
    """The entries of meta.json about the encoders, which api.load reads."""
    specs = [dataclasses.asdict(spec) for spec, _ in students.values()]
    if len(specs) == 1:
        return {"spec": specs[0]}
    digests = {key: checkpoint.params_digest(p) for key, (_, p) in students.items()}
    return {"specs": specs, "digests": digests}


def seen_sensor(spec: SensorSpec, train: Source) -> Sensor:
    """The sensor of the training files, with the encoder's scale."""
    held = get_sensor(train.dataset.sensors[spec.modality])
    indices = [spec.bands.index(band) for band in held.bands]
    mean, std = (tuple(values[i] for i in indices) for values in (spec.mean, spec.std))
    return dataclasses.replace(held, mean=mean, std=std)


def with_ground(run: Run, c: AlignSettings, students: Students) -> Students:
    """The students whose specs say which ground their training images have."""
    sources = {key: first_source(run, c, key) for key in students}

    def decide() -> dict:
        found = {k: measure_ground(source, k) for k, source in sources.items()}
        return {k: dataclasses.asdict(ground) for k, ground in found.items()}

    grounds, crop = processes.first_decides(decide), c.training.augment.crop_pixels
    return {
        key: (
            dataclasses.replace(
                spec,
                pixels=crop or grounds[key]["pixels"],
                metres=grounds[key]["metres"],
            ),
            params,
        )
        for key, (spec, params) in students.items()
    }
