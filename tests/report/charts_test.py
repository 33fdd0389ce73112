"""The chart engine: one drawing as SVG for a page and as a PNG file."""

import re
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from rsclip_jax.report.charts import COLOURS, colour, save_png, svg


def draw(axes):
    axes.plot([0, 1, 2], [3, 1, 2], color=colour("after"), label="<here>")
    axes.set(xlabel="x & y", title="0.123456")


@pytest.fixture(scope="module")
def chart() -> str:
    return str(svg(draw, (300, 200), "a <title>", "what it says"))


def test_it_is_well_formed_and_described(chart):
    root = ET.fromstring(chart)
    assert root.get("role") == "img"
    assert root.get("aria-label") == root.findtext("title") == "a <title>"
    assert root.findtext("desc") == "what it says"
    texts = {node.text for node in root.iter("text")}
    assert {"<here>", "x & y", "0.123456"} <= texts


def test_its_colours_are_the_page_s_and_its_fonts_too(chart):
    assert "var(--after)" in chart
    light = [pair[0] for pair in COLOURS.values()]
    assert not [code for code in light if code in chart]
    assert len(set(light)) == len(light)
    assert "font-family" not in chart


def test_ids_are_those_that_are_referred_to(chart):
    ids = re.findall(r' id="([^"]*)"', chart)
    named = re.findall(r'(?:href="#|url\(#)([^")]*)', chart)
    assert set(ids) == set(named)
    assert len(set(ids)) == len(ids)
    other = str(svg(draw, (300, 200), "another title", ""))
    assert not set(ids) & set(re.findall(r' id="([^"]*)"', other))


def test_the_same_chart_is_the_same_text(chart):
    assert str(svg(draw, (300, 200), "a <title>", "what it says")) == chart


def test_small_values_have_their_power_of_ten_at_each_tick():
    def small(axes):
        axes.plot([0, 1], [0, 4e-5])

    ticks = re.findall(
        "<text[^>]*>([^<]*)</text>", str(svg(small, (300, 200), "a", ""))
    )
    assert {"0", "0.5", "2e-05", "4e-05"} <= set(ticks)


def test_marks_that_share_a_style_have_it_once():
    def many(axes):
        axes.plot(range(50), range(50), "o", color=colour("s1"))

    text = str(svg(many, (300, 200), "marks", ""))
    group = re.search(r"<g style=([^>]*)>(<use [^>]*/>)+</g>", text)
    assert group is not None
    assert "var(--s1)" in group[1]
    assert group[0].count("<use") == 50
    assert "style" not in group[2]


def test_a_legend_makes_room_below():
    def bare(axes):
        axes.plot([0, 1], [0, 1])

    heights = [
        float(ET.fromstring(str(svg(one, (300, 200), "a", ""))).get("height"))
        for one in (bare, draw)
    ]
    assert heights[0] == 200
    assert heights[1] > 200


def test_a_png_has_the_drawings_side_by_side(tmp_path):
    save_png(tmp_path / "deep" / "a.png", [draw, draw], (300, 200), "two")
    with Image.open(tmp_path / "deep" / "a.png") as image:
        assert image.size[0] == 2 * 300 * 120 // 72
        assert image.size[1] >= 200 * 120 // 72


def test_an_unknown_role_has_a_colour_too():
    assert colour("lidar") == colour("other")
