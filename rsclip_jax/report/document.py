"""The HTML of a page: a document of sections, tables, figures. It loads nothing.

What is called text is escaped here; what is called html has been.
"""

import dataclasses
import html
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

_ASSETS = resources.files("rsclip_jax") / "report" / "assets"


@dataclasses.dataclass(frozen=True)
class Section:
    """One part of a page: its title and a sentence on what it shows (text), its html.

    It stands in the table of contents by its title.
    """

    title: str
    body: str
    lead: str = ""

    @property
    def name(self) -> str:
        """Its id, which links point to."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table's cell: the text shown, what it sorts by, and more on hovering."""

    text: str
    key: Any = None
    title: str = ""


def document(title: str, sections: Sequence[Section], *, subtitle: str = "") -> str:
    """A whole page. subtitle: text below the title."""
    style, script = (
        (_ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    contents = [f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in sections]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}</style>\n</head>\n<body>",
            f"<header>\n<h1>{escape(title)}</h1>",
            f"<p>{escape(subtitle)}</p>\n</header>",
            f'<nav aria-label="Contents">\n<ol>{"".join(contents)}</ol>\n</nav>',
            "<main>",
            *map(_section, sections),
            f"</main>\n<script>\n{script}</script>\n</body>\n</html>\n",
        ]
    )


def _section(section: Section) -> str:
    lead = f'<p class="lead">{escape(section.lead)}</p>\n' if section.lead else ""
    return (
        f'<section id="{section.name}">\n<h2>{escape(section.title)}</h2>\n'
        f"{lead}{section.body}\n</section>"
    )


def escape(text: Any) -> str:
    """Text as it may stand in HTML, in attributes too."""
    return html.escape(str(text), quote=True)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    label: str,
    numbers: Sequence[int] = (),
    sortable: bool = False,
) -> str:
    """A table that scrolls in its own box.

    rows: of text or Cell. label: what it holds, for those who do not see it. numbers:
    the columns set to the right. sortable: with a click on a heading, and a field that
    filters its rows.
    """
    heads = [
        f'<th scope="col"{_right(i, numbers)}>'
        + (f'<button type="button">{escape(name)}</button>' if sortable else "")
        + ("" if sortable else escape(name))
        + "</th>"
        for i, name in enumerate(header)
    ]
    lines = [
        "<tr>" + "".join(_cell(x, _right(i, numbers)) for i, x in enumerate(row))
        for row in rows
    ]
    body = "".join(f"{line}</tr>\n" for line in lines)
    field = (
        '<p class="filter" hidden><label>Filter <input type="search"'
        ' placeholder="words that a row holds"></label> <output></output></p>\n'
    )
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="table">\n{field if sortable else ""}<div class="scroll" tabindex='
        f'"0" role="region" aria-label="{escape(label)}">\n<table{kind}>\n<thead><tr>'
        f"{''.join(heads)}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
        "</div>"
    )


def _right(column: int, numbers: Sequence[int]) -> str:
    return ' class="number"' if column in numbers else ""


def _cell(value: Any, kind: str) -> str:
    cell = value if isinstance(value, Cell) else Cell(str(value))
    key = "" if cell.key is None else f' data-key="{escape(cell.key)}"'
    title = f' title="{escape(cell.title)}"' if cell.title else ""
    return f"<td{kind}{key}{title}>{escape(cell.text)}</td>"


def figure(html: str, caption: str = "") -> str:
    """A picture with its caption (text) below."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{html}{words}</figure>"


def scroll(html: str, label: str) -> str:
    """A box that scrolls sideways what does not shrink. label: what it holds (text)."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<div class="keep">{html}</div></div>'
    )


def tiles(each: Iterable[str]) -> str:
    """Figures beside each other, as many as the window is wide."""
    return f'<div class="tiles">\n{chr(10).join(each)}\n</div>'


def details(summary: str, html: str) -> str:
    """What is shown only on a click on the summary (text)."""
    return f"<details><summary>{escape(summary)}</summary>\n{html}\n</details>"


def heading(text: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(text)}</h3>"


def note(text: str) -> str:
    """A remark in small print."""
    return f'<p class="note">{escape(text)}</p>'
