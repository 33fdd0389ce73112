"""Stage patch: robust fine-tuning, then interpolation of the weights.

WiSE-FT (Wortsman et al. 2022) and PAINT (Ilharco et al. 2022): fine-tune the visual
tower through the frozen zero-shot head, or both towers by FLYP's loss, interpolate with
the original weights, and choose alpha on validation data.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from rsclip_jax import api
from rsclip_jax.data.specs import short_specs
from rsclip_jax.models.clip import clip_shapes, put_towers, tower_params
from rsclip_jax.records.meta import AlphaChoice, StageMeta
from rsclip_jax.stages.patch.choice import Choice, check_choice, choose, draw_curve
from rsclip_jax.stages.patch.fine_tune import fine_tune, head_job, tower_job
from rsclip_jax.stages.patch.mixtures import Alpha
from rsclip_jax.stages.patch.recipes import check_recipe, frozen_shapes, split_head
from rsclip_jax.stages.patch.settings import PatchSettings, settings_of
from rsclip_jax.stages.patch.sweep import Sweep
from rsclip_jax.stages.patch.tasks import (
    Sets,
    check_tasks,
    fine_tune_tasks,
    open_sets,
    task_runs,
)
from rsclip_jax.stages.shared import clip_init, dataset_checks, scoring, training
from rsclip_jax.stages.shared.forgetting import report_forgetting
from rsclip_jax.stages.shared.job import Needs
from rsclip_jax.stages.shared.overlap import check_apart, check_same_dataset
from rsclip_jax.stages.shared.passes import rgb_pass, tree_bytes
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint


def check_patch(run: Run) -> None:
    """Raises ValueError for anything that would stop this stage or void its results."""
    c = settings_of(run)
    supported = ("supported_val", "supported_test")
    names = ("train", "val", "test", *supported)
    tasks = {name: (getattr(c, name), dataset_checks.LABELLED) for name in names}
    training.check_sources(run, "patch", tasks, may_be_empty=supported)
    sets = open_sets(run, c)
    check_tasks(c, sets)
    augment = c.training.augment
    training.check_augmentation(run, "patch", augment, sets.train, ("rgb",))
    training.check_computing(run, "patch", c.training)
    check_choice(c)
    check_recipe(run, c, sets.train)
    check_roles(run, c)
    clip_init.check_clip(run, "patch")


def check_roles(run: Run, c: PatchSettings) -> None:
    """Raises ValueError if training, validation and test datasets share records.

    Also if a task's validation or test split is of another dataset than its training.
    """
    for train, val, test in zip(c.train, c.val, c.test, strict=True):
        if not c.allow_other_data:
            others = {"val": (val,), "test": (test,)}
            check_same_dataset(run, "patch", (train,), others)
    if not c.allow_shared:
        check_apart(
            run,
            "patch",
            {"train": c.train},
            {"val": c.val, "supported_val": c.supported_val},
            {"test": c.test, "supported_test": c.supported_test},
        )


def run_patch(run: Run) -> None:
    """Fine-tunes on the tasks, chooses alpha, interpolates and reports."""
    c = settings_of(run)
    sets = open_sets(run, c)
    clip, origin = clip_init.input_clip(run, "patch", ("pretrain",))
    one_by_one = len(sets.train) > 1 and c.tasks == "sequential"
    patch = patch_in_turn if one_by_one else patch_once
    sweep, choices, made = patch(run, c, clip, sets)
    choice = choices[-1]
    tests = [*sets.test, *sets.supported_test]
    if one_by_one:
        sweep.report_ends(tests, choice.product)
    else:
        sweep.report(tests, {0.0, choice.alpha, 1.0}, choice.product)
    report_lost(sweep, None if one_by_one else choice.product)
    theta_1 = {"digest": checkpoint.params_digest(sweep.theta_1)}
    meta = StageMeta(
        variant=dataclasses.asdict(clip.variant),
        steps=c.training.steps * len(choices),
        **choice.meta(),
        sources={"theta_0": origin, "theta_1": theta_1, **made},
        sets=name_sets(run, c, choice),
        budget=dataclasses.asdict(choice.budget),
    )
    if one_by_one:  # a round's alpha does not relate the original to the product
        rounds = tuple(
            AlphaChoice(train=str(s.spec), **choice.meta())
            for s, choice in zip(sets.train, choices, strict=True)
        )
        unpatched = all(choice.note for choice in choices)
        meta = dataclasses.replace(
            meta,
            rounds=rounds,
            alpha=None,
            alpha_ci95=None,
            alpha_blocks=None,
            alpha_note=choice.note if unpatched else "",
        )
    if sweep.heads is not None:
        head = save_head(run, sweep, choice.product)
        meta = dataclasses.replace(meta, head=head)
    params = put_towers(clip.params, sweep.mixture(choice.product))
    training.finish(run, "patch", params, sets.train, meta)


def plan_patch(run: Run) -> Needs:
    """What the stage will do, from shapes."""
    c = settings_of(run)
    sets = open_sets(run, c)
    variant = clip_init.planned_variant(run, "patch")
    shapes = clip_shapes(variant)
    theta_0 = tower_params(shapes, c.train_text)
    apart = len(sets.train) > 1 and c.tasks != "joint"
    jobs = []
    for train in [[source] for source in sets.train] if apart else [sets.train]:
        frozen = frozen_shapes(c, variant, train)
        if c.recipe == "lp_ft":
            jobs.append(head_job(run, c, variant, theta_0, frozen, train))
        jobs.append(tower_job(run, c, variant, theta_0, frozen, train))
    swept = [*sets.val, *sets.supported_val]
    tested = [*sets.test, *sets.supported_test]  # at alpha 0, the chosen one, and 1
    counts = [(source, len(c.alphas)) for source in swept]
    counts += [(source, 3) for source in tested]
    kept = c.recipe == "lora" or bool(c.training.ema) or apart
    return Needs(
        jobs=jobs,
        passes=[rgb_pass(variant, counts, run.compute)],
        product=shapes,
        files={"theta_1": tree_bytes(theta_0)} if kept else {},
        left_out=["the search of an alpha for each block"] if c.per_block else [],
    )


def name_sets(run: Run, c: PatchSettings, choice: Choice) -> dict[str, list[str]]:
    """Role -> datasets, named as in results; supported_val: those that limit alpha."""
    limits = [s for s in c.supported_val if run.open(s) in choice.supported]
    roles = {"val": c.val, "test": c.test, "supported_val": limits}
    roles["supported_test"] = c.supported_test
    return {role: list(short_specs(specs)) for role, specs in roles.items()}


def report_lost(sweep: Sweep, product: Alpha | None) -> None:
    """Reports the product's forgetting on the supported test datasets.

    product: its alpha, alphas by block, or None if it has neither.
    """
    pins: dict[str, Any] = {"alpha": product}
    if isinstance(product, Mapping):
        pins = {"alpha": None, "alpha_blocks": dict(product)}
    for spec in short_specs(sweep.settings.supported_test):
        before, after = (sweep.kept[spec, w] for w in ("before", "after"))
        report_forgetting(sweep.run, before, after, **pins)


def patch_once(run: Run, c: PatchSettings, clip: api.Model, sets: Sets):
    """Patches on all tasks at once: (sweep, [choice], the origins of theta_1)."""
    found, made = fine_tune_tasks(run, c, clip, sets.train)
    theta_1, head_1 = split_head(found)
    heads: dict[str, Any] = {}
    if head_1 is not None:
        head_0, _ = scoring.zero_shot_head(clip, sets.train[0])
        heads = {"heads": (head_0, head_1), "head_of": sets.train[0]}
    theta_0 = tower_params(clip.params, c.train_text)
    sweep = Sweep(run, c, clip, theta_0, theta_1, **heads)
    choice = choose(sweep, sets.val, sets.supported_val)
    draw_curve(run, choice)
    return sweep, [choice], made


def patch_in_turn(run: Run, c: PatchSettings, clip: api.Model, sets: Sets):
    """Patches on one task per round: (the last sweep, all choices, the origins).

    Each round starts from the product of the previous one, and its objective is the
    mean of the tasks so far. A supported dataset's loss is always relative to the
    original model. The budget grows with the rounds, so that the first does not spend
    all of it.
    """
    theta = original = tower_params(clip.params, c.train_text)
    choices, made = [], {}
    parts = task_runs(run, sets.train)
    for i, (part, source) in enumerate(zip(parts, sets.train, strict=True)):
        run.log(f"patch: round {i + 1}, fine-tuning on {source.dataset.name} ...")
        params = put_towers(clip.params, theta)
        digest = checkpoint.params_digest(params)
        begun = dataclasses.replace(clip, params=params, digest=digest)
        theta_1 = jax.device_get(fine_tune(part, c, begun, [source]))
        before = original if i else None
        sweep = Sweep(run, c, clip, theta, theta_1, original=before, round_=i + 1)
        share = (i + 1) / len(parts)
        choice = choose(sweep, sets.val[: i + 1], sets.supported_val, share)
        draw_curve(run, choice, f"_{i + 1}")
        theta = sweep.mixture(choice.product)
        choices.append(choice)
        made[f"theta_1 of round {i + 1}"] = {
            "digest": checkpoint.params_digest(theta_1)
        }
    return sweep, choices, made


def save_head(run: Run, sweep: Sweep, product: Alpha) -> dict[str, Any]:
    """Writes patch/head.npz, the interpolated head; returns its meta entry."""
    assert sweep.heads is not None
    assert sweep.head_of is not None
    dataset = sweep.head_of.dataset
    head = sweep.head(sweep.head_of, product, sweep.heads[0])
    content = checkpoint.save_head(
        run.workdir / "patch", head, sweep.heads, dataset.classnames
    )
    digest = checkpoint.params_digest(head)
    return {"dataset": dataset.name, "digest": digest, "content": content}
