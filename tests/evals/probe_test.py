"""Probes against scikit-learn and brute force; few shots, absent classes, refusals."""

import functools
import json
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier

from rsclip_jax.evals import probe
from rsclip_jax.evals.probe import Examples

K = 4


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def make_examples(n, seed, *, noise=1.5, several=False):
    """n noisy embeddings of K classes, or of random sets of them."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(K, 6))
    if several:
        labels = rng.integers(0, 2, (n, K)).astype(np.uint8)
        z = labels @ centres
    else:
        labels = rng.integers(0, K, n)
        z = centres[labels]
    return Examples(unit(z + noise * rng.normal(size=z.shape)), labels)


def splits(**more):
    return [make_examples(n, seed, **more) for seed, n in enumerate((120, 80, 90))]


def test_a_fit_equals_scikit_learns():
    train, _, test = splits()
    probe_ = probe.fit_probe(train, 10.0, K)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LogisticRegression(C=10.0, max_iter=1000).fit(train.z, train.labels)
    want = model.predict_proba(test.z)
    logits = probe_.scores(test.z)
    found = np.exp(logits - logits.max(1, keepdims=True))
    found /= found.sum(1, keepdims=True)
    np.testing.assert_allclose(found, want, atol=1e-3)
    assert probe_.converged


def test_several_labels_are_one_against_the_rest():
    train, _, test = splits(several=True)
    model = OneVsRestClassifier(LogisticRegression(C=3.0, max_iter=1000))
    want = model.fit(train.z, train.labels).decision_function(test.z)
    found = probe.fit_probe(train, 3.0, K).scores(test.z)
    np.testing.assert_allclose(found, want, atol=1e-3)


@pytest.mark.parametrize("several", [False, True])
def test_c_is_the_smallest_among_the_best_on_val(several):
    train, val, test = splits(several=several)

    @functools.cache
    def value(at):
        scores = probe.fit_probe(train, 10.0**at, K).scores(val.z)
        if several:
            return np.mean(average_precision_score(val.labels, scores, average=None))
        return np.mean(scores.argmax(1) == val.labels)

    tried = {float(at) for at in range(-6, 7, 2)}
    best = coarse = max(sorted(tried), key=value)  # of equal ones the first
    chosen = probe.choose_probe(train, val, K, halvings=0)
    assert chosen.c == pytest.approx(10.0**coarse)
    for step in (1, 0.5, 0.25, 0.125):
        tried |= {best - step, best + step} & set(np.arange(-48, 49) / 8)
        best = max(sorted(tried), key=value)
    (record,) = probe.linear_probe_records(train, val, test, sensor="s1", classes=K)
    assert record["C"] == pytest.approx(10.0**best)
    assert value(best) >= value(coarse)


def test_a_probe_reports_its_score_on_test():
    train, val, test = splits()
    (record,) = probe.linear_probe_records(train, val, test, sensor="s1", classes=K)
    model = LogisticRegression(C=record["C"], max_iter=1000)
    want = model.fit(train.z, train.labels).score(test.z, test.labels)
    assert record["value"] == pytest.approx(want, abs=1e-9)
    assert (record["task"], record["metric"]) == ("linear_probe", "accuracy")
    assert (record["sensor"], record["n"]) == ("s1", 90)
    low, high = record["ci95"]
    assert low < want < high
    # 1.96 standard errors of a share, to both sides
    width = 2 * 1.96 * np.sqrt(want * (1 - want) / 90)
    assert high - low == pytest.approx(width, rel=0.15)


def test_classes_absent_from_train_count_as_wrong():
    train, val, test = splits(noise=0.1)
    two = Examples(*(x[train.labels < 2] for x in train))
    (record,) = probe.linear_probe_records(two, val, test, sensor="rgb", classes=K)
    assert record["value"] == pytest.approx(np.mean(test.labels < 2))
    one = Examples(*(x[train.labels == 2] for x in train))
    (record,) = probe.linear_probe_records(one, val, test, sensor="rgb", classes=K)
    assert record["value"] == pytest.approx(np.mean(test.labels == 2))


def test_a_label_that_no_or_every_example_has_is_not_ranked():
    train, val, test = splits(several=True, noise=0.1)
    train.labels[:, 1], train.labels[:, 2] = 0, 1
    scores = probe.fit_probe(train, 1.0, K).scores(test.z)
    assert np.isneginf(scores[:, 1:3]).all()
    (record,) = probe.linear_probe_records(train, val, test, sensor="rgb", classes=K)
    each = [
        average_precision_score(test.labels[:, i], scores[:, i]) for i in (0, 3)
    ] + [test.labels[:, i].mean() for i in (1, 2)]
    assert record["metric"] == "mAP_macro"
    assert record["value"] == pytest.approx(np.mean(each), abs=0.02)


def test_a_fit_that_does_not_converge_is_recorded(monkeypatch):
    train, val, test = splits()
    monkeypatch.setattr(probe, "MAX_ITER", 2)
    (record,) = probe.linear_probe_records(train, val, test, sensor="rgb", classes=K)
    assert record["converged"] is False


@pytest.mark.parametrize("several", [False, True])
def test_few_shot_subsets_are_nested_and_of_the_requested_size(several):
    train, _, _ = splits(several=several)
    for seed in range(3):
        fewer = set()
        for shots in (1, 2, 4, 8, 1000):
            picked = probe.shot_subset(train.labels, shots, seed, K)
            assert fewer <= set(picked)
            fewer = set(picked)
            hot = probe.one_hot(train.labels[picked], K)
            if several:
                assert (hot.sum(0) >= shots).all() or shots == 1000
                assert len(picked) <= shots * K
            elif shots < 1000:
                assert hot.sum(0).tolist() == [shots] * K
        # in the end every example with a label
        assert len(picked) == probe.one_hot(train.labels, K).any(1).sum()
    others = [set(probe.shot_subset(train.labels, 2, s, K)) for s in (0, 1)]
    assert others[0] != others[1]


def test_few_shot_values_are_means_over_seeds():
    train, val, test = splits()
    records = probe.few_shot_records(
        train, val, test, sensor="s1", classes=K, shots=(1, 16), seeds=3
    )
    assert [r["shots"] for r in records] == [1, 16]
    for r in records:
        assert len(r["per_seed"]) == len(r["C"]) == 3
        assert r["value"] == pytest.approx(np.mean(r["per_seed"]))
        assert r["ci95"][0] < r["value"] < r["ci95"][1]
        for seed, (value, c) in enumerate(zip(r["per_seed"], r["C"], strict=True)):
            picked = probe.shot_subset(train.labels, r["shots"], seed, K)
            model = LogisticRegression(C=c, max_iter=1000)
            model.fit(train.z[picked], train.labels[picked])
            assert value == pytest.approx(model.score(test.z, test.labels), abs=0.03)
    assert records[0]["value"] < records[1]["value"]


def test_few_shot_subsets_of_multi_hot_labels():
    train, val, test = splits(several=True)
    (record,) = probe.few_shot_records(
        train, val, test, sensor="rgb", classes=K, shots=(4,), seeds=2
    )
    assert record["metric"] == "mAP_macro"
    assert record["value"] == pytest.approx(np.mean(record["per_seed"]))
    assert record["ci95"][0] < record["value"] < record["ci95"][1]


def test_neighbours_vote_like_scikit_learns():
    train, _, test = splits()
    model = KNeighborsClassifier(
        n_neighbors=20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)
    )
    model.fit(train.z, train.labels)
    (record,) = probe.knn_records(train, test, sensor="s1", classes=K)
    assert record["value"] == pytest.approx(model.score(test.z, test.labels))
    assert (record["task"], record["metric"], record["k"]) == ("knn", "accuracy", 20)
    scores = probe.knn_scores(train, test.z, K, 20, 0.07)
    np.testing.assert_allclose(scores, model.predict_proba(test.z), atol=1e-4)


def test_neighbours_with_multi_hot_labels_equal_brute_force():
    train, _, test = splits(several=True)
    (record,) = probe.knn_records(train, test, sensor="s1", classes=K, k=7)
    scores = []
    for z in test.z:
        near = np.argsort(-(train.z @ z))[:7]
        votes = np.exp((train.z[near] @ z).astype(float) / 0.07)
        scores.append((votes @ train.labels[near] / votes.sum()).round(6))
    want = average_precision_score(test.labels, np.array(scores), average="macro")
    assert record["value"] == pytest.approx(want, abs=1e-4)


def test_equal_votes_are_wrong_and_too_many_neighbours_refused():
    z = unit(np.ones((2, 3)))
    twins = Examples(z, np.array([0, 1]))
    (record,) = probe.knn_records(twins, twins, sensor="rgb", classes=2, k=2)
    assert record["value"] == 0
    assert record["ci95"] == [0.0, 0.65762]  # Wilson's: two misses leave room for doubt
    with pytest.raises(ValueError, match=r"k = 3 .* among 2 .* between 1 and 2"):
        probe.knn_records(twins, twins, sensor="rgb", classes=2, k=3)


def test_multi_hot_labels_without_an_example_have_no_value():
    z = np.eye(4, dtype=np.float32)
    labels = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    train, test = probe.Examples(z, labels), probe.Examples(z, 0 * labels)
    about = {"sensor": "rgb", "classes": 2}
    records = [
        *probe.knn_records(train, test, k=2, **about),
        *probe.few_shot_records(train, train, test, shots=(1,), seeds=2, **about),
        *probe.linear_probe_records(train, train, test, **about),
    ]
    assert [r["value"] for r in records] == [None] * 3
    assert records[1]["per_seed"] == [None, None]
    json.dumps(records, allow_nan=False)
