"""Stage align: a sensor encoder learns the patched CLIP's features of the same scene.

Zavras et al. 2024 (arXiv 2402.09816): MSE on un-normalised features plus a small label
loss through the frozen zero-shot head; teacher and student see the same crop and flips.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rsclip_jax import api
from rsclip_jax.data.pipeline.fitting import Fit
from rsclip_jax.data.types import Source
from rsclip_jax.evals.fuse import add_fused, parts_of
from rsclip_jax.evals.retrieval import retrieval_records
from rsclip_jax.models.sensor import SensorSpec, sensor_features
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.report.retrieval_strip import plot_retrieval_strip
from rsclip_jax.stages.align.scale import check_scale, scaled_sensor
from rsclip_jax.stages.align.settings import AlignSettings, settings_of
from rsclip_jax.stages.align.students import (
    Students,
    check_sensors,
    check_students,
    describe_students,
    first_source,
    make_student,
    pack,
    planned_students,
    pretrained_sources,
    seen_sensor,
    unpack,
    with_ground,
)
from rsclip_jax.stages.align.teacher import (
    Teaching,
    cache_bytes,
    cached_views,
    check_cache,
    make_teaching,
    teaching_shapes,
)
from rsclip_jax.stages.shared import (
    clip_init,
    dataset_checks,
    scoring,
    sensor_feeds,
    training,
)
from rsclip_jax.stages.shared.job import Job, Needs, fit
from rsclip_jax.stages.shared.overlap import check_apart, check_same_dataset
from rsclip_jax.stages.shared.passes import rgb_pass, sensor_pass
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, objectives, processes, sharding


def check_align(run: Run) -> None:
    """Raises ValueError for anything that would stop this stage or void its results."""
    c = settings_of(run)
    tasks = {
        name: (getattr(c, name), dataset_checks.ANY_TASK) for name in ("train", "test")
    }
    training.check_sources(run, "align", tasks)
    check_sensors(run, c)
    train = [run.open(spec) for spec in c.train]
    training.check_weights("align", c.weights, train)
    keys = ("rgb", *c.sensors)
    training.check_augmentation(run, "align", c.training.augment, train, keys)
    training.check_computing(run, "align", c.training)
    check_cache(run, c, train)
    check_losses(c)
    if needs_head(c.terms):
        head_source(run, c, train)
    check_students(run, c)
    check_scale(run, c)
    tested = {"test": c.test}
    if not c.allow_other_data:
        check_same_dataset(run, "align", c.train, tested)
    if not c.allow_shared:
        check_apart(run, "align", {"train": c.train}, tested)
    clip_init.check_clip(run, "align")


def run_align(run: Run) -> None:
    """Aligns the sensors to the patched CLIP; reports before and after."""
    c = settings_of(run)
    train = [run.open(spec) for spec in c.train]
    tests = [run.open(spec) for spec in c.test]
    teacher, origin = clip_init.input_clip(run, "align", api.CLIP_STAGES)
    students: Students = {}
    scales: dict[str, dict] = {}
    for key in c.sensors:
        sensor, scale = scaled_sensor(run, c, first_source(run, c, key), key)
        students[key] = make_student(run, c, teacher, sensor)
        scales |= scale
    students = with_ground(run, c, students)
    report(run, teacher, students, tests, step=0)
    sources = {"teacher": origin, **scales, **pretrained_sources(c, students)}
    students = distil(run, c, teacher, students, train, scales)
    found = report(run, teacher, students, tests, step=c.training.steps)
    if processes.is_first():
        plot_retrieval(run, c, found)
    meta = StageMeta(
        **describe_students(students),
        variant=dataclasses.asdict(teacher.variant),
        steps=c.training.steps,
        sources=sources,
    )
    training.finish(run, "align", pack(students), train, meta)


def distil(
    run: Run,
    c: AlignSettings,
    teacher: api.Model,
    students: Students,
    train: Sequence[Source],
    scales: Mapping[str, dict],
) -> Students:
    """Trains the students on the frozen teacher's features and, if set, labels.

    scales: from scaled_sensor for all students, saved with every checkpoint.
    """
    taught = make_teaching(run, c, teacher, train, tuple(students))
    frozen = {"teacher": taught.frozen}
    if needs_head(c.terms):
        frozen["head"], _ = scoring.zero_shot_head(teacher, head_source(run, c, train))
    specs = {key: spec for key, (spec, _) in students.items()}
    job = align_job(run, c, taught, specs, pack(students), frozen, train)
    origins = {
        "teacher": {"digest": teacher.digests["clip"]},
        "student": {"digest": checkpoint.params_digest(pack(students))},
        **scales,
    }
    return unpack(students, fit(run, job, origins))


def align_job(
    run: Run,
    c: AlignSettings,
    taught: Teaching,
    specs: Mapping[str, SensorSpec],
    params,
    frozen: Mapping,
    train: Sequence[Source],
) -> Job:
    """The training of students with these specs, whose packed params these are."""
    encoders = {key: student_encoder(run, spec) for key, spec in specs.items()}
    several = len(specs) > 1
    sides = {key: spec.image_size for key, spec in specs.items()}
    return Job(
        "align",
        c.training,
        training.TrainingData(
            taught.train,
            {**taught.sizes, **sides},
            sensors={
                key: seen_sensor(spec, first_source(run, c, key))
                for key, spec in specs.items()
            },
            optional=tuple(specs) if several else (),
            weights=c.weights,
        ),
        params,
        frozen,
        objectives.make_align_loss(
            encoders if several else next(iter(encoders.values())),
            taught.encode,
            terms=c.terms,
            task=train[0].dataset.task,
            steps=c.training.steps,
            t=1 / c.temperature,
            contrastive=sharding.make_clip_loss(run.mesh, c.training.negatives),
        ),
    )


def plan_align(run: Run) -> Needs:
    """What the stage will do, from shapes."""
    c = settings_of(run)
    train = [run.open(spec) for spec in c.train]
    variant = clip_init.planned_variant(run, "align")
    students = planned_students(run, c, variant)
    specs = {key: spec for key, (spec, _) in students.items()}
    taught = teaching_shapes(run, c, variant, train)
    frozen = {"teacher": taught.frozen}
    if needs_head(c.terms):
        classes = len(head_source(run, c, train).dataset.classnames)
        shape = (variant.embed_dim, classes)
        frozen["head"] = jax.ShapeDtypeStruct(shape, np.float32)
    params = pack(students)
    tests = [(run.open(spec), 2) for spec in c.test]  # before and after
    counts = list(tests)
    if c.cache != "off":
        counts += [(source, len(cached_views(c))) for source in train]
    held = {key: [x for x in tests if key in x[0].dataset.sensors] for key in c.sensors}
    features = cache_bytes(c, variant, train)
    return Needs(
        jobs=[align_job(run, c, taught, specs, params, frozen, train)],
        passes=[
            rgb_pass(variant, counts, run.compute),
            *(sensor_pass(spec, held[key], run.compute) for key, spec in specs.items()),
        ],
        product=params,
        files={"the teacher's features": features} if features else {},
    )


def student_encoder(run: Run, spec: SensorSpec) -> objectives.Encode:
    """The features of one sensor from a batch."""
    return lambda p, b: sensor_features(p, b[spec.modality], spec, run.compute)


def plot_retrieval(run: Run, c: AlignSettings, found: Mapping[str, tuple]) -> None:
    """Draws retrieval.png, or one picture per sensor; found: as returned by report."""
    for key, (z, source) in found.items():
        name = f"retrieval_{key}.png" if c.several else "retrieval.png"
        strip = run.workdir / "align" / name
        plot_retrieval_strip(strip, source, z[key], z["rgb"], sensor=key)


def needs_head(terms: Mapping[str, objectives.Weight]) -> bool:
    """Whether one of the terms goes through the zero-shot head."""
    return not set(terms).isdisjoint(objectives.LABEL_TERMS)


def check_losses(c: AlignSettings) -> None:
    """Raises ValueError for unknown or repeated terms, or if no term has a weight."""
    names = [name for name, _ in c.losses]
    unknown = [name for name in names if name not in objectives.ALIGN_TERMS]
    if unknown or len(set(names)) < len(names):
        raise ValueError(
            f"config.align.losses names {unknown or names}: name each of"
            f" {', '.join(objectives.ALIGN_TERMS)} at most once, as (name, weight)"
        )
    if not c.terms:
        raise ValueError(
            f"config.align.losses = {c.losses} has no weight above 0: the paper uses"
            " (('mse', 1.0), ('labels', 0.05))"
        )
    if not c.temperature > 0:
        raise ValueError(f"config.align.temperature = {c.temperature} must be above 0")


def head_source(run: Run, c: AlignSettings, train: Sequence[Source]) -> Source:
    """The source of the head's class names: classes_of, or the first of train.

    Raises ValueError if the losses need labels that the pairs lack.
    """
    first, with_labels = train[0], "labels" in c.terms
    for source in train if with_labels else ():
        if source.dataset.task not in dataset_checks.LABELLED:
            raise ValueError(
                f"config.align.losses has 'labels', but the pairs of"
                f" {source.dataset.name} have none; use 'soft_labels' (the teacher's"
                " zero-shot distribution)"
            )
        if dataset_checks.classes_of(source) != dataset_checks.classes_of(first):
            raise ValueError(
                f"config.align.losses has 'labels', but {first.dataset.name} and"
                f" {source.dataset.name} of config.align.train have different classes;"
                " use 'soft_labels' (the teacher's zero-shot distribution)"
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
    """Reports zero-shot, retrieval and modality gaps of each sensor on every test.

    The fused embedding of several sensors counts as another sensor. Returns, for the
    pictures, sensor -> (embeddings, source) of the first test that holds it.
    """
    rgb = clip_init.rgb_encoder(run, teacher)
    first: dict[str, tuple] = {}
    digests = dict.fromkeys(("rgb", "text"), teacher.digests["clip"])
    encoders: dict[str, Any] = {}
    sizes: dict[str, int | Fit] = {"rgb": teacher.variant.fit}
    for key, (spec, params) in students.items():
        digests[key] = checkpoint.params_digest(params)
        encoders[key] = sensor_feeds.sensor_encoder(run, spec, params)
        sizes[key] = spec.image_size

    def pin(sensor: str) -> dict:
        made = "+".join(dict.fromkeys(digests[m] for m in parts_of(sensor)))
        return {"step": step, "checkpoint": made}

    for source in tests:
        dataset = source.dataset
        fed = {"rgb": rgb}
        for key in (key for key in students if key in dataset.sensors):
            fed[key] = sensor_feeds.feed(encoders[key], students[key][0], dataset)
        held = {key: sizes[key] for key in fed}
        z, labels, seen = run.encode("align", source, fed, held)
        z = add_fused(z)
        head, prompts = None, None
        if dataset_checks.has_zero_shot(run, "align", source):
            head, prompts = scoring.zero_shot_head(teacher, source)
            for key in (key for key in z if key != "rgb"):
                scored = scoring.score(source, z[key], labels, head, key)
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
        scoring.report_gap(run, "align", seen, outcome, pin)
        first = {key: (z, seen) for key in fed if key != "rgb"} | first
    return first
