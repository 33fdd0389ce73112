"""Benchmark sets as SkyScript's authors publish them."""

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.catalog.prompts import SKYCLIP_TEMPLATES
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.specs import DatasetSpec

NAMES = ("bare land", "airport", "lake")


def write_set(root, rows, split="test", name="aid_", below="aid"):
    folder = root / "aid"
    folder.mkdir(exist_ok=True)
    (folder / "classnames.txt").write_text("\n".join(NAMES) + "\n")
    lines = ["filepath,title,label"]
    for i, label in enumerate(rows):
        path = root / below / "img" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 9 * i, np.uint8)).save(path)
        lines.append(f'img/{i}.jpg,"a, b",{label}')
    (folder / f"{name}img_txt_pairs_{split}.csv").write_text("\n".join(lines))


@pytest.mark.parametrize("rows", [("lake", "bare land"), (2, 0), ("2.0", "0.0")])
@pytest.mark.parametrize("below", ["aid", "", "aid/images"])
def test_labels_are_names_or_numbers(tmp_path, rows, below):
    write_set(tmp_path, rows, below=below)
    source = open_source("skyscript:aid", tmp_path, "test")
    assert source.classes == source.dataset.classnames == NAMES
    assert source.dataset.templates == SKYCLIP_TEMPLATES
    assert source.ids == ["test/img/0.jpg", "test/img/1.jpg"]
    assert [record["label"] for record in source] == [2, 0]
    assert [int(record["rgb"].max()) for record in source] == [0, 9]


def test_rows_without_a_label_are_left_out_and_splits_are_the_tables(tmp_path):
    write_set(tmp_path, ("lake", "", "airport"), "val", "")
    assert len(open_source("skyscript:aid", tmp_path)) == 2
    with pytest.raises(FileNotFoundError, match="no split 'test'; it has val"):
        open_source("skyscript:aid", tmp_path, "test")
    assert DatasetSpec.parse("skyscript:aid:val").name == "skyscript:aid"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("lake", "pond"), "line 2: label 'pond' is neither"),
        (lambda text: text.replace(",lake", ",3"), "line 2: label '3' is neither"),
        (lambda text: text.replace("label", "class"), "no column label; it has"),
        (lambda text: text + "\nimg/0.jpg,,lake", "line 3: img/0.jpg is listed twice"),
        (lambda text: text + "\nimg/0.jpg", "line 3: cut short"),
        (lambda text: text + "\nimg/7.jpg,,lake", "images are absent: img/7.jpg"),
    ],
)
def test_faults_of_a_table_are_named(tmp_path, change, words):
    write_set(tmp_path, ("lake",))
    path = tmp_path / "aid" / "aid_img_txt_pairs_test.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=rf"pairs_test\.csv.*{words}"):
        open_source("skyscript:aid", tmp_path, "test")


def test_class_names_that_shift_or_repeat_are_refused(tmp_path):
    write_set(tmp_path, ("lake",))
    path = tmp_path / "aid" / "classnames.txt"
    for text, words in (("a\n\nb", "is empty"), ("a\na", "named twice")):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"classnames\.txt: .*{words}"):
            open_source("skyscript:aid", tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"classnames\.txt is missing"):
        open_source("skyscript:aid", tmp_path)
