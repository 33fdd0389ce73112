"""Retrieval records both ways."""

import numpy as np
import pytest

from rsclip_jax.evals.retrieval import retrieval_records, text_retrieval_records


def test_both_ways_with_their_own_values():
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
    assert ends["rgb->s1", "recall@1"] == [1.0, 1.0]
    assert ends["s1->rgb", "recall@1"] == [0.0, 1.0]  # of three queries


def test_equal_embeddings_earn_nothing():
    z = np.ones((20, 4), np.float32) / 2
    records = retrieval_records({"rgb": z, "s1": z})
    assert {r["value"] for r in records} == {0.0}


def test_one_modality_has_nothing_to_retrieve_and_large_k_says_nothing():
    z = np.eye(6, dtype=np.float32)
    assert retrieval_records({"rgb": z}) == []
    found = {r["metric"] for r in retrieval_records({"rgb": z, "s1": z})}
    assert found == {"recall@1", "recall@5"}


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


def test_text_retrieval_is_that_of_a_sorted_list():
    rng = np.random.default_rng(0)
    owners = [0, 0, 0, 1, 2, 2, 3, 3, 4, 5, 5, 5]  # 1 and 4 have one caption only
    z = rng.integers(-2, 3, (6, 4)).astype(np.float32)  # exact in any order of adding
    z[3] = z[1]  # two images alike
    ztxt = rng.integers(-2, 3, (12, 4)).astype(np.float32)
    ztxt[6] = ztxt[3]  # a caption of two images, and one of the same image twice
    ztxt[11] = ztxt[10]
    records = text_retrieval_records({"s1": z}, ztxt, owners, (1, 2, 5, 6, 11, 12))
    value = {(r["sensor"], r["metric"]): r["value"] for r in records}
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


def test_captions_that_are_all_alike_earn_nothing():
    z = np.eye(8, dtype=np.float32)
    ztxt = np.repeat(z[:1], 16, axis=0)
    owners = np.repeat(np.arange(8), 2)
    back = [
        r["value"]
        for r in text_retrieval_records({"rgb": z}, ztxt, owners)
        if r["sensor"] == "rgb->text"
    ]
    assert back == [0.0, 0.0, 0.0]  # at 1, 5 and 10 of 16
