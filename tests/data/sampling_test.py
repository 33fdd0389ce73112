"""Evenly spread indices, counted by hand and in general."""

import numpy as np
import pytest

from rsclip_jax.data.sampling import spread_indices


@pytest.mark.parametrize(
    ("count", "samples", "want"),
    [
        (10, 4, [0, 3, 6, 9]),
        (11, 3, [0, 5, 10]),
        (1000, 1, [0]),
        (5, 5, [0, 1, 2, 3, 4]),
        (3, 9, [0, 1, 2]),
        (3, 0, [0, 1, 2]),
        (0, 4, []),
        (0, 0, []),
    ],
)
def test_indices_by_hand(count, samples, want):
    assert spread_indices(count, samples) == want


@pytest.mark.parametrize("count", [7, 64, 999])
def test_gaps_differ_by_at_most_one_and_both_ends_are_included(count):
    for samples in range(2, min(count, 60)):
        found = spread_indices(count, samples)
        assert len(found) == samples
        assert (found[0], found[-1]) == (0, count - 1)
        gaps = np.diff(found)
        assert gaps.min() >= 1
        assert np.ptp(gaps) <= 1
