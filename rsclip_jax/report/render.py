"""Pages from the templates beside: every value is escaped, and a page loads nothing."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from rsclip_jax.report.charts import COLOURS

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("rsclip_jax.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


@dataclasses.dataclass(frozen=True)
class Section:
    """One part of a page, with its entry in the table of contents."""

    title: str
    body: Markup

    @property
    def name(self) -> str:
        """Its id, which links point to."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table's cell: the text, the key that it sorts by, and more on hovering."""

    text: str
    key: Any = None
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart and its caption."""

    svg: Markup
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Bar:
    """A value with its interval on a common scale, in percent of the scale's width."""

    role: str
    value: float
    low: float
    high: float


def render(template: str, **context: Any) -> Markup:
    """A template's HTML. Raises jinja2's UndefinedError for a name without a value."""
    return Markup(_TEMPLATES.get_template(template).render(context))


def render_page(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """A whole page."""
    context = {"title": title, "subtitle": subtitle, "sections": sections}
    return str(render("page.html", **context, colours=COLOURS))


def shorten(digest: str | None) -> Cell:
    """The first eight characters; all of them on hovering."""
    digest = digest or ""
    return Cell(digest[:8], key=digest, title=digest if len(digest) > 8 else "")
