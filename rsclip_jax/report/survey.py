"""The table of a survey: a row a model and set, what others published beside it."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence

from rsclip_jax.records.results import Result
from rsclip_jax.report.table import align_markdown, split_of

HEADER = ("model", "dataset", "prompts", "metric", "n", "measured", "95 %", "published")
SHOWN = ("accuracy", "mAP_macro")


@dataclasses.dataclass(frozen=True)
class Row:
    """A model's number, and what others published: (percent, source) each."""

    model: str
    result: Result
    published: Sequence[tuple[float, str]]


def survey_rows(
    found: Mapping[str, Sequence[Result]], published: Iterable[Sequence]
) -> list[Row]:
    """A row for each zero-shot number that is one to quote, by dataset.

    found: {model: its records}. published, of RGB: (model, dataset, metric, percent,
    source); several sources of one number stand beside each other.
    """
    rows = []
    for model, records in found.items():
        for r in records:
            if r.task != "zero_shot" or r.metric not in SHOWN:
                continue
            others = [
                (value, source)
                for name, dataset, metric, value, source in published
                if (name, dataset, metric) == (model, r.dataset, r.metric)
                and r.sensor == "rgb"
            ]
            rows.append(Row(model, r, others))
    order = list(dict.fromkeys(map(_set_of, rows)))
    return sorted(rows, key=lambda row: order.index(_set_of(row)))


def _set_of(row: Row) -> str:
    return f"{row.result.dataset}:{split_of(row.result)}"


def format_survey(rows: Sequence[Row]) -> str:
    """Markdown that lines up as text, in percent."""
    lines = [list(HEADER)]
    for row in rows:
        r = row.result
        lines.append(
            [
                row.model,
                _set_of(row) + ("" if r.sensor == "rgb" else f" {r.sensor}"),
                r.prompt_set or "dataset",
                r.metric,
                f"{r.n:,}",
                *_percents(r),
                ", ".join(f"{v:g} ({source})" for v, source in row.published),
            ]
        )
    return align_markdown(lines, left=4)


def _percents(record: Result) -> list[str]:
    """The value and its interval; "-" where a set has no example of any class."""
    value = record.value
    ends = [100 * end for end in record.ci95 or () if end is not None]
    return [
        "-" if value is None else f"{100 * value:.1f}",
        "{:.1f} to {:.1f}".format(*ends) if len(ends) == 2 else "-",
    ]


def format_csv(rows: Sequence[Row]) -> str:
    """The same table for a spreadsheet: numbers between 0 and 1, a source a row."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    keys = ("dataset", "split", "sensor", "prompt_set", "metric", "n", "value")
    writer.writerow(["model", *keys, "low", "high", "published", "source"])
    for row in rows:
        mine = [row.model, *(getattr(row.result, key) for key in keys)]
        ends = row.result.ci95 or (None, None)
        others = [[round(value / 100, 6), source] for value, source in row.published]
        for other in others or [["", ""]]:
            writer.writerow([*mine, *ends, *other])
    return file.getvalue()
