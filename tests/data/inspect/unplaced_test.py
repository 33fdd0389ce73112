"""Pairs that nothing checks for their place are counted."""

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.inspect.scan import scan
from rsclip_jax.data.inspect.unplaced import describe_unplaced
from tests.helpers.geotiffs import north_up, write_by_gdal

TEXT = """
reader = "paired_folders"
folder = "."
{more}
[sensors]
rgb = "rgb"
s1 = "s1_grd"
[subfolders]
rgb = "rgb"
s1 = "s1"
"""


@pytest.fixture
def folder(tmp_path):
    """Ten pairs; both files of the first four are at one place."""
    grid = {"crs": "EPSG:32633", "transform": north_up(3e5, 5e6)}
    for name in ("rgb", "s1"):
        (tmp_path / name).mkdir()
    for i in range(10):
        placed = grid if i < 4 else {}
        rgb = np.full((8, 8, 3), 9 + i, np.uint8)
        write_by_gdal(tmp_path / f"rgb/{i}.tif", rgb, **(placed if i % 2 else grid))
        radar = np.full((8, 8, 2), -9 - i, np.float32)
        write_by_gdal(tmp_path / f"s1/{i}.tif", radar, **placed)
    return tmp_path


def open_pairs(folder, more=""):
    (folder / "pairs.toml").write_text(TEXT.format(more=more))
    return open_source(folder / "pairs.toml")


def test_pairs_without_a_place_are_counted(folder):
    source = open_pairs(folder)
    found = scan(source, range(10))
    assert sum(len(kinds.get("unplaced", ())) for kinds in found.notes.values()) == 6
    text = describe_unplaced(source)
    assert text.startswith("pairs:all: about 6 of 10 pairs are not checked for their")


def test_pictures_are_all_unchecked(folder):
    for i in range(10):
        (folder / f"rgb/{i}.tif").unlink()
        Image.new("RGB", (8, 8)).save(folder / f"rgb/{i}.png")
    assert describe_unplaced(open_pairs(folder)).startswith("pairs:all: 10 of 10 pairs")


def test_nothing_is_said_where_all_are_checked_or_nobody_asks(folder):
    assert describe_unplaced(open_pairs(folder, "same_place = false")) == ""
    for i in range(4, 10):
        for name in ("rgb", "s1"):
            (folder / f"{name}/{i}.tif").unlink()
    assert describe_unplaced(open_pairs(folder)) == ""
    (folder / "pairs.toml").write_text(
        'reader = "folder"\nfolder = "rgb"\n[sensors]\nrgb = "rgb"'
    )
    assert describe_unplaced(open_source(folder / "pairs.toml")) == ""
