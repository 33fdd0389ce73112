"""compare.html: one whole file; what it says of settings, differences and curves."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rsclip_jax.records.meta import StageMeta
from rsclip_jax.report.comparison_figures import Row, curve_overlay, forest
from rsclip_jax.report.comparison_page import comparison_page, differing, short_names
from rsclip_jax.report.workdir import Workdir
from tests.helpers.comparisons import UNTESTED, record
from tests.helpers.results import make_result


def make_run(name, lr=0.1, shift=0.0) -> Workdir:
    patch = {"lr": lr, "val": "d:val", "supported_val": ["n:val"]}
    swept = [
        make_result(
            dataset=dataset,
            split="val",
            alpha=alpha,
            value=0.4 + sign * 0.3 * alpha + shift,
        )
        for dataset, sign in (("d", 1), ("n", -1))
        for alpha in (0.0, 0.5, 1.0)
    ]
    curve = [{"step": s, "loss": 2.0 / s + shift, "grad_norm": 1.0} for s in (1, 2, 3)]
    curve.append({"step": 4, "loss": float("nan"), "grad_norm": None})
    return Workdir(
        Path("runs") / name,
        {"seed": 0, "progress": name == "a", "patch": patch},
        {"patch": StageMeta(alpha=0.5, digest="0123456789abcdef", steps=5)},
        swept,
        {"patch": curve},
        {},
    )


class Checked(HTMLParser):
    """Every tag is closed; no address is fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key in ("src", "href") and not value.startswith(("#", "data:")):
                self.fetched.append(value)
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page_of(runs, records):
    page, parser = comparison_page(runs, records), Checked()
    parser.feed(page)
    assert parser.open == []
    assert parser.fetched == []
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)", page)
    return page


def test_the_page_shows_all_of_two_runs():
    records = [record(), record(sensor="rgb", p_holm=0.2), record(**UNTESTED, n=3)]
    page = page_of([make_run("a"), make_run("b", 0.2, 0.05)], records)
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "What is compared",
        "Settings that differ",
        "Differences",
        "Every difference",
        "Choice of alpha",
        "Training",
    ]
    assert "<td>patch.lr</td><td>0.1</td><td>0.2</td>" in page
    assert "<td>progress" not in page
    assert page.count("along alpha in a, b") == 2
    assert "b: alpha 0.5, 60.0 %" in page
    assert "loss at the end: a 0.667, b 0.717" in page
    assert page.count("not tested") == 2


def test_a_page_of_hardly_anything():
    bare = Workdir(Path("x/<a>"), {}, {}, [], {}, {})
    other = Workdir(Path("x/b"), {}, {}, [], {}, {})
    page = page_of([bare, other], [record(run_a="x/<a>", run_b="x/b", **UNTESTED)])
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "What is compared",
        "Settings that differ",
        "Every difference",
    ]
    assert "None." in page
    assert "&lt;a&gt;" in page


def test_more_runs_than_colours_are_said():
    runs = [make_run(str(i)) for i in range(8)]
    records = [record(run_a="runs/0", run_b=f"runs/{i}") for i in range(1, 8)]
    assert "Not drawn: 6, 7." in page_of(runs, records)


def test_settings_that_differ():
    configs = [{"a": {"b": 1, "c": [1]}, "seed": 0}, {"a": {"b": 2, "c": [1]}}]
    assert differing(configs) == [("a.b", [1, 2]), ("seed", [0, None])]
    assert differing([configs[0]] * 2) == []


def test_names_are_as_long_as_they_need_to_be():
    assert short_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert short_names(["x/run", "y/run", "y/z"]) == ["x/run", "y/run", "y/z"]


def test_a_forest_has_zero_and_every_interval_within():
    rows = [
        Row("one", 2.0, (1.0, 3.0), True, "+2.0"),
        Row("two", -8.0, (-9.0, -7.0), False, "-8.0"),
    ]
    html = forest(rows)
    lines = re.findall(r"M([\d.]+) 10H([\d.]+)", html)
    dots = [float(x) for x in re.findall(r"M([\d.]+) 10h0", html)]
    zeros = {float(x) for x in re.findall(r"M([\d.]+) 0V20", html)}
    (zero,) = zeros
    for (low, high), dot in zip(lines, dots, strict=True):
        assert 0 < float(low) < dot < float(high) < 100
        assert dot == pytest.approx((float(low) + float(high)) / 2, abs=0.02)
    assert dots[1] < zero < dots[0]
    # 10 points between the two
    scale = (dots[0] - dots[1]) / 10
    assert zero == pytest.approx(dots[0] - 2 * scale, abs=0.02)
    assert "var(--after)" in html.split("two")[0]
    assert "var(--after)" not in html.split("two")[1]
    assert forest([Row("same", 0.0, (0.0, 0.0), False, "+0.0")]).count("<li") == 2


def test_curves_over_magnitudes_are_logarithmic():
    steep = [(1.0, 100.0), (2.0, 0.1)]
    assert "logarithmic" in curve_overlay("loss", [steep, []], ["a", "b"])
    flat = [(1.0, 3.0), (2.0, 2.0)]
    assert "logarithmic" not in curve_overlay("loss", [flat, flat], ["a", "b"])
