"""The closing table: what a person reads when a run ends."""

from collections.abc import Sequence

_HEADER = ("stage", "dataset", "split", "task", "sensor", "metric", "before", "after")


def format_table(records: Sequence[dict], alpha: float | None = None) -> str:
    """Aligned columns; step-0 values stand as "before" beside the trained ones.

    Of a sweep over alpha the chosen one stands under "after", with alpha 1 in a column
    of its own where it was measured.
    """
    rows: dict[tuple, dict[str, float]] = {}
    for r in records:
        keys = ("stage", "dataset", "split", "task", "sensor", "metric")
        row = rows.setdefault(tuple(r[k] for k in keys), {})
        for column in _columns(r, alpha):
            row[column] = r["value"]
    lines = [
        [*key, *(_cell(row.get(c)) for c in ("before", "after", "alpha 1"))]
        for key, row in rows.items()
    ]
    header = [*_HEADER, "alpha 1"]
    if not any("alpha 1" in row for row in rows.values()):
        header, lines = header[:-1], [line[:-1] for line in lines]
    return _align([header, *lines])


def closing_records(records: Sequence[dict], sweeps: Sequence[str]) -> list[dict]:
    """Those for the closing table: without the validation sweeps ("name:split")."""
    return [r for r in records if f"{r['dataset']}:{r['split']}" not in sweeps]


def _columns(record: dict, chosen: float | None) -> list[str]:
    alpha = record.get("alpha")
    if alpha is None:
        return ["before" if record["step"] == 0 else "after"]
    places = {"before": 0.0, "after": chosen, "alpha 1": 1.0}
    return [column for column, place in places.items() if alpha == place]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _align(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = [
        "  ".join(
            cell.rjust(w) if i >= len(_HEADER) - 2 else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    text.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(text)
