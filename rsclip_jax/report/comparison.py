"""The table of a comparison: two runs' values, their difference and its test."""

from collections.abc import Sequence

from rsclip_jax.records.comparison import Comparison
from rsclip_jax.report.names import FITTED, metric_names, split_of
from rsclip_jax.report.numbers import change_text, p_text, value_text
from rsclip_jax.report.table import align_markdown, align_rows, escape_markdown

SURE = 0.05
# fields that distinguish comparisons of one metric: the prompt set, a probe's examples
VARIANTS = ("prompt_set", "shots", *FITTED)
_ABOUT = ("dataset", "split", "task", "sensor", "metric")
_NUMBERS = ("a", "b", "b - a", "95 %", "p", "p (Holm)")


def format_comparison(
    comparisons: Sequence[Comparison], left_out: Sequence[str] = ()
) -> str:
    """The table as text, with the meaning of its columns.

    left_out: what was not compared, and why, in lines.
    """
    rows, lines = table_rows(comparisons), legend(comparisons, left_out)
    return f"{align_rows(rows, _left(comparisons))}\n\n" + "\n".join(lines)


def format_markdown(
    comparisons: Sequence[Comparison], left_out: Sequence[str] = ()
) -> str:
    """The same in Markdown."""
    rows = [[escape_markdown(cell) for cell in row] for row in table_rows(comparisons)]
    lines = [escape_markdown(line) for line in legend(comparisons, left_out)]
    return f"{align_markdown(rows, _left(comparisons))}\n\n" + "  \n".join(lines)


def _left(comparisons: Sequence[Comparison]) -> int:
    return len(_ABOUT) + several(comparisons)


def several(comparisons: Sequence[Comparison]) -> bool:
    """Whether more than one run is compared with the baseline."""
    return len({r.run_b for r in comparisons}) > 1


def table_rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """The header and a row for each comparison; with several runs b, which one."""
    header = [*(["b is"] if several(comparisons) else []), *_ABOUT, *_NUMBERS]
    rows = [header]
    for r, name in zip(comparisons, metric_names(comparisons), strict=True):
        about = [r.dataset, split_of(r), r.task, r.sensor, name]
        run = [r.run_b] if several(comparisons) else []
        rows.append([*run, *about, *in_numbers(r)])
    return rows


def in_numbers(r: Comparison) -> list[str]:
    """A comparison's values, difference, interval and p-values, as text."""
    a, b = (value_text(value, r.metric, r.task) for value in (r.a, r.b))
    change = change_text(r.difference, r.metric)
    if r.p_value is None:
        return [a, b, change, "same" if r.same else "not tested", "", ""]
    low, high = (change_text(end, r.metric) for end in r.ci95 or ())
    change += " *" if is_sure(r) else "  "
    return [a, b, change, f"{low} to {high}", p_text(r.p_value), p_text(r.p_holm)]


def is_sure(r: Comparison) -> bool:
    """Whether a difference is significant, corrected for all tests of the table."""
    return r.p_holm is not None and r.p_holm < SURE


def legend(
    comparisons: Sequence[Comparison], left_out: Sequence[str] = ()
) -> list[str]:
    """Lines that explain the columns and marks of the table."""
    tests = sum(r.p_value is not None for r in comparisons)
    others = ", ".join(dict.fromkeys(r.run_b for r in comparisons))
    lines = [
        f"a: {comparisons[0].run_a}, the baseline. b: {others}. b - a in points where"
        " the values are in percent; 95 % and p by the paired bootstrap over examples.",
        f"* p below {SURE:g} after Holm's correction for the {tests} test(s) here. It"
        " is about these two models, not their settings: another seed may do as much.",
    ]
    if any(r.same for r in comparisons):
        lines.append("same: both runs have identical embeddings.")
    if any(r.p_value is None and not r.same for r in comparisons):
        lines.append(
            "not tested: a run kept no embeddings of the dataset, or the metric has no"
            " paired test."
        )
    return [*lines, *(f"left out: {text}" for text in left_out)]
