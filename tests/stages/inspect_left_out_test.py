"""Stage inspect says what lies in a set's folders and is no record, and lists it."""

import numpy as np
import pytest
import tifffile

from configs import pack
from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.main import run_stages
from tests.helpers.caption_sets import listed, write_set
from tests.helpers.inspected import inspect_set, picture, save

EUROSAT = DATASETS["eurosat_rgb"].classes


@pytest.fixture
def eurosat(tmp_path):
    """EuroSAT's class folders with eight images each."""
    folder = tmp_path / "data" / "EuroSAT_RGB"
    for i, name in enumerate(EUROSAT):
        for j in range(8):
            path = folder / name / f"{name}_{j}.png"
            save(path, picture(100 * i + j, side=64))
    return folder


def read_lines(workdir, name="eurosat_rgb"):
    text = (workdir / "inspect" / name / "left_out.txt").read_text()
    return [line.split("\t") for line in text.splitlines()]


def test_folders_of_no_class_and_files_of_no_record(tmp_path, eurosat, capsys):
    for i in range(3):
        save(eurosat / "Glacier" / f"{i}.png", picture(i))
    (eurosat / "Empty").mkdir()
    for name in ("a.jxl", "b.jxl", "c.GIF", "README", ".hidden.jxl"):
        (eurosat / "Forest" / name).write_bytes(b"x")
    save(eurosat / "loose.png", picture(9))
    (eurosat / "notes.txt").write_text("no image")
    found = inspect_set(tmp_path / "w", "eurosat_rgb", tmp_path / "data")
    assert found["unknown_folders"] == {
        str(eurosat / "Empty"): 0,
        str(eurosat / "Glacier"): 3,
    }
    assert found["unread_files"] == {".jxl": 2, ".gif": 1, "no suffix": 1, ".png": 1}
    said = capsys.readouterr().out
    assert "2 folders of no class (3 files): Empty, Glacier\n" in said
    assert "5 files beside the records that no record uses: .jxl 2," in said
    assert f"is listed in {tmp_path / 'w/inspect/eurosat_rgb/left_out.txt'}" in said
    lines = read_lines(tmp_path / "w")
    assert [str(eurosat / "Glacier"), "no class of eurosat_rgb, 3 file(s) in it"] in [
        line[1:] for line in lines
    ]
    unread = {line[1] for line in lines if "no record" in line[2]}
    names = ("Forest/a.jxl", "Forest/b.jxl", "Forest/c.GIF", "Forest/README")
    assert unread == {str(eurosat / x) for x in (*names, "loose.png")}


def test_a_whole_set_leaves_nothing_out(tmp_path, eurosat, capsys):
    found = inspect_set(tmp_path / "w", "eurosat_rgb", tmp_path / "data")
    assert (found["unknown_folders"], found["unread_files"]) == ({}, {})
    assert found["left_out_file"] == ""
    assert not (tmp_path / "w/inspect/eurosat_rgb/left_out.txt").exists()
    said = capsys.readouterr().out
    assert "of no class" not in said
    assert "no record uses" not in said
    lacking = [n for n, split in found["splits"].items() if 0 in split["classes"]]
    assert lacking  # few images, split by hash
    for split in found["splits"]:
        assert (f"split {split} has no example of " in said) == (split in lacking)


def test_every_file_without_a_partner_is_listed_once(tmp_path, capsys):
    base = tmp_path / "data" / "sentinel_pairs"
    for i in range(40):  # without split folders all three splits meet the strays
        save(base / "s2_rgb" / f"{i}.png", picture(i))
        if i >= 9:
            save(base / "s1_vh" / f"{i}.png", picture(50 + i, bands=1))
    found = inspect_set(tmp_path / "w", "sentinel_pairs", tmp_path / "data")
    assert found["unread_files"] == {}
    lines = read_lines(tmp_path / "w", "sentinel_pairs")
    assert sorted(lines) == sorted(
        ["train", str(base / "s2_rgb" / f"{i}.png"), "has no partner"] for i in range(9)
    )
    said = capsys.readouterr().out
    assert "train, val, test: 9 file(s) have no partner" in said


def test_images_that_lists_name_and_those_that_none_names(tmp_path, eurosat, capsys):
    for j, split in enumerate(("train", "val", "test")):
        lines = [f"{name}_{j}.jpg" for name in EUROSAT]
        lines += [f"River_{70 + i}.jpg" for i in range(7) if split == "val"]
        (tmp_path / "data" / f"eurosat-{split}.txt").write_text("\n".join(lines))
    found = inspect_set(tmp_path / "w", "eurosat_rgb", tmp_path / "data")
    assert found["unread_files"] == {".png": 5 * len(EUROSAT)}
    lines = read_lines(tmp_path / "w")
    absent = [line[:2] for line in lines if "absent, but in" in line[2]]
    assert absent == [["val", f"River_{70 + i}"] for i in range(7)]


def test_captions_faults_are_all_listed(tmp_path):
    images = [listed(x, "train", " ") for x in "abcdefg"]
    images += [listed(f"{x}_good", "train", "a lake") for x in "hijklmnopqrst"]
    write_set(tmp_path, "rsicd", images)
    inspect_set(tmp_path / "w", "rsicd", tmp_path)
    lines = read_lines(tmp_path / "w", "rsicd")
    named = [x[2] for x in lines if "has no caption" in x[2]]
    assert sorted(named) == [f"{x}.jpg has no caption" for x in "abcdefg"]


@pytest.mark.parametrize("form", ["rgb", "s1_s2", "lists"])
def test_a_part_of_eurosat_is_reported_with_what_is_missing(
    tmp_path, eurosat, capsys, form
):
    root, gone, name = tmp_path / "data", EUROSAT[3:], "eurosat_rgb"
    for missing in gone:
        for path in (eurosat / missing).iterdir():
            path.unlink()
        (eurosat / missing).rmdir()
    if form == "s1_s2":
        name = "eurosat_s1_s2"
        for label in EUROSAT[:3]:
            for j in range(8):
                for base, bands, dtype in (
                    ("EuroSAT_MS", 13, np.uint16),
                    ("EuroSAT-SAR", 2, np.float32),
                ):
                    path = root / base / label / f"{label}_{j}.tif"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    value = np.full((64, 64, bands), -7 if bands == 2 else 700 + j)
                    tifffile.imwrite(path, value.astype(dtype), planarconfig="contig")
    if form == "lists":
        (root / "eurosat-train.txt").write_text(
            "".join(f"{x}_1.jpg\n" for x in EUROSAT)
        )
    found = inspect_set(tmp_path / "w", name, root)
    assert found["classes_without_example"] == list(gone)
    assert found["unreadable"] == []
    counts = np.sum([s.get("classes", [0] * 10) for s in found["splits"].values()], 0)
    each = 1 if form == "lists" else 8
    assert counts.tolist() == [each] * 3 + [0] * 7
    said = capsys.readouterr().out
    assert f"no folder for the class(es) {', '.join(gone)}; found" in said
    assert f"classes without an example: {'; '.join(gone)}" in said


def test_a_folder_without_one_class_is_refused_with_what_it_holds(tmp_path):
    save(tmp_path / "EuroSAT_RGB" / "Glacier" / "1.png", picture(1))
    with pytest.raises(FileNotFoundError, match=r"AnnualCrop, .*; found Glacier"):
        inspect_set(tmp_path / "w", "eurosat_rgb", tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_pixels_that_are_filled_are_counted(tmp_path, capsys, packed):
    folder = tmp_path / "data" / "EuroSAT-SAR"
    for i, name in enumerate(EUROSAT):
        for j in range(3):
            array = np.full((64, 64, 2), -9 - j - i / 10, np.float32)
            if j == 0:
                array[: i + 1, :2, 1] = np.nan
            path = folder / name / f"{name}_{j}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, array, planarconfig="contig")
    root = tmp_path / "data"
    if packed:
        root = tmp_path / "out"
        config = pack.get_config()
        config.update(dataset="eurosat_sar", data_root=str(folder.parent))
        config.pack.update(out=str(root), splits=("train",), workers=1)
        config.progress, config.data.max_nodata = False, 0.01
        run_stages(config.lock(), tmp_path / "p")
    found = inspect_set(tmp_path / "w", "eurosat_sar", root, max_nodata=0.01)
    said = capsys.readouterr().out
    if packed:
        assert found["filled"] is None
        assert "were filled when the dataset was packed: not counted" in said
        return
    assert found["unreadable"] == []
    assert found["filled"] == {"s1": {"pixels": 2 * sum(range(1, 11)), "records": 10}}
    assert "s1: 110 pixels filled in 10 of 30 records read" in said
    again = inspect_set(tmp_path / "v", "eurosat_sar", root)
    assert again["filled"] == {}
    assert len(again["unreadable"]) == 10
