"""The table of a comparison in words."""

from rsclip_jax.report.comparison import (
    format_comparison,
    format_markdown,
    in_numbers,
)
from tests.helpers.comparisons import UNTESTED, record


def test_a_row_in_words():
    sure = ["50.0 %", "62.5 %", "+12.5 *", "+5.0 to +20.0", "0.0020", "0.0040"]
    assert in_numbers(record()) == sure
    unsure = record(p_holm=0.05, p_value=0.03, ci95=[-0.001, 0.2])
    assert in_numbers(unsure)[2:] == ["+12.5  ", "-0.1 to +20.0", "0.03", "0.05"]
    same = record(difference=0.0, same=True, **UNTESTED)
    assert in_numbers(same)[2:] == ["+0.0", "same", "", ""]
    assert "not tested" not in format_comparison([same])
    assert in_numbers(record(**UNTESTED))[2:] == ["+12.5", "not tested", "", ""]


def test_only_shares_are_in_percent():
    gap = record(
        task="modality_gap",
        metric="centroid_distance",
        a=1.25,
        b=0.5,
        difference=-0.75,
        **UNTESTED,
    )
    assert in_numbers(gap)[:3] == ["1.25", "0.5", "-0.75"]
    lost = record(task="forgetting", a=-0.1, b=-0.04, difference=0.06, **UNTESTED)
    assert in_numbers(lost)[:3] == ["-10.0 points", "-4.0 points", "+6.0"]
    nothing = record(a=None, difference=None, **UNTESTED)
    assert in_numbers(nothing)[:3] == ["-", "62.5 %", "-"]


def test_the_table_explains_its_columns():
    text = format_comparison([record(), record(metric="recall@1", **UNTESTED)])
    lines = text.splitlines()
    assert lines[0].split() == (
        "dataset split task sensor metric a b b - a 95 % p p (Holm)".split()
    )
    assert "a: runs/a, the baseline. b: runs/b." in text
    assert "correction for the 1 test(s)" in text
    assert "not tested: a run kept no embeddings" in text
    assert "not tested" not in format_comparison([record()])


def test_rows_name_their_run_if_there_are_several():
    text = format_comparison([record(tile=64), record(run_b="runs/c")])
    rows = [line.split()[:3] for line in text.splitlines()[2:4]]
    assert rows == [["runs/b", "d", "test:64"], ["runs/c", "d", "test"]]
    assert "b: runs/b, runs/c." in text


def test_markdown_lines_up_and_has_its_stars_escaped():
    lines = format_markdown([record()]).splitlines()
    assert len({len(line) for line in lines[:3]}) == 1
    assert r"+12.5 \* |" in lines[2]
    assert lines[1].count("-:") == 6
    assert lines[-1].startswith(r"\* p below 0.05")


def test_a_runs_name_is_shown_as_it_is_and_breaks_no_table():
    name = "a|b\n[c](d) `e` <f> \\"
    text = format_markdown([record(run_b=name), record(run_b="c")])
    header, _, row, *_ = text.splitlines()
    shown = r"a\|b \[c\](d) \`e\` \<f\> \\"
    assert row.startswith(f"| {shown} |")
    assert row.replace(r"\|", "").count("|") == header.count("|")
    assert f"b: {shown}, c." in text
