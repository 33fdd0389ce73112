"""Comparisons of outcomes against the records of each of them."""

import numpy as np
import pytest

from rsclip_jax.evals import search
from rsclip_jax.evals.compare import (
    compare_outcomes,
    has_text,
    is_compared,
    measured_sensors,
)
from rsclip_jax.evals.retrieval import retrieval_records, text_retrieval_records
from rsclip_jax.evals.zero_shot import zero_shot_records
from rsclip_jax.stats.paired_tests import compare_shares
from rsclip_jax.train.sharding import make_mesh
from tests.helpers.outcomes import N, make_outcome


@pytest.mark.parametrize("task", ["single", "multi", "none", "captions"])
def test_the_values_are_those_in_each_models_records(task):
    a, b = make_outcome(0, task, 0.8), make_outcome(1, task, 0.6)
    found = [r for s in measured_sensors(a) for r in compare_outcomes(a, b, s)]
    for key, one in (("a", a), ("b", b)):
        want = retrieval_records(one.z, labels=one.labels)
        if one.head is not None:
            for sensor in one.z:
                options = {"task": task, "sensor": sensor, "classnames": one.classnames}
                want += zero_shot_records(one.logits(sensor), one.labels, **options)
        if one.ztxt is not None:
            want += text_retrieval_records(one.z, one.ztxt, one.owners)
        values = {(r["task"], r["sensor"], r["metric"]): r["value"] for r in want}
        keys = [(r["task"], r["sensor"], r["metric"]) for r in found]
        assert len(keys) == len(set(keys))
        expected = {key for key in values if is_compared(key[1], key[0], key[2])}
        assert set(keys) == expected
        left = {(key[1].startswith("text->"), key[2]) for key in set(values) - expected}
        assert left <= {(False, "ece"), (True, "median_rank")}
        for r, name in zip(found, keys, strict=True):
            assert r[key] == pytest.approx(values[name], abs=1e-7)
    assert all(r["difference"] == pytest.approx(r["b"] - r["a"]) for r in found)
    assert all(r["ci95"][0] <= r["difference"] <= r["ci95"][1] for r in found)


def test_a_model_does_not_differ_from_itself():
    for task in ("single", "multi", "captions"):
        one = make_outcome(0, task)
        for sensor in measured_sensors(one):
            for r in compare_outcomes(one, one, sensor):
                assert (r["difference"], r["p_value"], r["ci95"]) == (0.0, 1.0, [0, 0])


@pytest.mark.parametrize("task", ["single", "multi", "captions"])
def test_the_differences_are_the_same_over_the_mesh(monkeypatch, task):
    monkeypatch.setattr(search, "_SMALL", 0)
    used = []
    tiles = search._Tiles.of
    monkeypatch.setattr(search._Tiles, "of", lambda *z: used.append(z) or tiles(*z))
    a, b = make_outcome(0, task, 0.8), make_outcome(1, task, 0.6)
    for sensor in (s for s in measured_sensors(a) if "->" in s):
        used.clear()
        found = compare_outcomes(a, b, sensor, mesh=make_mesh())
        by_label = task != "captions"
        assert len(used) == 2 * (1 + by_label)
        assert found == compare_outcomes(a, b, sensor)


def test_captions_of_an_image_are_drawn_together():
    a, b = make_outcome(0, "captions", 1.0), make_outcome(1, "captions", 0.7)
    (found,) = compare_outcomes(a, b, "text->rgb", ks=(5,))
    hits = []
    for one in (a, b):
        scores = one.ztxt @ one.z["rgb"].T
        own = scores[np.arange(3 * N), one.owners]
        hits.append((scores >= own[:, None]).sum(axis=1) <= 5)
    want = compare_shares(*hits, a.owners)
    assert found["ci95"] == [round(x, 6) for x in want.ci95]
    assert found["ci95"] != [round(x, 6) for x in compare_shares(*hits).ci95]
    assert found["n"] == 3 * N
    back, _ = compare_outcomes(a, b, "rgb->text", ks=(5,))
    assert back["n"] == N


def test_measured_sensors_are_named_as_in_results():
    one = make_outcome(0, "none")
    fused = make_outcome(z={**one.z, "s1+s2": one.z["s1"]}, labels=None, head=None)
    assert measured_sensors(fused) == ["rgb->s1", "rgb->s1+s2", "s1->rgb", "s1+s2->rgb"]
    assert measured_sensors(make_outcome(labels=None, z={"rgb": one.z["rgb"]})) == []
    captions = measured_sensors(make_outcome(0, "captions"))
    assert {s for s in captions if has_text(s)} == {
        "text->rgb",
        "rgb->text",
        "text->s1",
        "s1->text",
    }
    assert has_text("rgb")
