"""Metrics against scikit-learn, torchmetrics, values by hand; ties earn nothing."""

import inspect

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rsclip_jax import metrics
from rsclip_jax.evals.retrieval import label_retrieval_records, retrieval_records
from rsclip_jax.evals.zero_shot import zero_shot_records


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_top_k_accuracy_by_hand():
    logits = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    labels = np.array([0, 1, 2])
    for k in (1, 2, 3):
        assert metrics.top_k_accuracy(logits, labels, k) == k / 3


def test_top_k_accuracy_equals_scikit_learn():
    logits, labels = draw(0, 50, 6), np.random.default_rng(1).integers(0, 6, 50)
    for k in (1, 2, 5):
        want = sklearn.metrics.top_k_accuracy_score(
            labels, logits, k=k, labels=range(6)
        )
        assert metrics.top_k_accuracy(logits, labels, k) == pytest.approx(want)


def test_a_tie_counts_against():
    logits = np.array([[1.0, 1.0, 0.0]])
    for label in (0, 1):
        assert metrics.top_k_accuracy(logits, np.array([label]), 1) == 0
        assert metrics.top_k_accuracy(logits, np.array([label]), 2) == 1


@pytest.mark.parametrize("value", [0.0, -3.5, np.inf, np.nan])
def test_a_constant_classifier_scores_nothing(value):
    logits, labels = np.full((8, 4), value), np.arange(8) % 4
    for k in (1, 2, 3):
        assert metrics.top_k_accuracy(logits, labels, k) == 0
    assert metrics.top_k_accuracy(logits, labels, 4) == 1
    np.testing.assert_array_equal(metrics.per_class_accuracy(logits, labels), 0)


def test_per_class_accuracy_by_hand():
    logits = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    got = metrics.per_class_accuracy(logits, np.array([0, 0, 1]))
    np.testing.assert_array_equal(got, [0.5, 1.0, np.nan])


def test_per_class_accuracy_is_the_diagonal_of_the_confusion():
    logits, labels = draw(2, 60, 5), np.random.default_rng(3).integers(0, 5, 60)
    confusion = sklearn.metrics.confusion_matrix(
        labels, logits.argmax(1), normalize="true"
    )
    got = metrics.per_class_accuracy(logits, labels)
    np.testing.assert_allclose(got, np.diag(confusion))


def test_mean_recall_equals_scikit_learn_with_and_without_an_absent_class():
    logits = draw(20, 80, 5)
    for labels in (
        np.random.default_rng(21).integers(0, 5, 80),
        np.random.default_rng(22).choice([0, 1, 1, 1, 4], 80),
    ):
        want = sklearn.metrics.recall_score(
            labels, logits.argmax(1), average="macro", labels=np.unique(labels)
        )
        assert metrics.mean_recall(logits, labels) == pytest.approx(want, abs=1e-12)


def test_mean_recall_counts_ties_against_and_each_class_once():
    logits = np.array([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
    labels = np.array([0, 0, 0, 1, 0])
    assert metrics.mean_recall(logits, labels) == pytest.approx((3 / 4 + 0) / 2)
    assert np.isnan(metrics.mean_recall(logits[:0], labels[:0]))


def calibration_by_bins(sure, right, bins=15):
    """The definition, a bin and an example at a time."""
    error = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        mine = [i for i, p in enumerate(sure) if low < p <= high or (b == 0 and p == 0)]
        if mine:
            gap = sum(right[i] for i in mine) - sum(sure[i] for i in mine)
            error += abs(gap) / len(sure)
    return error


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_calibration_equals_brute_force(scale, dtype):
    logits = (scale * draw(23, 200, 4)).astype(dtype)
    labels = np.random.default_rng(24).integers(0, 4, 200)
    exp = [np.exp(row - row.max()) for row in logits.astype(float)]
    sure = [float(row.max() / row.sum()) for row in exp]
    right = (logits.argmax(1) == labels).tolist()
    got = metrics.calibration_error(logits, labels)
    assert got == pytest.approx(calibration_by_bins(sure, right), abs=1e-9)
    targets = np.random.default_rng(25).integers(0, 2, logits.shape)
    sure = (1 / (1 + np.exp(-logits.astype(float)))).ravel().tolist()
    got = metrics.calibration_error(logits, targets)
    want = calibration_by_bins(sure, targets.ravel().tolist())
    assert got == pytest.approx(want, abs=1e-9)


def test_calibration_of_the_extremes():
    logits, labels = 1e4 * np.eye(3), np.arange(3)
    assert metrics.calibration_error(logits, labels) == 0  # sure, and right
    assert metrics.calibration_error(logits, (labels + 1) % 3) == 1
    # all tied: sure to 1 / 4, and a tie is never right
    tied = np.zeros((8, 4))
    assert metrics.calibration_error(tied, np.arange(8) % 4) == pytest.approx(1 / 4)
    for dead in (np.full((8, 4), np.nan), np.full((8, 4), np.inf)):
        assert metrics.calibration_error(dead, np.arange(8) % 4) == 1
    nan = np.full((8, 4), np.nan)
    assert metrics.calibration_error(nan, np.arange(32).reshape(8, 4) % 2) == 1
    assert np.isnan(metrics.calibration_error(tied[:0], np.zeros(0, int)))


def test_gaps_of_opposite_signs_cancel_within_a_bin_and_not_between():
    # 0.6 each: half of them right; the share of right ones is 0.1 off
    logits = np.log(np.array([[0.6, 0.4]] * 4))
    got = metrics.calibration_error(logits, np.array([0, 0, 1, 1]))
    assert got == pytest.approx(0.1)
    # 0.6 and always right, 0.9 and never: 0.4 and 0.9 off, each half of the examples
    logits = np.log(np.array([[0.6, 0.4], [0.9, 0.1]]))
    got = metrics.calibration_error(logits, np.array([0, 1]))
    assert got == pytest.approx((0.4 + 0.9) / 2)


def test_average_precision_by_hand():
    # ranked + - + -: precision 1 at the first positive, 2/3 at the second
    scores = np.array([[4.0], [3.0], [2.0], [1.0]])
    targets = np.array([[1], [0], [1], [0]])
    np.testing.assert_allclose(
        metrics.average_precision(scores, targets), [(1 + 2 / 3) / 2]
    )


def test_scores_that_are_equal_are_one_threshold():
    targets = np.array([[1], [1], [0], [0], [0]])
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        got = metrics.average_precision(np.ones((5, 1)), targets[order])
        np.testing.assert_allclose(got, [2 / 5])  # how often it is there


@given(st.data())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_average_precision_equals_scikit_learn(data):
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 4)))
    few = st.integers(-2, 2).map(float)  # many ties
    any_float = st.floats(-1e6, 1e6)
    scores = data.draw(hnp.arrays(np.float64, shape, elements=few | any_float))
    targets = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    got = metrics.average_precision(scores, targets)
    for c in range(shape[1]):
        if targets[:, c].any():
            want = sklearn.metrics.average_precision_score(targets[:, c], scores[:, c])
            np.testing.assert_allclose(got[c], want, rtol=1e-12)
        else:
            assert np.isnan(got[c])


def test_scores_that_are_no_number_rank_last_together():
    targets = np.array([[1], [1], [0], [0]])
    got = metrics.average_precision(np.full((4, 1), np.nan), targets)
    np.testing.assert_allclose(got, [0.5])
    scores = np.array([[np.nan], [2.0], [1.0], [np.nan]])
    # the second positive is found with all four: precision 1/2
    got = metrics.average_precision(scores, targets)
    np.testing.assert_allclose(got, [(1 + 1 / 2) / 2])


def multi_hot():
    targets = np.random.default_rng(4).integers(0, 2, (40, 5))
    targets[:, 3] = 0  # a class without a positive
    scores = draw(5, 40, 5).round(1)  # some ties
    return scores, targets


def test_mean_ap_equals_scikit_learn():
    scores, targets = multi_hot()
    there = targets.any(axis=0)
    want = sklearn.metrics.average_precision_score(
        targets[:, there], scores[:, there], average="macro"
    )
    assert metrics.mean_ap(scores, targets, "macro") == pytest.approx(want, rel=1e-12)
    want = sklearn.metrics.average_precision_score(targets, scores, average="micro")
    assert metrics.mean_ap(scores, targets, "micro") == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_mean_ap_without_any_positive_is_nan(average):
    zeros = np.zeros((3, 2), np.int64)
    assert np.isnan(metrics.mean_ap(np.ones((3, 2)), zeros, average))


def test_mean_ap_names_what_it_knows():
    with pytest.raises(ValueError, match="average is 'weighted'; use 'macro' or"):
        metrics.mean_ap(*multi_hot(), "weighted")


def test_recall_at_k_by_hand():
    gallery = np.eye(3)
    queries = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    np.testing.assert_array_equal(metrics.match_ranks(queries, gallery), [1, 2, 3])
    for k in (1, 2, 3):
        assert metrics.recall_at_k(queries, gallery, k) == k / 3


def test_recall_ties_count_against():
    gallery = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    ranks = metrics.match_ranks(gallery, gallery)
    np.testing.assert_array_equal(ranks, [2, 2, 1])


@pytest.mark.parametrize("n", [33, 1031])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_collapsed_encoder_recalls_nothing(n, dtype):
    one = draw(6, 1, 64).astype(dtype)
    gallery = np.repeat(one / np.linalg.norm(one), n, axis=0)
    queries = draw(7, n, 64).astype(dtype)
    for side in (gallery, queries, np.full_like(queries, np.nan)):
        np.testing.assert_array_equal(metrics.match_ranks(side, gallery), n)
    assert metrics.recall_at_k(queries, gallery, n - 1) == 0


def test_recall_is_blind_to_order_and_lost_by_shuffling():
    gallery = draw(8, 60, 16).astype(np.float32)
    queries = gallery + 0.8 * draw(9, 60, 16).astype(np.float32)
    order = np.random.default_rng(10).permutation(60)
    want = metrics.match_ranks(queries, gallery)
    assert 1 < want.mean() < 10  # neither perfect nor chance
    both = metrics.match_ranks(queries[order], gallery[order])
    np.testing.assert_array_equal(both, want[order])
    chance = metrics.match_ranks(queries[order], gallery)
    assert 20 < chance.mean() < 40


@pytest.mark.parametrize("block", [1, 7, 20, 64])
def test_blocks_equal_unblocked(block):
    gallery = draw(11, 20, 8).astype(np.float32)
    gallery[5] = gallery[12]  # a tie across blocks
    queries = gallery + draw(12, 20, 8).astype(np.float32)
    scores = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    want = [sum(s >= scores[i, i] for s in scores[i]) for i in range(20)]
    got = metrics.match_ranks(queries, gallery, block=block)
    np.testing.assert_array_equal(got, want)


def by_brute_force(queries, gallery, mine, theirs):
    """Ranks from each query's scores, one after the other; exact ties only."""
    ranks = []
    for query, owner in zip(queries, mine, strict=True):
        scores = [float(np.dot(query, entry)) for entry in gallery]
        best = max(s for s, o in zip(scores, theirs, strict=True) if o == owner)
        rivals = [s for s, o in zip(scores, theirs, strict=True) if o != owner]
        ranks.append(1 + sum(s >= best for s in rivals))
    return ranks


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_ranks_with_owners_equal_brute_force(data):
    few = st.integers(-2, 2).map(float)  # whole numbers: exact, with many ties
    n = data.draw(st.integers(1, 6))
    theirs = np.array(
        [*range(n), *data.draw(st.lists(st.integers(0, n - 1), max_size=8))]
    )
    mine = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=9)))
    gallery = data.draw(hnp.arrays(np.float64, (len(theirs), 3), elements=few))
    queries = data.draw(hnp.arrays(np.float64, (len(mine), 3), elements=few))
    block = data.draw(st.integers(1, 10))
    got = metrics.match_ranks(queries, gallery, (mine, theirs), block)
    want = by_brute_force(queries, gallery, mine, theirs)
    np.testing.assert_array_equal(got, want)


def test_owners_one_by_one_are_the_plain_ranks():
    gallery = draw(13, 30, 8)
    queries = gallery + draw(14, 30, 8)
    owners = np.arange(30)[::-1].copy()
    want = metrics.match_ranks(queries, gallery)
    got = metrics.match_ranks(queries, gallery, (owners, owners))
    np.testing.assert_array_equal(got, want)


def test_one_of_several_matches_is_enough_and_a_rival_s_tie_is_not():
    gallery = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.5, 0.0]])
    theirs = np.array([0, 0, 1, 2])
    queries = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    # query 1's own text is another's too: that tie counts against both
    ranks = metrics.match_ranks(queries, gallery, (np.array([0, 0, 1]), theirs))
    np.testing.assert_array_equal(ranks, [1, 2, 2])


def test_a_match_of_nan_is_none_and_a_rival_of_nan_counts():
    queries, mine = np.array([[1.0, 0.0]]), np.array([0])
    theirs = np.array([0, 0, 1, 1])
    gallery = np.array([[np.nan, 0], [2.0, 0], [1.0, 0], [0.0, 0]])
    # a length of nan makes no distance a safe one: all rivals count
    ranks = metrics.match_ranks(queries, gallery, (mine, theirs))
    np.testing.assert_array_equal(ranks, [3])


def test_a_query_without_a_match_is_refused():
    z = np.eye(3)
    with pytest.raises(ValueError, match=r"owner\(s\) \[7\] have no match"):
        metrics.match_ranks(z, z, (np.array([0, 1, 7]), np.arange(3)))


def test_unequal_sides_are_refused():
    unchecked = inspect.unwrap(metrics.match_ranks)  # as users call it
    with pytest.raises(ValueError, match=r"got \(3, 2\) queries and \(2, 2\) gallery"):
        unchecked(np.ones((3, 2)), np.ones((2, 2)))


@pytest.mark.parametrize("block", [1, 7, 64])
def test_ranked_gains_in_blocks_equal_those_at_once(block):
    gallery = draw(30, 40, 8).astype(np.float32)
    gallery[5] = gallery[12]  # a tie
    queries = gallery + draw(31, 40, 8).astype(np.float32)
    labels = np.random.default_rng(32).integers(0, 2, (40, 4))
    overlap = metrics.label_overlap(labels, labels)
    want = metrics.ranked_gains(queries, gallery, lambda rows: overlap[rows], 10)
    got = metrics.ranked_gains(queries, gallery, lambda rows: overlap[rows], 10, block)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    nothing = metrics.ranked_gains(queries[:0], gallery, lambda rows: overlap[rows], 10)
    assert [x.shape for x in nothing] == [(0, 10), (0,)]


def test_the_gallery_is_measured_once_for_all_blocks(monkeypatch):
    measured, norm = [], np.linalg.norm

    def count(z, **kw):
        measured.append(len(z))
        return norm(z, **kw)

    monkeypatch.setattr(np.linalg, "norm", count)
    z = draw(34, 40, 8)
    metrics.match_ranks(z[:30], z, (np.arange(30), np.arange(40)), 3)
    metrics.ranked_gains(z[:30], z, lambda rows: 1.0 * (z[rows] @ z.T > 0), 5, 3)
    assert measured.count(40) == 2


def test_label_overlap_equals_scikit_learn():
    labels = np.random.default_rng(33).integers(0, 2, (12, 6))
    labels[0] = 0
    got = metrics.label_overlap(labels, labels)
    for i, a in enumerate(labels):
        for j, b in enumerate(labels):
            want = sklearn.metrics.jaccard_score(a, b, zero_division=0)
            assert got[i, j] == pytest.approx(want, abs=1e-15)
    one = np.array([3, 1, 3])
    want_one = [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    np.testing.assert_array_equal(metrics.label_overlap(one, one), want_one)


def test_average_precision_at_k_of_graded_gains_by_hand():
    gains = np.array([[0.5, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    got = metrics.average_precision_at(gains)
    np.testing.assert_allclose(got, [(0.5 + 1.5 / 3) / 2, 0, 1])


def part_of(stored, part):
    """(inputs, torchmetrics' values) of a part of make_metrics.py."""
    found = {
        key.removeprefix(f"{part}/"): array
        for key, array in stored.items()
        if key.startswith(f"{part}/")
    }
    values = {key: float(x) for key, x in found.items() if x.ndim == 0}
    return {key: x for key, x in found.items() if x.ndim}, values


@pytest.mark.parametrize(
    ("task", "labels"), [("single", "labels"), ("multi", "targets")]
)
def test_zero_shot_records_equal_torchmetrics(golden, task, labels):
    given, want = part_of(golden("metrics"), task)
    logits, labels = given["logits"], given[labels]
    names = [str(i) for i in range(logits.shape[1])]
    got = zero_shot_records(logits, labels, task=task, sensor="rgb", classnames=names)
    assert {r["metric"]: r["value"] for r in got} == pytest.approx(want, abs=1e-6)


def test_retrieval_records_equal_torchmetrics(golden):
    given, want = part_of(golden("metrics"), "retrieval")
    z, labels, ks = (
        {key: given[key] for key in ("rgb", "s1")},
        given["labels"],
        (1, 5, 20),
    )
    by_place = retrieval_records(z, ks)
    by_label = label_retrieval_records(z, labels, given["head"], ks)
    got = {(r["sensor"], r["metric"]): r["value"] for r in (*by_place, *by_label)}
    for k in ks:
        for key in (f"recall@{k}", f"hit@{k}"):
            found = got["rgb->s1", f"recall@{k}"]
            assert found == pytest.approx(want.pop(key), abs=1e-6)
        for key, way in ((f"mAP@{k}", "rgb->s1"), (f"text/mAP@{k}", "text->s1")):
            assert got[way, f"mAP@{k}"] == pytest.approx(want.pop(key), abs=1e-6)
    assert not want
