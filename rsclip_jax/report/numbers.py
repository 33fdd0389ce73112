"""Numbers as people read them: the same form in tables, cards, pages and logs."""

import math
from collections.abc import Sequence

from rsclip_jax.records.metric_names import find_metric

NONE = "-"  # a value that no example decides


def value_text(value: float | None, metric: str, task: str = "") -> str:
    """ "65.8 %" of a share, "12.5" of a number; forgetting is a change in points."""
    if task == "forgetting":
        change = change_text(value, metric)
        return change if change == NONE else f"{change} points"
    if value is None or math.isnan(value):
        return NONE
    if find_metric(metric).unit == "share":
        return f"{100 * value:.1f} %"
    return f"{value:.4g}"


def change_text(value: float | None, metric: str) -> str:
    """A difference with its sign: "+12.5" points of a share, "-0.75" of a number."""
    if value is None or math.isnan(value):
        return NONE
    if find_metric(metric).unit == "share":
        return f"{100 * value:+.1f}"
    return f"{value:+.3g}"


def interval_text(
    ci95: Sequence[float | None] | None, metric: str, task: str = ""
) -> str:
    """ "62.9 to 68.7 %"; "" where there is no interval."""
    if not ci95 or None in ci95:
        return ""
    low, high = (value_text(end, metric, task) for end in ci95)
    unit = high[high.index(" ") :] if " " in high else ""
    return f"{low.removesuffix(unit)} to {high}"


def arrow_text(texts: Sequence[str]) -> str:
    """ "38.0 → 65.8 %": values in their order, with the unit once."""
    return " → ".join([*(text.removesuffix(" %") for text in texts[:-1]), texts[-1]])


def p_text(p: float | None) -> str:
    """A p-value: four digits below 0.01, two above."""
    if p is None:
        return ""
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def pixel_text(value: float | None) -> str:
    """A statistic of pixels in a sensor's unit."""
    if value is None:
        return ""
    if 0 < abs(value) < 1:  # reflectance, and radar amplitudes
        return f"{value:.2g}"
    return f"{value:.1f}" if abs(value) < 1e5 else f"{value:.4g}"


def rare_text(share: float) -> str:
    """A share that may be tiny, such as that of missing pixels."""
    return "< 0.01 %" if 0 < share < 1e-4 else f"{100 * share:.3g} %"
