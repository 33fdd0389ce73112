"""Stage survey: several models on the same datasets, in one table."""

import copy
import dataclasses
from pathlib import Path

import jax
import numpy as np

from rsclip_jax import api
from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sources.wrappers import Subset
from rsclip_jax.data.types import Source
from rsclip_jax.io.files import write_text
from rsclip_jax.io.paths import as_path
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.sensor import SensorEncoder, clip_spec, inflate_params
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.records import results
from rsclip_jax.records.meta import StageMeta, read_meta, write_meta
from rsclip_jax.report.survey import format_csv, format_survey, survey_rows
from rsclip_jax.stages.evaluate.stage import check_evaluate, is_evaluated, run_evaluate
from rsclip_jax.stages.shared import clip_init
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, processes
from rsclip_jax.weights import PRETRAINED, is_name


def check_survey(run: Run) -> None:
    """Raises ValueError for anything that would stop this stage."""
    models = model_folders(run)
    for init in models.values():
        if run.config.dry_run and init not in (known := known_shapes()):
            raise ValueError(
                f"config.dry_run: the shapes of {init!r} are unknown without reading"
                f" it; a dry run accepts {', '.join(known)}"
            )
        if not run.config.dry_run and not (as_path(init).exists() or is_name(init)):
            raise ValueError(
                f"config.models names {init!r}: there is no such file or folder, and it"
                f" is none of {', '.join(PRETRAINED)}, nor hf:OWNER/NAME"
            )
    check_published(run)
    check_evaluate(run)


def run_survey(run: Run) -> None:
    """Evaluates each of config.models in <workdir>/survey/<model>; writes the table.

    Models that cannot be loaded are skipped with a warning; the same command retries
    them and skips finished ones. A dry run uses random weights and the folder
    survey/dry_run/.
    """
    models, missing = model_folders(run), {}
    for i, (name, init) in enumerate(models.items(), start=1):
        at = run_of(run, name, init)
        text = f"survey: {i} of {len(models)}, {name}"
        if not run.config.dry_run and is_done(at):
            run.log(f"{text}: already done, skipped")
            continue
        run.log(text)
        model, why = load(at, init)
        if model is None:
            missing[name] = why
            run.log(f"survey: warning: {name} is skipped: {why}")
            continue
        run_evaluate(at, model)
    if len(missing) == len(models):
        raise ValueError(
            "config.models: none of them could be loaded; see the warnings above"
        )
    if processes.is_first():
        write_survey(run, {n: m for n, m in models.items() if n not in missing})
    if missing:
        run.log(f"skipped: {', '.join(missing)}; run the command again to retry")


def load(at: Run, init: str) -> tuple[api.Model | None, str]:
    """(the model, ""), or (None, the error) on all processes if one cannot load it."""
    model, error = None, ""
    try:
        model = random_model(init) if at.config.dry_run else clip_init.load_init(at)
    except (ValueError, OSError) as raised:
        error = f"{processes.name_self()}{raised}"
    errors = [text for text in processes.gather_texts(error) if text]
    return (None, "; ".join(errors)) if errors else (model, "")


def is_done(at: Run) -> bool:
    """Whether a model is evaluated, as process 0 sees it."""
    return processes.first_decides(lambda: is_evaluated(at))


def write_survey(run: Run, models: dict[str, str]) -> None:
    """Writes table.md, table.csv and, except for a dry run, results.jsonl."""
    folder, found = survey_folder(run), {}
    for name, init in models.items():
        found[name] = results.read_results(run_of(run, name, init).results)
        if not run.config.dry_run:
            run.write(
                dataclasses.replace(r, stage="survey", model=name) for r in found[name]
            )
    rows = survey_rows(found, run.config.published)
    text = format_survey(rows)
    write_text(folder / "table.md", text + "\n")
    write_text(folder / "table.csv", format_csv(rows))
    run.log(f"\n{text}\n")
    if run.config.dry_run:
        run.log(
            f"random weights, {run.config.dry_records} records of each dataset: a dry"
            " run only tests that everything works"
        )
    run.log(f"{folder / 'table.md'}, {folder / 'table.csv'}")
    if set(models) == set(model_folders(run)):
        write_meta(folder, _tabled(run))


def is_surveyed(run: Run) -> bool:
    """Whether all models are done with the current data, and the table is of them."""
    if run.config.dry_run:
        return False
    folder = survey_folder(run)
    if not (folder / "meta.json").exists():
        return False
    made, now = read_meta(folder), _tabled(run)
    if (made.models, made.published) != (now.models, now.published):
        return False
    models = model_folders(run)
    return all(is_evaluated(run_of(run, name, init)) for name, init in models.items())


def _tabled(run: Run) -> StageMeta:
    """The meta of the table: its models and published values."""
    published = [list(row) for row in run.config.published]
    return StageMeta(models=list(model_folders(run)), published=published)


def check_published(run: Run) -> None:
    """Raises ValueError for a malformed row of config.published."""
    for row in run.config.published:
        if not (isinstance(row, tuple | list) and len(row) == 5):
            raise ValueError(
                f"config.published has {row!r}: give (model, dataset, metric, percent,"
                " source)"
            )


def model_folders(run: Run) -> dict[str, str]:
    """{folder name: weights as in config.init} of config.models.

    Raises ValueError if there are none, or if two have the same name.
    """
    models: dict[str, str] = {}
    for init in run.config.models:
        path = as_path(init)
        name = path.stem if path.is_file() else path.name
        if name in models:
            raise ValueError(
                f"config.models: {models[name]} and {init} are both {name!r} in the"
                " table: rename one"
            )
        models[name] = init
    if not models:
        raise ValueError(
            'config.models is empty: name weights, as --config.models="('
            "'RemoteCLIP-ViT-B-32','runs/align_sar')\""
        )
    return models


def survey_folder(run: Run) -> Path:
    folder = run.workdir / "survey"
    return folder / "dry_run" if run.config.dry_run else folder


def run_of(run: Run, name: str, init: str) -> Run:
    """The run that evaluates one model, on data opened once for all models."""
    config = copy.deepcopy(run.config)
    with config.unlocked():
        config.update(stages=("evaluate",), init=init)
        config.update(variant="", activation="", heads=(), init_sensor="")
    return dataclasses.replace(
        run,
        config=config,
        workdir=survey_folder(run) / name,
        opened=few_records(run) if run.config.dry_run else run.opened,
    )


def few_records(run: Run) -> dict[str, Source]:
    """{spec: config.dry_records of its records, evenly spread} of config.datasets."""
    sources = {spec: run.open(spec) for spec in run.config.datasets}
    few = run.config.dry_records
    return {k: Subset(s, spread_indices(len(s), few)) for k, s in sources.items()}


def known_shapes() -> dict[str, Variant]:
    """{name: variant} of the weights whose sizes need no file."""
    rows = PRETRAINED.values()
    return {row.name: get_variant(row.variant) for row in rows if row.variant}


def random_model(name: str) -> api.Model:
    """Random weights in the shapes of a model in PRETRAINED."""
    row, variant = PRETRAINED[name], known_shapes()[name]
    params = jax.tree.map(np.asarray, init_clip(variant, jax.random.key(0)))
    sensors = {}
    if row.sensor:
        spec = clip_spec(row.sensor, variant)
        tower = inflate_params(params.pop("visual"), len(spec.bands))
        sensors[spec.modality] = SensorEncoder(spec, tower, "random")
    digest = checkpoint.params_digest(params)
    return api.Model(variant, params, sensors, digest, source={"random": name})
