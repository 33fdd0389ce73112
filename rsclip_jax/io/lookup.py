"""Look-up by name in a table; an unknown name raises an error with the nearest ones."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")


_LIST = 30  # names: more are no help in a message


def look_up(table: Mapping[str, Row], name: str, what: str, where: str = "") -> Row:
    """The entry of that name.

    Args:
        what: the kind of thing, for the error: "sensor".
        where: where a reader finds all names; the error then lists only the nearest
            three, as it does for a long table.

    Raises ValueError with the nearest names and the list.
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
