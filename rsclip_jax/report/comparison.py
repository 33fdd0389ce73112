"""The table of a comparison: two runs' values, their difference, how sure it is."""

from collections.abc import Sequence

from rsclip_jax.records.comparison import Comparison
from rsclip_jax.report.changes import is_share
from rsclip_jax.report.table import (
    FITTED,
    align_markdown,
    align_rows,
    metric_names,
    split_of,
)

SURE = 0.05
# what tells records of one metric apart: the prompt set, a probe's examples
VARIANTS = ("prompt_set", "shots", *FITTED)
_ABOUT = ("dataset", "split", "task", "sensor", "metric")
_NUMBERS = ("a", "b", "b - a", "95 %", "p", "p (Holm)")


def format_comparison(
    records: Sequence[Comparison], left_out: Sequence[str] = ()
) -> str:
    """The table as text, with what its columns mean. records: as of stage compare.

    left_out: what was not compared, and why, in lines.
    """
    rows, said = table_rows(records), legend(records, left_out)
    return f"{align_rows(rows, _left(records))}\n\n" + "\n".join(said)


def format_markdown(records: Sequence[Comparison], left_out: Sequence[str] = ()) -> str:
    """The same in Markdown."""
    rows = [[cell.replace("*", r"\*") for cell in row] for row in table_rows(records)]
    said = [line.replace("*", r"\*") for line in legend(records, left_out)]
    return f"{align_markdown(rows, _left(records))}\n\n" + "  \n".join(said)


def _left(records: Sequence[Comparison]) -> int:
    return len(_ABOUT) + several(records)


def several(records: Sequence[Comparison]) -> bool:
    """Whether more than one run is compared with the baseline."""
    return len({r.run_b for r in records}) > 1


def table_rows(records: Sequence[Comparison]) -> list[list[str]]:
    """The header, and a row a record; which run b is, where there are several."""
    header = [*(["b is"] if several(records) else []), *_ABOUT, *_NUMBERS]
    rows = [header]
    for r, name in zip(records, metric_names(records), strict=True):
        about = [r.dataset, split_of(r), r.task, r.sensor, name]
        run = [r.run_b] if several(records) else []
        rows.append([*run, *about, *in_numbers(r)])
    return rows


def in_numbers(record: Comparison) -> list[str]:
    """A record's values, difference, interval and p-values in words."""
    a, b = (value_in_words(record, getattr(record, key)) for key in ("a", "b"))
    change = change_in_words(record, record.difference)
    if record.p_value is None:
        return [a, b, change, "same" if record.same else "not tested", "", ""]
    low, high = (change_in_words(record, end) for end in record.ci95 or ())
    change += " *" if is_sure(record) else "  "
    ps = [p_in_words(getattr(record, key)) for key in ("p_value", "p_holm")]
    return [a, b, change, f"[{low}, {high}]", *ps]


def is_sure(record: Comparison) -> bool:
    """Whether a difference is significant, all the tests of the table considered."""
    return record.p_holm is not None and record.p_holm < SURE


def legend(records: Sequence[Comparison], left_out: Sequence[str] = ()) -> list[str]:
    """What the table says, in lines."""
    tests = sum(r.p_value is not None for r in records)
    others = ", ".join(dict.fromkeys(r.run_b for r in records))
    lines = [
        f"a: {records[0].run_a}, the baseline. b: {others}. b - a in points where"
        " the values are in percent; 95 % and p by the paired bootstrap over examples.",
        f"* p below {SURE:g} after Holm's correction for the {tests} test(s) here. It"
        " tells these models apart, not their settings: another seed may do as much.",
    ]
    if any(r.same for r in records):
        lines.append("same: both runs have the same embeddings there.")
    if any(r.p_value is None and not r.same for r in records):
        lines.append(
            "not tested: no embeddings of it were kept in both runs, or there is no"
            " paired test for the metric."
        )
    return [*lines, *(f"left out: {text}" for text in left_out)]


def value_in_words(record: Comparison, value: float | None) -> str:
    """A value: in percent where it is a share."""
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if in_points(record) else f"{value:.4g}"


def change_in_words(record: Comparison, value: float | None) -> str:
    """A difference with its sign: in points, of what is not a share as it is."""
    if value is None:
        return "-"
    return f"{100 * value:+.1f}" if in_points(record) else f"{value:+.3g}"


def p_in_words(p: float | None) -> str:
    """A p-value in few digits."""
    if p is None:
        return ""
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def in_points(record: Comparison) -> bool:
    """Whether the values are shares, or differences of shares as forgetting's are."""
    values = [
        getattr(record, key) for key in ("a", "b") if getattr(record, key) is not None
    ]
    return all(is_share(abs(value), record.metric) for value in values)
