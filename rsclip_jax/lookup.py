"""Rows of tables by name; a name that is none of them is answered with the nearest."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")


def look_up(table: Mapping[str, Row], name: str, what: str) -> Row:
    """The row of that name; ValueError with the nearest and the list otherwise.

    what: the kind of thing in words, such as "sensor".
    """
    if name not in table:
        lower = {row.lower(): row for row in table}
        near = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown {what} {name!r}: did you mean {lower[near]!r}? Known:"
            f" {', '.join(table)}"
        )
    return table[name]
