"""The choice of a dataset's records for a contact sheet."""

import numpy as np

from rsclip_jax.data.inspect.scan import Scan
from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.types import Dataset, Source
from rsclip_jax.report.contact_sheet import Row

_MOST_ROWS = 20  # of the contact sheet


def example_rows(
    dataset: Dataset, sources: dict[str, Source], scans: dict[str, Scan], *, seed: int
) -> list[Row]:
    """The contact sheet's rows: one for each class with an example among those read.

    At most 20, sampled by seed, in label order; without labels, rows of any scenes.
    """
    read = [
        (split, index, label)
        for split, s in scans.items()
        for index, label in zip(s.indices, s.labels, strict=True)
    ]
    each = {1: 8, 2: 4}.get(len(dataset.sensors), 3)  # about as wide as a screen
    if not dataset.classes:
        some = [read[i] for i in spread_indices(len(read), 8 * each)] if read else []
        groups = [("", some[i : i + each]) for i in range(0, len(some), each)]
    else:
        groups = by_class(dataset, read, each)
    if len(groups) > _MOST_ROWS:
        rng = np.random.default_rng(seed)
        kept = rng.choice(len(groups), _MOST_ROWS, replace=False)
        groups = [groups[i] for i in sorted(kept)]
    return [
        Row(name, [sources[split][index] for split, index, _ in group])
        for name, group in groups
    ]


def by_class(dataset: Dataset, read: list[tuple], each: int) -> list[tuple[str, list]]:
    """(class name, at most `each` of its examples), spread evenly over those read.

    With several labels, over the examples with the fewest other labels. Each example is
    shown once: the classes with the fewest examples choose first, one each in turn.
    """
    shows: dict[int, list[tuple]] = {}
    for example in sorted(read, key=lambda x: np.count_nonzero(x[2])):
        label = example[2]
        for i in np.flatnonzero(label) if np.ndim(label) else (label,):
            shows.setdefault(int(i), []).append(example)
    shows.pop(-1, None)
    chosen: dict[int, list[tuple]] = {i: [] for i in sorted(shows)}
    shown: set[tuple] = set()
    waiting = {i: iter(in_turn(shows[i], each, dataset.task)) for i in chosen}
    for _ in range(each):
        for i in sorted(chosen, key=lambda i: len(shows[i])):
            for example in waiting[i]:
                if example[:2] not in shown:
                    shown.add(example[:2])
                    chosen[i].append(example)
                    break
    return [(dataset.classnames[i], some) for i, some in chosen.items() if some]


def in_turn(pool: list[tuple], each: int, task: str) -> list[tuple]:
    """A class's examples: `each`, spread evenly over the best, then all others."""
    best = spread_indices(
        min(len(pool), 4 * each) if task == "multi" else len(pool), each
    )
    return [pool[i] for i in dict.fromkeys([*best, *range(len(pool))])]
