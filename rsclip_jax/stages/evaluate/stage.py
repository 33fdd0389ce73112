"""Stage evaluate: any params on any datasets, zero-shot, retrieval, gap, probes."""

import functools
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rsclip_jax import api
from rsclip_jax.data.catalog.prompts import DATASET, PROMPT_SETS, get_templates
from rsclip_jax.data.types import Source
from rsclip_jax.evals.fuse import parts_of
from rsclip_jax.evals.retrieval import retrieval_records, text_retrieval_records
from rsclip_jax.io.files import write_text
from rsclip_jax.records.meta import StageMeta, read_meta, write_meta
from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.records.results import read_results
from rsclip_jax.report.table import format_table
from rsclip_jax.stages.evaluate.encoders import Encoded, encode, feed_each, pins
from rsclip_jax.stages.evaluate.probes import (
    check_probes,
    check_sensors,
    probe_specs,
    run_probes,
)
from rsclip_jax.stages.shared import common
from rsclip_jax.stages.shared.forgetting import (
    check_forgetting,
    evaluate_forgetting,
    forgetting_sets,
    load_reference,
    reference_of,
)
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint


def check_evaluate(run: Run) -> None:
    """Raises ValueError for what would stop this stage."""
    if not specs_of(run):
        raise ValueError(
            "config.datasets is empty: name what to evaluate on, such as"
            " --config.datasets=\"('eurosat_rgb:val',)\""
        )
    for spec in run.config.datasets:
        common.open_as(run, "config.datasets", spec, common.ANY_TASK)
    check_prompts(run.config.evaluate.prompts)
    check_forgetting(run)
    check_probes(run)


def check_prompts(names: Sequence[str]) -> None:
    """Raises ValueError for config.evaluate.prompts that are none, unknown or twice."""
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
    """Evaluates config.init, or what this workdir made, on config.datasets.

    model: instead of either.

    Every sensor of a dataset that the model has an encoder for, and those but RGB
    fused: zero-shot where there are labels, retrieval with text where there are
    captions, and between two sensors; the gap between all of these. Then the probes of
    config.evaluate. What is encoded is encoded once.
    """
    if jax.process_index() == 0:  # of an earlier evaluation
        run.skipped("evaluate").unlink(missing_ok=True)
        shutil.rmtree(run.folder("evaluate") / "outcomes", ignore_errors=True)
    model = model or input_model(run)
    before = load_reference(run, model)
    fed = feed_each(run, model, specs_of(run))
    check_sensors(run, fed)
    kept = {}
    for spec in dict.fromkeys(run.config.datasets):
        found = evaluate_source(run, model, fed[spec], run.open(spec))
        if spec in probe_specs(run):
            kept[spec] = found
    run_probes(
        run,
        lambda spec: kept.get(spec) or encode(run, fed[spec], run.open(spec)),
        functools.partial(pins, model),
    )
    if before:
        evaluate_forgetting(run, before, model)
    if jax.process_index() == 0:
        lines = [r for r in read_results(run.results) if r.stage == "evaluate"]
        if not lines:
            raise ValueError(
                f"config.datasets = {tuple(run.config.datasets)} gave no number: they"
                " have no labels, and too few records for retrieval"
            )
        folder = run.workdir / "evaluate"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "table.txt", format_table(lines) + "\n")
        meta = StageMeta(
            records=len(lines),
            model=model_digests(run.workdir, run.config.init),
            reference=reference_now(run),
            data=data_now(run),
            sources={"clip": {**model.source, "digest": model.digests["clip"]}},
        )
        write_meta(folder, checkpoint.made_now(meta))


def is_evaluated(run: Run) -> bool:
    """Whether the stage is done, with the weights and the data that lie there now.

    Data that is no longer there has not changed.
    """
    folder = run.workdir / "evaluate"
    if not (folder / "meta.json").exists():
        return False
    meta = read_meta(folder)
    if meta.model != model_digests(run.workdir, run.config.init):
        return False
    if (meta.reference or {}) != reference_now(run):
        return False
    lines = [r for r in read_results(run.results) if r.stage == "evaluate"]
    if meta.records != len(lines):  # one was lost
        return False
    try:
        return meta.data == data_now(run)
    except FileNotFoundError:
        return True


def data_now(run: Run) -> dict[str, str]:
    """What tells the data that is evaluated on from other data."""
    specs = dict.fromkeys((*specs_of(run), *forgetting_sets(run)))
    return common.data_digests(map(run.open, specs))


def reference_now(run: Run) -> dict[str, str]:
    """What tells config.evaluate.reference from other weights; {} of none."""
    reference = reference_of(run)
    return model_digests(Path(reference), reference) if reference else {}


def specs_of(run: Run) -> tuple[str, ...]:
    """Those of config.datasets and of the probes, each once."""
    return tuple(dict.fromkeys((*run.config.datasets, *probe_specs(run))))


def model_digests(workdir: Path, init: str) -> dict[str, str]:
    """What tells the evaluated weights from others, without reading them.

    {stage: digest} of this workdir's products or config.init's; of a weight file or
    folder the sizes and times of change of its files, of pretrained weights their name.
    """
    found = products(workdir) or (products(Path(init)) if init else {})
    if found or not init:
        return found
    path = Path(init)
    if not path.exists():
        return {"name": init}
    told = [
        (str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted((path, *path.rglob("*")))
        if p.is_file()
    ]
    return {"changed": hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}


def products(workdir: Path) -> dict[str, str]:
    """{stage: digest of its product} of the stages that are done."""
    return {
        stage: checkpoint.load_meta(workdir / stage).digest
        for stage in (*api.CLIP_STAGES, "align")
        if checkpoint.has_product(workdir / stage)
    }


def input_model(run: Run) -> api.Model:
    """What this workdir made, or config.init."""
    if any(
        checkpoint.has_product(run.workdir / stage)
        for stage in ("align", *api.CLIP_STAGES)
    ):
        return api.load(run.workdir)
    if not run.config.init:
        raise ValueError(
            "stage 'evaluate' needs a model: set --config.init to a weight file, to a"
            " folder that holds one, or to the workdir of an earlier run"
        )
    return common.load_init(run)


def evaluate_source(run: Run, model: api.Model, fed: dict, source: Source) -> Encoded:
    """Reports one dataset's split, and keeps it. fed: feed_all's encoders."""
    row, encoded = source.dataset, encode(run, fed, source)
    z, labels, seen = encoded
    heads = {}
    if common.has_zero_shot(run, "evaluate", source):
        for name in run.config.evaluate.prompts:
            heads[name] = common.zero_shot_head(model, source, name)
    for name, (head, prompts) in heads.items():
        asked = {"prompts": prompts, "prompt_set": name}
        for modality in z:
            records = common.score(source, z[modality], labels, head, modality)
            run.report("evaluate", seen, records, **asked, **pins(model, modality))
    found = search(run, z, labels, heads)
    about: dict[str, Any] = {"prompts": None}
    if heads:
        name, head, prompts = main_head(heads)
        about = {"labels": labels, "head": head, "prompts": prompts, "prompt_set": name}
    if row.task == "captions":
        ztxt, owners, prompts = common.encode_captions(run, model, seen)
        about = {"ztxt": ztxt, "owners": owners, "prompts": prompts}
        records = text_retrieval_records(z, ztxt, owners, mesh=run.mesh)
        found += [(record, {"prompts": prompts}) for record in records]
    if not found and row.task not in common.LABELLED:
        run.log(
            f"evaluate: {row.name}:{source.split} gives no number: it has no labels,"
            " and retrieval needs two sensors that this model encodes, and two records:"
            f" here are {', '.join(z)} and {len(seen)}"
        )
    for record, asked in found:
        made = pins(model, record["sensor"])
        run.report("evaluate", seen, [record], **asked, **made)
    outcome = keep(run, model, encoded, **about)
    if run.config.evaluate.gap:
        pin = functools.partial(pins, model)
        common.report_gap(run, "evaluate", seen, outcome, pin)
    return encoded


def search(run: Run, z: dict, labels, heads: dict) -> list[tuple[dict, dict]]:
    """(record of retrieval, what pins its prompts) by place, and by label with heads.

    heads: zero_shot_head's by prompt set; classes are searched with main_head's.
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
    """(prompt set, head, prompts digest) of what is kept, searched with and compared.

    The set's own prompts where these are asked, whichever come first, so that
    evaluations with other prompts besides can be compared.
    """
    name = DATASET if DATASET in heads else next(iter(heads))
    return (name, *heads[name])


def keep(run: Run, model: api.Model, encoded: Encoded, **found: Any) -> Outcome:
    """Run.keep of what this model made; step is that of its longest training."""
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
