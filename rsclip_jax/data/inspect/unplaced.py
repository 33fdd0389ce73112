"""Counts pairs whose files do not say where they lie, so that no one checks it."""

from rsclip_jax.data.codecs.notes import noting
from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sources.files import FileSource
from rsclip_jax.data.types import Source

_RECORDS = 8


def describe_unplaced(source: Source) -> str:
    """How many pairs of a source are not checked for their place, by a few records.

    "" where all are, or where nobody asks for it.
    """
    if not isinstance(source, FileSource) or not len(source):
        return ""
    read = unplaced = 0
    for index in spread_indices(len(source), _RECORDS):
        with noting() as notes:
            try:
                source.read(index, source.entries[index].files)
            except (ValueError, OSError):
                continue  # whoever reads it reports it
        read += 1
        unplaced += any(x.kind == "unplaced" for x in notes)
    if not unplaced:
        return ""
    number = len(source) * unplaced // read
    some = f"{number:,}" if unplaced == read else f"about {number:,}"
    return (
        f"{source.spec}: {some} of {len(source):,} pairs are not checked for their"
        " place: their files do not say where they lie"
    )
