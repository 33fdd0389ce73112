"""Marks for cases of parametrised tests."""

import pytest


def slow(*values):
    """One case that only `pytest -m slow` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)
