"""compare.html: one whole file; what it says of settings, differences and curves."""

import re
from pathlib import Path

import pytest

from rsclip_jax.records.meta import StageMeta
from rsclip_jax.report.comparison_page import (
    comparison_page,
    differences,
    differing,
    short_names,
    span_of,
)
from rsclip_jax.report.workdir import Workdir
from tests.helpers.comparisons import UNTESTED, record
from tests.helpers.pages import Page
from tests.helpers.results import make_result


def make_run(name, lr=0.1, shift=0.0) -> Workdir:
    sets = {"val": ["d:val"], "supported_val": ["n:val"]}
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
        {"seed": 0, "progress": name == "a", "patch": {"lr": lr}},
        {"patch": StageMeta(alpha=0.5, digest="0123456789abcdef", steps=5, sets=sets)},
        swept,
        {"patch": curve},
        {},
    )


def page_of(runs, records):
    page = comparison_page(runs, records)
    parsed = Page(page)
    assert parsed.open == []
    addresses = [e.get("href", e.get("src", "#")) for _, e in parsed.elements]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"@import|url\([^#]|http", page)
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
    charts = re.findall("role=.img.[^>]*><title>([^<]*)</title><desc>([^<]*)", page)
    assert charts == [
        ("d:val along alpha in a, b", "a: alpha 0.5; b: alpha 0.5"),
        ("n:val along alpha in a, b", "a: alpha 0.5; b: alpha 0.5"),
        ("loss of patch", "at the end: a 0.667, b 0.717"),
        ("grad_norm of patch", "at the end: a 1, b 1"),
    ]
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


def test_runs_beyond_the_colours_are_named():
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


def test_differences_lie_on_an_axis_with_zero_and_every_interval():
    records = [
        record(sensor="one", difference=0.02, ci95=[0.01, 0.035], p_holm=0.01),
        record(sensor="two", difference=-0.08, ci95=[-0.09, -0.07], p_holm=0.2),
    ]
    assert span_of(records) == (-9, 4)
    html = str(differences(records, {"runs/a": "a", "runs/b": "b"}).body)
    share = re.compile(r"left:([\d.]+)%")
    one, two = (
        re.search(rf"<li><span>{n}.*?</li>", html, re.S)[0] for n in ("one", "two")
    )
    for item, role, (low, value) in (
        (one, "after", (1, 2)),
        (two, "before", (-9, -8)),
    ):
        want = [100 * (x + 9) / 13 for x in (0, low, value)]
        assert [float(x) for x in share.findall(item)] == pytest.approx(want, abs=0.01)
        assert f"var(--{role})" in item
    assert re.search(r"width:([\d.]+)%", one)[1] == f"{100 * 2.5 / 13:.2f}"
    assert span_of([record(difference=0.0, ci95=[0.0, 0.0])]) == (-1, 1)
