"""Draws are metrics of the rows drawn; intervals against all that could be drawn."""

import itertools
import math

import numpy as np
import pytest

from rsclip_jax.metrics import mean_ap
from rsclip_jax.resample import (
    map_intervals,
    resample_map,
    resample_mean,
    rounded,
    share_interval,
)


def test_a_resample_is_the_same_for_all_alphas():
    scores = np.random.default_rng(0).integers(0, 2, 50)
    draw = resample_mean({0.0: scores, 0.5: 1 - scores, 1.0: scores})
    for seed in range(5):
        values = draw(np.random.default_rng(seed))
        assert values[0.0] == values[1.0] == pytest.approx(1 - values[0.5])
        picked = np.random.default_rng(seed).integers(50, size=50)
        assert values[0.0] == pytest.approx(scores[picked].mean())


def test_a_resampled_map_is_that_of_the_rows_drawn():
    rng = np.random.default_rng(0)
    scores = {a: np.round(rng.random((40, 3)), 1) for a in (0.0, 1.0)}  # with ties
    targets = rng.integers(0, 2, (40, 3))
    targets[:, 2] = 0
    targets[0, 2] = 1  # in many resamples no positive is left
    draw = resample_map(scores, targets)
    for seed in range(8):
        rows = np.random.default_rng(seed).integers(40, size=40)
        values = draw(np.random.default_rng(seed))
        for alpha, s in scores.items():
            want = mean_ap(s[rows], targets[rows], "macro")
            assert values[alpha] == pytest.approx(want)


@pytest.mark.parametrize(("n", "share"), [(1000, 0.3), (60, 0.9), (7, 0.5)])
def test_a_share_s_interval_is_the_binomial_one(n, share):
    hits = np.arange(n) < round(share * n)
    p = hits.mean()
    chances = [math.comb(n, m) * p**m * (1 - p) ** (n - m) for m in range(n + 1)]
    below = np.cumsum(chances)
    for end, q in zip(share_interval(hits), (0.025, 0.975), strict=True):
        # a draw's quantile is that of a chance within a percent of q
        m = round(end * n)
        assert below[m] >= q - 0.006
        assert m == 0 or below[m - 1] <= q + 0.006


def test_a_sure_thing_has_no_width_and_nothing_no_interval():
    assert share_interval(np.ones(50, bool)) == (1.0, 1.0)
    assert share_interval(np.zeros(50, bool)) == (0.0, 0.0)
    assert rounded(share_interval(np.zeros(0, bool))) == [None, None]
    assert rounded((0.12345678, 1.0)) == [0.123457, 1.0]


def test_map_intervals_are_quantiles_over_every_resample_there_is():
    scores = np.array([[0.9, 0.2], [0.4, 0.6], [0.7, 0.5], [0.1, 0.8]])
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    found = map_intervals(scores, targets, resamples=4000)
    for average in ("macro", "micro"):
        all_ = [
            mean_ap(scores[list(rows)], targets[list(rows)], average)
            for rows in itertools.product(range(4), repeat=4)
        ]
        known = np.array([value for value in all_ if not math.isnan(value)])
        for end, q in zip(found[average], (0.025, 0.975), strict=True):
            assert np.mean(known < end - 1e-9) <= q + 0.01
            assert np.mean(known <= end + 1e-9) >= q - 0.01


def test_map_intervals_hold_the_value_and_are_the_seed_s():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (300, 6))
    scores = targets + rng.normal(size=targets.shape)
    found = map_intervals(scores, targets, resamples=200)
    for average, (low, high) in found.items():
        assert low < mean_ap(scores, targets, average) < high
        assert 0.02 < high - low < 0.12
    assert map_intervals(scores, targets, resamples=200) == found
    assert map_intervals(scores, targets, resamples=200, seed=1) != found


def test_no_examples_and_no_positive_have_no_interval():
    none = map_intervals(np.zeros((0, 3)), np.zeros((0, 3)))
    unlabelled = map_intervals(np.ones((5, 3)), np.zeros((5, 3)), resamples=5)
    for found in (none, unlabelled):
        assert [rounded(ends) for ends in found.values()] == [[None, None]] * 2
