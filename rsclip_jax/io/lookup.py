"""Lookup by name; the error for an unknown name suggests the nearest ones."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")
_LIST = 30  # a message does not list more names


def look_up(table: Mapping[str, Entry], name: str, what: str, where: str = "") -> Entry:
    """The entry of that name.

    Args:
        what: the kind of entry, for the error: "sensor".
        where: where to find all names; the error then lists only the nearest three, as
            it does for a long table.

    Raises ValueError with the nearest names and the list.
    """
    if name in table:
        return table[name]
    lower = {known.lower(): known for known in table}
    near = difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.0)
    if where or len(table) > _LIST:
        *first, last = (repr(lower[x]) for x in near)
        known = f"did you mean {', '.join(first)} or {last}? There are {len(table)}"
        known += f": {where}" if where else ""
    else:
        known = f"did you mean {lower[near[0]]!r}? Known: {', '.join(table)}"
    raise ValueError(f"unknown {what} {name!r}: {known}")
