"""Charts as inline SVG: axes, lines, marks. Colours are the page's, by role."""

import math
from collections.abc import Iterable, Sequence

from matplotlib.ticker import MaxNLocator

from rsclip_jax.report.document import escape

SHAPES = ("circle", "square", "diamond")
_ROLES = ("rule", "before", "after", "chosen", "bad", "rgb", "s1", "s2", "ir", "text")


def colour(role: str) -> str:
    """A role's colour, in light and in dark: "before", "after", a sensor's, "text"."""
    return f"var(--{role if role in _ROLES else 'other'})"


def number(value: float) -> str:
    """A coordinate, as short as a picture needs it."""
    return f"{value:.1f}".removesuffix(".0")


class Chart:
    """Axes of x and y limits in a picture of so many pixels; render() gives the SVG.

    What is drawn first lies below. log: the y axis is logarithmic.
    """

    def __init__(
        self,
        size: tuple[int, int],
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        margins: tuple[int, int, int, int] = (14, 12, 42, 50),
        log: bool = False,
    ):
        self.size, self._x, self._log = size, x, log
        self._y = (math.log10(y[0]), math.log10(y[1])) if log else y
        self.top, right, bottom, self.left = margins
        self.right, self.bottom = size[0] - right, size[1] - bottom
        self._parts: list[str] = []

    def x(self, value: float) -> float:
        """Where a value lies, in pixels from the left."""
        low, high = self._x
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Where a value lies, in pixels from the top."""
        low, high = self._y
        value = math.log10(value) if self._log else value
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def axes(
        self,
        x_label: str,
        y_label: str,
        *,
        x_ticks: Sequence[float] | None = None,
        y_ticks: Sequence[float] | None = None,
        unit: str = "",
    ) -> None:
        """Both axes with ticks, quiet lines across at those of y, and what they are.

        unit: after each number on the y axis, such as " %".
        """
        across = ticks(*self._x) if x_ticks is None else x_ticks
        up = self._up() if y_ticks is None else y_ticks
        for value in up:
            y = number(self.y(value))
            self._add(f'<path class="rule" d="M{self.left} {y}H{self.right}"/>')
            self.words(self.left - 6, float(y) + 4, f"{value:g}{unit}", "end", "tick")
        for value in across:
            x = self.x(value)
            self.words(x, self.bottom + 16, f"{value:g}", "middle", "tick")
        self._add(f'<path class="axis" d="M{self.left} {self.bottom}H{self.right}"/>')
        middle = (self.left + self.right) / 2
        self.words(middle, self.bottom + 34, x_label, "middle")
        self.words(2, self.top - 14, y_label)

    def frame(self, x_label: str, y_label: str) -> None:
        """A box without ticks, for what has no unit."""
        box = f"M{self.left} {self.top}H{self.right}V{self.bottom}H{self.left}z"
        self._add(f'<path class="rule" d="{box}"/>')
        middle = (self.left + self.right) / 2
        self.words(middle, self.bottom + 18, x_label, "middle", "tick")
        self.words(self.left, self.top - 8, y_label, "start", "tick")

    def _up(self) -> list[float]:
        if not self._log:
            return ticks(*self._y)
        low, high = (10**edge for edge in self._y)
        steps = (1, 10) if high / low > 300 else (1, 2, 5)
        first, last = math.floor(self._y[0]), math.ceil(self._y[1])
        each = [m * 10.0**e for e in range(first, last + 1) for m in steps]
        return sorted({v for v in each if low <= v <= high})

    def line(
        self, points: Iterable[Sequence[float]], role: str, style="", width: float = 2
    ) -> None:
        """A line through points. style: more SVG attributes, such as a dash pattern."""
        path = "L".join(f"{number(self.x(a))} {number(self.y(b))}" for a, b in points)
        self._add(
            f'<path d="M{path}" fill="none" stroke-width="{width:g}"'
            f' stroke-linejoin="round" style="stroke:{colour(role)}" {style}/>'
        )

    def area(self, points: Sequence[tuple[float, float]], role: str) -> None:
        """What lies between a line and the x axis, faintly."""
        path = "L".join(f"{number(self.x(a))} {number(self.y(b))}" for a, b in points)
        ends = number(self.x(points[0][0])), number(self.x(points[-1][0]))
        self._add(
            f'<path d="M{ends[0]} {self.bottom}L{path}L{ends[1]} {self.bottom}Z"'
            f' fill-opacity=".25" style="fill:{colour(role)}"/>'
        )

    def band(self, low: float, high: float, role: str) -> None:
        """An interval of x, faintly, over the whole height."""
        x, width = self.x(low), max(self.x(high) - self.x(low), 1)
        self._add(
            f'<rect x="{number(x)}" y="{self.top}" width="{number(width)}" height='
            f'"{self.bottom - self.top}" fill-opacity=".15" style="fill:'
            f'{colour(role)}"/>'
        )

    def upright(self, value: float, role: str, style: str = "") -> None:
        """A line at x over the whole height."""
        x = number(self.x(value))
        self._add(
            f'<path d="M{x} {self.top}V{self.bottom}" stroke-width="1.5"'
            f' style="stroke:{colour(role)}" {style}/>'
        )

    def level(self, value: float, role: str) -> None:
        """A dashed line at y over the whole width."""
        y = number(self.y(value))
        self._add(
            f'<path d="M{self.left} {y}H{self.right}" stroke-width="1.5"'
            f' stroke-dasharray="6 4" style="stroke:{colour(role)}"/>'
        )

    def whisker(self, x: float, low: float, high: float, role: str) -> None:
        """An interval of y at x."""
        at = number(self.x(x))
        self._add(
            f'<path d="M{at} {number(self.y(low))}V{number(self.y(high))}"'
            f' stroke-width="1.5" stroke-opacity=".45" style="stroke:{colour(role)}"/>'
        )

    def marks(
        self,
        points: Iterable[tuple[float, float]],
        role: str,
        *,
        shape: str = "circle",
        radius: float = 3,
        opacity: float = 1,
        titles: Sequence[str] = (),
    ) -> None:
        """A mark at each point, its title on hovering."""
        each = []
        for i, (a, b) in enumerate(points):
            said = f"<title>{escape(titles[i])}</title>" if titles else ""
            path = mark(shape, self.x(a), self.y(b), radius)
            each.append(f'<path d="{path}">{said}</path>' if said else path)
        style = f'fill-opacity="{opacity:g}" style="fill:{colour(role)}"'
        if titles:
            self._add(f"<g {style}>{''.join(each)}</g>")
        else:
            self._add(f'<path {style} d="{"".join(each)}"/>')

    def words(
        self, x: float, y: float, text: str, anchor: str = "start", kind: str = ""
    ) -> None:
        """Text at pixels, as from x() and y()."""
        attributes = f' class="{kind}"' if kind else ""
        attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
        self._add(
            f'<text x="{number(x)}" y="{number(y)}"{attributes}>{escape(text)}</text>'
        )

    def _add(self, part: str) -> None:
        self._parts.append(part)

    def render(self, label: str) -> str:
        """The SVG. label: what it shows, for those who do not see it."""
        return svg(self.size, label, self._parts)


def svg(size: tuple[float, float], label: str, parts: Iterable[str]) -> str:
    """An SVG of so many pixels that shrinks with the window."""
    width, height = map(number, size)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height='
        f'"{height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def mark(shape: str, x: float, y: float, r: float) -> str:
    """Path of a mark: "circle", "square", "diamond" or "star"."""
    if shape == "square":
        a = 0.9 * r
        return f"M{number(x - a)} {number(y - a)}h{2 * a:.1f}v{2 * a:.1f}h{-2 * a:.1f}z"
    if shape == "diamond":
        a = 1.3 * r
        steps = ((a, a), (-a, a), (-a, -a))
        lines = "".join(f"l{dx:.1f} {dy:.1f}" for dx, dy in steps)
        return f"M{number(x)} {number(y - a)}{lines}z"
    if shape == "star":
        turns = [math.pi * i / 5 for i in range(10)]
        radii = [r if i % 2 == 0 else 0.45 * r for i in range(10)]
        points = [
            f"{number(x + k * math.sin(t))} {number(y - k * math.cos(t))}"
            for t, k in zip(turns, radii, strict=True)
        ]
        return f"M{'L'.join(points)}Z"
    return (
        f"M{number(x - r)} {number(y)}a{r:g} {r:g} 0 1 0 {2 * r:g} 0"
        f"a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"
    )


def legend(entries: Iterable[tuple[str, str, str]]) -> str:
    """What the marks mean: (shape, or "line", "dashes", "area"; role; text) each."""
    items = []
    for shape, role, text in entries:
        if shape in ("line", "dashes"):
            dash = ' stroke-dasharray="5 3"' if shape == "dashes" else ""
            inside = f'<path d="M0 7H22" stroke-width="2"{dash} style="stroke:'
            inside += f'{colour(role)}"/>'
        elif shape == "area":
            inside = '<rect y="2" width="22" height="10" fill-opacity=".3" style="fill:'
            inside += f'{colour(role)}"/>'
        else:
            path = mark(shape, 11, 7, 7 if shape == "star" else 4)
            inside = f'<path d="{path}" style="fill:{colour(role)}"/>'
        swatch = f'<svg width="22" height="14" aria-hidden="true">{inside}</svg>'
        items.append(f"<li>{swatch}{escape(text)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two, about as many."""
    found = MaxNLocator(count, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high)
    span = 1e-9 * (high - low)
    return [float(v) + 0.0 for v in found if low - span <= v <= high + span]


def limits(values: Iterable[float], margin: float = 0.08) -> tuple[float, float]:
    """From the least to the greatest, and a margin; never of no width."""
    values = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(values), max(values)
    if high == low:
        return low - (0.5 * abs(low) or 0.5), high + (0.5 * abs(high) or 0.5)
    room = margin * (high - low)
    return low - room, high + room
