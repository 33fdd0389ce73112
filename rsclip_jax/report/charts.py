"""The chart engine: matplotlib draws a figure once, as inline SVG or as a PNG file."""

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rsclip_jax.io.files import naming, replacing

# matplotlib is imported where it draws: a run takes its first steps without it.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Axes"], None]

# Role -> its colour on a light and on a dark page. No two light ones are equal: they
# are how the SVG's colours become the page's variables.
COLOURS = {
    "paper": ("#ffffff", "#14171c"),
    "card": ("#f7f8fa", "#1c2027"),
    "ink": ("#1c2330", "#e4e7ec"),
    "quiet": ("#5b6472", "#9aa3b0"),
    "rule": ("#dde1e7", "#323843"),
    "before": ("#8b929d", "#8b929e"),
    "after": ("#0067a8", "#5ab4ee"),
    "chosen": ("#b3401a", "#f0895c"),
    "rgb": ("#008a63", "#35c596"),
    "s1": ("#c2550a", "#f08a3c"),
    "s2": ("#a8518a", "#da8fc0"),
    "ir": ("#9a7400", "#d8b23c"),
    "text": ("#3a3f4a", "#cfd5de"),
    "other": ("#5a50b5", "#a49cf0"),
}
_TOP, _RIGHT, _BOTTOM, _LEFT, _LINE = 26, 14, 46, 52, 18  # pixels
_QUIET, _RULE, _INK = (COLOURS[role][0] for role in ("quiet", "rule", "ink"))
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _QUIET,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": _INK,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _QUIET,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titley": 1.0,  # fixed: to place it by the ticks costs a fifth of the time
    "font.size": 12,
    "grid.color": _RULE,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.markersize": 6,
    "lines.linewidth": 2,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _QUIET,
    "xtick.labelsize": 11,
    "ytick.color": _QUIET,
    "ytick.left": False,
    "ytick.labelsize": 11,
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def colour(role: str) -> str:
    """A role's colour in a figure: "before", a sensor's, "text"; others share one."""
    return COLOURS.get(role, COLOURS["other"])[0]


def svg(draw: Draw, size: tuple[int, int], title: str, description: str) -> Markup:
    """Inline SVG of so many pixels and a legend below, in the colours of the page.

    title and description are for people who do not see it.
    """
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = _figure([draw], size)
        figure.savefig(out, format="svg", transparent=True, metadata=_NO_METADATA)
    width, height = (72 * inches for inches in figure.get_size_inches())
    return Markup(
        '<svg class="chart" viewBox="0 0 {w:.0f} {h:.0f}" width="{w:.0f}"'
        ' height="{h:.0f}" role="img" aria-label="{title}"><title>{title}</title>'
        "<desc>{description}</desc>{body}</svg>"
    ).format(
        w=width,
        h=height,
        title=title,
        description=description,
        body=Markup(_shorten(out.getvalue())),
    )


def save_png(path: Path, draws: Sequence[Draw], size: tuple[int, int], title: str):
    """Writes the same drawings side by side, under a title."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure = _figure(draws, size, top=_TOP + 24)
        figure.suptitle(title, fontsize=12)
        save_figure(figure, path)


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a PNG, whole or not at all, and the folders above it."""
    with naming(path), replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _figure(draws: Sequence[Draw], size: tuple[int, int], top: int = _TOP) -> "Figure":
    """Axes of fixed margins, and a line below for each entry of the longest legend."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import AutoLocator

    width, height = size
    figure = Figure(dpi=72)
    every = figure.subplots(1, len(draws), squeeze=False)[0]
    for draw, axes in zip(draws, every, strict=True):
        draw(axes)
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(locator := axis.get_major_locator(), AutoLocator):
                locator.set_params(nbins=5)
                # no power of ten of its own above the axis, where the title is
                axis.set_major_formatter(lambda value, _: f"{value:g}")
    legends = [axes.get_legend_handles_labels() for axes in every]
    room = _LINE * max(len(labels) for _, labels in legends)
    total = height + room
    figure.set_size_inches(width * len(draws) / 72, total / 72)
    for i, (axes, (handles, labels)) in enumerate(zip(every, legends, strict=True)):
        left = (i + _LEFT / width) / len(draws)
        wide = (width - _LEFT - _RIGHT) / width / len(draws)
        bottom, high = _BOTTOM + room, height - _BOTTOM - top
        axes.set_position((left, bottom / total, wide, high / total))
        if handles:
            below = (0, -(_BOTTOM - 4) / high)
            axes.legend(
                handles, labels, loc="upper left", bbox_to_anchor=below,
                borderpad=0, borderaxespad=0, labelspacing=0.45,
            )  # fmt: skip
    return figure


def _shorten(text: str) -> str:
    """Adapts matplotlib's SVG to the page: its fonts and variable colours."""
    text = text[text.index("<g ") : text.rindex("</svg>")]
    text = re.sub(r"\n\s*", "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"<[^<>]+>", lambda tag: _shorten_tag(tag[0]), text)
    return re.sub(
        r'(?:<use href="#\w+" x="[^"]*" y="[^"]*" style="[^"]*"/>){2,}', _hoist, text
    )


_ROLE_OF = {light: role for role, (light, _) in COLOURS.items()}


def _shorten_tag(tag: str) -> str:
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag.replace("xlink:href", "href"))
    tag = re.sub(r"; font-family: [^;\"]*", "", tag)
    return re.sub(
        r"#[0-9a-f]{6}",
        lambda c: f"var(--{_ROLE_OF[c[0]]})" if c[0] in _ROLE_OF else c[0],
        tag,
    )


def _hoist(run: re.Match) -> str:
    """Marks that share their style have it once."""
    styles = set(re.findall(r' style="[^"]*"', run[0]))
    if len(styles) > 1:
        return run[0]
    (style,) = styles
    return f"<g{style}>{run[0].replace(style, '')}</g>"
