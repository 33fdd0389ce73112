"""BigEarthNet in the layouts it is downloaded in, real and written here."""

import json
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tifffile

from rsclip_jax.data.catalog.corine import NINETEEN
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pipeline.batches import eval_batches
from rsclip_jax.data.readers.bigearthnet import S1_BANDS, S2_BANDS
from rsclip_jax.data.readers.folders import in_split
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.types import ReadOptions
from tests.helpers.bigearthnet import SIDES

LABELS = {
    "S2A_MSIL2A_20170613T101031_0_0": ["Pastures", "Airports"],
    "S2A_MSIL2A_20170613T101031_0_1": ["Sea and ocean", "Estuaries"],
    "S2A_MSIL2A_20170613T101031_0_2": ["Vineyards"],
}


def write_patch(folder, bands, dtype, first):
    folder.mkdir(parents=True)
    for i, band in enumerate(bands):
        side = SIDES.get(band, 60 if dtype == np.uint16 else 120)
        array = np.full((side, side), first + i, dtype)
        tifffile.imwrite(folder / f"{folder.name}_{band}.tif", array)


def partner(s2):
    return s2.replace("S2A_MSIL2A", "S1A_IW_GRDH_1SDV")


@pytest.fixture
def v1(tmp_path):
    for i, (name, labels) in enumerate(LABELS.items()):
        patch = tmp_path / "BigEarthNet-v1.0" / name
        write_patch(patch, S2_BANDS, np.uint16, 100 * (i + 1))
        text = json.dumps({"labels": labels})
        (patch / f"{name}_labels_metadata.json").write_text(text)
        s1 = tmp_path / "BigEarthNet-S1-v1.0" / partner(name)
        write_patch(s1, S1_BANDS, np.float32, -20 - i)
        text = json.dumps({"labels": labels, "corresponding_s2_patch": name})
        (s1 / f"{s1.name}_labels_metadata.json").write_text(text)
    return tmp_path


def write_csv(folder, **splits):
    for split, rows in splits.items():
        lines = [",".join(row) for row in rows]
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def test_bands_are_in_the_sensors_order_at_the_finest_grid(v1):
    source = open_source("bigearthnet", v1)
    record = source[0]
    assert record["s2"].shape == (120, 120, 12)
    np.testing.assert_array_equal(record["s2"][5, 7], 100 + np.arange(12))
    assert SENSORS["s2_l2a"].bands == S2_BANDS
    np.testing.assert_array_equal(record["s1"][0, 0], [-20, -19])
    want = np.round(np.array([103, 102, 101]) * 255 / 2000)  # B04, B03, B02
    np.testing.assert_array_equal(record["rgb"][0, 0], want)


def test_only_the_requested_sensors_are_read(v1):
    """RGB needs three of the twelve bands, and no radar."""
    source = open_source("bigearthnet", v1)
    whole = source[0]["rgb"]
    first = next(iter(LABELS))
    for path in (v1 / "BigEarthNet-v1.0" / first).glob("*.tif"):
        if path.stem.rsplit("_", 1)[1] not in ("B02", "B03", "B04"):
            path.unlink()
    shutil.rmtree(v1 / "BigEarthNet-S1-v1.0" / partner(first))
    record = source.read(0, ("rgb",))
    np.testing.assert_array_equal(record["rgb"], whole)
    assert set(record) == {"id", "label", "rgb"}
    batch = next(eval_batches(source, sizes={"rgb": 120}, options=ReadOptions(1)))
    np.testing.assert_array_equal(batch["rgb"][0], whole)
    with pytest.raises(FileNotFoundError, match="is missing"):
        source[0]


def test_labels_are_multi_hot_for_each_class_count(v1):
    names = {5: "bigearthnet_5", 19: "bigearthnet", 43: "bigearthnet_43"}
    want = {
        43: [{"Pastures", "Airports"}, {"Sea and ocean", "Estuaries"}, {"Vineyards"}],
        19: [{"Pastures"}, {"Marine waters"}, {"Permanent crops"}],
        5: [
            {"Agricultural areas", "Artificial surfaces"},
            {"Water bodies"},
            {"Agricultural areas"},
        ],
    }
    for count, name in names.items():
        source = open_source(name, v1)
        assert source.dataset.task == "multi"
        for i in range(3):
            label = source[i]["label"]
            assert label.shape == (count,)
            found = {source.dataset.classes[k] for k in np.flatnonzero(label)}
            assert found == want[count][i]


def test_csv_files_define_splits_and_pairs(v1):
    first, second, third = LABELS
    rows = {"train": [(first, partner(second))], "val": [(second, partner(first))]}
    write_csv(v1, **rows, test=[(third, partner(third))])
    source = open_source("bigearthnet", v1, "train")
    assert source.ids == [first]
    assert source[0]["s1"][0, 0, 0] == -21  # the csv's partner, not the json's
    assert source.split_rule == "train.csv, val.csv, test.csv"
    assert open_source("bigearthnet", v1, "val").ids == [second]
    assert sorted(open_source("bigearthnet", v1).ids) == sorted(LABELS)


def test_a_csv_of_one_column_leaves_the_pairs_to_the_json_files(v1):
    first = next(iter(LABELS))
    write_csv(v1, **{"bigearthnet-train": [(first,)]})
    source = open_source("bigearthnet", v1, "train")
    assert source.ids == [first]
    assert source.split_rule == "bigearthnet-train.csv"
    np.testing.assert_array_equal(source[0]["s1"][0, 0], [-20, -19])
    shutil.rmtree(v1 / "BigEarthNet-S1-v1.0")
    with pytest.raises(FileNotFoundError, match=r"S1-v1\.0 does not exist; .*_s2 do"):
        open_source("bigearthnet", v1, "train")


def test_a_dataset_may_be_in_a_folder_with_its_name(v1, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "bigearthnet_43_s2").symlink_to(v1)
    assert len(open_source("bigearthnet_43_s2", root)) == 3
    with pytest.raises(FileNotFoundError, match=r"holds bigearthnet/BigEarthNet-v1\.0"):
        open_source("bigearthnet")


def test_patches_under_snow_or_cloud_are_left_out(v1):
    first, second, third = LABELS
    (v1 / "patches_with_seasonal_snow.csv").write_text(first + "\n")
    (v1 / "patches_with_cloud_and_shadow.csv").write_text(f"{second},x\n")
    assert open_source("bigearthnet", v1).ids == [third]


def test_without_csv_a_hash_makes_the_splits(v1):
    wanted = {name: in_split("train")(name) for name in LABELS}
    assert len(set(wanted.values())) == 2  # these names fall into two splits
    got = open_source("bigearthnet_s2", v1, "train").ids
    assert got == [name for name in LABELS if wanted[name]]
    rule = open_source("bigearthnet", v1, "test").split_rule
    assert rule.startswith("the hash of the patch's name, which separates")


def test_listed_but_absent_patches_are_named_or_left_out(v1, capsys):
    first, second, third = LABELS
    rows = [(first, partner(first)), ("S2A_gone", "S1A_gone"), (second, "S1A_lost")]
    write_csv(v1, train=rows, val=[(third, partner(third))])
    absent = r"train\.csv: 2 of its images are absent: S2A_gone, S1A_lost"
    with pytest.raises(ValueError, match=absent):
        open_source("bigearthnet", v1, "train")
    assert open_source("bigearthnet", v1, "val").ids == [third]
    source = open_source("bigearthnet", v1, "train", on_error="skip")
    assert source.ids == [first]
    assert "S1A_lost; left out" in capsys.readouterr().out
    optical = open_source("bigearthnet_s2", v1, "train", on_error="skip")
    assert optical.ids == [first, second]


def test_faults_of_a_csv_are_named(v1):
    first = next(iter(LABELS))
    write_csv(v1, train=[(first, ""), (first, "")])
    with pytest.raises(ValueError, match=rf"{first} is listed twice"):
        open_source("bigearthnet", v1, "train")
    write_csv(v1, train=[(first,)], test=[(first, "")])
    for split in ("train", "val", "test", "all"):
        both = rf"train\.csv and test\.csv both name 1 .*{first}"
        with pytest.raises(ValueError, match=both):
            open_source("bigearthnet_s2", v1, split)
    (v1 / "test.csv").unlink()
    write_csv(v1, train=[("a", "b")])
    with pytest.raises(ValueError, match=r"train\.csv: no line begins"):
        open_source("bigearthnet", v1, "train")
    write_csv(v1, train=[(first,)])
    with pytest.raises(FileNotFoundError, match=r"train\.csv: no split 'val'; it has"):
        open_source("bigearthnet", v1, "val")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lists_of_excel_are_read_from_their_first_line(v1, mark):
    """It writes a byte order mark, CR LF and empty lines, and a header may be there."""
    first, second, third = LABELS
    for header in ("", "s2v2_name,s1\r\n"):
        rows = f"{header}{first},{partner(first)}\r\n\r\n,\r\n{second},\r\n"
        (v1 / "train.csv").write_bytes(mark + rows.encode())
        assert open_source("bigearthnet", v1, "train").ids == [first, second]
    (v1 / "patches_with_seasonal_snow.csv").write_bytes(mark + f"{first}\r\n".encode())
    assert open_source("bigearthnet", v1, "train").ids == [second]
    (v1 / "train.csv").unlink()
    assert open_source("bigearthnet", v1).ids == [second, third]


def test_a_line_that_is_no_patch_is_named(v1):
    first, second, _ = LABELS
    write_csv(v1, train=[(first,), (f"0;{second}",)])
    with pytest.raises(
        ValueError, match=r"train\.csv, line 2: '0;S2A.*' is not the name"
    ):
        open_source("bigearthnet", v1, "train")
    write_csv(v1, train=[(first,), (second,), (first,)])
    with pytest.raises(
        ValueError, match=rf"train\.csv, line 3: {first} is listed twice"
    ):
        open_source("bigearthnet", v1, "train")


@pytest.mark.parametrize("labels", [None, "Pastures", [None], {"a": 1}])
def test_labels_that_are_no_list_of_names_are_named(v1, labels):
    first = next(iter(LABELS))
    path = v1 / "BigEarthNet-v1.0" / first / f"{first}_labels_metadata.json"
    path.write_text(json.dumps({"labels": labels}))
    with pytest.raises(
        ValueError, match=r"metadata\.json: its labels are .* a list of n"
    ):
        open_source("bigearthnet_s2", v1)[0]


def test_a_patch_without_partner_is_an_error_or_left_out(v1, capsys):
    first, *rest = LABELS
    shutil.rmtree(v1 / "BigEarthNet-S1-v1.0" / partner(first))
    with pytest.raises(ValueError, match=rf"1 file\(s\) have no partner: .*{first}"):
        open_source("bigearthnet", v1)
    assert open_source("bigearthnet", v1, on_error="skip").ids == rest
    assert first in capsys.readouterr().out
    assert len(open_source("bigearthnet_s2", v1)) == 3


def test_other_files_beside_the_patches_are_no_patches(v1):
    for folder in ("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0"):
        for name in (".DS_Store", "Thumbs.db", "README.txt"):
            (v1 / folder / name).touch()
    assert open_source("bigearthnet", v1).ids == sorted(LABELS)


def test_band_files_in_uppercase_are_read(v1):
    want = open_source("bigearthnet", v1)[0]
    for path in v1.glob("*/*/*.tif"):
        path.rename(path.with_suffix(".TIF"))
    found = open_source("bigearthnet", v1)[0]
    for key in ("rgb", "s2", "s1"):
        np.testing.assert_array_equal(found[key], want[key])


def test_a_missing_band_and_a_strange_label_are_named(v1):
    first, second, _ = LABELS
    patch = v1 / "BigEarthNet-v1.0" / first
    (patch / f"{first}_B05.tif").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{first}_B05\.tif is missing"):
        open_source("bigearthnet_s2", v1)[0]
    label = v1 / "BigEarthNet-v1.0" / second / f"{second}_labels_metadata.json"
    label.write_text(json.dumps({"labels": ["Moon"]}))
    with pytest.raises(ValueError, match=r"label 'Moon' is not one of bigearthnet"):
        open_source("bigearthnet_s2", v1)[1]
    label.write_text("{")
    with pytest.raises(ValueError, match=r"metadata\.json: it has no readable labels"):
        open_source("bigearthnet_s2", v1)[1]


# Version 2

TILE = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP"
SCENE = "S1A_IW_GRDH_1SDV_20170613T165043"


@pytest.fixture
def v2(tmp_path):
    rows = []
    for i, split in enumerate(("train", "validation", "test")):
        s2, s1 = f"{TILE}_{i}_7", f"{SCENE}_33UUP_{i}_7"
        write_patch(
            tmp_path / "BigEarthNet-S2" / TILE / s2, S2_BANDS, np.uint16, 100 * i + 1
        )
        write_patch(tmp_path / "BigEarthNet-S1" / SCENE / s1, S1_BANDS, np.float32, -9)
        labels = [list(NINETEEN)[i], "Pastures"]
        row = {"patch_id": s2, "s1_name": s1, "labels": labels, "split": split}
        rows.append(row | {"country": "Austria"})
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "metadata.parquet")
    return tmp_path


def test_version_2_takes_splits_labels_and_pairs_from_its_table(v2):
    for i, split in enumerate(("train", "val", "test")):
        source = open_source("bigearthnet_v2", v2, split)
        assert source.ids == [f"{TILE}_{i}_7"]
        assert source.split_rule == "metadata.parquet"
        record = source[0]
        np.testing.assert_array_equal(record["s2"][0, 0], 100 * i + 1 + np.arange(12))
        np.testing.assert_array_equal(record["s1"][0, 0], [-9, -8])
        assert set(np.flatnonzero(record["label"])) == {i, 4}
    assert len(open_source("bigearthnet_v2_s2", v2)) == 3
    label = open_source("bigearthnet_v2_5", v2, "train")[0]["label"]
    np.testing.assert_array_equal(label, [1, 1, 0, 0, 0])


def test_patches_of_version_2_that_are_absent_are_named_or_left_out(v2, capsys):
    shutil.rmtree(v2 / "BigEarthNet-S1" / SCENE / f"{SCENE}_33UUP_0_7")
    shutil.rmtree(v2 / "BigEarthNet-S2" / TILE / f"{TILE}_2_7")
    ids = [f"{TILE}_{i}_7" for i in range(3)]
    absent = rf"parquet: 2 of its images are absent: {SCENE}_33UUP_0_7, {ids[2]};"
    with pytest.raises(ValueError, match=absent):
        open_source("bigearthnet_v2", v2)
    assert open_source("bigearthnet_v2", v2, "val").ids == ids[1:2]
    assert open_source("bigearthnet_v2", v2, on_error="skip").ids == ids[1:2]
    assert f"{ids[2]}; left out" in capsys.readouterr().out
    assert open_source("bigearthnet_v2_s2", v2, on_error="skip").ids == ids[:2]
    shutil.rmtree(v2 / "BigEarthNet-S2" / TILE)  # the tile was not unpacked
    with pytest.raises(ValueError, match="3 of its images are absent"):
        open_source("bigearthnet_v2_s2", v2)
    shutil.rmtree(v2 / "BigEarthNet-S1")
    with pytest.raises(FileNotFoundError, match=r"BigEarthNet-S1 does not exist"):
        open_source("bigearthnet_v2", v2, on_error="skip")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("labels", None, "nothing in column labels"),
        ("labels", [None], "nothing in column labels"),
        ("split", None, "nothing in column split"),
        ("s1_name", None, "nothing in column s1_name"),
        ("patch_id", None, "nothing in column patch_id"),
        ("patch_id", f"{TILE}_0_7", f"{TILE}_0_7 is listed twice"),
    ],
)
def test_empty_cells_and_repeated_patches_are_named(v2, column, value, words):
    path = v2 / "metadata.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    rows[1][column] = value
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(ValueError, match=rf"metadata\.parquet, row 2.*: {words}"):
        open_source("bigearthnet_v2", v2)
    if column == "s1_name":
        assert len(open_source("bigearthnet_v2_s2", v2)) == 3


# BigEarthNet.txt


def write_captions(v2, rows):
    """rows: (patch, type, output, split)."""
    table = [
        {
            "ID": str(i),
            "patch_id": f"{TILE}_{patch}_7",
            "s1_name": f"{SCENE}_33UUP_{patch}_7",
            "input": "Describe the image.",
            "output": output,
            "type": kind,
            "split": split,
        }
        for i, (patch, kind, output, split) in enumerate(rows)
    ]
    path = v2 / "BigEarthNet.txt.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)


TEXTS = [
    (0, "captioning", " A meadow. ", "train"),
    (0, "binary", "yes", "train"),
    (2, "captioning", "A lake.", "bench"),
    (1, "captioning", "A town.", "validation"),
    (1, "captioning", "A town by a river.", "validation"),
    (2, "mcq", "B", "test"),
]


def test_captions_of_patches_in_all_sensors(v2):
    write_captions(v2, TEXTS)
    source = open_source("bigearthnet_txt", v2)
    assert source.ids == [f"{TILE}_0_7", f"{TILE}_1_7"]
    assert source[1]["captions"] == ("A town.", "A town by a river.")
    assert source[0]["captions"] == ("A meadow.",)
    patches = open_source("bigearthnet_v2", v2)
    for record, same in zip(source, patches, strict=False):
        for key in ("rgb", "s1", "s2"):
            np.testing.assert_array_equal(record[key], same[key])
    assert open_source("bigearthnet_txt", v2, "val").ids == [f"{TILE}_1_7"]
    bench = open_source("bigearthnet_txt_bench", v2, "test")
    assert (bench.ids, bench[0]["captions"]) == ([f"{TILE}_2_7"], ("A lake.",))
    with pytest.raises(FileNotFoundError, match="no split 'test'; it has train, val"):
        open_source("bigearthnet_txt", v2, "test")


def test_faults_of_the_captions_are_named(v2, capsys):
    with pytest.raises(FileNotFoundError, match=r"txt\.parquet does not exist"):
        open_source("bigearthnet_txt", v2)
    write_captions(v2, [*TEXTS, (9, "captioning", "Gone.", "train")])
    with pytest.raises(ValueError, match=rf"1 of its images are absent: .*{TILE}_9_7"):
        open_source("bigearthnet_txt", v2)
    assert len(open_source("bigearthnet_txt", v2, on_error="skip")) == 2
    write_captions(v2, [(0, "captioning", None, "train")])
    words = rf"a caption of {TILE}_0_7 has nothing in column output"
    with pytest.raises(ValueError, match=words):
        open_source("bigearthnet_txt", v2)
    path = v2 / "BigEarthNet.txt.parquet"
    table = pyarrow.parquet.read_table(path).drop_columns(["type"])
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(ValueError, match=r"txt\.parquet: no column type; it has"):
        open_source("bigearthnet_txt", v2)


def test_a_missing_table_or_column_is_named(v2):
    path = v2 / "metadata.parquet"
    table = pyarrow.parquet.read_table(path).drop_columns(["s1_name"])
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(ValueError, match=r"metadata\.parquet: no column s1_name"):
        open_source("bigearthnet_v2", v2)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"metadata\.parquet does not exist"):
        open_source("bigearthnet_v2", v2)


def test_the_versions_are_not_confused(v1):
    with pytest.raises(FileNotFoundError, match="BigEarthNet-S2, where dataset"):
        open_source("bigearthnet_v2", v1)


# Real patches


def test_real_patches_equal_tifffiles_reading(real_data):
    source = open_source("bigearthnet_s2", real_data)
    assert len(source) == 8
    for i in range(8):
        name, s2 = source.ids[i], source[i]["s2"]
        folder = real_data / "bigearthnet" / "BigEarthNet-v1.0" / name
        for band in ("B02", "B03", "B04", "B08"):
            want = tifffile.imread(folder / f"{name}_{band}.tif")
            np.testing.assert_array_equal(s2[..., S2_BANDS.index(band)], want)
        coarse = tifffile.imread(folder / f"{name}_B01.tif")
        assert abs(float(s2[..., 0].mean()) - coarse.mean()) < 0.02 * coarse.mean()
        assert source[i]["label"].sum() >= 1


def test_real_pairs_show_one_location(real_data):
    source = open_source("bigearthnet", real_data, on_error="skip")
    assert len(source) == 2
    for i in range(2):
        record = source[i]
        assert record["s1"].shape == (120, 120, 2)
        assert -30 < record["s1"].mean() < 0


def copy_pair(real_data, tmp_path):
    """One real location of BigEarthNet in its own data root, as its two folders."""
    names = ("S2A_MSIL2A_20170617T113321_36_85", "S1A_IW_GRDH_1SDV_20170617T064724")
    for top, name in zip(
        ("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0"), names, strict=True
    ):
        (found,) = (real_data / "bigearthnet" / top).glob(f"{name}*")
        shutil.copytree(found, tmp_path / top / found.name)
        yield tmp_path / top / found.name


def test_a_real_pair_with_radar_of_another_location_is_refused(real_data, tmp_path):
    s2, s1 = copy_pair(real_data, tmp_path)
    source = open_source("bigearthnet", tmp_path)
    assert source[0]["s1"].shape == (120, 120, 2)
    (other,) = s1.parent.parent.glob("*S1*/*")
    assert other == s1
    far = real_data / "bigearthnet" / "BigEarthNet-S1-v1.0"
    for name, fault in (
        ("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39", "are not in one CRS"),
        ("S1A_IW_GRDH_1SDV_20171221T064238_29SND_56_35", "do not overlap"),
    ):
        for band in S1_BANDS:
            wrong = far / name / f"{name}_{band}.tif"
            shutil.copy(wrong, s1 / f"{s1.name}_{band}.tif")
        for keys in (("s2", "s1"), ("rgb", "s1")):
            with pytest.raises(ValueError, match=fault) as error:
                source.read(0, keys)
            assert f"{s1.name}_VV.tif (EPSG:" in str(error.value)
            assert f"{s2.name}_B0" in str(error.value)
        source.read(0, ("s1",))  # alone it is a good image


def test_a_real_band_of_another_patch_is_refused(real_data, tmp_path):
    s2, _ = copy_pair(real_data, tmp_path)
    source = open_source("bigearthnet_s2", tmp_path)
    wrong = "S2A_MSIL2A_20171221T112501_56_35"
    there = real_data / "bigearthnet" / "BigEarthNet-v1.0" / wrong
    shutil.copy(there / f"{wrong}_B05.tif", s2 / f"{s2.name}_B05.tif")
    with pytest.raises(ValueError, match=r"_B05\.tif \(EPSG:32629, .* do not overlap"):
        source[0]
    assert source.read(0, ("rgb",))["rgb"].shape == (120, 120, 3)  # B05 is not in it


def test_a_patch_of_another_size_is_named(v1):
    name = next(iter(LABELS))
    patch = v1 / "BigEarthNet-v1.0" / name
    for band in ("B02", "B03", "B04", "B08"):
        array = np.full((119, 119), 100, np.uint16)
        tifffile.imwrite(patch / f"{name}_{band}.tif", array)
    source = open_source("bigearthnet", v1)
    for keys in (("s2",), ("rgb",)):
        with pytest.raises(
            ValueError,
            match=rf"{name}.*119 x 119 pixels, .* bigearthnet have 120 x 120",
        ):
            source.read(0, keys)
