"""Bootstrap draws against the metrics of the examples drawn, alone and together."""

import numpy as np
import pytest

from rsclip_jax.metrics import mean_ap
from rsclip_jax.stats import draws
from rsclip_jax.stats.counts import draw_counts
from rsclip_jax.stats.draws import (
    bootstrap_map,
    bootstrap_mean,
    bootstrap_pooled,
    draw_many,
    draw_together,
)

KINDS = {"macro": bootstrap_map, "micro": bootstrap_pooled}


def test_a_bootstrap_sample_is_the_same_for_all_alphas():
    scores = np.random.default_rng(0).integers(0, 2, 50)
    draw = bootstrap_mean({0.0: scores, 0.5: 1 - scores, 1.0: scores})
    for seed in range(5):
        values = draw(np.random.default_rng(seed))
        assert values[0.0] == values[1.0] == pytest.approx(1 - values[0.5])
        picked = np.random.default_rng(seed).integers(50, size=50)
        assert values[0.0] == pytest.approx(scores[picked].mean())


def test_a_bootstrapped_map_equals_the_map_of_the_drawn_examples():
    rng = np.random.default_rng(0)
    scores = {a: np.round(rng.random((40, 3)), 1) for a in (0.0, 1.0)}  # with ties
    targets = rng.integers(0, 2, (40, 3))
    targets[:, 2] = 0
    targets[0, 2] = 1  # in many bootstrap samples no positive is left
    draw = bootstrap_map(scores, targets)
    for seed in range(8):
        rows = np.random.default_rng(seed).integers(40, size=40)
        values = draw(np.random.default_rng(seed))
        for alpha, s in scores.items():
            want = mean_ap(s[rows], targets[rows], "macro")
            assert values[alpha] == pytest.approx(want)


def make_scores(n, k, alphas=2, digits=1):
    """Scores with ties and a nan, of classes one of which has a single positive."""
    rng = np.random.default_rng(n)
    scores = {float(a): np.round(rng.random((n, k)), digits) for a in range(alphas)}
    scores[0.0][n // 2, 0] = np.nan
    targets = rng.integers(0, 2, (n, k))
    targets[:, -1] = 0
    targets[0, -1] = 1
    return scores, targets


@pytest.mark.parametrize("average", KINDS)
@pytest.mark.parametrize("n", [1, 7, 40])
def test_samples_measured_together_have_the_values_of_each_alone(average, n):
    scores, targets = make_scores(n, 3)
    found = draw_many(KINDS[average](scores, targets), 60, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    for values in found:
        rows = rng.integers(n, size=n)
        for alpha, s in scores.items():
            want = mean_ap(s[rows], targets[rows], average)
            assert values[alpha] == pytest.approx(want, rel=1e-12, nan_ok=True)


def test_no_lane_overflows_into_the_next():
    """An example drawn each time, whose counts fill their lanes."""
    scores, targets = make_scores(64, 3)
    samples = [np.zeros(64, int) for _ in range(9)]
    for i, counts in enumerate(samples):
        counts[i] = 64
    for average, rank in (("macro", draws.rank), ("micro", draws.rank_pooled)):
        found = rank(scores[1.0], targets).mean_aps(samples)
        for i, value in enumerate(found):
            rows = np.full(64, i)
            want = mean_ap(scores[1.0][rows], targets[rows], average)
            assert value == pytest.approx(want, rel=1e-12, nan_ok=True)


def test_a_lookup_serves_several_samples(monkeypatch):
    """120,000 examples need 17 of 63 bits."""
    looked, cumsum = [], np.cumsum
    scores = {0.0: np.arange(120_000.0)[:, None]}
    targets = np.arange(120_000)[:, None] % 2
    draw = bootstrap_map(scores, targets)

    def counted(array, *args, **kwargs):
        looked.append(len(array))
        return cumsum(array, *args, **kwargs)

    monkeypatch.setattr(draws.np, "cumsum", counted)
    assert len(draw_many(draw, 6, np.random.default_rng(0))) == 6
    assert len(looked) == 2 * 2  # of examples and of positives


def test_several_draws_take_turns_at_the_generator():
    first = bootstrap_mean({0.0: np.arange(9.0), 1.0: np.ones(9)})
    scores, targets = make_scores(20, 2)
    pair = [first, bootstrap_map(scores, targets)]
    together = list(draw_together(pair, 50, np.random.default_rng(1)))
    rng = np.random.default_rng(1)
    assert len(together) == 50
    for one, other in together:
        picked, rows = draw_counts(rng, 9), rng.integers(20, size=20)
        assert one[0.0] == pytest.approx(picked @ np.arange(9) / 9)
        want = mean_ap(scores[1.0][rows], targets[rows], "macro")
        assert other[1.0] == pytest.approx(want, nan_ok=True)
