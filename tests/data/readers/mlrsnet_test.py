"""MLRSNet's labels: a table a category, a column a label."""

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import open_source

LABELS = DATASETS["mlrsnet_multi"].classes
HELD = {"airplane_00001": {"airplane", "trees"}, "lake_00001": {"lake", "harbor"}}


def write_table(path, rows, header=LABELS):
    lines = [",".join(["image", *header])]
    for name, found in rows.items():
        lines.append(",".join([name, *("01"[label in found] for label in header)]))
    path.write_text("\n".join(lines))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "MLRSNet" / "Labels").mkdir(parents=True)
    for stem, found in HELD.items():
        category = stem.split("_")[0]
        folder = tmp_path / "MLRSNet" / "Images" / category
        folder.mkdir(parents=True)
        pixels = np.full((4, 4, 3), len(stem), np.uint8)
        Image.fromarray(pixels).save(folder / f"{stem}.jpg")
        table = tmp_path / "MLRSNet" / "Labels" / f"{category}.csv"
        write_table(table, {f"{stem}.jpg": found})
    return tmp_path


def test_labels_are_the_columns_with_a_one(root):
    source = open_source("mlrsnet_multi", root)
    assert source.ids == ["airplane/airplane_00001", "lake/lake_00001"]
    for record, found in zip(source, HELD.values(), strict=True):
        assert {LABELS[i] for i in np.flatnonzero(record["label"])} == found
    assert source[0]["rgb"].max() == len("airplane_00001")


def test_columns_are_matched_by_name_in_any_order(root):
    header = [name.replace("harbor", "habor") for name in reversed(LABELS)]
    header = [name.replace(" ", "_").upper() for name in header]
    found = {name.replace("harbor", "habor").upper() for name in ("lake", "harbor")}
    write_table(root / "MLRSNet/Labels/lake.csv", {"lake_00001.jpg": found}, header)
    label = open_source("mlrsnet_multi", root)[1]["label"]
    assert {LABELS[i] for i in np.flatnonzero(label)} == HELD["lake_00001"]


def test_faults_of_a_table_are_named(root):
    path = root / "MLRSNet" / "Labels" / "lake.csv"
    text = path.read_text()
    faults = {
        text.replace(
            "lake,mobile", "pond,mobile"
        ): r"no label \['lake'\], and \['pond'\]",
        text + "\n" + text.splitlines()[1]: "line 3: lake_00001.jpg is listed twice",
        text.replace(",1", ",2"): "numbers 0 or 1",
        text[:-2]: "numbers 0 or 1",
    }
    for changed, words in faults.items():
        path.write_text(changed)
        with pytest.raises(ValueError, match=rf"lake\.csv.*{words}"):
            open_source("mlrsnet_multi", root)
    path.write_text(text + "\n" + text.splitlines()[1].replace("00001", "00002"))
    with pytest.raises(
        ValueError, match=r"1 of its images are absent: lake_00002\.jpg"
    ):
        open_source("mlrsnet_multi", root)
