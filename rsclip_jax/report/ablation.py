"""The table of an ablation: a row for each setting, a column for each metric."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

from rsclip_jax.records.metric_names import find_metric
from rsclip_jax.records.results import Result
from rsclip_jax.report.names import set_name
from rsclip_jax.report.numbers import value_text
from rsclip_jax.report.table import align_markdown, escape_markdown, is_closing


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting: the swept keys with their values as text, and its results."""

    labels: Mapping[str, str]
    records: Sequence[Result]


def format_markdown(rows: Sequence[Row]) -> str:
    """Markdown in aligned columns, shares in percent.

    The best value of a column is bold if the column has several values.
    """
    columns, cells = _columns(rows), [_named(rows, row) for row in rows]
    keys = list(rows[0].labels)
    table = [[*(key.removeprefix("align.") for key in keys), *columns]]
    for row, results in zip(rows, cells, strict=True):
        line = [escape_markdown(row.labels[key]) for key in keys]
        for column in columns:
            others = [one[column] for one in cells if column in one]
            line.append(_cell(results.get(column), others))
        table.append(line)
    return align_markdown(table, left=len(keys))


def _cell(result: Result | None, others: Sequence[Result]) -> str:
    if result is None:
        return ""
    text = value_text(result.value, result.metric, result.task).removesuffix(" %")
    values = [r.value for r in others if r.value is not None]
    better = find_metric(result.metric).better
    best = {"higher": max, "lower": min}.get(better, lambda _: None)
    is_best = len(values) > 1 and result.value == best(values)
    return f"**{text}**" if is_best else text


def format_csv(rows: Sequence[Row]) -> str:
    """The same table for a spreadsheet: all digits, shares between 0 and 1."""
    columns, file = _columns(rows), io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*rows[0].labels, *columns])
    for row in rows:
        named = _named(rows, row)
        values = [named[c].value if c in named else None for c in columns]
        writer.writerow([*row.labels.values(), *values])
    return file.getvalue()


def _columns(rows: Sequence[Row]) -> list[str]:
    """All columns in the order of the results, zero-shot before retrieval."""
    found = {c: r.task for row in rows for c, r in _named(rows, row).items()}
    return sorted(found, key=lambda column: found[column] != "zero_shot")


def _named(rows: Sequence[Row], row: Row) -> dict[str, Result]:
    """{column: result} of a row; with the dataset's name if rows have several."""
    sets = {set_name(r) for one in rows for r in one.records}
    named = {}
    for r in filter(is_closing, row.records):
        name = f"{r.sensor} {r.metric.replace('recall@', 'R@')}"
        named[f"{set_name(r)} {name}" if len(sets) > 1 else name] = r
    return named
