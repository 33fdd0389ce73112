"""The choice of alpha: by hand, by brute force, and never over the budget."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsclip_jax.records.budget import ORIGINAL, Budget, mean_curve
from rsclip_jax.stages.patch.choose_alpha import (
    bootstrap_alpha,
    choose_alpha,
    mean_draw,
    search_blocks,
)
from rsclip_jax.stats.draws import Draw, bootstrap_mean

TASK = {0.0: 0.2, 0.5: 0.6, 1.0: 0.8}
KEPT = {0.0: 0.50, 0.5: 0.46, 1.0: 0.30}
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("drop", "alpha"), [(0.0, 0.0), (0.03, 0.0), (0.04, 0.5), (0.05, 0.5), (0.2, 1.0)]
)
def test_the_best_task_value_within_the_budget_wins(drop, alpha):
    assert choose_alpha(TASK, [KEPT], Budget(max_drop=drop)) == alpha


@pytest.mark.parametrize(
    ("retained", "alpha"), [(1.0, 0.0), (0.93, 0.0), (0.92, 0.5), (0.6, 1.0)]
)
def test_a_least_fraction_may_be_asked_for(retained, alpha):
    assert choose_alpha(TASK, [KEPT], Budget(min_retained=retained)) == alpha


def test_the_tighter_of_the_two_counts():
    assert choose_alpha(TASK, [KEPT], Budget(0.05, 0.95)) == 0.0
    assert choose_alpha(TASK, [KEPT], Budget(0.01, 0.5)) == 0.0


def test_the_budget_holds_for_every_set_and_not_for_their_mean():
    gains = {a: 1 - v for a, v in KEPT.items()}  # what one loses the other wins
    assert choose_alpha(TASK, [KEPT, gains], Budget(max_drop=0.05)) == 0.5
    assert choose_alpha(TASK, [gains], Budget(max_drop=0.0)) == 1.0


def test_without_supported_sets_the_task_decides():
    assert choose_alpha(TASK, [], Budget(max_drop=0.0)) == 1.0


def test_of_equal_task_values_the_one_that_changes_less_wins():
    assert choose_alpha(dict.fromkeys(TASK, 0.5), [KEPT], Budget()) == 0.0


def test_a_sweep_without_alpha_0_cannot_be_judged():
    with pytest.raises(ValueError, match="alpha 0"):
        choose_alpha({1.0: 0.5}, [{1.0: 0.5}], Budget())


VALUES = st.lists(st.floats(0, 1), min_size=5, max_size=5)


@given(VALUES, st.lists(VALUES, max_size=3), st.floats(0, 1), st.floats(0, 1))
def test_the_choice_equals_brute_force(task, supported, drop, retained):
    curve = dict(zip(ALPHAS, task, strict=True))
    kept = [dict(zip(ALPHAS, s, strict=True)) for s in supported]
    chosen = choose_alpha(curve, kept, Budget(drop, retained))
    rest = [
        a
        for a in ALPHAS
        if all(
            s[a] >= s[0.0] - drop - 1e-9 and s[a] >= s[0.0] * retained - 1e-9
            for s in kept
        )
    ]
    assert chosen in {0.0, *rest}
    assert curve[chosen] == max(curve[a] for a in {0.0, *rest})


# The interval


def test_a_clear_choice_has_a_narrow_interval_and_a_close_one_a_wide_one():
    rng = np.random.default_rng(0)
    clear = {a: rng.random(400) < 0.2 + 0.6 * (a == 0.5) for a in ALPHAS}
    assert bootstrap_alpha([bootstrap_mean(clear)], Budget()) == (0.5, 0.5)
    close = {a: rng.random(400) < 0.5 for a in ALPHAS}
    low, high = bootstrap_alpha([bootstrap_mean(close)], Budget(), bootstraps=300)
    assert high - low >= 0.5
    assert {low, high} <= set(ALPHAS)


def test_the_interval_is_that_of_the_seed():
    rng = np.random.default_rng(0)
    draws = [
        bootstrap_mean({a: rng.random(60) < 0.5 for a in ALPHAS}) for _ in range(2)
    ]
    budget = Budget(max_drop=0.05)
    assert bootstrap_alpha(draws, budget, bootstraps=50, seed=3) == bootstrap_alpha(
        draws, budget, bootstraps=50, seed=3
    )


# Several tasks


def test_what_is_lost_is_counted_from_the_original_model():
    task = {0.0: 0.5, 0.5: 0.6, 1.0: 0.7}
    kept = {0.0: 0.47, 0.5: 0.46, 1.0: 0.44}
    assert choose_alpha(task, [kept], Budget(0.05)) == 1.0
    before = {ORIGINAL: 0.5, **kept}  # of which 0.03 went in an earlier round
    assert choose_alpha(task, [before], Budget(0.05)) == 0.5
    assert choose_alpha({ORIGINAL: 0.9, **task}, [before], Budget(0.0)) == 0.0


def test_a_share_of_the_budget_is_that_share_of_what_may_be_lost():
    budget = Budget(max_drop=0.1, min_retained=0.8)
    for value in (0.3, 0.9):
        lost = value - budget.least(value)
        assert value - budget.share(0.5).least(value) == pytest.approx(lost / 2)
        assert budget.share(1.0).least(value) == pytest.approx(budget.least(value))
        assert budget.share(0.0).least(value) == value


def test_several_tasks_count_by_their_mean():
    one, other = {0.0: 0.2, 1.0: 0.6}, {ORIGINAL: 0.1, 0.0: 0.4, 1.0: 0.1}
    assert mean_curve([one, other]) == pytest.approx({0.0: 0.3, 1.0: 0.35})
    assert mean_curve([one]) == one
    noisy = Draw(
        lambda rng: [v + rng.random() for v in one.values()],
        lambda samples: [dict(zip(one, each, strict=True)) for each in samples],
    )
    draws = [noisy, noisy]
    found = mean_draw(draws)(np.random.default_rng(0))
    rng = np.random.default_rng(0)
    drawn = [{a: v + rng.random() for a, v in one.items()} for _ in range(2)]
    assert found == pytest.approx({a: (drawn[0][a] + drawn[1][a]) / 2 for a in one})


# An alpha for each block


def hills(tops, supported_slope=0.0):
    """A task value with its top at an alpha of each block; what moves forgets."""

    def evaluate(alphas):
        task = -sum((alphas[n] - top) ** 2 for n, top in tops.items())
        return task, lambda: [1 - supported_slope * sum(alphas.values())]

    return evaluate


def test_each_block_finds_its_own_top():
    tops = {"stem": 0.1, "blocks_0": 0.9, "projection": 0.5}
    start = dict.fromkeys(tops, 0.4)
    found, value = search_blocks(hills(tops), start, Budget(), [1.0])
    assert found == pytest.approx(tops)
    assert value == pytest.approx(0, abs=1e-9)


def test_the_budget_stops_it_short():
    tops = dict.fromkeys(("stem", "blocks_0"), 1.0)
    evaluate = hills(tops, supported_slope=0.1)
    start = dict.fromkeys(tops, 0.2)
    found, _ = search_blocks(evaluate, start, Budget(max_drop=0.1), [1.0])
    assert sum(found.values()) == pytest.approx(1.0)
    assert Budget(max_drop=0.1).allows([1.0], evaluate(found)[1]())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.5), st.integers(1, 60))
def test_it_is_never_worse_than_its_start_nor_over_the_budget(seed, drop, most):
    names = ("stem", "blocks_0", "blocks_1", "projection")
    start = dict.fromkeys(names, 0.5)
    table = np.random.default_rng(seed).random((11,) * 4)
    asked = []

    def evaluate(alphas):
        asked.append(alphas)
        place = tuple(round(10 * alphas[n]) for n in names)
        return float(table[place]), lambda: [float(np.roll(table, 1)[place])]

    budget = Budget(max_drop=drop)
    first, kept = evaluate(start)
    before = [kept()[0] + drop / 2]  # so the start is within the budget
    asked.clear()
    found, value = search_blocks(evaluate, start, budget, before, max_evaluations=most)
    assert len(asked) <= most
    assert value == evaluate(found)[0] >= first
    assert budget.allows(before, evaluate(found)[1]())
    assert all(0 <= a <= 1 for a in found.values())


def test_the_search_ends_where_no_single_step_helps():
    names = ("stem", "blocks_0")
    evaluate = hills({"stem": 0.3, "blocks_0": 0.7})
    found, value = search_blocks(
        evaluate, dict.fromkeys(names, 0.5), Budget(), [1.0], steps=(0.1,)
    )
    for name, step in itertools.product(names, (-0.1, 0.1)):
        assert evaluate({**found, name: found[name] + step})[0] <= value
