"""Forgetting against hand-computed values; other examples are refused."""

import dataclasses

import numpy as np
import pytest

from rsclip_jax.evals import search
from rsclip_jax.evals.forgetting import forgetting_records
from rsclip_jax.metrics import average_precision, mean_ap, recall_at_k
from rsclip_jax.train.sharding import make_mesh
from tests.helpers.outcomes import make_outcome, unit


def test_accuracy_by_hand():
    """Ten images of two classes: the first loses 1 of 5, the second 3 of 5."""
    labels = np.array([0] * 5 + [1] * 5)
    right = np.eye(2)[labels]
    wrong = right.copy()
    wrong[[0, 5, 6, 7]] = wrong[[0, 5, 6, 7]][:, ::-1]
    fields = {
        "labels": labels,
        "head": np.eye(2),
        "classnames": ("cat", "dog"),
        "ids": tuple("abcdefghij"),
    }
    before = make_outcome(z={"rgb": right}, **fields)
    after = make_outcome(z={"rgb": wrong, "s1": right}, **fields)
    (found,) = forgetting_records(before, after)
    assert found["task"] == "forgetting"
    assert (found["sensor"], found["metric"], found["n"]) == ("rgb", "accuracy", 10)
    assert found["value"] == pytest.approx(-0.4)
    assert found["before"] == 1.0
    assert found["per_class"] == {"cat": -0.2, "dog": -0.6}
    low, high = found["ci95"]  # four of ten lost, drawn ten times
    assert low == pytest.approx(-0.7)
    assert high == pytest.approx(-0.1)
    # twice the chance that none is drawn, 0.6 ** 10
    assert found["p_value"] == pytest.approx(2 * 0.6**10, abs=0.004)
    (gained,) = forgetting_records(after, before)
    assert gained["value"] == pytest.approx(0.4)


def test_multi_hot_labels_use_map_and_an_empty_class_has_no_change():
    before, after = make_outcome(0, "multi"), make_outcome(1, "multi")
    labels = before.labels.copy()
    labels[:, 3] = 0
    before, after = (dataclasses.replace(o, labels=labels) for o in (before, after))
    (found,) = forgetting_records(before, after)
    assert found["metric"] == "mAP_macro"
    logits = before.logits("rgb"), after.logits("rgb")
    want = np.subtract(*(mean_ap(x, labels, "macro") for x in logits[::-1]))
    assert found["value"] == pytest.approx(want)
    assert found["per_class"]["d"] is None
    each = np.subtract(*(average_precision(x, labels)[0] for x in logits[::-1]))
    assert found["per_class"]["a"] == pytest.approx(each, abs=1e-6)


def test_recall_of_captions_is_measured_both_ways():
    before, after = make_outcome(0, "captions", 0.4), make_outcome(1, "captions", 1.0)
    found = {(r["sensor"], r["metric"]): r for r in forgetting_records(before, after)}
    assert set(found) == {
        (s, f"recall@{k}") for s in ("text->rgb", "rgb->text") for k in (1, 5, 10)
    }
    assert found["text->rgb", "recall@1"]["value"] < 0
    one = make_outcome(0, "captions", owners=np.arange(60), ztxt=before.ztxt[::3])
    moved = dataclasses.replace(one, z=after.z)
    found = {(r["sensor"], r["metric"]): r for r in forgetting_records(one, moved)}
    want = [recall_at_k(o.z["rgb"], one.ztxt, 5) for o in (one, moved)]
    assert found["rgb->text", "recall@5"]["value"] == pytest.approx(want[1] - want[0])


def test_captions_are_searched_over_the_mesh(monkeypatch):
    monkeypatch.setattr(search, "_SMALL", 0)
    used = []
    tiles = search._Tiles.of
    monkeypatch.setattr(search._Tiles, "of", lambda *z: used.append(z) or tiles(*z))
    pair = make_outcome(0, "captions", 0.4), make_outcome(1, "captions", 1.0)
    assert forgetting_records(*pair, mesh=make_mesh()) == forgetting_records(*pair)
    assert len(used) == 4  # both ways, of both models


def test_a_model_compared_with_itself_forgets_nothing():
    (found,) = forgetting_records(make_outcome(), make_outcome())
    assert (found["value"], found["ci95"], found["p_value"]) == (0.0, [0.0, 0.0], 1.0)
    assert set(found["per_class"].values()) == {0.0}


def changed(**pins):
    return make_outcome(pins={**make_outcome().pins, **pins})


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (changed(split_digest="2"), "split_digest is '1' in the one before and '2' in"),
        (changed(prompts="q"), "prompts is 'p' in the one before and 'q' in the one"),
        (make_outcome(ids=("x", *make_outcome().ids[1:])), "id 0 is '0' .* and 'x'"),
        (make_outcome(ids=make_outcome().ids[:-1]), "id 59 is '59' .* and None"),
        (make_outcome(labels=1 - make_outcome().labels), "labels of the one before"),
    ],
)
def test_other_examples_are_refused(after, said):
    with pytest.raises(ValueError, match=rf"^d:test: .*{said}"):
        forgetting_records(make_outcome(), after)


def test_a_dataset_without_classes_or_captions_is_refused():
    one = make_outcome(0, "none", z={"rgb": unit(np.ones((60, 3)))})
    with pytest.raises(ValueError, match="d:test has neither classes nor captions"):
        forgetting_records(one, one)


def test_a_dataset_with_one_class_is_refused():
    one = make_outcome(
        labels=np.zeros(60, int), head=make_outcome().head[:, :1], classnames=("a",)
    )
    with pytest.raises(ValueError, match="d:test has one class, so every answer"):
        forgetting_records(one, one)
