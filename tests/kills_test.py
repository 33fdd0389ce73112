"""A short form of tests/kills.py: one stage, killed in a step, a save and its end."""

import pytest

from tests import kills


@pytest.mark.slow
def test_a_killed_job_ends_like_one_that_was_not(tmp_path):
    where = [("step", 4, 0.0), ("save", 2, 0.05), ("product", 1, 0.0)]
    hit = kills.run_kills(
        tmp_path, iter([*(kills.Kill(*one) for one in where), None]), 3,
        stages=("pretrain",), log=lambda text: None,
    )  # fmt: skip
    assert hit == {"step": 1, "save": 1, "product": 1}


def test_another_end_would_be_noticed():
    kills.compare({"a": [1], "b": 2}, {"a": [1], "b": 2})
    with pytest.raises(AssertionError, match='"b"'):
        kills.compare({"a": [1], "b": 2}, {"a": [1], "b": 3})
    with pytest.raises(AssertionError, match='"c"'):
        kills.compare({"a": [1]}, {"a": [1], "c": []})
