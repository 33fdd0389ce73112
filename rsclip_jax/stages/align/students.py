"""config.align's sensors, the sets that hold them, and an encoder for each of them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from rsclip_jax import api
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sensors.bands import band_places
from rsclip_jax.data.types import Source
from rsclip_jax.models.sensor import (
    SensorSpec,
    add_map,
    clip_spec,
    inflate_params,
    init_sensor,
    vit_spec,
)
from rsclip_jax.stages.shared import common
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import ENCODERS, file_digests, find_encoder, load_encoder

# sensor -> its encoder
Students = dict[str, tuple[SensorSpec, Any]]


def sensors_of(c: ConfigDict) -> tuple[str, ...]:
    """The sensors of config.align.sensor, one or several.

    Raises ValueError for what is no name, or one that stands there twice.
    """
    names = (c.sensor,) if isinstance(c.sensor, str) else tuple(c.sensor or ())
    words = [name for name in names if isinstance(name, str) and name]
    if not words or len(set(words)) < len(names):
        raise ValueError(
            f"config.align.sensor = {c.sensor!r}: name a sensor, such as 's1', or"
            " several, each once, such as ('s1', 's2')"
        )
    return names


def sets_of(c: ConfigDict) -> tuple[str, ...]:
    """The sets of config.align.train, one or several."""
    return (c.train,) if isinstance(c.train, str) else tuple(c.train)


def of_sensor(c: ConfigDict, name: str, sensor: str) -> str:
    """config.align.<name> of one sensor: one for all, or ((sensor, value), ...).

    Raises ValueError unless the pairs name each sensor of config.align.sensor once.
    """
    value = c[name]
    if isinstance(value, str):
        return value
    try:
        pairs = list(value.items() if isinstance(value, Mapping) else value)
        given = dict(pairs)
    except (TypeError, ValueError):
        pairs, given = [], {}
    wanted = sensors_of(c)
    if sorted(map(str, given)) != sorted(wanted) or len(pairs) > len(given):
        raise ValueError(
            f"config.align.{name} = {value!r}: give one for all, or one for each of"
            f" {', '.join(wanted)}, as ((sensor, value), ...)"
        )
    return given[sensor]


def source_name(c: ConfigDict, name: str, sensor: str) -> str:
    """What a sensor's source is called in meta.json: with its name where others are."""
    return name if len(sensors_of(c)) == 1 else f"{name}_{sensor}"


def check_sources(run: Run) -> None:
    """Raises ValueError unless sets pair RGB with the sensors, in fitting bands.

    Each set has to hold one of them at least, and each of them lie in a training set.
    """
    c = run.config.align
    for spec in (*sets_of(c), *c.test):
        held = run.open(spec).dataset.sensors
        if "rgb" not in held or "rgb" in sensors_of(c) or not held_by(run, spec):
            raise ValueError(
                f"config.align.sensor = {c.sensor!r}: dataset"
                f" {run.open(spec).dataset.name} holds {', '.join(held)}; align needs"
                " 'rgb' and another sensor of one place"
            )
    for key in sensors_of(c):
        seen = get_sensor(first_set(run, key).dataset.sensors[key])
        for setting, specs in (("train", sets_of(c)), ("test", c.test)):
            for spec in (s for s in specs if key in held_by(run, s)):
                row = run.open(spec).dataset
                sensor = get_sensor(row.sensors[key])
                encoder = f"config.align.{setting} = {spec!r}: an encoder of"
                band_places(sensor, seen.bands, seen.unit, f"{encoder} {seen.name}")
                common.say_moved(run, "align", row, sensor.name, seen.name)


def held_by(run: Run, spec: str) -> list[str]:
    """Those of config.align.sensor that a set holds."""
    held = run.open(spec).dataset.sensors
    return [key for key in sensors_of(run.config.align) if key in held]


def first_set(run: Run, sensor: str) -> Source:
    """The first of the training sets with a sensor, as whose files its encoder sees it.

    Raises ValueError where none has it.
    """
    specs = sets_of(run.config.align)
    for spec in specs:
        if sensor in held_by(run, spec):
            return run.open(spec)
    held = "; ".join(
        f"{s} holds {', '.join(run.open(s).dataset.sensors)}" for s in specs
    )
    raise ValueError(
        f"config.align.sensor = {run.config.align.sensor!r}: no set of"
        f" config.align.train has {sensor!r}: {held}"
    )


def check_students(run: Run) -> None:
    """Reads the students' files, where they have one: what does not fit shows here.

    Raises ValueError also for a student "clip" of a teacher that gives none.
    """
    c = run.config.align
    for key in sensors_of(c):
        student = of_sensor(c, "student", key)
        sensor = get_sensor(first_set(run, key).dataset.sensors[key])
        if student == "clip" and (variant := common.input_variant(run)):
            clip_spec(sensor, variant)
        if not is_pretrained(student):
            continue
        if student not in ENCODERS and not Path(student).exists():
            raise ValueError(
                f"config.align.student = {student!r} is not known; use 'clip', 'vit',"
                " the path of a sensor encoder's weight file, or one of"
                f" {', '.join(ENCODERS)}"
            )
        read_student(run, sensor)


def read_student(run: Run, sensor: Sensor) -> tuple[SensorSpec, dict]:
    """The encoder that config.align.student and config.align.pretrained name."""
    c = run.config.align
    told = {k: x for k, x in c.pretrained.items() if x}  # 0 and "": not told
    try:
        return load_encoder(of_sensor(c, "student", sensor.modality), sensor, **told)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(
            f"config.align.student, config.align.pretrained: {error}"
        ) from error


def is_pretrained(student: str) -> bool:
    """Whether a student names weights."""
    return student not in ("clip", "vit")


def make_student(
    run: Run, teacher: api.Model, sensor: Sensor
) -> tuple[SensorSpec, dict]:
    """The sensor encoder that config.align.student names, and its first params.

    "clip": the teacher's tower, patch embedding inflated. "vit": a random timm ViT
    of config.align.vit. A name in ENCODERS or a path: that pretrained encoder, read
    as config.align.pretrained says.
    """
    c, v = run.config.align, teacher.variant
    student = of_sensor(c, "student", sensor.modality)
    if student == "clip":
        visual = teacher.params["visual"]
        return clip_spec(sensor, v), inflate_params(visual, len(sensor.bands))
    rng = jax.random.key(run.config.seed)
    if student == "vit":
        spec = vit_spec(sensor, **c.vit.to_dict(), out_dim=v.embed_dim)
        return spec, init_sensor(spec, rng)
    spec, params = read_student(run, sensor)
    if spec.out_dim == v.embed_dim:
        return spec, params
    if spec.out_dim:
        run.log(f"align: the map of {student} to {spec.out_dim} channels begins anew")
    body = {name: x for name, x in params.items() if name != "proj"}
    return add_map(spec, body, v.embed_dim, rng)


def pretrained_sources(run: Run, students: Students) -> dict[str, dict]:
    """What meta.json says of each student that came with weights."""
    c, found = run.config.align, {}
    for key, (_, params) in students.items():
        student = of_sensor(c, "student", key)
        if is_pretrained(student):
            path, origin = find_encoder(student)
            digest, files = checkpoint.params_digest(params), file_digests(path)
            made = {**origin, "digest": digest, "files": files}
            found[source_name(c, "student", key)] = made
    return found


def pack(students: Students) -> Any:
    """What is trained and stored: one student's params, or {sensor: params}."""
    trees = {key: params for key, (_, params) in students.items()}
    return trees if len(trees) > 1 else next(iter(trees.values()))


def unpack(students: Students, params: Any) -> Students:
    """The students with packed params."""
    several = len(students) > 1
    return {
        key: (spec, params[key] if several else params)
        for key, (spec, _) in students.items()
    }


def describe_students(students: Students) -> dict[str, Any]:
    """What meta.json says of the encoders, for api.load to read."""
    specs = [dataclasses.asdict(spec) for spec, _ in students.values()]
    if len(specs) == 1:
        return {"spec": specs[0]}
    digests = {key: checkpoint.params_digest(p) for key, (_, p) in students.items()}
    return {"specs": specs, "digests": digests}


def seen_sensor(spec: SensorSpec, train: Source) -> Sensor:
    """The row of what the training set's files hold, with the encoder's own mean."""
    held = get_sensor(train.dataset.sensors[spec.modality])
    means = dict(zip(spec.bands, spec.mean, strict=True))
    return dataclasses.replace(held, mean=tuple(means[b] for b in held.bands))
