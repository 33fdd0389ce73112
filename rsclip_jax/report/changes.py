"""Results before and after a stage, found by what they measure; and in words."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from rsclip_jax.records.comparison import Comparison
from rsclip_jax.records.results import Result
from rsclip_jax.report.table import metric_of, split_of

PRIMARY = ("accuracy", "mAP_macro")  # of zero-shot records
_SHARES = re.compile(r"accuracy|mAP|recall|mean_recall|precision|ece\b")


@dataclasses.dataclass(frozen=True)
class Change:
    """One metric of one set in one stage; the records of its values, where there are.

    full: at alpha 1, the fine-tuned model before it was mixed.
    """

    stage: str
    name: str  # of the set, "name:split" or "name:split:tile"
    sensor: str
    task: str
    metric: str
    before: Result | None = None
    after: Result | None = None
    full: Result | None = None

    @property
    def is_headline(self) -> bool:
        """Whether it is the value that a set is judged by, zero-shot."""
        return self.task == "zero_shot" and self.metric in PRIMARY


def find_changes(records: Sequence[Result], alpha: float | None) -> list[Change]:
    """A Change for each metric, in the order of the records.

    alpha: what stage patch chose; a product of an alpha a block is "after" too, and
    counts in its place.
    """
    found: dict[tuple, dict[str, Any]] = {}
    for r in records:
        key = (r.stage, set_name(r), r.sensor, r.task, metric_of(r))
        places = found.setdefault(key, {})
        for place in _places(r, alpha):
            made = places.get("after")
            if place != "after" or made is None or not made.alpha_blocks:
                places[place] = r
    return [Change(*key, **places) for key, places in found.items()]


def set_name(record: Result | Comparison) -> str:
    """A record's set as settings spell it."""
    return f"{record.dataset}:{split_of(record)}"


def _places(record: Result, chosen: float | None) -> list[str]:
    if record.stage == "evaluate":
        return ["after"]
    if record.alpha is None:
        return ["before" if record.step == 0 else "after"]
    places = {"before": 0.0, "after": chosen, "full": 1.0}
    return [name for name, place in places.items() if record.alpha == place]


def value_in_words(record: Result) -> str:
    """A record's value: a share in percent, of forgetting a change in points."""
    return _in_words(record.value, record)


def interval_in_words(record: Result) -> str:
    """ "62.9 to 68.7 %", or "" where there is none."""
    ci95 = record.ci95
    if not ci95 or None in ci95:
        return ""
    low, high = (_in_words(v, record) for v in ci95)
    return f"{low.removesuffix(' %')} to {high}"


def _in_words(value: Any, record: Result) -> str:
    if record.task == "forgetting" and isinstance(value, int | float):
        return f"{100 * value:+.1f}".replace("-", "−")
    return in_words(value, record.metric)


def in_words(value: Any, metric: str) -> str:
    """A value: in percent where the metric is a share."""
    if not isinstance(value, int | float) or value != value:
        return "–"
    if is_share(value, metric):
        return f"{100 * value:.1f} %"
    return f"{value:.4g}"


def is_share(value: float, metric: str) -> bool:
    """Whether a value is a part of one, and so reads well in percent."""
    return bool(_SHARES.match(metric)) and 0 <= value <= 1
