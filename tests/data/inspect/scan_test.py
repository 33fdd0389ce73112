"""Scans: their statistics, which do not depend on threads."""

import dataclasses

import numpy as np
import pytest

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.inspect.scan import scan
from rsclip_jax.data.sources.wrappers import Subset, Wrapper
from rsclip_jax.data.types import ReadOptions
from tests.helpers.runs import few_scenes


class Planted(Wrapper):
    """Records 3, 5 and 6 hold NaN and cannot be read, nor can the label of 30."""

    def read(self, index, keys):
        if index == 30:
            raise ValueError("label 'x' is not one of the set's")
        if keys and index in (5, 6):
            raise (ValueError if index == 5 else OSError)(f"record {index} is cut")
        record = {"label": self.source[index]["label"]}
        record |= {key: self.source[index][key] for key in keys}
        return self.plant(index, record) if keys else record

    def plant(self, index, record):
        if index == 3:
            record["s1"] = record["s1"].copy()
            record["s1"][:8, :8, 1] = np.nan
        return record


@pytest.fixture(scope="module")
def planted():
    with few_scenes():
        yield Planted(open_source("miniature", split="val"))


def test_a_scan_equals_numpy_on_the_stacked_records(planted):
    indices = [9, 0, 3, 21, 5]
    found = scan(planted, indices)
    assert found.indices == [9, 0, 3, 21]
    assert found.unreadable == {
        5: "record 5 is cut",
        30: "label 'x' is not one of the set's",
    }
    labels = [r["label"] for i, r in enumerate(planted.source) if i != 30]
    assert found.all_labels == labels
    records = [planted.read(i, DATASETS["miniature"].sensors) for i in found.indices]
    assert found.labels == [r["label"] for r in records]
    for key in DATASETS["miniature"].sensors:
        stacked = np.stack([r[key] for r in records]).astype(np.float64)
        m, axes = found.moments[key], (0, 1, 2)
        np.testing.assert_allclose(m.mean, np.nanmean(stacked, axes), rtol=1e-12)
        deviation = np.sqrt(m.squares / m.finite)
        np.testing.assert_allclose(deviation, np.nanstd(stacked, axes), rtol=1e-12)
        np.testing.assert_array_equal(m.total - m.finite, np.isnan(stacked).sum(axes))
        assert found.shapes[key] == {"32x32": 4}
        assert found.dtypes[key] == {str(records[0][key].dtype): 4}
        assert len(set(found.digests[key])) == 4
    nan = found.moments["s1"].total - found.moments["s1"].finite
    assert nan.tolist() == [0, 64]


def test_threads_change_nothing(planted):
    one, three = (scan(planted, range(40), ReadOptions(threads=n)) for n in (1, 3))
    assert sorted(one.unreadable) == [5, 6, 30]
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(three, field.name)
        if field.name != "moments":
            assert a == b
            continue
        for key in a:
            for part in dataclasses.fields(a[key]):
                np.testing.assert_array_equal(
                    getattr(a[key], part.name), getattr(b[key], part.name)
                )


def test_a_copied_record_has_the_same_digests(planted):
    found = scan(Subset(planted.source, [4, 7, 4]), range(3))
    for digests in found.digests.values():
        assert digests[0] == digests[2] != digests[1]


def test_an_error_of_another_kind_ends_the_scan(planted, monkeypatch):
    def broken(self, index, keys):
        raise KeyError(index)

    monkeypatch.setattr(Planted, "read", broken)
    with pytest.raises(KeyError):
        scan(planted, range(4))
