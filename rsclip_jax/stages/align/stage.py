"""Stage align: a sensor encoder learns the patched CLIP's features of the same place.

Zavras et al. 2024 (arXiv 2402.09816): MSE on un-normalised features plus a small label
loss through the frozen zero-shot head; teacher and student see the same crop and flips.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from rsclip_jax import api
from rsclip_jax.data.types import Source
from rsclip_jax.evals.fuse import add_fused, parts_of
from rsclip_jax.evals.retrieval import retrieval_records
from rsclip_jax.models import inference
from rsclip_jax.models.sensor import sensor_features
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.report.retrieval_strip import plot_retrieval_strip
from rsclip_jax.stages.align.scale import check_scale, scaled_sensor
from rsclip_jax.stages.align.students import (
    Students,
    check_sources,
    check_students,
    describe_students,
    first_set,
    make_student,
    pack,
    pretrained_sources,
    seen_sensor,
    sensors_of,
    sets_of,
    unpack,
)
from rsclip_jax.stages.align.teacher import check_cache, make_teaching
from rsclip_jax.stages.shared import common, training
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, objectives, sharding


def check_align(run: Run) -> None:
    """Raises ValueError for what would stop this stage."""
    tasks = dict.fromkeys(("train", "test"), common.ANY_TASK)
    training.check_training(run, "align", tasks)
    c = run.config.align
    training.check_weights(c, "align")
    check_sources(run)
    train = [run.open(spec) for spec in sets_of(c)]
    training.make_augment(run, "align", train, ("rgb", *sensors_of(c)))
    check_cache(run, train)
    check_losses(c)
    if needs_head(terms_of(c)):
        head_source(run, train)
    check_students(run)
    check_scale(run)


def run_align(run: Run) -> None:
    """Aligns config.align.sensor to the patched CLIP; reports before and after."""
    c = run.config.align
    train = [run.open(spec) for spec in sets_of(c)]
    tests = [run.open(spec) for spec in c.test]
    teacher, origin = common.input_clip(run, "align", api.CLIP_STAGES)
    students: Students = {}
    scales: dict[str, dict] = {}
    for key in sensors_of(c):
        sensor, scale = scaled_sensor(run, first_set(run, key), key)
        students[key] = make_student(run, teacher, sensor)
        scales |= scale
    report(run, teacher, students, tests, step=0)
    sources = {"teacher": origin, **scales, **pretrained_sources(run, students)}
    students = distil(run, teacher, students, train, scales)
    found = report(run, teacher, students, tests, step=c.steps)
    if jax.process_index() == 0:
        plot_retrieval(run, found)
    meta = StageMeta(
        **describe_students(students),
        variant=dataclasses.asdict(teacher.variant),
        steps=c.steps,
        sources=sources,
    )
    training.finish(run, "align", pack(students), train, meta)


def distil(
    run: Run,
    teacher: api.Model,
    students: Students,
    train: Sequence[Source],
    scales: Mapping[str, dict],
) -> Students:
    """The students trained on the frozen teacher's features and, by config, labels.

    scales: scaled_sensor's of all of them, kept with every checkpoint.
    """
    c, terms = run.config.align, terms_of(run.config.align)
    taught = make_teaching(run, teacher, train, tuple(students))
    frozen = {"teacher": taught.frozen}
    if needs_head(terms):
        frozen["head"], _ = common.zero_shot_head(teacher, head_source(run, train))
    encoders = {key: student_encoder(spec) for key, (spec, _) in students.items()}
    several = len(students) > 1
    params = training.fit(
        run,
        "align",
        params=pack(students),
        frozen=frozen,
        train=taught.train,
        sizes={
            **taught.sizes,
            **{key: spec.image_size for key, (spec, _) in students.items()},
        },
        sensors={
            key: seen_sensor(spec, first_set(run, key))
            for key, (spec, _) in students.items()
        },
        optional=tuple(students) if several else (),
        loss_fn=objectives.make_align_loss(
            encoders if several else next(iter(encoders.values())),
            taught.encode,
            terms=terms,
            task=train[0].dataset.task,
            steps=c.steps,
            t=1 / c.temperature,
            contrastive=sharding.make_clip_loss(run.mesh),
        ),
        sources={
            "teacher": {"digest": teacher.digests["clip"]},
            "student": {"digest": checkpoint.params_digest(pack(students))},
            **scales,
        },
    )
    return unpack(students, params)


def student_encoder(spec) -> objectives.Encode:
    """One sensor's features of a batch."""
    return lambda p, batch: sensor_features(p, batch[spec.modality], spec)


def plot_retrieval(run: Run, found: Mapping[str, tuple]) -> None:
    """retrieval.png, or one a sensor, of what report found."""
    for key, (z, source) in found.items():
        several = len(sensors_of(run.config.align)) > 1
        name = f"retrieval_{key}.png" if several else "retrieval.png"
        strip = run.workdir / "align" / name
        plot_retrieval_strip(strip, source, z[key], z["rgb"], sensor=key)


def terms_of(c: ConfigDict) -> dict[str, objectives.Weight]:
    """config.align.losses without the terms that weigh nothing."""
    return {name: weight for name, weight in c.losses if np.any(weight)}


def needs_head(terms: Mapping[str, objectives.Weight]) -> bool:
    """Whether one of the terms goes through the zero-shot head."""
    return not set(terms).isdisjoint(objectives.LABEL_TERMS)


def check_losses(c: ConfigDict) -> None:
    """Raises ValueError for terms that are not known, twice there or weigh nothing."""
    names = [name for name, _ in c.losses]
    unknown = [name for name in names if name not in objectives.ALIGN_TERMS]
    if unknown or len(set(names)) < len(names):
        raise ValueError(
            f"config.align.losses names {unknown or names}: name each of"
            f" {', '.join(objectives.ALIGN_TERMS)} at most once, as (name, weight)"
        )
    if not terms_of(c):
        raise ValueError(
            f"config.align.losses = {tuple(c.losses)} weigh nothing: the paper has"
            " (('mse', 1.0), ('labels', 0.05))"
        )
    if not c.temperature > 0:
        raise ValueError(f"config.align.temperature = {c.temperature} must be above 0")


def head_source(run: Run, train: Sequence[Source]) -> Source:
    """The source whose class names make the head: config.align.classes_of, or train's.

    Raises ValueError where the settings ask for labels that the pairs do not have.
    """
    c, first = run.config.align, train[0]
    with_labels = "labels" in terms_of(c)
    for source in train if with_labels else ():
        if source.dataset.task not in common.LABELLED:
            raise ValueError(
                f"config.align.losses has 'labels', but the pairs of"
                f" {source.dataset.name} have none; use 'soft_labels' (the teacher's"
                " own zero-shot distribution)"
            )
        if common.classes_of(source) != common.classes_of(first):
            raise ValueError(
                f"config.align.losses has 'labels', but {first.dataset.name} and"
                f" {source.dataset.name} of config.align.train have other classes; use"
                " 'soft_labels' (the teacher's own zero-shot distribution)"
            )
    if c.classes_of and not with_labels:
        return run.open(c.classes_of)
    if not first.dataset.classnames:
        raise ValueError(
            "config.align.losses has 'soft_labels', which needs class names, and"
            f" {first.dataset.name} has none: set config.align.classes_of to a"
            " labelled 'name:split'"
        )
    return first


def report(
    run: Run,
    teacher: api.Model,
    students: Students,
    tests: Sequence[Source],
    *,
    step: int,
) -> dict[str, tuple[dict[str, np.ndarray], Source]]:
    """Zero-shot from each sensor and retrieval between all of them on every test.

    And from the embedding fused of several sensors; the gap between all of these.
    Returns, for the pictures, sensor -> the embeddings and the source of the first test
    that holds it.
    """
    visual = sharding.put_params(teacher.params["visual"], run.mesh)
    variant = teacher.variant
    first: dict[str, tuple] = {}
    digests = dict.fromkeys(("rgb", "text"), teacher.digests["clip"])
    encoders, sizes = {}, {"rgb": variant.image_size}
    for key, (spec, params) in students.items():
        digests[key] = checkpoint.params_digest(params)
        encoders[key] = common.sensor_encoder(run, spec, params)
        sizes[key] = spec.image_size

    def pin(sensor: str) -> dict:
        made = "+".join(dict.fromkeys(digests[m] for m in parts_of(sensor)))
        return {"step": step, "checkpoint": made}

    for source in tests:
        row = source.dataset
        fed = {"rgb": lambda b: inference.encode_rgb(visual, b["rgb"], variant=variant)}
        for key in (key for key in students if key in row.sensors):
            fed[key] = common.feed(encoders[key], students[key][0], row)
        held = {key: sizes[key] for key in fed}
        z, labels, seen = run.encode("align", source, fed, held)
        z = add_fused(z)
        head, prompts = None, None
        if common.has_zero_shot(run, "align", source):
            head, prompts = common.zero_shot_head(teacher, source)
            for key in (key for key in z if key != "rgb"):
                scored = common.score(source, z[key], labels, head, key)
                run.report("align", seen, scored, prompts=prompts, **pin(key))
        labels = labels if head is not None else None
        outcome = run.keep(
            "align",
            "after" if step else "before",
            seen,
            z,
            labels=labels,
            head=head,
            prompts=prompts,
            step=step,
            checkpoint={key: pin(key)["checkpoint"] for key in z},
        )
        for record in retrieval_records(z, mesh=run.mesh, labels=labels, head=head):
            asked = prompts if "text" in parts_of(record["sensor"]) else None
            pins = {"prompts": asked, **pin(record["sensor"])}
            run.report("align", seen, [record], **pins)
        common.report_gap(run, "align", seen, outcome, pin)
        first = {key: (z, seen) for key in fed if key != "rgb"} | first
    return first
