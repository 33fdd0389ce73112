"""Which records a contact sheet shows."""

import numpy as np

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.inspect.scan import scan
from rsclip_jax.report.examples import example_rows
from tests.helpers.runs import few_scenes


def rows_of(name):
    with few_scenes():
        sources = {s: open_source(name, split=s) for s in ("train", "val")}
        scans = {s: scan(source, range(len(source))) for s, source in sources.items()}
        row = sources["train"].dataset
        return row, example_rows(row, sources, scans, seed=0)


def test_every_class_is_shown_and_no_record_twice():
    row, rows = rows_of("miniature_multi")
    ids = [record["id"] for one in rows for record in one.records]
    assert len(ids) == len(set(ids))
    assert [one.title for one in rows] == list(row.classnames)
    for i, one in enumerate(rows):
        assert 1 <= len(one.records) <= 3
        assert all(record["label"][i] for record in one.records)
    # those with few other labels come first: their class is what they show
    count = [np.count_nonzero(r["label"]) for one in rows for r in one.records[:1]]
    assert np.mean(count) < 2


def test_examples_of_a_class_are_spread_evenly():
    row, rows = rows_of("miniature")
    assert [one.title for one in rows] == list(row.classnames)
    with few_scenes():
        sources = [open_source("miniature", split=s) for s in ("train", "val")]
        labels = [record["label"] for source in sources for record in source]
        ids = [i for source in sources for i in source.ids]
    for i, one in enumerate(rows):
        of_class = [id_ for id_, label in zip(ids, labels, strict=True) if label == i]
        shown = [record["id"] for record in one.records]
        assert shown[0] == of_class[0]
        assert shown[-1] == of_class[-1]
