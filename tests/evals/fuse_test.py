"""Fused embeddings against numpy, and the pairs that are searched."""

import numpy as np

from rsclip_jax import metrics
from rsclip_jax.evals.fuse import add_fused, fuse, parts_of
from rsclip_jax.evals.retrieval import retrieval_records


def embeddings(*keys, n=60):
    rng = np.random.default_rng(0)
    location = rng.normal(size=(n, 8))
    out = {}
    for key in keys:
        z = location + rng.normal(size=(n, 8))
        out[key] = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    return out


def test_the_fusion_is_the_direction_of_the_mean():
    z = embeddings("s1", "s2", "ir")
    got = fuse([*z.values()])
    assert got.dtype == np.float32
    for i in range(len(got)):
        mean = sum(z[key][i].astype(float) for key in z) / 3
        np.testing.assert_allclose(got[i], mean / np.sqrt(mean @ mean), atol=1e-6)
    np.testing.assert_array_equal(fuse([z["s1"], -z["s1"]]), 0)


def test_several_sensors_except_rgb_are_fused():
    for keys in ((), ("rgb",), ("s1",), ("rgb", "s1")):
        assert list(add_fused(embeddings(*keys))) == list(keys)
    z = embeddings("s2", "rgb", "s1")
    assert list(add_fused(z)) == ["s2", "rgb", "s1", "s2+s1"]
    np.testing.assert_array_equal(add_fused(z)["s2+s1"], fuse([z["s2"], z["s1"]]))


def test_a_sensor_is_not_searched_in_its_own_fusion():
    z = add_fused(embeddings("rgb", "s1", "s2"))
    found = {(r["sensor"], r["metric"]): r["value"] for r in retrieval_records(z)}
    assert {pair for pair, _ in found} == {
        "rgb->s1", "s1->rgb", "rgb->s2", "s2->rgb", "s1->s2", "s2->s1",
        "rgb->s1+s2", "s1+s2->rgb",
    }  # fmt: skip
    want = metrics.recall_at_k(z["rgb"], z["s1+s2"], 5)
    assert found["rgb->s1+s2", "recall@5"] == want
    assert want > found["rgb->s1", "recall@5"]  # two views of a location tell more


def test_a_sensor_names_the_encoders_it_needs():
    assert parts_of("rgb") == ["rgb"]
    assert parts_of("s1+s2") == ["s1", "s2"]
    assert parts_of("rgb->s1+s2") == ["rgb", "s1", "s2"]
    assert parts_of("text->s1") == ["text", "s1"]
