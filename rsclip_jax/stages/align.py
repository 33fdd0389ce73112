"""Stage align: a sensor encoder learns the patched CLIP's features of the same place.

Zavras et al. 2024 (arXiv 2402.09816): MSE on un-normalised features plus a small label
loss through the frozen zero-shot head; teacher and student see the same crop and flips.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from rsclip_jax import api, checkpoint, losses, sharding
from rsclip_jax.data.bands import band_places
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sources import Source
from rsclip_jax.evals.retrieval import retrieval_records
from rsclip_jax.models.clip import image_features
from rsclip_jax.models.sensor import (
    SensorSpec,
    add_map,
    clip_spec,
    inflate_params,
    init_sensor,
    sensor_features,
    vit_spec,
)
from rsclip_jax.report.plots import plot_retrieval_strip
from rsclip_jax.stages import common
from rsclip_jax.stages.scale import check_scale, scaled_sensor
from rsclip_jax.weights import ENCODERS, file_digests, find_encoder, load_encoder


def check_align(run: common.Run) -> None:
    """Raises ValueError for what would stop this stage."""
    tasks = dict.fromkeys(("train", "test"), common.ANY_TASK)
    common.check_training(run, "align", tasks)
    c = run.config.align
    for spec in (c.train, *c.test):
        check_source(run.open(spec), c.sensor)
    common.make_augment(run, "align", [run.open(c.train)], ("rgb", c.sensor))
    check_losses(c)
    if needs_head(terms_of(c)):
        head_source(run, run.open(c.train))
    check_tests(run)
    check_student(run)
    check_scale(run, pretrained=c.student if is_pretrained(c.student) else "")


def run_align(run: common.Run) -> None:
    """Aligns config.align.sensor to the patched CLIP; reports before and after."""
    c = run.config.align
    train = run.open(c.train)
    tests = [run.open(spec) for spec in c.test]
    teacher, origin = common.input_clip(run, "align", api.CLIP_STAGES)
    sensor, scale = scaled_sensor(run, train)
    spec, student = make_student(run, teacher, sensor)
    report(run, teacher, spec, student, tests, step=0)
    sources = {"teacher": origin, **scale}
    if is_pretrained(c.student):
        path, found = find_encoder(c.student)
        digest = checkpoint.params_digest(student)
        files = file_digests(path)
        sources["student"] = {**found, "digest": digest, "files": files}
    student = distil(run, teacher, spec, student, train, scale)
    found = report(run, teacher, spec, student, tests, step=c.steps)
    if jax.process_index() == 0:
        z, source = found
        strip = run.workdir / "align" / "retrieval.png"
        plot_retrieval_strip(strip, source, z[c.sensor], z["rgb"], sensor=c.sensor)
    meta = {
        "spec": dataclasses.asdict(spec),
        "variant": dataclasses.asdict(teacher.variant),
        "steps": c.steps,
        "sources": sources,
    }
    common.finish(run, "align", student, [train], meta)


def check_tests(run: common.Run) -> None:
    """Raises ValueError unless the tests hold all that the student will see."""
    c = run.config.align
    seen = get_sensor(run.open(c.train).dataset.sensors[c.sensor])
    for spec in c.test:
        row = run.open(spec).dataset
        held = get_sensor(row.sensors[c.sensor])
        encoder = f"config.align.test = {spec!r}: an encoder of {seen.name}"
        band_places(held, seen.bands, seen.unit, encoder)
        common.say_moved(run, "align", row, held.name, seen.name)


def check_student(run: common.Run) -> None:
    """Reads the student's file, where it has one: what does not fit shows here.

    Raises ValueError also for a student "clip" of a teacher that gives none.
    """
    c = run.config.align
    sensor = get_sensor(run.open(c.train).dataset.sensors[c.sensor])
    if c.student == "clip" and (variant := common.input_variant(run)):
        clip_spec(sensor, variant)
    if not is_pretrained(c.student):
        return
    if c.student not in ENCODERS and not Path(c.student).exists():
        raise ValueError(
            f"config.align.student = {c.student!r} is not known; use 'clip', 'vit', the"
            " path of a sensor encoder's weight file, or one of"
            f" {', '.join(ENCODERS)}"
        )
    read_student(run, sensor)


def read_student(run: common.Run, sensor: Sensor) -> tuple[SensorSpec, dict]:
    """The encoder that config.align.student and config.align.pretrained name."""
    c = run.config.align
    told = {k: x for k, x in c.pretrained.items() if x}  # 0 and "": not told
    try:
        return load_encoder(c.student, sensor, **told)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(
            f"config.align.student, config.align.pretrained: {error}"
        ) from error


def is_pretrained(student: str) -> bool:
    """Whether config.align.student names weights."""
    return student not in ("clip", "vit")


def check_source(source: Source, sensor: str) -> None:
    """Raises ValueError unless the set pairs RGB with the sensor."""
    sensors = source.dataset.sensors
    if sensor not in sensors or "rgb" not in sensors or sensor == "rgb":
        raise ValueError(
            f"config.align.sensor = {sensor!r}: dataset {source.dataset.name} holds"
            f" {', '.join(sensors)}; align needs 'rgb' and another sensor of one place"
        )


def make_student(
    run: common.Run, teacher: api.Model, sensor: Sensor
) -> tuple[SensorSpec, dict]:
    """The sensor encoder that config.align.student names, and its first params.

    "clip": the teacher's tower, patch embedding inflated. "vit": a random timm ViT
    of config.align.vit. A name in ENCODERS or a path: that pretrained encoder, read
    as config.align.pretrained says.
    """
    c, v = run.config.align, teacher.variant
    if c.student == "clip":
        visual = teacher.params["visual"]
        return clip_spec(sensor, v), inflate_params(visual, len(sensor.bands))
    rng = jax.random.key(run.config.seed)
    if c.student == "vit":
        spec = vit_spec(sensor, **c.vit.to_dict(), out_dim=v.embed_dim)
        return spec, init_sensor(spec, rng)
    spec, params = read_student(run, sensor)
    if spec.out_dim == v.embed_dim:
        return spec, params
    if spec.out_dim:
        run.say(f"align: the map of {c.student} to {spec.out_dim} channels begins anew")
    body = {name: x for name, x in params.items() if name != "proj"}
    return add_map(spec, body, v.embed_dim, rng)


def distil(
    run: common.Run, teacher: api.Model, spec, student, train: Source, scale: dict
):
    """The student trained on the frozen teacher's features and, by config, labels.

    scale: scaled_sensor's, kept with every checkpoint.
    """
    c, variant = run.config.align, teacher.variant
    frozen = {"teacher": teacher.params["visual"]}
    terms = terms_of(c)
    if needs_head(terms):
        frozen["head"], _ = common.zero_shot_head(teacher, head_source(run, train))
    return common.fit(
        run,
        "align",
        params=student,
        frozen=frozen,
        train=[train],
        sizes={"rgb": variant.image_size, spec.modality: spec.image_size},
        sensors={spec.modality: seen_sensor(spec, train)},
        loss_fn=losses.make_align_loss(
            lambda p, batch: sensor_features(p, batch[spec.modality], spec),
            lambda p, batch: image_features(p, batch["rgb"], variant),
            terms=terms,
            task=train.dataset.task,
            steps=c.steps,
            t=1 / c.temperature,
            contrastive=sharding.make_clip_loss(run.mesh),
        ),
        sources={
            "teacher": {"digest": teacher.digests["clip"]},
            "student": {"digest": checkpoint.params_digest(student)},
            **scale,
        },
    )


def seen_sensor(spec: SensorSpec, train: Source) -> Sensor:
    """The row of what the training set's files hold, with the encoder's own mean."""
    held = get_sensor(train.dataset.sensors[spec.modality])
    means = dict(zip(spec.bands, spec.mean, strict=True))
    return dataclasses.replace(held, mean=tuple(means[b] for b in held.bands))


def terms_of(c: ConfigDict) -> dict[str, losses.Weight]:
    """config.align.losses without the terms that weigh nothing."""
    return {name: weight for name, weight in c.losses if np.any(weight)}


def needs_head(terms: Mapping[str, losses.Weight]) -> bool:
    """Whether one of the terms goes through the zero-shot head."""
    return not set(terms).isdisjoint(losses.LABEL_TERMS)


def check_losses(c: ConfigDict) -> None:
    """Raises ValueError for terms that are not known, twice there or weigh nothing."""
    names = [name for name, _ in c.losses]
    unknown = [name for name in names if name not in losses.ALIGN_TERMS]
    if unknown or len(set(names)) < len(names):
        raise ValueError(
            f"config.align.losses names {unknown or names}: name each of"
            f" {', '.join(losses.ALIGN_TERMS)} at most once, as (name, weight)"
        )
    if not terms_of(c):
        raise ValueError(
            f"config.align.losses = {tuple(c.losses)} weigh nothing: the paper has"
            " (('mse', 1.0), ('labels', 0.05))"
        )
    if not c.temperature > 0:
        raise ValueError(f"config.align.temperature = {c.temperature} must be above 0")


def head_source(run: common.Run, train: Source) -> Source:
    """The source whose class names make the head: config.align.classes_of, or train's.

    Raises ValueError where the settings ask for labels that the pairs do not have.
    """
    c = run.config.align
    with_labels = "labels" in terms_of(c)
    if with_labels and train.dataset.task not in common.LABELLED:
        raise ValueError(
            f"config.align.losses has 'labels', but the pairs of {train.dataset.name}"
            " have none; use 'soft_labels' (the teacher's own zero-shot distribution)"
        )
    if c.classes_of and not with_labels:
        return run.open(c.classes_of)
    if not train.dataset.classnames:
        raise ValueError(
            "config.align.losses has 'soft_labels', which needs class names, and"
            f" {train.dataset.name} has none: set config.align.classes_of to a"
            " labelled 'name:split'"
        )
    return train


def report(run: common.Run, teacher: api.Model, spec, student, tests, *, step: int):
    """Zero-shot from the sensor and retrieval both ways on every test source.

    Returns the embeddings and the source of the first, for the picture.
    """
    digest = checkpoint.params_digest(student)
    digests = {"rgb": teacher.digests["clip"], spec.modality: digest}
    visual = sharding.put_params(teacher.params["visual"], run.mesh)
    student = sharding.put_params(student, run.mesh)
    variant, modality = teacher.variant, spec.modality

    def encode(batch):
        return api.encode_sensor(student, batch[modality], spec=spec)

    sizes = {"rgb": variant.image_size, modality: spec.image_size}
    first = None
    for source in tests:
        encoders = {
            "rgb": lambda b: api.encode_rgb(visual, b["rgb"], variant=variant),
            modality: common.feed(encode, spec, source.dataset),
        }
        z, labels, seen = run.encode("align", source, encoders, sizes)
        if source.dataset.task in common.LABELLED:
            head, prompts = common.zero_shot_head(teacher, source)
            scored = common.score(source, z[modality], labels, head, modality)
            pins = {"step": step, "checkpoint": digest, "prompts": prompts}
            run.report("align", seen, scored, **pins)
        for record in retrieval_records(z):
            pair = [digests[m] for m in record["sensor"].split("->")]
            run.report("align", seen, [record], step=step, checkpoint="+".join(pair))
        first = first or (z, seen)
    return first
