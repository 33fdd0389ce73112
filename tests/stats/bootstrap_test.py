"""Intervals against all possible draws."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from rsclip_jax.metrics import (
    calibration_error,
    calibration_gaps,
    in_top_k,
    mean_ap,
    mean_recall,
)
from rsclip_jax.stats.bootstrap import (
    calibration_interval,
    map_intervals,
    mean_interval,
    mean_recall_interval,
    median_interval,
    rounded,
    share_interval,
)


def wilson_by_hand(hits, n):
    """The shares p that a score test of hits of n does not reject at 5 %."""
    z, mean = 1.959963984540054, hits / n
    middle = mean + z**2 / (2 * n)
    half = z * math.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    return [(middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]


@pytest.mark.parametrize(("hits", "n"), [(300, 1000), (54, 60), (3, 7), (1, 1)])
def test_a_share_interval_is_wilsons_score_interval(hits, n):
    found = share_interval(np.random.default_rng(0).permutation(n) < hits)
    assert found == pytest.approx(wilson_by_hand(hits, n), abs=1e-12)
    # an end is a share from which the hits lie exactly 1.96 standard errors away
    for p in found:
        assert p in (0, 1) or abs(hits / n - p) == pytest.approx(
            1.959963984540054 * math.sqrt(p * (1 - p) / n)
        )


def bootstrapped(hits, n):
    """The interval of the plain bootstrap: quantiles of the binomial at hits / n."""
    return scipy.stats.binom.ppf([0.025, 0.975], n, hits / n) / n


def coverage(intervals, p):
    """The exact chance that the interval of k hits, k = 0 ... n, holds the share p."""
    held = [low <= p <= high for low, high in intervals]
    return scipy.stats.binom.pmf(np.flatnonzero(held), len(held) - 1, p).sum()


@pytest.mark.parametrize("n", [10, 30, 100])
def test_a_share_interval_covers_the_true_share_as_often_as_it_claims(n):
    wilson = [share_interval(np.arange(n) < k) for k in range(n + 1)]
    covered = [coverage(wilson, p) for p in np.arange(1, 100) / 100]
    assert 0.945 < np.mean(covered) < 0.965
    assert min(covered) > 0.88  # Wilson's dips at the ends, and nowhere below this
    if n == 100:
        plain = [bootstrapped(k, n) for k in range(n + 1)]
        assert coverage(wilson, 0.99) > 0.92
        assert coverage(plain, 0.99) < 0.66


@pytest.mark.parametrize("n", [1, 10, 50])
def test_intervals_of_all_or_no_hits_have_a_width(n):
    low, high = share_interval(np.ones(n, bool))
    assert high == 1
    assert low == pytest.approx(n / (n + 1.959963984540054**2))
    assert share_interval(np.zeros(n, bool)) == pytest.approx((0, 1 - low), abs=1e-12)


@pytest.mark.parametrize("hit", [True, False])
def test_groups_that_are_all_alike_have_the_interval_of_as_many_examples(hit):
    found = share_interval(np.full(30, hit), np.arange(30) // 3)
    assert found == share_interval(np.full(10, hit))
    assert found[0] < found[1]


def test_no_examples_have_no_share_interval():
    assert rounded(share_interval(np.zeros(0, bool))) == [None, None]
    assert rounded((0.12345678, 1.0)) == [0.123457, 1.0]


def test_map_intervals_equal_the_exact_bootstrap():
    scores = np.array([[0.9, 0.2], [0.4, 0.6], [0.7, 0.5], [0.1, 0.8]])
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    found = map_intervals(scores, targets, bootstraps=4000)
    for average in ("macro", "micro"):
        all_ = [
            mean_ap(scores[list(rows)], targets[list(rows)], average)
            for rows in itertools.product(range(4), repeat=4)
        ]
        known = np.array([value for value in all_ if not math.isnan(value)])
        for end, q in zip(found[average], (0.025, 0.975), strict=True):
            assert np.mean(known < end - 1e-9) <= q + 0.01
            assert np.mean(known <= end + 1e-9) >= q - 0.01


def quantiles_over_every_sample(value, n):
    """(2.5 %, 97.5 %) of value(rows) over all draws of n indices from n."""
    all_ = [value(list(rows)) for rows in itertools.product(range(n), repeat=n)]
    return np.array([v for v in all_ if not math.isnan(v)])


def check_quantiles(interval, known):
    for end, q in zip(interval, (0.025, 0.975), strict=True):
        assert np.mean(known < end - 1e-9) <= q + 0.01
        assert np.mean(known <= end + 1e-9) >= q - 0.01


@pytest.mark.parametrize("n", [4, 5])
def test_mean_and_median_intervals_equal_the_exact_bootstrap(n):
    values = np.array([3.0, 1.0, 7.0, 1.0, 20.0])[:n]
    known = quantiles_over_every_sample(lambda rows: values[rows].mean(), n)
    check_quantiles(mean_interval(values, bootstraps=6000), known)
    known = quantiles_over_every_sample(lambda rows: np.median(values[rows]), n)
    check_quantiles(median_interval(values), known)


@pytest.mark.parametrize("n", [1, 2, 101, 102])
def test_median_draws_are_medians_of_bootstrap_samples(n):
    values = np.random.default_rng(1).exponential(size=n)
    rng = np.random.default_rng(2)
    drawn = [np.median(values[rng.integers(n, size=n)]) for _ in range(4000)]
    want = np.percentile(drawn, [2.5, 97.5])
    spread = np.ptp(values)
    np.testing.assert_allclose(median_interval(values), want, atol=0.03 * spread)


def test_grouped_intervals_draw_whole_groups():
    rng = np.random.default_rng(4)
    groups = rng.permutation(np.repeat(np.arange(12) * 3, rng.integers(1, 6, 12)))
    values = rng.integers(1, 40, len(groups))
    of_group = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    drawn, shares, medians = np.random.default_rng(0), [], []
    for _ in range(2000):
        picked = values[
            np.concatenate([of_group[i] for i in drawn.integers(12, size=12)])
        ]
        shares.append(np.mean(picked <= 10))
        medians.append(np.median(picked))
    for found, draws in (
        (share_interval(values <= 10, groups), shares),
        (median_interval(values, groups), medians),
    ):
        assert found == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=1e-12)


def test_mean_recall_intervals_equal_the_exact_bootstrap():
    logits = np.array([[2.0, 1, 0], [2, 1, 0], [0, 1, 2], [1, 2, 0], [0, 2, 1]])
    labels = np.array([0, 1, 2, 1, 1])
    known = quantiles_over_every_sample(
        lambda rows: mean_recall(logits[rows], labels[rows]), 5
    )
    hits = in_top_k(logits, labels)
    check_quantiles(mean_recall_interval(hits, labels, bootstraps=6000), known)


def test_a_calibration_interval_subtracts_the_bootstraps_excess():
    rng = np.random.default_rng(3)
    logits, labels = 2 * rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    gaps, value = calibration_gaps(logits, labels), calibration_error(logits, labels)
    picked = (rng.integers(60, size=60) for _ in range(3000))
    drawn = np.array([calibration_error(logits[rows], labels[rows]) for rows in picked])
    want = np.percentile(drawn - (drawn.mean() - value), [2.5, 97.5])
    got = calibration_interval(gaps, bootstraps=3000)
    np.testing.assert_allclose(got, want, atol=0.01)
    assert got[0] < value < got[1]
    # what is right on average by chance alone has an end at 0, and none below
    fair = np.log(np.tile([0.5, 0.25, 0.25], (400, 1)))
    low, high = calibration_interval(calibration_gaps(fair, np.arange(400) % 4 // 2))
    assert low == 0 < high < 0.06


def test_map_intervals_contain_the_value_and_depend_on_the_seed():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (300, 6))
    scores = targets + rng.normal(size=targets.shape)
    found = map_intervals(scores, targets, bootstraps=200)
    for average, (low, high) in found.items():
        assert low < mean_ap(scores, targets, average) < high
        assert 0.02 < high - low < 0.12
    assert map_intervals(scores, targets, bootstraps=200) == found
    assert map_intervals(scores, targets, bootstraps=200, seed=1) != found


def test_no_examples_and_no_positives_give_no_interval():
    nothing = np.zeros(0)
    for ends in (
        mean_interval(nothing),
        median_interval(nothing),
        mean_recall_interval(nothing.astype(bool), nothing.astype(int)),
        calibration_interval(np.zeros((0, 15))),
    ):
        assert rounded(ends) == [None, None]
    none = map_intervals(np.zeros((0, 3)), np.zeros((0, 3)))
    unlabelled = map_intervals(np.ones((5, 3)), np.zeros((5, 3)), bootstraps=5)
    for found in (none, unlabelled):
        assert [rounded(ends) for ends in found.values()] == [[None, None]] * 2
