"""Figures of classes: bars, and the confusion matrix."""

from collections.abc import Iterator, Sequence

import numpy as np

from rsclip_jax.report.chart import colour, number, svg
from rsclip_jax.report.document import escape


def bars(
    rows: Sequence[tuple[str, float | None, float | None]], form: str = "{:.1f} %"
) -> str:
    """A row a name: bars of the values before and after, in percent of the width.

    form: how a value reads; nan has no bar.
    """
    items = []
    for name, *ends in rows:
        each = {
            role: value
            for role, value in zip(("before", "after"), ends, strict=True)
            if value is not None
        }
        tracks = "".join(_bar(role, value) for role, value in each.items())
        words = ["–" if np.isnan(v) else form.format(v) for v in each.values()]
        said = " → ".join([*(w.removesuffix(" %") for w in words[:-1]), words[-1]])
        items.append(
            f'<li><span>{escape(name)}</span><span class="track" aria-hidden="true">'
            f"{tracks}</span><span>{escape(said)}</span></li>"
        )
    return f'<ul class="bars">{"".join(items)}</ul>'


def _bar(role: str, value: float) -> str:
    width = 0.0 if np.isnan(value) else min(max(value, 0.0), 100.0)
    return f'<i style="width:{number(width)}%;background:{colour(role)}"></i>'


def confusion_figure(counts: np.ndarray, names: Sequence[str]) -> str:
    """Rows the true classes, columns the predicted; shares of each row as darkness."""
    k = len(names)
    side = 34 if k <= 12 else 24 if k <= 20 else 15
    room = int(min(6.4 * max(map(len, names)) + 12, 230))
    edge = room + side * k
    lines = "".join(
        f"M{at} {room}V{edge}M{room} {at}H{edge}" for at in range(room, edge + 1, side)
    )
    diagonal = "".join(
        f"M{at} {at}h{side}v{side}h-{side}z" for at in range(room, edge, side)
    )
    parts = [
        *_axis_names(names, room, side),
        *_shaded(counts, names, room, side),
        f'<path class="rule" d="{lines}"/><path class="axis" d="{diagonal}"/>',
    ]
    label = "Confusion matrix: rows true, columns predicted classes"
    return svg((edge + 2, edge + 2), label, parts)


def _axis_names(names: Sequence[str], room: int, side: int) -> Iterator[str]:
    for i, name in enumerate(names):
        middle = number(room + side * (i + 0.5) + 4)
        short = escape(_short(name, 31))
        yield f'<text x="{room - 6}" y="{middle}" text-anchor="end">{short}</text>'
        turned = f"translate({middle} {room - 6}) rotate(-90)"
        yield f'<text transform="{turned}">{short}</text>'


def _shaded(
    counts: np.ndarray, names: Sequence[str], room: int, side: int
) -> Iterator[str]:
    totals = np.maximum(counts.sum(axis=1), 1)
    for i, j in np.argwhere(counts > 0).tolist():
        x, y, share = room + side * j, room + side * i, counts[i, j] / totals[i]
        said = f"{names[i]} as {names[j]}: {counts[i, j]} of {totals[i]}"
        yield (
            f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill-opacity='
            f'"{share:.2f}" style="fill:{colour("after")}"><title>{escape(said)}'
            "</title></rect>"
        )
        if side >= 34 and share >= 0.005:
            ink = "paper" if share > 0.55 else "ink"
            yield (
                f'<text class="tick" pointer-events="none" x="{x + side / 2:g}" y='
                f'"{y + side / 2 + 4:g}" text-anchor="middle" style="fill:var(--{ink})"'
                f">{100 * share:.0f}</text>"
            )


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
