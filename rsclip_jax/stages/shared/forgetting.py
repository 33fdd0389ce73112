"""Forgetting: compares a model's outcomes with those of the model it started from."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rsclip_jax import api
from rsclip_jax.data.types import Source
from rsclip_jax.evals.forgetting import forgetting_records
from rsclip_jax.io.paths import as_path
from rsclip_jax.models.variants import Variant
from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.records.results import Result
from rsclip_jax.stages.shared import clip_init, dataset_checks, scoring
from rsclip_jax.stages.shared.run import Run, make_outcome
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import is_name

TASKS = (*dataset_checks.LABELLED, "captions")


def report_forgetting(run: Run, before: Outcome, after: Outcome, **pins: Any) -> None:
    """Reports the forgetting on one dataset, with the digests of both models."""
    about = {k: v for k, v in after.pins.items() if k != "task"}
    about["checkpoint"] = after.pins["checkpoint"]["rgb"]
    about["reference"] = before.pins["checkpoint"]["rgb"]
    found = forgetting_records(before, after, mesh=run.mesh)
    run.write(Result(**{**about, **r, **pins}) for r in found)


# Stage evaluate


def check_forgetting(run: Run, reference: str, specs: tuple[str, ...]) -> None:
    """Raises ValueError for a reference without datasets, or datasets without one.

    Also for datasets on which forgetting cannot be measured.
    """
    if specs and not reference:
        raise ValueError(
            f"config.evaluate.forgetting = {specs} needs a model to compare with: set"
            " --config.evaluate.reference to a weight file, or to the workdir that"
            " patched the model"
        )
    if reference and not specs:
        raise ValueError(
            f"config.evaluate.reference = {reference!r} needs datasets to compare on:"
            " name some, as --config.evaluate.forgetting=\"('cifar10:val',)\""
        )
    for spec in specs:
        source = dataset_checks.open_as(run, "config.evaluate.forgetting", spec, TASKS)
        dataset = source.dataset
        if dataset.task in dataset_checks.LABELLED:
            setting = f"config.evaluate.forgetting = {spec!r}"
            dataset_checks.check_classes(setting, dataset)
        if "rgb" not in dataset.sensors:
            raise ValueError(
                f"config.evaluate.forgetting names {spec!r}, which has no RGB"
            )
    if reference:
        reference_variant(reference)


def evaluate_forgetting(
    run: Run, specs: Sequence[str], before: api.Model, model: api.Model
) -> None:
    """Reports the model's forgetting on each dataset."""
    models = {"before": before, "after": model}
    for spec in specs:
        report_forgetting(run, **outcomes_of(run, models, run.open(spec)))


def reference_variant(reference: str) -> Variant | None:
    """The reference's variant if its files state it, else None.

    Raises FileNotFoundError if it does not exist.
    """
    if not as_path(reference).exists() and not is_name(reference):
        raise FileNotFoundError(
            f"config.evaluate.reference = {reference!r}: there is no such file, folder,"
            " workdir or name of weights"
        )
    try:
        return api.find_variant(reference)
    except ValueError:  # such as a bare state dict, which has no activation
        return None


def load_reference(reference: str, model: api.Model) -> api.Model:
    """The model that forgetting is relative to.

    reference: a weight file, which is read as the evaluated model's variant if it does
    not state one; a name of weights; or a workdir, which stands for the CLIP that it
    patched. Raises ValueError if the model cannot have started from it.
    """
    if not model.takes_rgb:
        raise ValueError(
            "config.evaluate.forgetting is measured on RGB, which the evaluated model"
            f" does not take, only {', '.join(model.sensors)}"
        )
    variant, path = reference_variant(reference) or model.variant, as_path(reference)
    try:
        if checkpoint.has_product(path / "patch"):
            before = api.load(path, alpha=0.0)
        elif api.is_workdir(path):
            before = api.load(path)
        else:
            side = model.variant.image_size
            before = api.load(reference, variant=variant, image_size=side)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"config.evaluate.reference: {error}") from error
    for field in ("image_size", "activation", "image_mean", "image_std", "resize"):
        after, its = getattr(model.variant, field), getattr(before.variant, field)
        if after != its:
            raise ValueError(
                f"config.evaluate.reference = {reference!r} has {field} {its}, but the"
                f" evaluated model has {after}: it did not start from this reference"
            )
    return dataclasses.replace(before, compute=model.compute, mesh=model.mesh)


def outcomes_of(
    run: Run, models: dict[str, api.Model], source: Source
) -> dict[str, Outcome]:
    """{name: outcome of a source's RGB through each model}; images are decoded once."""
    encoders = {n: clip_init.rgb_encoder(run, model) for n, model in models.items()}
    fit = models["after"].variant.fit
    z, labels, seen = run.encode("evaluate", source, encoders, {"rgb": fit})
    return {
        name: make_outcome(
            "evaluate",
            seen,
            {"rgb": z[name]},
            **_texts(run, model, seen, labels),
            step=model.steps["clip"],
            checkpoint={"rgb": model.digests["clip"]},
        )
        for name, model in models.items()
    }


def _texts(run: Run, model: api.Model, seen: Source, labels) -> dict[str, Any]:
    """An outcome's fields from its dataset's captions or classes."""
    if seen.dataset.task == "captions":
        ztxt, owners, prompts = scoring.encode_captions(run, model, seen)
        return {"ztxt": ztxt, "owners": owners, "prompts": prompts}
    head, prompts = scoring.zero_shot_head(model, seen)
    return {"head": head, "labels": labels, "prompts": prompts}
