"""The paired bootstrap against every possible sample, and against known cases."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from rsclip_jax.metrics import mean_ap
from rsclip_jax.stats.bootstrap import share_interval
from rsclip_jax.stats.paired_tests import (
    compare_maps,
    compare_means,
    compare_medians,
    compare_recalls,
    compare_shares,
    holm,
    p_value,
)


def rare_side(values: np.ndarray, chances: np.ndarray | None = None) -> float:
    """Twice the chance of the rarer side of zero, by the values' own chances."""
    chances = np.full(len(values), 1 / len(values)) if chances is None else chances
    return min(1, 2 * min(chances[values <= 1e-12].sum(), chances[values >= 0].sum()))


def all_gains(gains: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(mean gains, their chances) of all samples, by the numbers of +1 and -1."""
    n, share = len(gains), {g: gains.count(g) / len(gains) for g in (-1, 0, 1)}
    values, chances = [], []
    for lost, won in itertools.product(range(n + 1), repeat=2):
        if (kept := n - lost - won) >= 0:
            ways = math.comb(n, lost) * math.comb(n - lost, won)
            values.append((won - lost) / n)
            chances.append(
                ways * share[-1] ** lost * share[1] ** won * share[0] ** kept
            )
    return np.array(values), np.array(chances)


@pytest.mark.parametrize(("lost", "kept", "won"), [(3, 20, 9), (0, 5, 6), (7, 3, 6)])
def test_shares_equal_the_exact_bootstrap(lost, kept, won):
    gains = [-1] * lost + [0] * kept + [1] * won
    a = np.array([(g < 1 and i % 3 > 0) or g < 0 for i, g in enumerate(gains)])
    b = np.where(np.array(gains) == 0, a, np.array(gains) > 0)
    found = compare_shares(a, b)
    values, chances = all_gains((b.astype(int) - a).tolist())
    assert found.difference == pytest.approx(b.mean() - a.mean())
    assert (found.a, found.b, found.n) == (a.mean(), b.mean(), len(gains))
    assert found.p_value == pytest.approx(rare_side(values, chances), abs=0.02)
    for end, q in zip(found.ci95, (0.025, 0.975), strict=True):
        assert chances[values < end - 1e-9].sum() <= q + 0.006
        assert chances[values <= end + 1e-9].sum() >= q - 0.006


def test_identical_models_do_not_differ():
    hits = np.random.default_rng(0).random(200) < 0.3
    same = compare_shares(hits, hits)
    assert (same.difference, same.ci95, same.p_value) == (0.0, (0.0, 0.0), 1.0)
    targets = np.random.default_rng(1).integers(0, 2, (50, 3))
    scores = np.random.default_rng(2).random((50, 3))
    for same in compare_maps(scores, scores, targets, bootstraps=50).values():
        assert (same.difference, same.ci95, same.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_a_clearly_better_model_has_the_smallest_p_value():
    a = np.random.default_rng(0).random(400) < 0.4
    b = a | (np.random.default_rng(1).random(400) < 0.5)
    better = compare_shares(a, b)
    assert better.p_value == pytest.approx(2 / 10_001)
    assert 0 < better.ci95[0] < better.difference < better.ci95[1]
    worse = compare_shares(b, a)
    assert worse.difference == -better.difference
    assert worse.p_value == better.p_value
    rng = np.random.default_rng(2)
    targets = rng.integers(0, 2, (120, 4))
    noise = rng.normal(size=targets.shape)
    maps = compare_maps(
        0.2 * targets + noise, 2 * targets + noise, targets, bootstraps=99
    )
    for found in maps.values():
        assert found.p_value == pytest.approx(2 / 100)
        assert found.ci95[0] > 0


def test_paired_differences_are_significant_where_unpaired_intervals_overlap():
    a = np.arange(500) < 200
    b = np.arange(500) < 212  # the same hits and twelve more
    alone = [share_interval(hits) for hits in (a, b)]
    assert alone[0][1] > alone[1][0]
    assert compare_shares(a, b).p_value < 0.001


def test_p_is_below_5_percent_where_the_interval_excludes_zero():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = rng.random(60) < 0.5
        b = np.where(rng.random(60) < 0.4, rng.random(60) < 0.6, a)
        found = compare_shares(a, b)
        if abs(found.p_value - 0.05) > 0.01:  # of an end at zero itself
            low, high = found.ci95
            assert (found.p_value < 0.05) == (low > 0 or high < 0)


def test_p_keeps_its_level_without_a_difference():
    rng, rejected = np.random.default_rng(0), 0
    for seed in range(400):
        a, b = rng.random((2, 150)) < 0.5
        rejected += compare_shares(a, b, bootstraps=600, seed=seed).p_value < 0.05
    assert 6 <= rejected <= 34  # 20 wanted; 99.9 % of binomials lie here


def test_groups_are_drawn_whole():
    groups = np.array([0, 0, 0, 1, 1, 2])
    a = np.array([0, 0, 0, 1, 1, 0], bool)
    b = np.array([1, 1, 0, 1, 0, 1], bool)
    found = compare_shares(a, b, groups)
    values = []
    for drawn in itertools.product(range(3), repeat=3):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in drawn])
        values.append(b[rows].mean() - a[rows].mean())
    values = np.array(values)
    assert found.difference == pytest.approx(2 / 6)
    assert found.p_value == pytest.approx(rare_side(values), abs=0.03)
    for end, q in zip(found.ci95, (0.025, 0.975), strict=True):
        assert np.mean(values < end - 1e-9) <= q + 0.01
        assert np.mean(values <= end + 1e-9) >= q - 0.01
    alone = compare_shares(a, b, np.arange(6))
    assert alone.p_value == pytest.approx(compare_shares(a, b).p_value, abs=0.02)


def test_maps_equal_the_exact_bootstrap():
    a = np.array([[0.9, 0.2], [0.4, 0.6], [0.7, 0.5], [0.1, 0.8]])
    b = np.array([[0.9, 0.1], [0.2, 0.9], [0.8, 0.8], [0.3, 0.3]])
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    found = compare_maps(a, b, targets, bootstraps=3000)
    for average in ("macro", "micro"):
        values = []
        for drawn in itertools.product(range(4), repeat=4):
            rows = list(drawn)
            both = (mean_ap(x[rows], targets[rows], average) for x in (a, b))
            values.append(np.subtract(*both) * -1)
        known = np.array([value for value in values if not math.isnan(value)])
        one = found[average]
        want = mean_ap(b, targets, average) - mean_ap(a, targets, average)
        assert one.difference == pytest.approx(want)
        assert one.p_value == pytest.approx(rare_side(known), abs=0.03)
        for end, q in zip(one.ci95, (0.025, 0.975), strict=True):
            assert np.mean(known < end - 1e-9) <= q + 0.015
            assert np.mean(known <= end + 1e-9) >= q - 0.015


def all_rows(n):
    return [list(rows) for rows in itertools.product(range(n), repeat=n)]


def is_that_of_all(found, values, slack=0.012):
    """Whether interval and p-value are those of every bootstrap sample's difference."""
    known = np.array([value for value in values if not math.isnan(value)])
    assert found.p_value == pytest.approx(rare_side(known), abs=2 * slack)
    for end, q in zip(found.ci95, (0.025, 0.975), strict=True):
        assert np.mean(known < end - 1e-9) <= q + slack
        assert np.mean(known <= end + 1e-9) >= q - slack


def test_means_equal_the_exact_bootstrap():
    a, b = np.array([0.1, 0.5, 0.2, 0.9, 0.3]), np.array([0.3, 0.6, 0.1, 0.9, 0.9])
    found = compare_means(a, b)
    assert (found.a, found.b) == pytest.approx((0.4, 0.56))
    is_that_of_all(found, [b[r].mean() - a[r].mean() for r in all_rows(5)])


def test_medians_equal_the_exact_bootstrap():
    a, b = np.array([1, 7, 3, 20, 5]), np.array([2, 4, 1, 30, 5])
    found = compare_medians(a, b)
    assert (found.a, found.b, found.difference) == (5, 4, -1)
    is_that_of_all(
        found, [np.median(b[r]) - np.median(a[r]) for r in all_rows(5)], 0.02
    )


def test_mean_recalls_equal_the_exact_bootstrap():
    labels = np.array([3, 3, 3, 8, 8])
    a, b = np.array([1, 0, 0, 1, 0], bool), np.array([1, 1, 0, 1, 1], bool)

    def mean_recall(hits, rows):
        each = labels[rows]
        return np.mean([hits[rows][each == c].mean() for c in np.unique(each)])

    found = compare_recalls(a, b, labels)
    whole = list(range(5))
    assert found.a == pytest.approx(mean_recall(a, whole))
    assert found.b == pytest.approx(mean_recall(b, whole))
    values = [mean_recall(b, r) - mean_recall(a, r) for r in all_rows(5)]
    is_that_of_all(found, values)


def test_the_draws_depend_on_the_seed():
    a, b = np.random.default_rng(0).random((2, 90)) < 0.5
    assert compare_shares(a, b) == compare_shares(a, b)
    assert compare_shares(a, b) != compare_shares(a, b, seed=1)
    groups = np.arange(90) // 3
    assert compare_shares(a, b, groups) == compare_shares(a, b, groups)
    targets = np.random.default_rng(1).integers(0, 2, (40, 2))
    scores = np.random.default_rng(2).random((2, 40, 2))
    maps = [compare_maps(*scores, targets, bootstraps=40, seed=s) for s in (0, 0, 1)]
    assert maps[0] == maps[1] != maps[2]


def test_no_examples_give_nan_and_different_lengths_are_refused():
    none = compare_shares(np.zeros(0, bool), np.zeros(0, bool))
    assert none.n == 0
    assert math.isnan(none.p_value)
    nothing = np.zeros((0, 3))
    for one in compare_maps(nothing, nothing, nothing).values():
        assert math.isnan(one.p_value)
    unlabelled = np.zeros((5, 3))
    for one in compare_maps(unlabelled, unlabelled, unlabelled, bootstraps=5).values():
        assert math.isnan(one.p_value)
        assert math.isnan(one.ci95[0])
    for compare in (compare_means, compare_medians):
        assert math.isnan(compare(np.zeros(0), np.zeros(0)).p_value)
        assert compare(np.ones(4), np.ones(4)).p_value == 1.0
    empty = np.zeros(0, bool)
    assert math.isnan(compare_recalls(empty, empty, np.zeros(0, int)).a)
    with pytest.raises(
        ValueError, match=r"same examples: got shapes \(3,\) and \(4,\)"
    ):
        compare_shares(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(4, 2\)"):
        compare_maps(np.ones((3, 2)), np.ones((4, 2)), np.ones((3, 2)))


def test_p_values_of_draws():
    assert p_value(np.array([1.0] * 98 + [-1.0])) == pytest.approx(2 * 2 / 100)
    assert p_value(np.array([1.0, -1.0, float("nan")])) == 1.0
    assert p_value(np.array([0.1, 0.2, 1e-17])) == 1.0  # zero by rounding


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, and never falling
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    with_nan = holm([float("nan"), 0.01, 0.5])
    assert math.isnan(with_nan[0])
    assert with_nan[1:] == pytest.approx([0.02, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_like_the_step_down_procedure():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.random(8) ** 4
        adjusted = holm(values)
        want, order = Counter(), np.argsort(values)
        for rank, i in enumerate(order):
            if values[i] > 0.05 / (8 - rank):
                break
            want[i] = 1
        assert [p <= 0.05 for p in adjusted] == [bool(want[i]) for i in range(8)]
