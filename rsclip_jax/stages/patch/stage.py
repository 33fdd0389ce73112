"""Stage patch: robust fine-tuning of the visual tower, then weight interpolation.

WiSE-FT (Wortsman et al. 2022) and PAINT (Ilharco et al. 2022): fine-tune through the
frozen zero-shot head, mix with the original weights, choose alpha on validation data.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from rsclip_jax import api
from rsclip_jax.data.specs import short_specs
from rsclip_jax.data.types import Source
from rsclip_jax.records.budget import Budget, Curve, mean_curve, value_before
from rsclip_jax.records.meta import AlphaChoice, StageMeta
from rsclip_jax.records.metric_names import PRIMARY
from rsclip_jax.report.figures import plot_alpha_curve
from rsclip_jax.stages.patch.blocks import choose_blocks
from rsclip_jax.stages.patch.choose_alpha import (
    bootstrap_alpha,
    choose_alpha,
    mean_draw,
)
from rsclip_jax.stages.patch.fine_tune import fine_tune
from rsclip_jax.stages.patch.recipes import check_recipe, split_head
from rsclip_jax.stages.patch.sweep import Alpha, Sweep
from rsclip_jax.stages.patch.tasks import (
    Sets,
    check_tasks,
    fine_tune_tasks,
    open_sets,
    task_runs,
)
from rsclip_jax.stages.shared import common, training
from rsclip_jax.stages.shared.forgetting import report_forgetting
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint


def check_patch(run: Run) -> None:
    """Raises ValueError for what would stop this stage."""
    supported = ("supported_val", "supported_test")
    names = ("train", "val", "test", *supported)
    tasks = dict.fromkeys(names, common.LABELLED)
    training.check_training(run, "patch", tasks, may_be_empty=supported)
    check_tasks(run)
    training.make_augment(run, "patch", open_sets(run).train, ("rgb",))
    check_choice(run.config.patch)
    check_recipe(run, open_sets(run).train)


def run_patch(run: Run) -> None:
    """Fine-tunes on config.patch.train, interpolates, chooses alpha, reports."""
    sets = open_sets(run)
    clip, origin = common.input_clip(run, "patch", ("pretrain",))
    one_by_one = len(sets.train) > 1 and run.config.patch.tasks == "sequential"
    patch = patch_in_turn if one_by_one else patch_once
    sweep, choices, made = patch(run, clip, sets)
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
        steps=run.config.patch.steps * len(choices),
        **choice.meta(),
        sources={"theta_0": origin, "theta_1": theta_1, **made},
        sets={role: named(run.config.patch[role]) for role in ROLES},
        budget=dataclasses.asdict(choice.budget),
    )
    if one_by_one:  # a round's alpha is not one between the original and the product
        rounds = tuple(
            AlphaChoice(train=str(s.spec), **choice.meta())
            for s, choice in zip(sets.train, choices, strict=True)
        )
        meta = dataclasses.replace(
            meta, rounds=rounds, alpha=None, alpha_ci95=None, alpha_blocks=None
        )
    if sweep.heads is not None:
        head = save_head(run, sweep, choice.product)
        meta = dataclasses.replace(meta, head=head)
    visual = sweep.mixture(choice.product)
    training.finish(run, "patch", {**clip.params, "visual": visual}, sets.train, meta)


ROLES = ("val", "test", "supported_val", "supported_test")


def named(value: str | Sequence[str]) -> list[str]:
    """A setting's datasets as results spell them."""
    return list(short_specs(value))


def report_lost(sweep: Sweep, product: Alpha | None) -> None:
    """Reports what the product forgot of config.patch.supported_test.

    product: None where it has no one alpha.
    """
    own: dict[str, Any] = {"alpha": product}
    if isinstance(product, Mapping):
        own = {"alpha": None, "alpha_blocks": dict(product)}
    for spec in short_specs(sweep.run.config.patch.supported_test):
        before, after = (sweep.kept[spec, w] for w in ("before", "after"))
        report_forgetting(sweep.run, before, after, **own)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was chosen on validation data, and its values there.

    tasks, supported: a curve each. blocks: where config.patch.per_block asks for them;
    with_blocks: the tasks' mean and the supported sets' values then.
    """

    alpha: float
    interval: tuple[float, float]
    budget: Budget
    given: bool
    tasks: list[dict[float, float]]
    supported: list[dict[float, float]]
    blocks: dict[str, float] | None = None
    with_blocks: tuple[float, ...] = ()

    @property
    def product(self) -> Alpha:
        """That of the stage's product, or of the round's."""
        return self.alpha if self.blocks is None else self.blocks

    def meta(self) -> dict[str, Any]:
        """What meta.json says of it."""
        return {
            "alpha": self.alpha,
            "alpha_ci95": self.interval,
            "alpha_chosen_by": "config.patch.alpha" if self.given else "validation",
            "alpha_blocks": self.blocks,
        }


def patch_once(run: Run, clip: api.Model, sets: Sets):
    """One task, or several together: (sweep, [choice], the sources of theta_1)."""
    found, made = fine_tune_tasks(run, clip, sets.train)
    theta_1, head_1 = split_head(found)
    heads: dict[str, Any] = {}
    if head_1 is not None:
        head_0, _ = common.zero_shot_head(clip, sets.train[0])
        heads = {"heads": (head_0, head_1), "head_of": sets.train[0]}
    sweep = Sweep(run, clip, clip.params["visual"], theta_1, **heads)
    choice = choose(sweep, sets.val, sets.supported_val)
    draw_curve(run, choice, sets.val, sets.supported_val)
    return sweep, [choice], made


def patch_in_turn(run: Run, clip: api.Model, sets: Sets):
    """As patch_once, a round a task, with each one's choice and the last one's sweep.

    A round starts from what the one before chose. Its objective is the mean of the
    tasks up to it. What a supported set may lose is counted from the original model
    throughout, and grows with the rounds to all of the budget: the first would leave
    nothing to the others.
    """
    theta = original = clip.params["visual"]
    choices, made = [], {}
    parts = task_runs(run, sets.train)
    for i, (part, source) in enumerate(zip(parts, sets.train, strict=True)):
        run.log(f"patch: round {i + 1}, fine-tuning on {source.dataset.name} ...")
        params = {**clip.params, "visual": theta}
        digest = checkpoint.params_digest(params)
        begun = dataclasses.replace(clip, params=params, digest=digest)
        theta_1 = jax.device_get(fine_tune(part, begun, [source]))
        before = original if i else None
        sweep = Sweep(run, clip, theta, theta_1, original=before, round_=i + 1)
        share = (i + 1) / len(parts)
        choice = choose(sweep, sets.val[: i + 1], sets.supported_val, share)
        draw_curve(run, choice, sets.val[: i + 1], sets.supported_val, f"_{i + 1}")
        theta = sweep.mixture(choice.product)
        choices.append(choice)
        made[f"theta_1 of round {i + 1}"] = {
            "digest": checkpoint.params_digest(theta_1)
        }
    return sweep, choices, made


def choose(
    sweep: Sweep,
    val: Sequence[Source],
    supported: Sequence[Source],
    share: float = 1.0,
) -> Choice:
    """Sweeps alpha over validation data, chooses as config.patch says, and tells.

    share: the part of the budget that may be spent.
    """
    run, c = sweep.run, sweep.run.config.patch
    given = () if c.alpha is None else (float(c.alpha),)
    found, draws = sweep.report([*val, *supported], {*c.alphas, *given})
    n = len(val)
    curves = [mean_curve(found[:n]), *found[n:]]
    budget = Budget(c.max_supported_drop, c.min_supported_retained).share(share)
    interval = bootstrap_alpha(
        [mean_draw(draws[:n]), *draws[n:]],
        budget,
        bootstraps=c.bootstraps,
        seed=run.config.seed,
    )
    alpha = given[0] if given else choose_alpha(curves[0], curves[1:], budget)
    choice = Choice(alpha, interval, budget, bool(given), found[:n], found[n:])
    names = [source.dataset.name for source in supported]
    run.log(describe_choice(alpha, curves, budget, interval, names, chosen=not given))
    if not c.per_block:
        return choice
    blocks, mean, kept = choose_blocks(
        sweep, alpha, (val, supported), (curves[0], curves[1:]), budget
    )
    run.log(describe_blocks(blocks, alpha, curves, [mean, *kept], names))
    return dataclasses.replace(choice, blocks=blocks, with_blocks=(mean, *kept))


def save_head(run: Run, sweep: Sweep, product: Alpha) -> dict[str, Any]:
    """Writes patch/head.npz, the mixed head and its ends; what meta.json says of it."""
    assert sweep.heads is not None
    assert sweep.head_of is not None
    row = sweep.head_of.dataset
    head = sweep.head(sweep.head_of, product, sweep.heads[0])
    if jax.process_index() == 0:
        checkpoint.save_head(run.workdir / "patch", head, sweep.heads, row.classnames)
    return {"dataset": row.name, "digest": checkpoint.params_digest(head)}


def draw_curve(
    run: Run,
    choice: Choice,
    val: Sequence[Source],
    supported: Sequence[Source],
    suffix: str = "",
) -> None:
    """patch/alpha_curve.png of a choice."""
    if jax.process_index() != 0:
        return
    names = [str(s.spec) for s in (*val, *supported)]
    kinds = {PRIMARY[s.dataset.task] for s in val}
    plot_alpha_curve(
        run.workdir / "patch" / f"alpha_curve{suffix}.png",
        names,
        [*choice.tasks, *choice.supported],
        choice.alpha,
        budget=choice.budget,
        metric=kinds.pop() if len(kinds) == 1 else "accuracy or mAP_macro",
        tasks=len(val),
        with_blocks=choice.with_blocks,
    )


def check_choice(c: ConfigDict) -> None:
    """Raises ValueError for alphas or a budget that no choice can be made by."""
    alphas = tuple(c.alphas)
    if not {0.0, 1.0} <= set(alphas) or len(set(alphas)) < len(alphas):
        raise ValueError(
            f"config.patch.alphas = {alphas} must be distinct and hold 0.0 and 1.0, the"
            " original and the fine-tuned model"
        )
    if min(alphas) < 0 or max(alphas) > 1:
        raise ValueError(f"config.patch.alphas = {alphas} must lie between 0 and 1")
    for name in ("alpha", "max_supported_drop", "min_supported_retained"):
        if c[name] is not None and not 0 <= c[name] <= 1:
            raise ValueError(f"config.patch.{name} = {c[name]} is not between 0 and 1")
    for name, least in (
        ("bootstraps", 1),
        ("block_evaluations", 1),
        ("block_examples", 0),
        ("block_cache_gb", 0),
    ):
        if c[name] < least:
            raise ValueError(f"config.patch.{name} = {c[name]} is below {least}")
    if c.per_block and c.alpha is not None:
        raise ValueError(
            f"config.patch.per_block starts from the best alpha within the budget, and"
            f" config.patch.alpha = {c.alpha} says which one to take: leave one of them"
            " out"
        )


def describe_choice(
    alpha: float,
    curve: Sequence[Curve],
    budget: Budget,
    interval: tuple[float, float],
    names: Sequence[str],
    *,
    chosen: bool,
) -> str:
    """What was chosen, how sure that is, and what it costs, on validation data.

    curve: the task's and that of each supported set, whose names are given.
    """
    task, supported = curve[0], curve[1:]
    how = "chosen" if chosen else "given as config.patch.alpha, evaluated"
    low, high = interval
    lines = [
        f"patch: alpha {alpha:g} {how} on validation data (the choice: {low:g} to"
        f" {high:g} in 95 % of resamples): task {task[0.0]:.3f} -> {task[alpha]:.3f}"
        f" (alpha 1: {task[1.0]:.3f})"
    ]
    lines += [
        f"{name}: {value_before(s):.3f} -> {s[alpha]:.3f}"
        f" ({budget.least(value_before(s)):.3f} allowed; alpha 1: {s[1.0]:.3f})"
        for name, s in zip(names, supported, strict=True)
    ]
    return "; ".join(lines)


def describe_blocks(
    blocks: dict[str, float],
    alpha: float,
    curves: Sequence[Curve],
    values: Sequence[float],
    names: Sequence[str],
) -> str:
    """What an alpha a block gained over the single one, on validation data."""
    (mean, *kept), (task, *supported) = values, curves
    if set(blocks.values()) == {alpha}:
        return (
            f"patch: alpha by block gained nothing over {alpha:g} for all, which stays"
        )
    each = ", ".join(f"{name} {a:g}" for name, a in blocks.items())
    lines = [
        f"patch: alpha by block gained {100 * (mean - task[alpha]):.1f} points on the"
        f" validation data that chose it: task {task[alpha]:.3f} -> {mean:.3f} ({each})"
    ]
    lines += [
        f"{name}: {s[alpha]:.3f} -> {value:.3f}"
        for name, s, value in zip(names, supported, kept, strict=True)
    ]
    return "; ".join(lines)
