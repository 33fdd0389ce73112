"""A PATH of stand-ins for each test of a launch script."""

import pytest

from tests.helpers.stubs import Stubs


@pytest.fixture
def stubs(tmp_path):
    return Stubs(tmp_path)
