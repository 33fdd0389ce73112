"""Lookup by name; the error for an unknown name suggests the nearest ones."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from rsclip_jax.io.texts import shown

Entry = TypeVar("Entry")
_LIST, _LETTERS = 30, 600  # a message does not list more names, or longer ones


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
    near = difflib.get_close_matches(str(name)[:200].lower(), lower, n=3, cutoff=0.0)
    if where or len(table) > _LIST or sum(map(len, table)) > _LETTERS:
        *first, last = (shown(lower[x]) for x in near)
        guess = f"{', '.join(first)} or {last}" if first else last
        known = f"did you mean {guess}? There are {len(table)}"
        known += f": {where}" if where else ""
    else:
        known = f"did you mean {lower[near[0]]!r}? Known: {', '.join(table)}"
    raise ValueError(f"unknown {what} {shown(name)}: {known}")
