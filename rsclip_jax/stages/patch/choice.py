"""The choice of alpha on validation data, within a budget of forgetting."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsclip_jax.data.types import Source
from rsclip_jax.records.budget import (
    ORIGINAL,
    Budget,
    Curve,
    mean_curve,
    value_before,
)
from rsclip_jax.records.metric_names import PRIMARY
from rsclip_jax.report.figures import plot_alpha_curve
from rsclip_jax.stages.patch.blocks import choose_blocks
from rsclip_jax.stages.patch.choose_alpha import (
    bootstrap_alpha,
    choose_alpha,
    mean_draw,
)
from rsclip_jax.stages.patch.mixtures import Alpha
from rsclip_jax.stages.patch.settings import PatchSettings
from rsclip_jax.stages.patch.sweep import Sweep
from rsclip_jax.stages.shared import dataset_checks
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.stats.draws import Draw, draw_many
from rsclip_jax.train import processes


@dataclasses.dataclass(frozen=True)
class Choice:
    """The alpha chosen on validation data, and the values there.

    val, supported: the sources of the curves tasks and limits, in order; supported are
    those that limit alpha. blocks: an alpha for each block, if the settings ask for it;
    with_blocks: the tasks' mean and the limits' values with them. note: what to do
    about alpha 0, else "".
    """

    alpha: float
    interval: tuple[float, float]
    budget: Budget
    given: bool
    val: Sequence[Source]
    supported: Sequence[Source]
    tasks: list[dict[float, float]]
    limits: list[dict[float, float]]
    blocks: dict[str, float] | None = None
    with_blocks: tuple[float, ...] = ()
    note: str = ""

    @property
    def product(self) -> Alpha:
        """The alpha, or alphas by block, of the stage's or round's product."""
        return self.alpha if self.blocks is None else self.blocks

    def meta(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "alpha_ci95": self.interval,
            "alpha_chosen_by": "config.patch.alpha" if self.given else "validation",
            "alpha_blocks": self.blocks,
            "alpha_note": self.note,
        }


def check_choice(c: PatchSettings) -> None:
    """Raises ValueError for alphas or a budget that allow no choice."""
    alphas = c.alphas
    if not {0.0, 1.0} <= set(alphas) or len(set(alphas)) < len(alphas):
        raise ValueError(
            f"config.patch.alphas = {alphas} must be distinct and include 0.0 and 1.0,"
            " the original and the fine-tuned model"
        )
    if min(alphas) < 0 or max(alphas) > 1:
        raise ValueError(f"config.patch.alphas = {alphas} must lie between 0 and 1")
    for name in ("alpha", "max_supported_drop", "min_supported_retained"):
        value = getattr(c, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"config.patch.{name} = {value} is not between 0 and 1")
    least = {"bootstraps": 1, "block_evaluations": 1}
    least |= {"block_examples": 0, "block_cache_gb": 0}
    for name, low in least.items():
        if (value := getattr(c, name)) < low:
            raise ValueError(f"config.patch.{name} = {value} is below {low}")
    if c.per_block and c.alpha is not None:
        raise ValueError(
            f"config.patch.per_block starts from the best alpha within the budget, but"
            f" config.patch.alpha = {c.alpha} fixes alpha: set only one of them"
        )


def choose(
    sweep: Sweep,
    val: Sequence[Source],
    supported: Sequence[Source],
    share: float = 1.0,
) -> Choice:
    """Sweeps alpha over validation data, chooses by the settings, logs the choice.

    share: the fraction of the budget that may be spent.
    """
    run, c = sweep.run, sweep.settings
    given = () if c.alpha is None else (float(c.alpha),)
    found, draws = sweep.report([*val, *supported], {*c.alphas, *given})
    for source in val:
        labels = sweep.labels[str(source.spec)]
        effect = "have no say in alpha"
        dataset_checks.warn_of_absent_classes(run, "patch", source, labels, effect)
    n = len(val)
    limiting = [
        n + i
        for i, source in enumerate(supported)
        if not c.supported_above_chance
        or is_above_chance(sweep, source, found[n + i], draws[n + i])
    ]
    kept = processes.from_first(limiting)
    supported, limits = [supported[i - n] for i in kept], [found[i] for i in kept]
    if not limits and not given:
        run.log(
            "patch: no supported dataset limits alpha: it is chosen by the task alone,"
            " regardless of forgetting (config.patch.supported_val)"
        )
    curves = [mean_curve(found[:n]), *limits]
    budget = c.budget.share(share)
    interval = bootstrap_alpha(
        [mean_draw(draws[:n]), *(draws[i] for i in kept)],
        budget,
        bootstraps=c.bootstraps,
        seed=run.config.seed,
    )
    alpha = given[0] if given else choose_alpha(curves[0], curves[1:], budget)
    # hosts of another kind may round to another choice, and would then part ways
    alpha, *ends = processes.from_first([alpha, *interval])
    interval = ends[0], ends[1]
    names = [source.dataset.name for source in supported]
    run.log(describe_choice(alpha, curves, budget, interval, names, chosen=not given))
    choice = Choice(
        alpha, interval, budget, bool(given), val, supported, found[:n], limits
    )
    if c.per_block:
        blocks, mean, values = choose_blocks(
            sweep, alpha, (val, supported), (curves[0], curves[1:]), budget
        )
        run.log(describe_blocks(blocks, alpha, curves, [mean, *values], names))
        choice = dataclasses.replace(choice, blocks=blocks, with_blocks=(mean, *values))
    if given or (choice.blocks and any(choice.blocks.values())) or alpha != 0:
        return choice
    note = describe_zero(curves, budget, names)
    run.log(f"warning: patch: {note}")
    return dataclasses.replace(choice, note=note)


def is_above_chance(sweep: Sweep, source: Source, curve: Curve, draw: Draw) -> bool:
    """Whether the original CLIP beats a constant guess on a source; warns if not.

    The lower end of a 95 % bootstrap interval must exceed the share of the largest
    class or, for several labels, the mean share of the classes.
    """
    labels = sweep.labels[str(source.spec)]
    chance = float(labels.mean())
    if labels.ndim == 1:
        chance = np.bincount(labels).max() / len(labels)
    at = ORIGINAL if ORIGINAL in curve else 0.0
    rng = np.random.default_rng(sweep.run.config.seed)
    low = np.percentile([values[at] for values in draw_many(draw, 200, rng)], 2.5)
    if low > chance:
        return True
    sweep.run.log(
        f"warning: patch: the original CLIP has {value_before(curve):.3f} on"
        f" {source.spec}, no better than guessing ({chance:.3f}): it cannot show"
        " forgetting and does not limit alpha. Name a dataset that the CLIP knows in"
        " config.patch.supported_val and supported_test"
    )
    return False


def describe_zero(curves: Sequence[Curve], budget: Budget, names: Sequence[str]) -> str:
    """Why alpha 0 was chosen, and what to do.

    curves: the task's and that of each supported dataset, whose names are given.
    """
    task, limits = curves[0], curves[1:]
    better = [a for a in task if a > 0 and task[a] > task[0.0]]
    text = "alpha 0 was chosen: the product is the original CLIP, unchanged. "
    if not better:
        return text + (
            f"No alpha improved the task's validation value ({task[0.0]:.3f}): train"
            " longer or at another rate (config.patch.steps, config.patch.lr), and"
            " check the labels and class names"
        )
    over = [
        name
        for name, curve in zip(names, limits, strict=True)
        if all(curve[a] < budget.least(value_before(curve)) - 1e-9 for a in better)
    ]
    return text + (
        f"Every alpha that improves the task loses more than allowed on"
        f" {', '.join(over or names)}: allow more (config.patch.max_supported_drop),"
        " try smaller alphas (config.patch.alphas), or train more gently"
        " (config.patch.lr, config.patch.recipe)"
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
    """The chosen alpha, its certainty and its cost on validation data, in one line.

    curve: the task's and that of each supported dataset, whose names are given.
    """
    task, supported = curve[0], curve[1:]
    how = "chosen" if chosen else "given as config.patch.alpha, evaluated"
    low, high = interval
    lines = [
        f"patch: alpha {alpha:g} {how} on validation data (95 % of bootstrap samples"
        f" choose {low:g} to {high:g}): task {task[0.0]:.3f} ->"
        f" {task[alpha]:.3f} (alpha 1: {task[1.0]:.3f})"
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
    """The gain of alphas by block over the single alpha on validation data."""
    (mean, *kept), (task, *supported) = values, curves
    if set(blocks.values()) == {alpha}:
        return f"patch: alpha by block gained nothing over the single alpha {alpha:g}"
    each = ", ".join(f"{name} {a:g}" for name, a in blocks.items())
    lines = [
        f"patch: alpha by block gained {100 * (mean - task[alpha]):.1f} points on the"
        f" same validation data: task {task[alpha]:.3f} -> {mean:.3f} ({each})"
    ]
    lines += [
        f"{name}: {s[alpha]:.3f} -> {value:.3f}"
        for name, s, value in zip(names, supported, kept, strict=True)
    ]
    return "; ".join(lines)


def draw_curve(run: Run, choice: Choice, suffix: str = "") -> None:
    """Draws patch/alpha_curve<suffix>.png of a choice."""
    if not processes.is_first():
        return
    kinds = {PRIMARY[s.dataset.task] for s in choice.val}
    plot_alpha_curve(
        run.workdir / "patch" / f"alpha_curve{suffix}.png",
        [str(s.spec) for s in (*choice.val, *choice.supported)],
        [*choice.tasks, *choice.limits],
        choice.alpha,
        budget=choice.budget,
        metric=kinds.pop() if len(kinds) == 1 else "accuracy or mAP_macro",
        tasks=len(choice.val),
        with_blocks=choice.with_blocks,
    )
