"""Retrieval records both ways."""

import numpy as np
import pytest

from rsclip_jax.evals.retrieval import retrieval_records


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


def test_equal_embeddings_earn_nothing():
    z = np.ones((20, 4), np.float32) / 2
    records = retrieval_records({"rgb": z, "s1": z})
    assert {r["value"] for r in records} == {0.0}


def test_one_modality_has_nothing_to_retrieve_and_large_k_says_nothing():
    z = np.eye(6, dtype=np.float32)
    assert retrieval_records({"rgb": z}) == []
    found = {r["metric"] for r in retrieval_records({"rgb": z, "s1": z})}
    assert found == {"recall@1", "recall@5"}
