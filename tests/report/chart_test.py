"""Charts: values land where the axes say."""

import re

import pytest

from rsclip_jax.report.chart import Chart, legend, limits, mark, ticks


def test_values_lie_between_the_margins():
    chart = Chart((200, 100), (0, 10), (-1, 1), margins=(10, 20, 30, 40))
    assert [chart.x(v) for v in (0, 5, 10)] == [40, 110, 180]
    assert [chart.y(v) for v in (-1, 0, 1)] == [70, 40, 10]


def test_a_logarithmic_axis_gives_each_decade_the_same_room():
    chart = Chart((100, 100), (0, 1), (1, 100), margins=(0, 0, 0, 0), log=True)
    assert [chart.y(v) for v in (1, 10, 100)] == [100, 50, 0]
    chart.axes("x", "y")
    said = re.findall(r'class="tick" text-anchor="end">([\d.]+)<', chart.render("a"))
    assert said == ["1", "2", "5", "10", "20", "50", "100"]


def test_a_line_and_its_marks_share_their_points():
    chart = Chart((110, 110), (0, 1), (0, 1), margins=(0, 0, 0, 0))
    chart.line([(0, 0), (1, 0.5)], "after")
    chart.marks([(1, 0.5)], "s1", shape="square", radius=10, titles=["<here>"])
    svg = chart.render("said & done")
    assert 'd="M0 110L110 55"' in svg
    assert 'd="M101 46h18.0v18.0h-18.0z"><title>&lt;here&gt;</title>' in svg
    assert 'style="stroke:var(--after)"' in svg
    assert 'aria-label="said &amp; done"' in svg


def test_an_unknown_role_has_a_colour_too():
    assert "var(--other)" in legend([("line", "lidar", "lidar")])


@pytest.mark.parametrize("shape", ["circle", "square", "diamond", "star"])
def test_every_mark_is_a_closed_path_of_its_own(shape):
    path = mark(shape, 5, 5, 3)
    assert path.startswith("M")
    assert path.lower().endswith("z")
    others = {"circle", "square", "diamond", "star"} - {shape}
    assert path not in [mark(other, 5, 5, 3) for other in others]


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(31.5, 86.2) == [40, 60, 80]


@pytest.mark.parametrize("values", [[0.3], [0.0, 0.0], [], [float("nan")]])
def test_limits_are_never_of_no_width(values):
    low, high = limits(values)
    assert low < high


def test_limits_leave_a_margin():
    assert limits([1, 3, 2], 0.1) == pytest.approx((0.8, 3.2))
    assert limits([1, 3, float("inf")], 0.0) == (1, 3)
