"""Rows by name."""

import pytest

from rsclip_jax.io.lookup import look_up

TABLE = {"mini": 1, "small": 2}


def test_a_name_gives_its_row():
    assert look_up(TABLE, "small", "variant") == 2


@pytest.mark.parametrize(("name", "near"), [("smal", "small"), ("MINI", "mini")])
def test_another_is_answered_with_the_nearest_and_all(name, near):
    words = f"unknown variant '{name}': did you mean '{near}'\\? Known: mini, small"
    with pytest.raises(ValueError, match=words):
        look_up(TABLE, name, "variant")


@pytest.mark.parametrize(
    ("count", "where", "end"),
    [(40, "", "There are 40"), (9, "see README", "There are 9: see README")],
)
def test_of_many_names_three_are_given_and_where_the_others_are(count, where, end):
    table = {f"row_{i}": i for i in range(count)}
    with pytest.raises(ValueError, match="unknown band") as error:
        look_up(table, "ROW7", "band", where)
    words = str(error.value)
    assert words.startswith("unknown band 'ROW7': did you mean 'row_7', 'row_")
    assert words.count("row_") == 3
    assert words.endswith(f"? {end}")
