"""Results before and after a stage, found by what they measure."""

import dataclasses
from collections.abc import Sequence

from rsclip_jax.records.metric_names import is_primary
from rsclip_jax.records.results import Result
from rsclip_jax.report.names import columns_of, metric_of, set_name
from rsclip_jax.report.numbers import interval_text, value_text


@dataclasses.dataclass(frozen=True)
class Change:
    """One metric of one dataset in one stage, with its results where there are any.

    full: at alpha 1, the fine-tuned model without interpolation.
    """

    stage: str
    name: str  # of the dataset, "name:split" or "name:split:tile"
    sensor: str
    task: str
    metric: str
    before: Result | None = None
    after: Result | None = None
    full: Result | None = None

    @property
    def is_headline(self) -> bool:
        """Whether it is the zero-shot value that the dataset is judged by."""
        return is_primary(self.task, self.metric)


def find_changes(results: Sequence[Result], alpha: float | None) -> list[Change]:
    """A Change for each metric, in the order of the results.

    alpha: what stage patch chose; a product with an alpha for each block replaces it.
    """
    found: dict[tuple, dict[str, Result]] = {}
    for r in results:
        key = (r.stage, set_name(r), r.sensor, r.task, metric_of(r))
        columns = found.setdefault(key, {})
        for column in columns_of(r, alpha):
            after = columns.get("after")
            if column != "after" or after is None or not after.alpha_blocks:
                columns[column.replace("alpha 1", "full")] = r
    return [
        Change(stage, name, sensor, task, metric, **columns)
        for (stage, name, sensor, task, metric), columns in found.items()
    ]


def text_of(result: Result) -> str:
    """A result's value, such as "65.8 %"."""
    return value_text(result.value, result.metric, result.task)


def interval_of(result: Result) -> str:
    """Its interval, such as "62.9 to 68.7 %"; "" where there is none."""
    return interval_text(result.ci95, result.metric, result.task)
