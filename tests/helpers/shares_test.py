"""The bounds tell near ties from misses."""

import numpy as np
import pytest

from tests.helpers.shares import SLACK, assert_share, share_bounds


def test_only_near_ties_are_left_open():
    scores = np.array([[1, 0.5, 0], [0.5, 0.5 + SLACK / 2, 0], [0, 0.5, 1]])
    assert share_bounds(scores, [0, 0, 0]) == (1 / 3, 2 / 3)
    assert share_bounds(scores, [0, 0, 0], k=2) == (2 / 3, 2 / 3)
    both = np.array([[True, True, False]] * 3)
    assert share_bounds(scores, both) == (2 / 3, 2 / 3)
    assert_share(0.333333, scores, [0, 0, 0])
    with pytest.raises(AssertionError):
        assert_share(0.0, scores, [0, 0, 0])
