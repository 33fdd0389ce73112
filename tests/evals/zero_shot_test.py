"""Records of zero-shot classification, from logits computed by hand."""

import json

import numpy as np
import pytest

from rsclip_jax.evals.zero_shot import zero_shot_records


def by_metric(logits, labels, task, classnames, sensor="s1"):
    records = zero_shot_records(
        logits, labels, task=task, sensor=sensor, classnames=classnames
    )
    assert {(r["task"], r["sensor"], r["n"]) for r in records} == {
        ("zero_shot", sensor, len(labels))
    }
    assert all(len(r["ci95"]) == 2 for r in records)
    return {r["metric"]: r for r in records}


def test_single_label_records_have_one_value_per_class():
    logits = np.array([[2.0, 1, 0], [2, 1, 0], [0, 1, 2], [0, 1, 2]])
    found = by_metric(logits, np.array([0, 1, 2, 2]), "single", "abc")
    assert list(found) == ["accuracy", "mean_recall", "ece"]
    assert found["accuracy"]["value"] == pytest.approx(3 / 4)
    assert found["accuracy"]["ci95"] == [0.300642, 0.954413]  # Wilson's, of 3 of 4
    assert found["accuracy"]["per_class"] == {"a": 1.0, "b": 0.0, "c": 1.0}
    assert found["mean_recall"]["value"] == pytest.approx(2 / 3)
    assert found["mean_recall"]["ci95"] == [0.5, 1.0]
    sure = np.exp(2) / (1 + np.exp(1) + np.exp(2))
    assert found["ece"]["value"] == pytest.approx(abs(sure - 3 / 4))
    assert "per_class" not in found["mean_recall"]


@pytest.mark.parametrize("k", [5, 6])
def test_accuracy_at_5_needs_more_than_five_classes(k):
    logits = np.arange(k, dtype=float)[None].repeat(k, axis=0)
    found = by_metric(logits, np.arange(k), "single", "abcdef"[:k])
    assert found["accuracy"]["value"] == pytest.approx(1 / k)
    assert ("accuracy@5" in found) == (k > 5)
    if k > 5:
        assert found["accuracy@5"]["value"] == pytest.approx(5 / 6)
        low, high = found["accuracy@5"]["ci95"]
        assert 0.4 < low < 5 / 6 < high < 1


def test_a_class_without_examples_has_no_value_and_no_weight():
    logits = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.1]])
    targets = np.array([[1, 0, 0], [0, 1, 0]], np.uint8)
    found = by_metric(logits, targets, "multi", "abc", sensor="rgb")
    assert list(found) == ["mAP_macro", "mAP_micro", "ece"]
    macro, micro = found["mAP_macro"], found["mAP_micro"]
    assert macro["value"] == 1.0
    assert macro["per_class"] == {"a": 1.0, "b": 1.0, "c": None}
    assert micro["value"] == 1.0
    assert macro["ci95"] == micro["ci95"] == [1.0, 1.0]
    sure = 1 / (1 + np.exp(-logits))  # each in a bin of its own but 0.1 twice
    gap = abs(sure - targets)
    assert found["ece"]["value"] == pytest.approx(gap.mean(), abs=1e-3)
    found = by_metric(logits, np.array([0, 0]), "single", "abc")
    assert found["mean_recall"]["value"] == 0.5


def test_multi_hot_labels_without_an_example_have_no_value():
    found = by_metric(np.eye(3), np.zeros((3, 3), int), "multi", "abc")
    for average in ("macro", "micro"):
        assert found[f"mAP_{average}"]["value"] is None
        assert found[f"mAP_{average}"]["ci95"] == [None, None]
    assert found["ece"]["value"] > 0
    json.dumps([*found.values()], allow_nan=False)
