"""Values of a metric along alpha on bootstrap samples of a dataset's examples. Pure."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rsclip_jax.stats.counts import draw_counts

Sample = Any  # draw_counts of a dataset, or a tuple of several datasets' samples
Values = dict[float, float]  # alpha -> the metric's value
_BLOCK = 24  # the samples that are measured together


@dataclasses.dataclass(frozen=True)
class Draw:
    """Draws bootstrap samples and measures them, all alphas on the same ones.

    pick: generator -> a sample. measure: samples -> the values on each of them; many at
    a time take less time each.
    """

    pick: Callable[[np.random.Generator], Sample]
    measure: Callable[[Sequence[Sample]], list[Values]]

    def __call__(self, rng: np.random.Generator) -> Values:
        """The values on one sample."""
        return self.measure([self.pick(rng)])[0]


def draw_together(
    draws: Sequence[Draw], times: int, rng: np.random.Generator
) -> Iterator[tuple[Values, ...]]:
    """Yields each draw's values, `times` times, as [draw(rng) for draw in draws]."""
    for start in range(0, times, _BLOCK):
        count = min(_BLOCK, times - start)
        picked = [[draw.pick(rng) for draw in draws] for _ in range(count)]
        each = zip(draws, zip(*picked, strict=True), strict=True)
        yield from zip(*(draw.measure(of_draw) for draw, of_draw in each), strict=True)


def draw_many(draw: Draw, times: int, rng: np.random.Generator) -> list[Values]:
    """The values of `times` samples, those of calling the draw as often."""
    return [values for (values,) in draw_together([draw], times, rng)]


def bootstrap_mean(scores: Mapping[float, np.ndarray]) -> Draw:
    """A Draw of the mean over examples: scores {alpha: [n]}."""
    table = np.stack([np.asarray(s, float) for s in scores.values()], axis=1)
    n = len(table)

    def measure(samples: Sequence[np.ndarray]) -> list[Values]:
        means = [counts.astype(float) @ table / n for counts in samples]
        return [dict(zip(scores, row.tolist(), strict=True)) for row in means]

    return Draw(lambda rng: draw_counts(rng, n), measure)


def bootstrap_map(scores: Mapping[float, np.ndarray], targets: np.ndarray) -> Draw:
    """A Draw of the macro mAP: scores {alpha: [n, k]}, targets [n, k].

    Equal to metrics.mean_ap of the examples drawn; each class is sorted only once.
    """
    return _draw_map({a: rank(s, targets) for a, s in scores.items()}, len(targets))


def bootstrap_pooled(scores: Mapping[float, np.ndarray], targets: np.ndarray) -> Draw:
    """A Draw of the micro mAP; as bootstrap_map."""
    ranked = {a: rank_pooled(s, targets) for a, s in scores.items()}
    return _draw_map(ranked, len(targets))


def _draw_map(ranked: Mapping[float, "Ranked"], n: int) -> Draw:
    def measure(samples: Sequence[np.ndarray]) -> list[Values]:
        each = [one.mean_aps(samples) for one in ranked.values()]
        return [dict(zip(ranked, row, strict=True)) for row in zip(*each, strict=True)]

    return Draw(lambda rng: draw_counts(rng, n), measure)


@dataclasses.dataclass(frozen=True)
class Ranked:
    """Classes whose scores are sorted, for their mean average precision.

    largest: the largest sum of counts over a class's scores, divided by that over
    examples.
    """

    classes: Sequence["_Class"]
    largest: int = 1

    def mean_aps(self, samples: Sequence[np.ndarray]) -> list[float]:
        """The mAP of each sample; nan for one without a positive.

        A sample has the number of times that each example is drawn.
        """
        found: list[float] = []
        for lanes in _pack(samples, self.largest):
            each = [one.average_precisions(lanes) for one in self.classes]
            for of_sample in np.reshape(each, (-1, lanes.count)).T:
                known = of_sample[~np.isnan(of_sample)]
                found.append(float(known.mean()) if len(known) else np.nan)
        return found


@dataclasses.dataclass(frozen=True)
class _Lanes:
    """Counts of several samples side by side in the bits of one integer an example.

    Sums of the integers are the samples' sums, side by side: no lane overflows, because
    it has the bits of the largest sum.
    """

    packed: np.ndarray  # int64 [n]
    bits: int
    count: int

    def of(self, sums: np.ndarray) -> Iterator[np.ndarray]:
        """The sums of each sample."""
        for i in range(self.count):
            yield (sums >> (self.bits * i)) & ((1 << self.bits) - 1)


def _pack(samples: Sequence[np.ndarray], largest: int) -> Iterator[_Lanes]:
    """Yields as many samples at a time as fit in 63 bits, in order."""
    total = max((int(counts.sum()) for counts in samples), default=0)
    bits = max(total * largest, 1).bit_length()
    room = 63 // bits
    for start in range(0, len(samples), room):
        part = samples[start : start + room]
        packed = np.zeros(len(part[0]), np.int64)
        for i, counts in enumerate(part):
            packed |= counts.astype(np.int64) << (bits * i)
        yield _Lanes(packed, bits, len(part))


@dataclasses.dataclass(frozen=True)
class _Class:
    """One class's scores, best first, down to its p positives' last equal score."""

    examples: np.ndarray  # [m]: the example of each score
    ends: np.ndarray  # [p]: each positive's index in examples, or its last equal one's
    owners: np.ndarray  # [p]: each positive's example
    last: np.ndarray | None  # [p]: the last positive of an equal score; None: no ties

    def average_precisions(self, lanes: _Lanes) -> list[float]:
        """Each sample's average precision; nan without a positive."""
        # "clip" spares a pass that looks for indices out of bounds
        seen = np.cumsum(lanes.packed.take(self.examples, mode="clip"))[self.ends]
        times = lanes.packed.take(self.owners, mode="clip")
        hits = np.cumsum(times)
        totals = [int(total) for total in lanes.of(hits[-1])]
        hits = hits if self.last is None else hits[self.last]
        parts = zip(totals, *map(lanes.of, (times, hits, seen)), strict=True)
        return [
            float((t * h / np.maximum(s, 1)).sum() / total) if total else np.nan
            for total, t, h, s in parts
        ]


def rank(scores: np.ndarray, targets: np.ndarray) -> Ranked:
    """Ranks scores [n, k] by targets [n, k]; nan is last."""
    columns = zip(np.asarray(scores).T, np.asarray(targets).T, strict=True)
    ranked = [_rank_class(s, t.astype(bool)) for s, t in columns]
    return Ranked([one for one in ranked if one is not None])


def rank_pooled(scores: np.ndarray, targets: np.ndarray) -> Ranked:
    """As rank, with all classes' scores in one."""
    scores, positive = np.asarray(scores), np.asarray(targets).astype(bool)
    k = scores.shape[1]
    one = _rank_class(scores.reshape(-1), positive.reshape(-1), k)
    return Ranked([] if one is None else [one], k)


def _rank_class(
    scores: np.ndarray, positive: np.ndarray, each: int = 1
) -> _Class | None:
    """Ranks scores [m], where score i is of example i // each; None: no positive."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-scores, kind="stable")
    ranked, at = scores[order], np.flatnonzero(positive[order])
    if not len(at):
        return None
    runs = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # their ends
    ends = runs[np.searchsorted(runs, at)]
    last = np.searchsorted(ends, ends, side="right") - 1
    examples = (order // each).astype(np.int32)
    examples = examples[: ends[-1] + 1].copy()  # frees the rest
    tied = bool(np.any(last != np.arange(len(last))))
    return _Class(examples, ends, order[at] // each, last if tied else None)
