"""Rows of tables by name; a name that is none of them is answered with the nearest."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")


_LIST = 30  # names: more are no help in a message


def look_up(table: Mapping[str, Row], name: str, what: str, where: str = "") -> Row:
    """The row of that name; ValueError with the nearest and the list otherwise.

    what: the kind of thing in words, such as "sensor". where: where all names are read;
    a long list is not given, but its three nearest.
    """
    if name in table:
        return table[name]
    lower = {row.lower(): row for row in table}
    near = difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.0)
    if where or len(table) > _LIST:
        *first, last = (repr(lower[x]) for x in near)
        known = f"did you mean {', '.join(first)} or {last}? There are {len(table)}"
        known += f": {where}" if where else ""
    else:
        known = f"did you mean {lower[near[0]]!r}? Known: {', '.join(table)}"
    raise ValueError(f"unknown {what} {name!r}: {known}")
