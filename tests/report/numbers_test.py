"""Numbers as text, by hand."""

import pytest

from rsclip_jax.report.numbers import (
    arrow_text,
    change_text,
    interval_text,
    p_text,
    value_text,
)


@pytest.mark.parametrize(
    ("value", "metric", "task", "text"),
    [
        (0.658, "accuracy", "zero_shot", "65.8 %"),
        (1, "recall@10", "retrieval", "100.0 %"),
        (0.07, "ece", "zero_shot", "7.0 %"),
        (0.7, "separability", "modality_gap", "70.0 %"),
        (0.5, "median_rank", "retrieval", "0.5"),
        (12.5, "median_rank", "retrieval", "12.5"),
        (0.81234, "cosine_paired", "modality_gap", "0.8123"),
        (1.23456, "unheard_of", "", "1.235"),
        (-0.0751, "accuracy", "forgetting", "-7.5 points"),
        (0.02, "recall@1", "forgetting", "+2.0 points"),
        (float("nan"), "mAP_macro", "zero_shot", "-"),
        (None, "accuracy", "zero_shot", "-"),
        (None, "accuracy", "forgetting", "-"),
    ],
)
def test_a_value_has_the_unit_of_its_metric(value, metric, task, text):
    assert value_text(value, metric, task) == text


@pytest.mark.parametrize(
    ("ci95", "metric", "task", "text"),
    [
        ([0.629, 0.687], "accuracy", "", "62.9 to 68.7 %"),
        ([10, 12.5], "median_rank", "", "10 to 12.5"),
        ([-0.1, 0.004], "accuracy", "forgetting", "-10.0 to +0.4 points"),
        ([None, None], "accuracy", "", ""),
        (None, "accuracy", "", ""),
    ],
)
def test_an_interval_has_its_unit_once(ci95, metric, task, text):
    assert interval_text(ci95, metric, task) == text


def test_a_difference_has_its_sign():
    assert change_text(0.125, "accuracy") == "+12.5"
    assert change_text(-0.75, "centroid_distance") == "-0.75"
    assert change_text(None, "accuracy") == "-"


def test_values_in_their_order_have_the_unit_once():
    assert arrow_text(["38.0 %", "65.8 %"]) == "38.0 → 65.8 %"
    assert arrow_text(["-", "12.5"]) == "- → 12.5"


def test_small_p_values_have_four_digits():
    texts = [p_text(p) for p in (0.0002, 0.0099, 0.01, 1.0, None)]
    assert texts == ["0.0002", "0.0099", "0.01", "1.00", ""]
