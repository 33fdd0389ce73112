"""The gap against brute force over all pairs, and on clouds made by hand."""

import itertools

import numpy as np
import pytest

from rsclip_jax.evals import modality_gap as gap
from rsclip_jax.records.outcomes import Outcome


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def clouds(n=40, d=5, shift=0.0, noise=0.4, seed=0):
    """Two modalities of n locations: the second is the first with noise, shifted."""
    rng = np.random.default_rng(seed)
    locations = rng.normal(size=(n, d))
    a = locations + noise * rng.normal(size=(n, d))
    b = locations + noise * rng.normal(size=(n, d))
    b[:, 0] += shift
    return unit(a).astype(np.float32), unit(b).astype(np.float32)


def values(records):
    return {(r["sensor"], r["metric"]): r["value"] for r in records}


def outcome_of(z, **more):
    n = len(next(iter(z.values())))
    pins = {"dataset": "x", "split": "test"}
    return Outcome(pins, tuple(map(str, range(n))), z, **more)


def test_every_number_by_brute_force():
    a, b = clouds(shift=1.0)
    found = values(gap.pair_records(a, b, "rgb->s1"))
    pairs = list(itertools.product(range(40), repeat=2))
    want = {
        "centroid_distance": np.linalg.norm(a.mean(0) - b.mean(0)),
        "cosine_paired": np.mean([a[i] @ b[i] for i in range(40)]),
        "cosine_unpaired": np.mean([a[i] @ b[j] for i, j in pairs if i != j]),
        "alignment": np.mean([np.sum((a[i] - b[i]) ** 2) for i in range(40)]),
    }
    for metric, value in want.items():
        assert found["rgb->s1", metric] == pytest.approx(value, abs=1e-6)
    (record,) = gap.uniformity_record(a, "rgb")
    each = [np.exp(-2 * np.sum((a[i] - a[j]) ** 2)) for i, j in pairs if i != j]
    assert record["value"] == pytest.approx(np.log(np.mean(each)), abs=1e-6)


def test_intervals_bootstrap_locations():
    """They equal those of bootstrap samples drawn here, pair by pair."""
    a, b = clouds(n=12, shift=1.0)
    rng = np.random.default_rng(5)
    paired, unpaired, even = [], [], []
    for _ in range(2000):
        i = rng.integers(12, size=12)
        different = i[:, None] != i
        paired.append(np.mean(np.sum(a[i] * b[i], 1)))
        unpaired.append((a[i] @ b[i].T)[different].mean())
        near = np.exp(-4 * (1 - a[i] @ a[i].T))
        even.append(np.log(near[different].mean()))
    records = gap.pair_records(a, b, "x") + gap.uniformity_record(a, "rgb")
    found = {r["metric"]: r["ci95"] for r in records}
    for metric, drawn in (
        ("cosine_paired", paired),
        ("cosine_unpaired", unpaired),
        ("uniformity", even),
    ):
        ends = np.percentile(drawn, [2.5, 97.5])
        np.testing.assert_allclose(found[metric], ends, atol=0.1 * np.ptp(ends))
    for r in records:
        assert r["ci95"][0] <= r["value"] <= r["ci95"][1]
        assert r["n"] == 12


def test_equal_modalities_have_no_gap():
    a, _ = clouds(n=200)
    records = {r["metric"]: r for r in gap.pair_records(a, a.copy(), "x")}
    assert records["centroid_distance"]["value"] == 0
    assert records["centroid_distance"]["ci95"] == [0, 0]
    assert records["separability"]["value"] == 0.5
    assert records["cosine_paired"]["value"] == pytest.approx(1)
    assert records["alignment"]["value"] == 0
    uneven, _ = clouds(n=200)
    assert records["cosine_unpaired"]["value"] == pytest.approx(
        (uneven @ uneven.T)[~np.eye(200, dtype=bool)].mean(), abs=1e-6
    )


def test_only_shifted_modalities_are_separable():
    same = values(gap.pair_records(*clouds(n=400), "x"))
    low = values(gap.pair_records(*clouds(n=400, shift=1.0), "x"))
    high = values(gap.pair_records(*clouds(n=400, shift=9.0), "x"))
    assert same["x", "separability"] == pytest.approx(0.5, abs=0.06)
    assert 0.55 < low["x", "separability"] < 0.95
    assert high["x", "separability"] > 0.97
    distances = [f["x", "centroid_distance"] for f in (same, low, high)]
    assert distances == sorted(distances)
    assert distances[0] < 0.1


def test_points_with_a_known_gap():
    """Two modalities at right angles; a modality in one point; one at two poles."""
    a, b = np.tile([1.0, 0, 0], (6, 1)), np.tile([0, 1.0, 0], (6, 1))
    found = values(gap.pair_records(a, b, "x"))
    assert found["x", "centroid_distance"] == pytest.approx(np.sqrt(2))
    assert found["x", "cosine_paired"] == found["x", "cosine_unpaired"] == 0
    assert found["x", "alignment"] == pytest.approx(2)
    assert found["x", "separability"] == 1
    (still,) = gap.uniformity_record(a, "rgb")
    assert still["value"] == pytest.approx(0)
    (poles,) = gap.uniformity_record(np.concatenate([a, -a]), "rgb")
    # of a record's 11 partners 5 are where it is, 6 at the other pole
    assert poles["value"] == pytest.approx(np.log((5 + 6 * np.exp(-8)) / 11))


def test_both_embeddings_of_a_location_are_on_one_side_of_the_split(monkeypatch):
    """Locations are far apart: seeing one embedding would give away the other."""
    a, b = clouds(n=30)
    seen = []
    fit = gap.fit_probe

    def spy(train, *args):
        seen.append(train)
        return fit(train, *args)

    monkeypatch.setattr(gap, "fit_probe", spy)
    hits = gap.held_out_hits(a, b)
    assert set(hits) <= {0, 0.5, 1}
    trained = []
    for train in seen:
        first = [int(np.flatnonzero((a == z).all(1))[0]) for z in train.z[:15]]
        second = [int(np.flatnonzero((b == z).all(1))[0]) for z in train.z[15:]]
        assert first == second
        assert train.labels.tolist() == [0] * 15 + [1] * 15
        trained += first
    assert sorted(trained) == list(range(30))


def test_all_pairs_of_modalities_in_order():
    a, b = clouds(n=10)
    z = {"s2": b, "rgb": a, "s1": b, "s2+s1": b}
    head = np.random.default_rng(0).normal(size=(5, 3)) * 30
    labels = np.arange(10) % 3
    records = gap.gap_records(outcome_of(z, head=head, labels=labels))
    assert {r["task"] for r in records} == {"modality_gap"}
    pairs = ["rgb->s2", "rgb->s1", "rgb->s2+s1", "s2->s1"]
    text = [f"{s}->text" for s in ("rgb", "s2", "s1", "s2+s1")]
    found = [s for s, _ in itertools.groupby(r["sensor"] for r in records)]
    assert found == [*pairs, *text, "rgb", "s2", "s1", "s2+s1"]
    ztxt = unit(head.T)[labels]
    distance = np.linalg.norm(a.mean(0) - ztxt.mean(0))
    found = values(records)["rgb->text", "centroid_distance"]
    assert found == pytest.approx(distance, abs=1e-6)


def test_a_records_text_is_the_mean_of_its_classes_or_captions():
    z, _ = clouds(n=3)
    head = np.eye(5)[:, :3] * [1.0, 20.0, 300.0]
    labels = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]], np.uint8)
    indices, ztxt = gap.text_side(outcome_of({"rgb": z}, head=head, labels=labels))
    assert indices.tolist() == [0, 2]  # the second has none
    np.testing.assert_allclose(ztxt, [unit(np.array([1, 1, 0, 0, 0])), np.eye(5)[2]])
    said = outcome_of({"rgb": z}, ztxt=np.eye(5)[:4], owners=np.array([0, 2, 1, 0]))
    indices, ztxt = gap.text_side(said)
    assert indices.tolist() == [0, 1, 2]
    np.testing.assert_allclose(
        ztxt, [unit(np.array([1, 0, 0, 1, 0])), np.eye(5)[2], np.eye(5)[1]]
    )
    assert ("text", "uniformity") in values(gap.gap_records(said))
    assert gap.text_side(outcome_of({"rgb": z})) is None


def test_one_record_has_no_gap():
    z, _ = clouds(n=1)
    assert gap.gap_records(outcome_of({"rgb": z, "s1": z})) == []


def test_large_datasets_are_sampled_evenly(monkeypatch):
    a, b = clouds(n=101, shift=2.0)
    monkeypatch.setattr(gap, "UNIFORMITY_RECORDS", 11)
    monkeypatch.setattr(gap, "SEPARABILITY_RECORDS", 21)
    (record,) = gap.uniformity_record(a, "rgb")
    n = {r["metric"]: r["n"] for r in gap.pair_records(a, b, "x")}
    assert (n["separability"], n["alignment"]) == (21, 101)
    monkeypatch.undo()
    (want,) = gap.uniformity_record(a[::10], "rgb")
    assert record == want
    assert record["n"] == 11
