"""The table of an ablation: a row a setting, a column a metric, the best marked."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

from rsclip_jax.records.results import Result
from rsclip_jax.report.table import align_markdown, is_closing, split_of


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting: swept key -> its value in words; what was measured with it."""

    labels: Mapping[str, str]
    records: Sequence[Result]


def format_markdown(rows: Sequence[Row]) -> str:
    """Markdown in columns that line up as text, in percent, of the closing metrics.

    The best of each column is bold, where there is more than one value: each of them is
    the better the higher.
    """
    columns, cells = _columns(rows), [_values(rows, row) for row in rows]
    keys = list(rows[0].labels)
    table = [[*(key.removeprefix("align.") for key in keys), *columns]]
    for row, values in zip(rows, cells, strict=True):
        line = [row.labels[key] for key in keys]
        for column in columns:
            others = [v[column] for v in cells if column in v]
            value = values.get(column)
            text = "" if value is None else f"{100 * value:.1f}"
            best = len(others) > 1 and value == max(others)
            line.append(f"**{text}**" if best else text)
        table.append(line)
    return align_markdown(table, left=len(keys))


def format_csv(rows: Sequence[Row]) -> str:
    """The same table with whole numbers between 0 and 1, for a spreadsheet."""
    columns, file = _columns(rows), io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*rows[0].labels, *columns])
    for row in rows:
        values = _values(rows, row)
        writer.writerow([*row.labels.values(), *(values.get(c, "") for c in columns)])
    return file.getvalue()


def _columns(rows: Sequence[Row]) -> list[str]:
    """All columns, zero-shot before retrieval, in the order in which they come."""
    found = {c: r.task for row in rows for c, r in _named(rows, row).items()}
    return sorted(found, key=lambda column: found[column] != "zero_shot")


def _values(rows: Sequence[Row], row: Row) -> dict[str, float]:
    named = _named(rows, row)
    return {c: r.value for c, r in named.items() if r.value is not None}


def _named(rows: Sequence[Row], row: Row) -> dict[str, Result]:
    """{column: record} of a row; with the test set's name where rows have several."""
    sets = {_set_of(r) for one in rows for r in one.records}
    named = {}
    for r in filter(is_closing, row.records):
        name = f"{r.sensor} {r.metric.replace('recall@', 'R@')}"
        named[f"{_set_of(r)} {name}" if len(sets) > 1 else name] = r
    return named


def _set_of(record: Result) -> str:
    return f"{record.dataset}:{split_of(record)}"
