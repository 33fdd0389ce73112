"""What metrics are called."""

import pytest

from rsclip_jax.evals.compare import ZERO_SHOT
from rsclip_jax.evals.retrieval import KS, LABEL_KS
from rsclip_jax.records.metric_names import find_metric, is_first, is_primary


@pytest.mark.parametrize(
    ("name", "words", "unit", "better"),
    [
        ("accuracy", "accuracy", "share", "higher"),
        ("accuracy@5", "top-5 accuracy", "share", "higher"),
        ("ece", "calibration error", "share", "lower"),
        ("median_rank", "median rank", "number", "lower"),
        ("new_metric", "new metric", "number", ""),
    ],
)
def test_a_metric_has_words_a_unit_and_a_direction(name, words, unit, better):
    metric = find_metric(name)
    assert (metric.words, metric.unit, metric.better) == (words, unit, better)


def test_what_the_evaluations_report_is_known():
    names = [*ZERO_SHOT, *(f"recall@{k}" for k in KS), *(f"mAP@{k}" for k in LABEL_KS)]
    assert {(n, find_metric(n).unit, find_metric(n).better) for n in names} == {
        (n, "share", "higher") for n in names
    }


def test_a_dataset_is_judged_by_one_zero_shot_metric():
    assert is_primary("zero_shot", "accuracy")
    assert is_primary("zero_shot", "mAP_macro")
    assert not is_primary("zero_shot", "mAP_micro")
    assert not is_primary("linear_probe", "accuracy")


def test_other_tasks_show_all_their_metrics():
    assert is_first("retrieval", "recall@10")
    assert not is_first("retrieval", "recall@5")
    assert is_first("forgetting", "recall@5")
