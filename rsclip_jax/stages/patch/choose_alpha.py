"""Pure: choosing alpha by validation values, within a forgetting budget."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rsclip_jax.records.budget import Budget, Curve, mean_curve, value_before
from rsclip_jax.stats.draws import Draw, draw_together

# alphas by block -> (task value, function that returns the supported values)
Evaluate = Callable[[dict[str, float]], tuple[float, Callable[[], Sequence[float]]]]


def choose_alpha(task: Curve, supported: Sequence[Curve], budget: Budget) -> float:
    """The alpha with the best task value within the budget of every supported dataset.

    A drop is relative to value_before. Alpha 0 is always allowed. The smaller of two
    alphas with equal values wins: it forgets less. Raises ValueError without alpha 0.
    """
    if 0.0 not in task:
        raise ValueError("alpha 0 must be evaluated, because drops are relative to it")
    before = [value_before(s) for s in supported]
    allowed = [
        a
        for a in task
        if a == 0.0 or (a > 0 and budget.allows(before, [s[a] for s in supported]))
    ]
    return min(allowed, key=lambda a: (-task[a], a))


def bootstrap_alpha(
    draws: Sequence[Draw],
    budget: Budget,
    *,
    bootstraps: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of the choice over bootstrap samples of the validation examples.

    draws: for the task, then for each supported dataset, a function that returns the
    values along alpha on a bootstrap sample. Both ends are alphas of the sweep.
    """
    rng = np.random.default_rng(seed)
    chosen = [
        choose_alpha(task, supported, budget)
        for task, *supported in draw_together(draws, bootstraps, rng)
    ]
    low, high = np.percentile(chosen, [2.5, 97.5], method="nearest")
    return float(low), float(high)


def mean_draw(draws: Sequence[Draw]) -> Draw:
    """A draw of mean_curve; each task's dataset is sampled separately."""

    def measure(samples: Sequence[tuple]) -> list[dict[float, float]]:
        each = zip(draws, zip(*samples, strict=True), strict=True)
        curves = [draw.measure(of_draw) for draw, of_draw in each]
        return [mean_curve(of_sample) for of_sample in zip(*curves, strict=True)]

    return Draw(lambda rng: tuple(draw.pick(rng) for draw in draws), measure)


def search_blocks(
    evaluate: Evaluate,
    start: Mapping[str, float],
    budget: Budget,
    before: Sequence[float],
    *,
    steps: Sequence[float] = (0.2, 0.1),
    max_evaluations: int = 200,
) -> tuple[dict[str, float], float]:
    """(an alpha for each block, its task value), by cyclic coordinate search.

    The search starts from the best single alpha (start: the same for all blocks). Each
    block's alpha in turn moves up and down by a step, within [0, 1]; a move that raises
    the task value within the budget is kept, and the next step is tried when no move
    does. So the result is never worse than the start on the validation examples, and
    never over the budget. before: the supported values that drops are relative to.
    evaluate computes supported values only if the task gains.
    """
    best = dict(start)
    value, _ = evaluate(best)
    left = max_evaluations - 1
    for step in steps:
        moved = True
        while moved and left > 0:
            moved = False
            for name, sign in ((n, s) for n in best for s in (1, -1)):
                trial = {**best, name: _clamp(best[name] + sign * step)}
                if trial == best or left <= 0:
                    continue
                left -= 1
                found, supported = evaluate(trial)
                if found > value and budget.allows(before, supported()):
                    best, value, moved = trial, found, True
    return best, value


def _clamp(alpha: float) -> float:
    return round(min(max(alpha, 0.0), 1.0), 6)  # 0.1 + 0.2 is 0.3
