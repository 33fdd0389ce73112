"""Rows by name."""

import pytest

from rsclip_jax.lookup import look_up

TABLE = {"mini": 1, "small": 2}


def test_a_name_gives_its_row():
    assert look_up(TABLE, "small", "variant") == 2


@pytest.mark.parametrize(("name", "near"), [("smal", "small"), ("MINI", "mini")])
def test_another_is_answered_with_the_nearest_and_all(name, near):
    words = f"unknown variant '{name}': did you mean '{near}'\\? Known: mini, small"
    with pytest.raises(ValueError, match=words):
        look_up(TABLE, name, "variant")
