"""The table of a survey."""

from rsclip_jax.report.survey import format_csv, format_survey, survey_rows
from tests.helpers.results import make_result


def test_a_missing_value_is_a_dash_or_an_empty_cell():
    record = make_result(metric="mAP_macro", n=7, value=None, ci95=[None, None])
    (row,) = survey_rows({"m": [record]}, [])
    cells = format_survey([row]).splitlines()[-1].split("|")
    assert [cell.strip() for cell in cells[5:8]] == ["7", "-", "-"]
    assert format_csv([row]).splitlines()[-1] == "m,d,test,rgb,,mAP_macro,7,,,,,"
