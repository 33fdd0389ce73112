"""The texts of records: captions, and the text drawn for each training example."""

import contextlib
import dataclasses
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from rsclip_jax.data.bad_records import suggest_skip
from rsclip_jax.data.types import Record, Source

# Token ids: [k, templates, n] of a labelled source's classes; {caption: [n]} of a
# captioned source.
Tokens = np.ndarray | Mapping[str, np.ndarray]
Groups = Mapping[str, int] | Sequence[int]  # {caption: group}, or a group per class


@dataclasses.dataclass(frozen=True)
class Texts:
    """A source's texts and their groups, see number_groups."""

    tokens: Tokens
    groups: Groups

    def draw(self, record: Record, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """(token ids, group) of one of the record's texts."""
        if isinstance(self.tokens, np.ndarray):
            texts = self.tokens[record["label"]]
            return texts[rng.integers(len(texts))], self.groups[record["label"]]
        text = record["captions"][rng.integers(len(record["captions"]))]
        return self.tokens[text], self.groups[text]


def number_groups(sources: Sequence[Source], tokens: Sequence[Tokens]) -> list[Groups]:
    """Groups of each source's texts, which are each other's positives.

    Equal captions share a group, also across sources, and so do classes with equal
    names and templates: in different groups they would be each other's negatives.
    """
    numbers: dict[Hashable, int] = {}

    def number(text: Hashable) -> int:
        return numbers.setdefault(text, len(numbers))

    groups: list[Groups] = []
    for source, table in zip(sources, tokens, strict=True):
        dataset = source.dataset
        if isinstance(table, Mapping):
            groups.append({text: number(text) for text in table})
        else:
            names = dataset.classnames
            groups.append([number((name, dataset.templates)) for name in names])
    return groups


def read_captions(source: Source, on_error: str = "raise") -> list[tuple[str, ...]]:
    """Reads all captions; on_error "skip" leaves out unreadable records."""
    captions = []
    for i in range(len(source)):
        skip = on_error == "skip"
        with contextlib.suppress(ValueError, OSError) if skip else suggest_skip():
            captions.append(source.read(i, ())["captions"])
    return captions
