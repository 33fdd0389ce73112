"""Notes of what reading changed, for those who report it."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Note(NamedTuple):
    """What happened to one array of a sensor as it was read.

    kind: "filled" (missing pixels, see fill_missing), "negative" (values below 0 that
    became 0), or "offset" (DN that were lowered), with the amount of pixels or values;
    "by name" or "by position": how a file's bands were found; "metres": the side of a
    pixel on the ground, where the file says it; "unplaced": a file of several of one
    record, which does not say where it lies.
    mask: of "filled", the missing values [h, w, bands].
    """

    kind: str
    sensor: str
    amount: float = 1
    mask: np.ndarray | None = None


Notes = list[Note]
_NOTES: contextvars.ContextVar[Notes | None] = contextvars.ContextVar(
    "notes", default=None
)


@contextlib.contextmanager
def noting() -> Iterator[Notes]:
    """Collects the notes that this thread makes within the context."""
    notes: Notes = []
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def note(
    kind: str, sensor: str, amount: float = 1, mask: np.ndarray | None = None
) -> None:
    """Makes a note, if anybody collects them."""
    if (notes := _NOTES.get()) is not None:
        notes.append(Note(kind, sensor, amount, mask))


def is_noting() -> bool:
    """Whether anybody collects notes in this context."""
    return _NOTES.get() is not None
