"""The closing table: what a person reads when a run ends."""

from collections.abc import Sequence

from rsclip_jax.interpolate import sort_blocks
from rsclip_jax.records.comparison import Comparison
from rsclip_jax.records.meta import AlphaChoice, StageMeta
from rsclip_jax.records.results import Result

_HEADER = ("stage", "dataset", "split", "task", "sensor", "metric")
# What the closing table has of these tasks, and of others all; results.jsonl has more.
_CLOSING = {
    "zero_shot": ("accuracy", "mAP_macro", "mAP_micro"),
    "retrieval": ("recall@1", "recall@10", "recall@50"),
    "modality_gap": ("centroid_distance",),
}


# what a probe was fitted and chosen on
FITTED = ("train", "val")
_ROW = ("run_b", "stage", "dataset", "task", "sensor")


def format_table(records: Sequence[Result], alpha: float | None = None) -> str:
    """Aligned columns; step-0 values stand as "before" beside the trained ones.

    Of a sweep over alpha the chosen one stands under "after", with alpha 1 in a column
    of its own where it was measured.
    """
    rows: dict[tuple, dict[str, str]] = {}
    for r, name in zip(records, metric_names(records), strict=True):
        what = (r.task, r.sensor, name)
        key = (r.stage, r.dataset, split_of(r), *what)
        row = rows.setdefault(key, {})
        for column in _columns(r, alpha):
            row[column] = format_value(r)
    used = {column for row in rows.values() for column in row}
    columns = [c for c in ("before", "after", "alpha 1") if c in used or c == "after"]
    lines = [[*key, *(row.get(c, "") for c in columns)] for key, row in rows.items()]
    return align_rows([[*_HEADER, *columns], *lines], left=len(_HEADER))


def closing_records(records: Sequence[Result], tests: Sequence[str]) -> list[Result]:
    """Those for the closing table: of stage patch the test sets ("name:split") only.

    Its validation sets were swept to choose alpha. Stages ablate and survey have
    tables of their own. Of the metrics those that one reads first, and no row that an
    earlier stage has with the same numbers.
    """
    shown = [
        r
        for r in records
        if r.stage not in ("ablate", "survey")
        and is_closing(r)
        and (r.stage != "patch" or f"{r.dataset}:{split_of(r)}" in tests)
    ]
    return _without_repeated(shown)


def _without_repeated(records: Sequence[Result]) -> list[Result]:
    """Without a stage's rows of which all values stand in earlier stages' rows."""
    stages = list(dict.fromkeys(r.stage for r in records))
    found: dict[tuple, dict[str, set[str]]] = {}  # what -> stage -> values
    for r in records:
        of_what = found.setdefault(_what(r), {})
        of_what.setdefault(r.stage, set()).add(format_value(r))

    def is_new(r: Result) -> bool:
        before = stages[: stages.index(r.stage)]
        earlier = [found[_what(r)].get(stage, set()) for stage in before]
        return not found[_what(r)][r.stage] <= set().union(*earlier)

    return [r for r in records if is_new(r)]


def _what(r: Result) -> tuple:
    about = (r.dataset, r.task, r.sensor, split_of(r), metric_of(r))
    return (*about, r.train, r.val)


def is_closing(record: Result) -> bool:
    """Whether a record's metric is among those that one reads first."""
    first = _CLOSING.get(record.task, (record.metric,))
    return record.metric in first and record.shots is None


def metric_of(record: Result | Comparison) -> str:
    """The metric, with what else it is of: prompts not the set's own, few examples."""
    name = record.prompt_set or "dataset"
    text = record.metric + ("" if name == "dataset" else f" ({name})")
    return text + (f", {record.shots} a class" if record.shots else "")


def metric_names(records: Sequence[Result | Comparison]) -> list[str]:
    """metric_of each; with the sets that a probe was fitted on where others differ."""
    names = [metric_of(r) for r in records]
    keys = [
        (*(getattr(r, k, None) for k in _ROW), split_of(r), name)
        for r, name in zip(records, names, strict=True)
    ]
    for part in FITTED:
        found: dict[tuple, set] = {}
        for key, r in zip(keys, records, strict=True):
            if fitted := getattr(r, part):  # nearest neighbours have no val
                found.setdefault(key, set()).add(fitted)
        for i, (key, r) in enumerate(zip(keys, records, strict=True)):
            if (fitted := getattr(r, part)) and len(found[key]) > 1:
                names[i] += f", {part} {fitted}"
    return names


def format_value(record: Result) -> str:
    """A share in percent, a change of one in points; a rank or a distance as a number.

    "-" where it has none.
    """
    value = record.value
    if value is None:
        return "-"
    if record.metric == "median_rank" or record.task == "modality_gap":
        return f"{value:.4g}"
    if record.task == "forgetting":
        return f"{100 * value:+.1f} points"
    return f"{100 * value:.1f} %"


def describe_alpha(meta: StageMeta) -> str:
    """Which mixture stage patch made, in words, by its meta."""
    if meta.rounds is not None:
        each = [f"{one.train} at {_describe_one(one)}" for one in meta.rounds]
        return ", then ".join(each)
    return _describe_one(meta)


def _describe_one(made: AlphaChoice) -> str:
    if blocks := made.alpha_blocks:
        each = ", ".join(f"{name} {blocks[name]:g}" for name in sort_blocks(blocks))
        return f"an alpha for each block, chosen on validation data ({each})"
    by = made.alpha_chosen_by
    how = "chosen on validation data" if by == "validation" else f"given as {by}"
    return f"alpha {made.alpha:g}, {how}"


def split_of(record: Result | Comparison) -> str:
    """The split, with the side of its tiles where it was cut into tiles."""
    return f"{record.split}:{record.tile}" if record.tile else record.split


def _columns(record: Result, chosen: float | None) -> list[str]:
    if record.stage == "evaluate" or record.task == "forgetting":
        return ["after"]  # a weight file's step is 0, and nothing came before it
    if record.alpha is None:
        return ["before" if record.step == 0 else "after"]
    places = {"before": 0.0, "after": chosen, "alpha 1": 1.0}
    return [column for column, place in places.items() if record.alpha == place]


def align_rows(rows: Sequence[Sequence[str]], left: int) -> str:
    """Text in columns under the first row; the first `left` of them to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = [
        "  ".join(
            cell.rjust(w) if i >= left else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    text.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(text)


def align_markdown(rows: Sequence[Sequence[str]], left: int) -> str:
    """As align_rows, in Markdown."""
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        cells = [
            cell.rjust(w) if i >= left else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
