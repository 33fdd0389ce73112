"""The table of a survey: each model on each dataset, beside published values."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence

from rsclip_jax.records.metric_names import is_primary
from rsclip_jax.records.results import Result
from rsclip_jax.report.names import set_name
from rsclip_jax.report.numbers import NONE, interval_text, value_text
from rsclip_jax.report.table import align_markdown, escape_markdown

HEADER = ("model", "dataset", "prompts", "metric", "n", "measured", "95 %", "published")


@dataclasses.dataclass(frozen=True)
class Row:
    """A model's number, and what others published: (percent, source) each."""

    model: str
    result: Result
    published: Sequence[tuple[float | None, str]]


def survey_rows(
    found: Mapping[str, Sequence[Result]], published: Iterable[Sequence]
) -> list[Row]:
    """A row for each zero-shot result in a dataset's primary metric, by dataset.

    found: {model: its results}. published: (model, dataset, metric, percent, source)
    from RGB; there may be several sources of one number.
    """
    rows = []
    for model, results in found.items():
        for r in results:
            if not is_primary(r.task, r.metric):
                continue
            others = [
                (value, source)
                for name, dataset, metric, value, source in published
                if (name, dataset, metric) == (model, r.dataset, r.metric)
                and r.sensor == "rgb"
            ]
            rows.append(Row(model, r, others))
    order = list(dict.fromkeys(set_name(row.result) for row in rows))
    return sorted(rows, key=lambda row: order.index(set_name(row.result)))


def format_survey(rows: Sequence[Row]) -> str:
    """Markdown in aligned columns."""
    lines = [list(HEADER)]
    for row in rows:
        r = row.result
        lines.append(
            [
                escape_markdown(row.model),
                set_name(r) + ("" if r.sensor == "rgb" else f" {r.sensor}"),
                r.prompt_set or "dataset",
                r.metric,
                f"{r.n:,}",
                value_text(r.value, r.metric),
                interval_text(r.ci95, r.metric) or NONE,
                ", ".join(f"{v:g} ({source})" for v, source in row.published),
            ]
        )
    return align_markdown(lines, left=4)


def format_csv(rows: Sequence[Row]) -> str:
    """The same table for a spreadsheet: values between 0 and 1, one source a row."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    keys = ("dataset", "split", "sensor", "prompt_set", "metric", "n", "value")
    writer.writerow(["model", *keys, "low", "high", "published", "source"])
    for row in rows:
        mine = [row.model, *(getattr(row.result, key) for key in keys)]
        ends = row.result.ci95 or (None, None)
        for value, source in [*row.published] or [(None, "")]:
            other = "" if value is None else round(value / 100, 6)
            writer.writerow([*mine, *ends, other, source])
    return file.getvalue()
