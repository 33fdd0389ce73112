"""The closing table: what a person reads when a run ends."""

import re
from collections.abc import Sequence

from rsclip_jax.interpolate import sort_blocks
from rsclip_jax.records.meta import AlphaChoice, StageMeta
from rsclip_jax.records.metric_names import is_first
from rsclip_jax.records.results import Result
from rsclip_jax.report.names import (
    columns_of,
    metric_names,
    metric_of,
    set_name,
    split_of,
)
from rsclip_jax.report.numbers import value_text

_HEADER = ("stage", "dataset", "split", "task", "sensor", "metric")


def format_table(results: Sequence[Result], alpha: float | None = None) -> str:
    """Aligned columns: values at step 0 under "before", trained ones under "after".

    alpha: what stage patch chose. Its values are under "after"; those at alpha 1, if
    measured, have a column of their own.
    """
    rows: dict[tuple, dict[str, str]] = {}
    for r, name in zip(results, metric_names(results), strict=True):
        key = (r.stage, r.dataset, split_of(r), r.task, r.sensor, name)
        row = rows.setdefault(key, {})
        for column in columns_of(r, alpha):
            row[column] = value_text(r.value, r.metric, r.task)
    used = {column for row in rows.values() for column in row}
    columns = [c for c in ("before", "after", "alpha 1") if c in used or c == "after"]
    lines = [[*key, *(row.get(c, "") for c in columns)] for key, row in rows.items()]
    return align_rows([[*_HEADER, *columns], *lines], left=len(_HEADER))


def closing_records(results: Sequence[Result], tests: Sequence[str]) -> list[Result]:
    """The results for the closing table.

    Not those of stage patch on other datasets than tests ("name:split"), which were
    swept to choose alpha; nor those of stages ablate and survey, which have tables of
    their own; nor minor metrics; nor those with the values of an earlier stage.
    """
    shown = [
        r
        for r in results
        if r.stage not in ("ablate", "survey")
        and is_closing(r)
        and (r.stage != "patch" or set_name(r) in tests)
    ]
    return _without_repeated(shown)


def _without_repeated(results: Sequence[Result]) -> list[Result]:
    """Without a stage's rows whose values are all in earlier stages' rows."""
    stages = list(dict.fromkeys(r.stage for r in results))
    found: dict[tuple, dict[str, set[float | None]]] = {}  # row -> stage -> values
    for r in results:
        found.setdefault(_row_of(r), {}).setdefault(r.stage, set()).add(r.value)

    def is_new(r: Result) -> bool:
        before = stages[: stages.index(r.stage)]
        earlier = [found[_row_of(r)].get(stage, set()) for stage in before]
        return not found[_row_of(r)][r.stage] <= set().union(*earlier)

    return [r for r in results if is_new(r)]


def _row_of(r: Result) -> tuple:
    return (set_name(r), r.task, r.sensor, metric_of(r), r.train, r.val)


def is_closing(result: Result) -> bool:
    """Whether the closing table shows this metric."""
    return is_first(result.task, result.metric) and result.shots is None


def describe_alpha(meta: StageMeta) -> str:
    """The interpolation that stage patch made, in words."""
    if meta.rounds is not None:
        each = [f"{one.train} at {_describe_one(one)}" for one in meta.rounds]
        return ", then ".join(each)
    return _describe_one(meta)


def _describe_one(choice: AlphaChoice) -> str:
    if blocks := choice.alpha_blocks:
        each = ", ".join(f"{name} {blocks[name]:g}" for name in sort_blocks(blocks))
        return f"an alpha for each block, chosen on validation data ({each})"
    by = choice.alpha_chosen_by
    how = "chosen on validation data" if by == "validation" else f"given as {by}"
    return f"alpha {choice.alpha:g}, {how}"


def align_rows(rows: Sequence[Sequence[str]], left: int) -> str:
    """Text in aligned columns, the first row above a rule; the first `left` columns
    are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    header, *lines = (_align(row, widths, left) for row in rows)
    rule = ["-" * width for width in widths]
    return "\n".join("  ".join(cells).rstrip() for cells in (header, rule, *lines))


def escape_markdown(text: str) -> str:
    """A text, such as a run's name, in one line that Markdown shows as it is."""
    return re.sub(r"([\\`*|<>\[\]])", r"\\\1", " ".join(text.splitlines()))


def align_markdown(rows: Sequence[Sequence[str]], left: int) -> str:
    """Formats rows like align_rows, in Markdown."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    header, *lines = (_align(row, widths, left) for row in rows)
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))


def _align(row: Sequence[str], widths: Sequence[int], left: int) -> list[str]:
    return [
        cell.ljust(width) if i < left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
