"""Values by guessing: formulas against draws."""

import numpy as np
import pytest

from rsclip_jax.metrics import average_precision, top_k_accuracy
from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.report.chance import chance_of
from tests.helpers.results import make_result

CLASSES = {str(i): 0.5 for i in range(10)}


@pytest.mark.parametrize(("metric", "k"), [("accuracy", 1), ("accuracy@5", 5)])
def test_accuracy_is_that_of_random_logits(metric, k):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 20000)
    got = float(top_k_accuracy(rng.normal(size=(20000, 10)), labels, k))
    result = make_result(metric=metric, per_class=CLASSES)
    assert chance_of(result, {}) == pytest.approx(got, abs=0.02)


def test_average_precision_is_that_of_a_random_ranking():
    rng = np.random.default_rng(0)
    labels = (rng.random((5000, 3)) < [0.1, 0.3, 0.5]).astype(np.uint8)
    got = float(np.mean(average_precision(rng.normal(size=labels.shape), labels)))
    outcome = Outcome({}, (), {}, labels=labels)
    result = make_result(metric="mAP_macro")
    assert chance_of(result, {"d:test": outcome}) == pytest.approx(got, abs=0.02)
    assert chance_of(result, {}) is None


def test_recall_is_k_of_all_locations():
    recall = {"task": "retrieval", "metric": "recall@10"}
    assert chance_of(make_result(**recall, sensor="rgb->s1", n=1000), {}) == 0.01
    assert chance_of(make_result(**recall, sensor="rgb->s1", n=5), {}) == 1
    # an image may have several captions
    assert chance_of(make_result(**recall, sensor="text->s1", n=1000), {}) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"metric": "ece", "per_class": CLASSES},
        {"metric": "accuracy"},
        {"task": "modality_gap", "metric": "separability"},
        {"task": "forgetting", "metric": "accuracy", "per_class": CLASSES},
    ],
)
def test_without_a_known_guess_there_is_none(fields):
    assert chance_of(make_result(**fields), {}) is None
