"""Retrieval records both ways: ranks, and labels against brute force."""

import numpy as np
import pytest

from rsclip_jax.evals import search
from rsclip_jax.evals.retrieval import (
    label_retrieval_records,
    retrieval_records,
    text_retrieval_records,
)
from rsclip_jax.stats.bootstrap import share_interval
from rsclip_jax.train.sharding import make_mesh


def test_both_directions_have_separate_values():
    # three sensor embeddings crowd round scene 0: the two directions differ
    rgb = np.eye(3, dtype=np.float32)
    s1 = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 0, 1]], np.float32)
    records = retrieval_records({"rgb": rgb, "s1": s1}, ks=(1, 2))
    value = {(r["sensor"], r["metric"]): r["value"] for r in records}
    assert value["rgb->s1", "recall@1"] == 1.0
    assert value["s1->rgb", "recall@1"] == pytest.approx(2 / 3)
    assert value["s1->rgb", "recall@2"] == 1.0
    assert {r["n"] for r in records} == {3}
    ends = {(r["sensor"], r["metric"]): r["ci95"] for r in records}
    # Wilson's, of 3 and of 2 hits of three queries
    assert ends["rgb->s1", "recall@1"] == [0.438503, 1.0]
    assert ends["s1->rgb", "recall@1"] == [0.20766, 0.938508]
    assert value["rgb->s1", "median_rank"] == value["s1->rgb", "median_rank"] == 1
    assert ends["s1->rgb", "median_rank"] == [1.0, 2.0]


def test_the_median_rank_has_an_interval():
    rng = np.random.default_rng(0)
    rgb = rng.normal(size=(40, 8))
    s1 = rgb + 1.5 * rng.normal(size=(40, 8))
    found = {r["sensor"]: r for r in retrieval_records({"rgb": rgb, "s1": s1}, ks=())}
    scores = rgb @ s1.T
    for sensor, own in (("rgb->s1", scores), ("s1->rgb", scores.T)):
        ranks = [sum(row >= row[i]) for i, row in enumerate(own)]
        record = found[sensor]
        assert (record["metric"], record["n"]) == ("median_rank", 40)
        assert record["value"] == np.median(ranks)
        low, high = record["ci95"]
        assert 1 <= low <= record["value"] <= high <= 40
        assert low < high


def test_equal_embeddings_score_nothing():
    z = np.ones((20, 4), np.float32) / 2
    records = retrieval_records({"rgb": z, "s1": z})
    assert {r["value"] for r in records if r["metric"] != "median_rank"} == {0.0}
    assert [r["value"] for r in records if r["metric"] == "median_rank"] == [20, 20]


def test_one_modality_and_large_k_give_no_records():
    z = np.eye(6, dtype=np.float32)
    assert retrieval_records({"rgb": z}) == []
    labels, head = np.zeros(6, int), np.ones((6, 2), np.float32)
    records = retrieval_records({"rgb": z, "s1": z}, labels=labels, head=head)
    assert {r["metric"] for r in records} == {"recall@1", "recall@5", "median_rank"}
    assert retrieval_records({"rgb": z[:1], "s1": z[:1]}, labels=labels[:1]) == []


def by_brute_force(z, ztxt, owners, k):
    """(text -> image, image -> text) recall@k, by sorting each query's scores.

    Ties are broken against: rivals sort before the match that they equal.
    """
    scores = np.array([[float(np.dot(a, b)) for b in ztxt] for a in z])
    found = {"text": 0, "image": 0}
    for j, owner in enumerate(owners):
        order = sorted(range(len(z)), key=lambda i: (-scores[i, j], i == owner))
        found["text"] += owner in order[:k]
    for i in range(len(z)):
        mine = [owner == i for owner in owners]
        order = sorted(range(len(ztxt)), key=lambda j: (-scores[i, j], mine[j]))
        found["image"] += any(mine[j] for j in order[:k])
    return found["text"] / len(owners), found["image"] / len(z)


def test_text_retrieval_equals_a_sorted_list():
    rng = np.random.default_rng(0)
    owners = [0, 0, 0, 1, 2, 2, 3, 3, 4, 5, 5, 5]  # 1 and 4 have one caption only
    z = rng.integers(-2, 3, (6, 4)).astype(np.float32)  # exact in any order of adding
    z[3] = z[1]  # two images alike
    ztxt = rng.integers(-2, 3, (12, 4)).astype(np.float32)
    ztxt[6] = ztxt[3]  # a caption of two images, and one of the same image twice
    ztxt[11] = ztxt[10]
    records = text_retrieval_records({"s1": z}, ztxt, owners, (1, 2, 5, 6, 11, 12))
    value = {(r["sensor"], r["metric"]): r["value"] for r in records}
    for index, way in enumerate(("text->s1", "s1->text")):
        # the rank of the median query is the k from which half of them find theirs
        shares = [by_brute_force(z, ztxt, owners, k)[index] for k in range(1, 13)]
        least = 1 + sum(share < 0.5 for share in shares)
        most = 1 + sum(share <= 0.5 for share in shares)
        assert value.pop((way, "median_rank")) == (least + most) / 2
    for k in (1, 2, 5, 6, 11, 12):
        text, image = by_brute_force(z, ztxt, owners, k)
        if k < 6:
            assert value.pop(("text->s1", f"recall@{k}")) == pytest.approx(text)
        if k < 12:
            assert value.pop(("s1->text", f"recall@{k}")) == pytest.approx(image)
    assert not value  # a k as large as the gallery says nothing
    assert {(r["sensor"], r["n"]) for r in records} == {
        ("text->s1", 12),
        ("s1->text", 6),
    }
    assert {r["task"] for r in records} == {"retrieval"}


def test_equal_captions_score_nothing():
    z = np.eye(8, dtype=np.float32)
    ztxt = np.repeat(z[:1], 16, axis=0)
    owners = np.repeat(np.arange(8), 2)
    back = [
        r["value"]
        for r in text_retrieval_records({"rgb": z}, ztxt, owners)
        if r["sensor"] == "rgb->text"
    ]
    # at 1, 5 and 10 of 16; the 14 texts of others are all as near as its own
    assert back == [0.0, 0.0, 0.0, 15.0]


def test_intervals_of_captions_are_over_images():
    """Five equal captions of an image are worth no more than one."""
    rng = np.random.default_rng(6)
    z = rng.normal(size=(40, 8)).astype(np.float32)
    once = z + rng.normal(size=(40, 8)).astype(np.float32)
    alone, five = (
        {
            r["metric"]: r
            for r in text_retrieval_records({"rgb": z}, ztxt, owners)
            if r["sensor"] == "text->rgb"
        }
        for ztxt, owners in (
            (once, np.arange(40)),
            (np.repeat(once, 5, axis=0), np.repeat(np.arange(40), 5)),
        )
    )
    scores = once.astype(float) @ z.T
    ranks = (scores >= np.diag(scores)[:, None]).sum(axis=1)
    drawn = np.random.default_rng(0)
    picked = ranks[[drawn.integers(40, size=40) for _ in range(2000)]]
    for metric, values in (
        ("recall@5", (picked <= 5).mean(axis=1)),
        ("median_rank", np.median(picked, axis=1)),
    ):
        assert five[metric]["value"] == alone[metric]["value"]
        assert five[metric]["n"] == 200
        ends = np.percentile(values, [2.5, 97.5])
        assert five[metric]["ci95"] == pytest.approx(ends, abs=1e-6)
        assert five[metric]["ci95"] == alone[metric]["ci95"]
    by_caption = share_interval(np.repeat(ranks, 5) <= 5)
    low, high = five["recall@5"]["ci95"]
    assert high - low > 1.8 * (by_caption[1] - by_caption[0])  # the root of 5, nearly


def by_sorting(queries, gallery, gain, k):
    """mAP@k, query by query; among equal scores the lower gain is first."""
    found = []
    for i, query in enumerate(queries):
        gains = [gain(i, j) for j in range(len(gallery))]
        if not any(gains):
            continue
        scores = [float(np.dot(query, z)) for z in gallery]
        order = sorted(range(len(gallery)), key=lambda j: (-scores[j], gains[j]))
        total, down_to, precisions = 0.0, 0, []
        for j in order[:k]:
            total, down_to = total + gains[j], down_to + 1
            if gains[j] > 0:
                precisions.append(total / down_to)
        found.append(sum(precisions) / len(precisions) if precisions else 0.0)
    return np.mean(found), len(found)


def jaccard(a, b):
    a, b = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    return len(a & b) / len(a | b) if a | b else 0.0


@pytest.mark.parametrize("task", ["single", "multi"])
@pytest.mark.parametrize("levels", [2, 1000])  # with many ties, and few
def test_label_retrieval_equals_a_sorted_list(task, levels):
    rng = np.random.default_rng(levels)
    z = {
        key: rng.integers(-levels, levels + 1, (30, 4)).astype(np.float32)
        for key in ("rgb", "s1")
    }
    head = rng.integers(-levels, levels + 1, (4, 5)).astype(np.float32)
    if task == "single":
        labels = rng.choice([0, 1, 1, 3], 30)  # classes 2 and 4 have no example
        of_class = labels[None] == np.arange(5)[:, None]
        alike = lambda i, j: float(labels[i] == labels[j])  # noqa: E731
    else:
        labels = rng.integers(0, 2, (30, 5)).astype(np.uint8)
        labels[:, 2], labels[:3] = 0, 0  # nor a class, nor three locations a label
        of_class = labels.T > 0
        alike = lambda i, j: jaccard(labels[i], labels[j])  # noqa: E731
    ks = (1, 3, 20, 29, 30)
    records = label_retrieval_records(z, labels, head, ks)
    found = {(r["sensor"], r["metric"]): r for r in records}
    for k in (1, 3, 20, 29):
        for a, b in (("rgb", "s1"), ("s1", "rgb")):
            want, n = by_sorting(z[a], z[b], alike, k)
            record = found.pop((f"{a}->{b}", f"mAP@{k}"))
            assert record["value"] == pytest.approx(want, abs=1e-12)
            assert record["n"] == n
            assert n == (30 if task == "single" else labels.any(axis=1).sum())
            low, high = record["ci95"]
            assert low <= want <= high
        for sensor in z:
            want, n = by_sorting(
                head.T, z[sensor], lambda i, j: float(of_class[i, j]), k
            )
            record = found.pop((f"text->{sensor}", f"mAP@{k}"))
            assert record["value"] == pytest.approx(want, abs=1e-12)
            assert record["n"] == n == (3 if task == "single" else 4)
    assert not found  # 30 is the whole gallery


def test_class_ids_give_the_plain_average_precision():
    # s1 ranks + - + - for every query: precisions 1 and 2 / 3
    rgb = np.ones((4, 1), np.float32)
    s1 = np.array([[4.0], [3], [2], [1]], np.float32)
    labels = np.array([7, 2, 7, 2])
    records = label_retrieval_records({"rgb": rgb, "s1": s1}, labels, ks=(3,))
    found = {r["sensor"]: r["value"] for r in records}
    assert found["rgb->s1"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)


@pytest.mark.parametrize("dead", [1.0, 0.0, np.nan])
def test_a_collapsed_encoder_scores_nothing_by_label(dead):
    rng = np.random.default_rng(5)
    rgb = rng.normal(size=(200, 64)).astype(np.float32)
    one = rng.normal(size=64).astype(np.float32) if dead == 1.0 else dead
    s1 = np.full((200, 64), one, np.float32)
    labels = np.arange(200) % 4  # 150 of other labels rank before
    records = retrieval_records({"rgb": rgb, "s1": s1}, labels=labels)
    by_label = [r for r in records if r["metric"].startswith("mAP@")]
    assert {(r["sensor"], r["metric"]) for r in by_label} == {
        (way, f"mAP@{k}") for way in ("rgb->s1", "s1->rgb") for k in (20, 50)
    }
    ways = ("rgb->s1",) if dead == 1.0 else ("rgb->s1", "s1->rgb")
    assert {r["value"] for r in by_label if r["sensor"] in ways} == {0.0}


def test_locations_without_a_label_are_no_queries():
    z = np.eye(60, dtype=np.float32)
    labels = np.zeros((60, 3), np.uint8)
    assert label_retrieval_records({"rgb": z, "s1": z}, labels, z[:, :3]) == []


def test_the_records_are_the_same_over_the_mesh(monkeypatch):
    monkeypatch.setattr(search, "_SMALL", 0)
    counted = []
    make = search._make_count
    monkeypatch.setattr(search, "_make_count", lambda m: counted.append(m) or make(m))
    rng = np.random.default_rng(0)
    z = {key: rng.normal(size=(90, 8)).astype(np.float32) for key in ("rgb", "s1")}
    ztxt, owners = rng.normal(size=(120, 8)), rng.permutation(120) % 90
    mesh = make_mesh()
    assert retrieval_records(z, mesh=mesh) == retrieval_records(z)
    by_text = text_retrieval_records(z, ztxt, owners, mesh=mesh)
    assert by_text == text_retrieval_records(z, ztxt, owners)
    assert len(counted) == 2 + 4  # each pair of modalities, and each with text


@pytest.mark.parametrize("task", ["single", "multi"])
def test_the_records_by_label_are_the_same_over_the_mesh(monkeypatch, task):
    monkeypatch.setattr(search, "_SMALL", 0)
    found = []
    nearest = search.nearest
    monkeypatch.setattr(
        search, "nearest", lambda *z, **kw: found.append(z) or nearest(*z, **kw)
    )
    rng = np.random.default_rng(0)
    z = {key: rng.normal(size=(90, 8)).astype(np.float32) for key in ("rgb", "s1")}
    labels = rng.integers(0, 2, (90, 5))
    labels = labels.argmax(axis=1) if task == "single" else labels
    given = {"labels": labels, "head": rng.normal(size=(8, 5))}
    assert retrieval_records(z, **given, mesh=make_mesh()) == retrieval_records(
        z, **given
    )
    assert len(found) == 2 + 2  # each pair of modalities, and text to each
