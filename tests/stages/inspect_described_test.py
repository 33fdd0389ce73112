"""What inspect says of files that say what their values are."""

import numpy as np
import pytest

from configs import inspect
from rsclip_jax.data.datasets import open_source
from tests.helpers.geotiffs import write_by_gdal
from tests.helpers.inspected import inspect_set
from tests.helpers.runs import make_run

NAME = "S2B_MSIL1C_20230613T103031_{}_R108_T32TQM_20230613T141500_{}.tif"
pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning"
)


@pytest.fixture(scope="module")
def scenes():
    source = open_source("miniature", split="test")
    return [source[i] for i in range(0, 60, 10)]


def inspected(folder, sensors, capsys, **more):
    text = f'reader = "folder"\nfolder = "files"\n[sensors]\n{sensors}\n'
    (folder / "mine.toml").write_text(text)
    summary = inspect_set(folder / "w", str(folder / "mine.toml"), "", **more)
    return capsys.readouterr().out, summary["sensors"]


def test_the_order_by_name_and_values_below_0_are_said(tmp_path, scenes, capsys):
    (tmp_path / "files").mkdir()
    for i, scene in enumerate(scenes):
        array = scene["s2"].astype(np.int16)
        array[0, 0, :2] = -13
        names = tuple(f"B{n}" for n in "1 2 3 4 5 6 7 8 8A 9 10 11 12".split())
        write_by_gdal(tmp_path / f"files/{i}.tif", array, names=names if i else None)
    said, sensors = inspected(tmp_path, 's2 = "s2_l1c"', capsys)
    assert "(s2: bands are found by name in 5 files, by position in 1 file)" in said
    assert "s2 (s2_l1c): 12 values below 0 in 6 records became 0" in said
    assert "another order" not in said
    assert [row["min"] for row in sensors["s2"]["statistics"]][:2] == [0, 0]


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        ("N0510", "subtracted from the DN of 6 of 6 records read, whose product names"),
        ("x", "the darkest pixels of all bands are at 10"),
    ],
)
def test_an_offset_is_said_and_no_other_order(
    tmp_path, scenes, capsys, baseline, words
):
    (tmp_path / "files").mkdir()
    for i, scene in enumerate(scenes):
        higher = (scene["s2"] + 1000).astype(np.uint16)
        write_by_gdal(tmp_path / "files" / NAME.format(baseline, i), higher)
    said, _ = inspected(tmp_path, 's2 = "s2_l1c"', capsys)
    (line,) = (x for x in said.splitlines() if "1000" in x and "s2 (s2_l1c)" in x)
    assert words in line
    assert "another order" not in said
    run = make_run(tmp_path / "run", inspect.get_config().lock())
    run.open(f"{tmp_path}/mine.toml:all")  # as every stage does
    warned = "warning: mine:all: s2: the darkest" in capsys.readouterr().out
    assert warned == (baseline == "x")


def test_missing_pixels_are_left_out_of_the_statistics(tmp_path, scenes, capsys):
    (tmp_path / "files").mkdir()
    there = []
    for i, scene in enumerate(scenes):
        array = scene["s1"].copy()
        there.append(array[:, 8:].reshape(-1, 2))
        array[:, :8] = -99
        write_by_gdal(tmp_path / f"files/{i}.tif", array, nodata=-99)
    said, sensors = inspected(tmp_path, 's1 = "s1_grd"', capsys, max_nodata=0.3)
    assert "25 % of the pixels are missing, and left out here" in said
    for i, row in enumerate(sensors["s1"]["statistics"]):
        values = np.concatenate(there)[:, i].astype(float)
        assert (row["min"], row["max"]) == (values.min(), values.max())
        np.testing.assert_allclose(
            (row["mean"], row["std"]), (values.mean(), values.std()), rtol=1e-6
        )
