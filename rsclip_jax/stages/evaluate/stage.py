"""Stage evaluate: zero-shot, retrieval, gap, probes and forgetting of any model."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax import api
from rsclip_jax.data.catalog.prompts import DATASET, PROMPT_SETS, get_templates
from rsclip_jax.data.specs import short_specs
from rsclip_jax.data.types import Source
from rsclip_jax.evals.fuse import parts_of
from rsclip_jax.evals.retrieval import retrieval_records, text_retrieval_records
from rsclip_jax.io.files import remove_tree, write_text
from rsclip_jax.io.paths import as_path
from rsclip_jax.models.sensor import SensorSpec
from rsclip_jax.models.variants import Variant
from rsclip_jax.records import results
from rsclip_jax.records.meta import StageMeta, read_meta, write_meta
from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.report.names import set_name
from rsclip_jax.report.table import format_table
from rsclip_jax.stages.align.settings import AlignSettings
from rsclip_jax.stages.align.students import planned_students
from rsclip_jax.stages.evaluate.encoders import Encoded, encode, feed_each, pins
from rsclip_jax.stages.evaluate.probes import (
    check_probes,
    check_sensors,
    run_probes,
)
from rsclip_jax.stages.evaluate.settings import Parts, Settings, read_settings
from rsclip_jax.stages.shared import clip_init, dataset_checks, scoring
from rsclip_jax.stages.shared.forgetting import (
    check_forgetting,
    evaluate_forgetting,
    load_reference,
)
from rsclip_jax.stages.shared.job import Needs
from rsclip_jax.stages.shared.passes import rgb_pass, sensor_pass
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, processes


def check_evaluate(run: Run) -> None:
    """Raises ValueError for anything that would stop this stage."""
    _ = run.compute  # raises for settings that do not fit
    settings = read_settings(run.config)
    if not settings.parts.encoded:
        raise ValueError(
            "config.datasets is empty: name datasets to evaluate on, such as"
            " --config.datasets=\"('eurosat_rgb:val',)\""
        )
    for spec in settings.parts.datasets:
        dataset_checks.open_as(run, "config.datasets", spec, dataset_checks.ANY_TASK)
    check_prompts(settings.prompts)
    check_forgetting(run, settings.reference, settings.parts.forgetting)
    check_probes(run, settings)


def check_prompts(names: Sequence[str]) -> None:
    """Raises ValueError for prompt sets that are missing, unknown or named twice."""
    setting = f"config.evaluate.prompts = {tuple(names)}"
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"{setting}: name each prompt set once, such as"
            f" ('{DATASET}', '{next(iter(PROMPT_SETS))}')"
        )
    for name in names:
        try:
            get_templates(name, ())
        except ValueError as error:
            raise ValueError(f"{setting}: {error}") from error


def run_evaluate(run: Run, model: api.Model | None = None) -> None:
    """Evaluates this workdir's model, or config.init, on config.datasets.

    Uses every sensor of a dataset that the model has an encoder for, and the fusion of
    all but RGB. Measures zero-shot with labels, text retrieval with captions, retrieval
    between sensors, and the gaps between all of these; then the probes and the
    forgetting of config.evaluate. Each split is encoded once. Earlier results of the
    same weights and data are kept.

    model: evaluated instead of either.
    """
    settings = read_settings(run.config)
    earlier = find_earlier(run, settings)
    todo = find_missing(run, settings, earlier)
    model = model or input_model(run)
    before = load_reference(settings.reference, model) if todo.forgetting else None
    fed = feed_each(run, model, todo)
    check_sensors(todo.probes, fed)
    start(run, todo, earlier)
    kept = {}
    for spec in todo.datasets:
        kept[spec] = evaluate_source(run, model, fed[spec], run.open(spec), settings)
    run_probes(
        run,
        dataclasses.replace(settings, parts=todo),
        lambda spec: kept.get(spec) or encode(run, fed[spec], run.open(spec)),
        functools.partial(pins, model),
    )
    if before:
        evaluate_forgetting(run, todo.forgetting, before, model)
    if processes.is_first():
        finish(run, settings, model, earlier)


def plan_evaluate(run: Run) -> Needs:
    """What the stage will do, from shapes."""
    parts = read_settings(run.config).parts
    variant = clip_init.planned_variant(run, "evaluate")
    counts = [(run.open(spec), 1) for spec in parts.encoded]
    compared = [(run.open(spec), 2) for spec in parts.forgetting]
    bands = clip_init.input_bands(run, variant)
    passes = []
    if bands is None:
        passes.append(rgb_pass(variant, [*counts, *compared], run.compute))
    for spec in [bands] if bands else planned_sensors(run, variant):
        held = [x for x in counts if spec.modality in x[0].dataset.sensors]
        passes.append(sensor_pass(spec, held, run.compute))
    left_out = ["texts, retrieval, probes and bootstraps"]
    return Needs(passes=passes, left_out=left_out)


def planned_sensors(run: Run, variant: Variant) -> list[SensorSpec]:
    """The sensor encoders that the evaluated model will have."""
    if "align" in run.config.stages:
        students = planned_students(run, AlignSettings.of(run.config.align), variant)
        return [spec for spec, _ in students.values()]
    for folder in (run.workdir, as_path(run.config.init or run.workdir)):
        if checkpoint.has_product(folder / "align"):
            meta = checkpoint.load_meta(folder / "align")
            found = meta.specs or [meta.spec or {}]
            return [SensorSpec.from_json(spec) for spec in found]
    return []


def start(run: Run, todo: Parts, earlier: StageMeta | None) -> None:
    """Removes results that will be measured again; logs those that stay.

    Without an earlier evaluation, removes all.
    """
    processes.wait_for_all("evaluate: read")  # before the first changes what all read
    if processes.is_first():
        _remove(run, todo, earlier)
    processes.wait_for_all("evaluate: removed")  # before any notes a skipped record


def _remove(run: Run, todo: Parts, earlier: StageMeta | None) -> None:
    folder = run.folder("evaluate")
    (folder / "meta.json").unlink(missing_ok=True)
    if earlier is None:
        results.start_stage(run.results, "evaluate")
        run.skipped("evaluate").unlink(missing_ok=True)
        remove_tree(folder / "outcomes")
        return
    results.keep_results(
        run.results, lambda r: r["stage"] != "evaluate" or not todo.holds(r)
    )
    stay = [r for r in results.read_results(run.results) if r.stage == "evaluate"]
    if stay:
        names = dict.fromkeys(map(set_name, stay))
        run.log(f"evaluate: keeps {len(stay)} result(s) of {', '.join(names)}")


def finish(
    run: Run, settings: Settings, model: api.Model, earlier: StageMeta | None
) -> None:
    """Writes table.txt and meta.json, which marks the evaluation done."""
    lines = [r for r in results.read_results(run.results) if r.stage == "evaluate"]
    if not lines:
        raise ValueError(
            f"config.datasets = {settings.parts.datasets} gave no results: they have no"
            " labels, and too few records for retrieval"
        )
    folder = run.workdir / "evaluate"
    write_text(folder / "table.txt", format_table(lines) + "\n")
    kept = earlier.data if earlier else {}
    meta = StageMeta(
        precision=run.compute.dtype,
        records=len(lines),
        model=model_digests(run.workdir, run.config.init),
        reference=reference_now(settings.reference),
        data={
            **kept,
            **dataset_checks.data_digests(map(run.open, settings.parts.specs)),
        },
        sources={"clip": {**model.source, "digest": model.digests["clip"]}},
    )
    write_meta(folder, checkpoint.made_now(meta))


# Earlier evaluations


def is_evaluated(run: Run) -> bool:
    """Whether the stage is done with the current weights and data.

    Data that no longer exists counts as unchanged.
    """
    settings = read_settings(run.config)
    earlier = find_earlier(run, settings)
    return earlier is not None and not find_missing(run, settings, earlier)


def find_earlier(run: Run, settings: Settings) -> StageMeta | None:
    """The meta of a finished evaluation of the same weights with all its results.

    None for one in another precision: the results of one evaluation have the same.
    """
    folder = run.workdir / "evaluate"
    if not (folder / "meta.json").exists():
        return None
    meta = read_meta(folder)
    if meta.model != model_digests(run.workdir, run.config.init):
        return None
    if meta.reference and meta.reference != reference_now(settings.reference):
        return None
    if (meta.precision or "float32") != run.compute.dtype:
        return None
    lines = [r for r in results.read_results(run.results) if r.stage == "evaluate"]
    return meta if meta.records == len(lines) else None


def find_missing(run: Run, settings: Settings, earlier: StageMeta | None) -> Parts:
    """The parts that an earlier evaluation did not measure on the same data."""
    wanted = settings.parts
    if earlier is None:
        return wanted
    lines = [r for r in results.read_results(run.results) if r.stage == "evaluate"]
    same = wanted.of(s for s in wanted.specs if _is_same(run, s, earlier.data))
    measured = Parts(
        tuple(
            spec
            for spec in same.datasets
            if any(map(Parts(datasets=(spec,)).holds, lines))
            or not dataset_checks.gives_numbers(run, spec)
        ),
        tuple(x for x in same.probes if any(map(Parts(probes=(x,)).holds, lines))),
        tuple(
            x for x in same.forgetting if any(map(Parts(forgetting=(x,)).holds, lines))
        ),
    )
    return wanted.without(measured)


def _is_same(run: Run, spec: str, then: Mapping[str, str]) -> bool:
    """Whether a split has the digests of an earlier evaluation, or no longer exists."""
    (name,) = short_specs(spec)
    try:
        now = dataset_checks.data_digests([run.open(spec)])
    except FileNotFoundError:
        return name in then
    keys = (name, f"{name} labels")
    return now == {key: then[key] for key in keys if key in then}


def reference_now(reference: str) -> dict[str, str]:
    """model_digests of the reference; {} without one."""
    return model_digests(as_path(reference), reference) if reference else {}


def model_digests(workdir: Path, init: str) -> dict[str, str]:
    """Identifies the evaluated weights without reading them.

    {stage: digest} for the products of this workdir or of config.init; a digest of the
    sizes and modification times of a weight file or folder; the name of pretrained
    weights.
    """
    found = products(workdir) or (products(as_path(init)) if init else {})
    if found or not init:
        return found
    path = as_path(init)
    if not path.exists():
        return {"name": init}
    told = [
        (str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted((path, *path.rglob("*")))
        if p.is_file()
    ]
    return {"changed": hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}


def products(workdir: Path) -> dict[str, str]:
    """{stage: digest of its product} for the stages that are done."""
    return {
        stage: checkpoint.load_meta(workdir / stage).digest
        for stage in (*api.CLIP_STAGES, "align")
        if checkpoint.has_product(workdir / stage)
    }


def input_model(run: Run) -> api.Model:
    """This workdir's model, or config.init."""
    if any(
        checkpoint.has_product(run.workdir / stage)
        for stage in ("align", *api.CLIP_STAGES)
    ):
        return run.bound(api.load(run.workdir))
    if not run.config.init:
        raise ValueError(
            "stage 'evaluate' needs a model: set --config.init to a weight file, to a"
            " folder that holds one, or to the workdir of an earlier run"
        )
    return clip_init.load_init(run)


def evaluate_source(
    run: Run, model: api.Model, fed: dict, source: Source, settings: Settings
) -> Encoded:
    """Reports one split and keeps its outcome. fed: feed_all's encoders."""
    dataset, encoded = source.dataset, encode(run, fed, source)
    z, labels, seen = encoded
    heads = {}
    if dataset_checks.has_zero_shot(run, "evaluate", source):
        for name in settings.prompts:
            heads[name] = scoring.zero_shot_head(model, source, name)
    for name, (head, prompts) in heads.items():
        asked = {"prompts": prompts, "prompt_set": name}
        for modality in z:
            records = scoring.score(source, z[modality], labels, head, modality)
            run.report("evaluate", seen, records, **asked, **pins(model, modality))
    found = search(run, z, labels, heads)
    about: dict[str, Any] = {"prompts": None}
    if heads:
        name, head, prompts = main_head(heads)
        about = {"labels": labels, "head": head, "prompts": prompts, "prompt_set": name}
    if dataset.task == "captions":
        ztxt, owners, prompts = scoring.encode_captions(run, model, seen)
        about = {"ztxt": ztxt, "owners": owners, "prompts": prompts}
        records = text_retrieval_records(z, ztxt, owners, mesh=run.mesh)
        found += [(record, {"prompts": prompts}) for record in records]
    if not found and dataset.task not in dataset_checks.LABELLED:
        run.log(
            f"evaluate: {source.spec} gives no results: it has no labels, and retrieval"
            " needs two records in two sensors that this model encodes; found"
            f" {len(seen)} in {', '.join(z)}"
        )
    for record, asked in found:
        made = pins(model, record["sensor"])
        run.report("evaluate", seen, [record], **asked, **made)
    outcome = keep(run, model, encoded, **about)
    if settings.gap:
        pin = functools.partial(pins, model)
        scoring.report_gap(run, "evaluate", seen, outcome, pin)
    return encoded


def search(run: Run, z: dict, labels, heads: dict) -> list[tuple[dict, dict]]:
    """(retrieval record, its prompt fields), by location and, with heads, by label.

    heads: zero_shot_head's by prompt set; main_head's is used for class queries.
    """
    if not heads:
        return [(record, {}) for record in retrieval_records(z, mesh=run.mesh)]
    name, head, prompts = main_head(heads)
    asked = {"prompts": prompts, "prompt_set": name}
    return [
        (record, asked if "text" in parts_of(record["sensor"]) else {})
        for record in retrieval_records(z, mesh=run.mesh, labels=labels, head=head)
    ]


def main_head(heads: dict) -> tuple[str, np.ndarray, str]:
    """(prompt set, head, prompts digest) to keep, search with and compare by.

    The dataset's prompts if they are among them, so that evaluations with different
    additional prompts can be compared.
    """
    name = DATASET if DATASET in heads else next(iter(heads))
    return (name, *heads[name])


def keep(run: Run, model: api.Model, encoded: Encoded, **found: Any) -> Outcome:
    """Run.keep for this model; step is that of its longest training."""
    made = {sensor: pins(model, sensor) for sensor in encoded.z}
    return run.keep(
        "evaluate",
        "after",
        encoded.seen,
        encoded.z,
        step=max(one["step"] for one in made.values()),
        checkpoint={sensor: one["checkpoint"] for sensor, one in made.items()},
        **found,
    )
