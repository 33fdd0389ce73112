"""Custom datasets: their TOML files and their folders."""

import re

import numpy as np
import pytest
import tifffile
from PIL import Image
from rasterio.warp import transform

from rsclip_jax.data.catalog.classes import UCMERCED_NAMES
from rsclip_jax.data.catalog.custom import load_dataset
from rsclip_jax.data.catalog.prompts import SATELLITE_TEMPLATES
from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.sensors import COMPOSITES, SENSORS
from rsclip_jax.data.sensors.bands import make_composite
from rsclip_jax.data.sensors.custom import load_sensor
from rsclip_jax.data.sources.digests import split_digest
from tests.conftest import REPO
from tests.helpers.geotiffs import geo_tags

PHOTOS = """
reader = "class_folders"
folder = "photos"
[sensors]
rgb = "rgb"
"""
PAIRS = """
reader = "paired_folders"
folder = "."
[sensors]
rgb = "rgb"
s1 = "s1_vh_8bit"
[subfolders]
rgb = "optical"
s1 = "radar"
"""
TABLE = """
reader = "csv"
table = "labels.csv"
[sensors]
rgb = "rgb"
[columns]
rgb = "path"
label = "class"
"""
L2A = SENSORS["s2_l2a"].bands


def write(folder, text, name="mine.toml"):
    path = folder / name
    path.write_text(text, "utf-8")
    return str(path)


def with_top(text, lines):
    """The TOML with more keys before its tables."""
    head, table, rest = text.partition("[sensors]")
    return f"{head}{lines}\n{table}{rest}"


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.dtype == np.uint8:
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig")
    return array


def flat(value, *shape):
    return np.full(shape or (4, 4, 3), value, np.uint8)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(1, 3000, shape, np.uint16)


@pytest.fixture
def photos(tmp_path):
    """photos/<class>/<i>.png, ten of each of two classes, flat."""
    for label, name in enumerate(("dry-land", "SeaLake")):
        for i in range(10):
            save(tmp_path / "photos" / name / f"{i}.png", flat(100 * label + i))
    return tmp_path


# class_folders


def test_class_names_come_from_the_class_folders(photos):
    source = open_source(write(photos, PHOTOS))
    dataset = source.dataset
    assert (dataset.name, dataset.task, dataset.sensors) == (
        "mine",
        "single",
        {"rgb": "rgb"},
    )
    assert dataset.classes == ("SeaLake", "dry-land")  # sorted
    assert dataset.classnames == ("SeaLake", "dry land")
    assert dataset.templates == SATELLITE_TEMPLATES
    assert len(source) == 20
    for i, id_ in enumerate(source.ids):
        name, stem = id_.split("/")
        record = source[i]
        assert dataset.classes[record["label"]] == name
        assert record["rgb"].max() == int(stem) + 100 * (name == "SeaLake")


def test_the_file_overrides_the_folders(photos):
    text = with_top(PHOTOS, 'classes = ["dry-land"]\ntemplates = ["from above: {c}"]')
    text += '[classnames]\n"dry-land" = "desert"\n'
    dataset = open_source(write(photos, text)).dataset
    assert (dataset.classes, dataset.classnames) == (("dry-land",), ("desert",))
    assert dataset.templates == ("from above: {c}",)


def test_a_hash_makes_the_splits_as_in_the_catalog(photos):
    path = write(photos, PHOTOS)
    splits = {s: open_source(path, "", s).ids for s in ("train", "val", "test")}
    assert sorted(id_ for ids in splits.values() for id_ in ids) == sorted(
        open_source(path).ids
    )
    # the archive of the same files and names under another row's rule
    root = photos / "root"
    for name in UCMERCED_NAMES:
        (root / "ucmerced" / name).mkdir(parents=True)
        save(root / "ucmerced" / name / "7.png", flat(7))
    text = PHOTOS.replace("photos", "root/ucmerced")
    for split in ("train[:50%]", "val", "test"):
        mine = open_source(write(photos, text), "", split).ids
        assert mine == open_source("ucmerced", root, split).ids


def test_split_folders_may_have_other_names_and_lack_a_class(tmp_path):
    save(tmp_path / "photos/train/sea/1.png", flat(1))
    save(tmp_path / "photos/train/ice/1.png", flat(2))
    save(tmp_path / "photos/valid/sea/9.png", flat(3))
    path = write(tmp_path, PHOTOS)
    with pytest.raises(ValueError, match=r"valid beside the split folders train; if i"):
        open_source(path)
    path = write(tmp_path, PHOTOS + '[splits]\nval = "valid"\n')
    source = open_source(path, "", "val")
    assert source.ids == ["val/sea/9"]
    assert source.dataset.classes == ("ice", "sea")
    assert source[0]["label"] == 1
    assert open_source(path).ids == ["train/ice/1", "train/sea/1", "val/sea/9"]
    with pytest.raises(FileNotFoundError, match="no split 'test'; it has train, val"):
        open_source(path, "", "test")
    path = write(tmp_path, with_top(PHOTOS, 'classes = ["ice", "sea"]'))
    with pytest.raises(FileNotFoundError, match="no split 'val'"):
        open_source(path, "", "val")


def test_a_named_class_without_a_folder_is_an_error(photos):
    path = write(photos, with_top(PHOTOS, 'classes = ["SeaLake", "Wood"]'))
    with pytest.raises(FileNotFoundError, match=r"class\(es\) Wood; found SeaLake, d"):
        open_source(path)


def test_files_with_the_same_name_are_refused(photos):
    save(photos / "photos" / "SeaLake" / "3.bmp", flat(3))
    with pytest.raises(ValueError, match=r"3\.bmp, .*3\.png: files with the same name"):
        open_source(write(photos, PHOTOS))


def test_sentinel_2_bands_in_another_order_and_their_composite(tmp_path):
    order = L2A[::-1]
    array = save(tmp_path / "photos/sea/1.tif", noise(6, 6, 12))
    text = PHOTOS.replace('rgb = "rgb"', 's2 = "s2_l2a"')
    text += '[composites]\nrgb = "s2_l2a_rgb"\n'
    text += f"[file_bands]\ns2 = {list(order)}\n"
    source = open_source(write(tmp_path, text))
    assert list(source.dataset.sensors) == ["rgb", "s2"]
    np.testing.assert_array_equal(source[0]["s2"], array[..., ::-1])
    made = make_composite(array, order, COMPOSITES["s2_l2a_rgb"])
    np.testing.assert_array_equal(source[0]["rgb"], made)
    save(tmp_path / "photos/sea/1.tif", noise(6, 6, 11))
    with pytest.raises(ValueError, match=r"1\.tif: 11 bands, expected the 12 .*, B12,"):
        open_source(write(tmp_path, text))[0]


def test_a_custom_sensor_file_is_relative_to_the_dataset_file(tmp_path, monkeypatch):
    folder = tmp_path / "sets"
    folder.mkdir()
    write(folder, swir_block(), "my_swir.toml")
    array = save(folder / "photos/sea/1.tif", noise(4, 4, 2))
    text = PHOTOS.replace('rgb = "rgb"', 'ir = "my_swir.toml"')
    write(folder, text)
    monkeypatch.chdir(tmp_path)
    source = open_source("sets/mine.toml")
    np.testing.assert_array_equal(source[0]["ir"], array)
    write(folder, text.replace("my_swir", str(folder / "my_swir")))
    source = open_source("sets/mine.toml")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(source[0]["ir"], array)


def test_one_band_is_read_from_a_three_band_image(tmp_path):
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    save(tmp_path / "photos/sea/1.png", array)
    text = PHOTOS.replace('rgb = "rgb"', 's1 = "s1_vv_8bit"')
    text += '[file_bands]\ns1 = ["VH", "ratio", "VV"]\n'
    source = open_source(write(tmp_path, text))
    np.testing.assert_array_equal(source[0]["s1"], array[..., 2:])


# folder


def test_a_plain_folder_is_searched_recursively(tmp_path):
    save(tmp_path / "photos/a.png", flat(1))
    save(tmp_path / "photos/2020/may/b.png", flat(2))
    save(tmp_path / "photos/2020/may/b.jpg", flat(3))
    (tmp_path / "photos/readme.txt").write_text("x")
    for leftover in (
        ".ipynb_checkpoints/b-checkpoint.png",
        "__MACOSX/a.png",
        "._a.png",
    ):
        save(tmp_path / "photos" / leftover, flat(4))
    text = PHOTOS.replace("class_folders", "folder")
    source = open_source(write(tmp_path, text))
    assert source.ids == ["2020/may/b.jpg", "2020/may/b.png", "a.png"]
    assert source.dataset.task == "none"
    assert [source[i]["rgb"].max() for i in range(3)] == [3, 2, 1]
    assert source[0]["label"] == -1
    splits = [s for s in ("train", "val", "test") for _ in ids_of(tmp_path, s)]
    assert len(splits) == 3


def ids_of(folder, split):
    try:
        return open_source(str(folder / "mine.toml"), "", split).ids
    except FileNotFoundError:
        return []


def test_a_missing_or_empty_folder_is_named(tmp_path):
    text = PHOTOS.replace("class_folders", "folder")
    path = write(tmp_path, text)
    words = rf"{path}: its folder {tmp_path / 'photos'} does not exist"
    with pytest.raises(FileNotFoundError, match=words):
        open_source(path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileNotFoundError, match=r"photos: no images in split 'all' of"):
        open_source(path)
    with pytest.raises(ValueError, match=r"photos: no class folders with images in it"):
        open_source(write(tmp_path, PHOTOS))


def test_an_image_with_a_wrong_number_of_bands_is_named(tmp_path):
    save(tmp_path / "photos/sea/1.tif", noise(6, 6, 13))
    path = write(tmp_path, PHOTOS.replace('rgb = "rgb"', 's2 = "s2_l2a"'))
    with pytest.raises(
        ValueError, match=r"1\.tif: 13 bands, expected the 12 of .* in the dataset's f"
    ):
        open_source(path)[0]
    path = write(tmp_path, PHOTOS.replace('rgb = "rgb"', 's1 = "s1_vh_8bit"'))
    save(tmp_path / "photos/sea/1.tif", flat(1))
    with pytest.raises(ValueError, match=r"1\.tif: 3 bands of uint8, expected 1"):
        open_source(path)[0]


# paired_folders


@pytest.mark.parametrize("label", ["", "sea"])
def test_pairs_with_and_without_class_folders(tmp_path, label, capsys):
    for i, stem in enumerate("ab"):
        save(tmp_path / "optical" / label / f"{stem}.png", flat(i))
        save(tmp_path / "radar" / label / f"{stem}.tif", flat(50 + i, 4, 4))
    save(tmp_path / "radar" / label / "stray.tif", flat(0, 4, 4))
    path = write(tmp_path, with_top(PAIRS, 'task = "single"') if label else PAIRS)
    with pytest.raises(ValueError, match=r"1 file\(s\) have no partner: .*stray\.tif;"):
        open_source(path)
    source = open_source(path, on_error="skip")
    assert "stray.tif; left out" in capsys.readouterr().out
    assert source.ids == ([f"{label}/a", f"{label}/b"] if label else ["a", "b"])
    assert source.dataset.classes == ((label,) if label else ())
    record = source[1]
    assert (record["rgb"].max(), record["s1"].max()) == (1, 51)
    assert record["s1"].shape == (4, 4, 1)
    assert record["label"] == (0 if label else -1)


S2_S1 = (
    PAIRS.replace('rgb = "rgb"', 's2 = "s2_l2a"')
    .replace("rgb =", "s2 =")
    .replace("s1_vh_8bit", "s1_grd")
)


def write_pair(folder, optical=None, radar=None, side=4, dn=900):
    """A pair of Sentinel-2 and Sentinel-1; optical, radar: their places' geo_tags."""
    arrays = {
        "optical": (np.full((4, 4, 12), dn, np.uint16), optical or {}),
        "radar": (np.full((side, side, 2), -9, np.float32), radar or {}),
    }
    for name, (array, location) in arrays.items():
        (folder / name).mkdir(exist_ok=True)
        layout = {"photometric": "minisblack", "planarconfig": "contig"}
        tags = geo_tags(**location)
        tifffile.imwrite(folder / name / "a.tif", array, extratags=tags, **layout)


def test_pairs_in_two_crs_are_read_if_the_file_allows_it(tmp_path):
    """Sentinel-2 in UTM, and Sentinel-1 of the same location in degrees."""
    write_pair(tmp_path, radar={"pixel": 1e-4, "left": 12.5, "top": 45.1, "epsg": 4326})
    strict = open_source(write(tmp_path, S2_S1))
    match = r"not in one CRS.*same_place = false in .*mine\.toml allows it$"
    with pytest.raises(ValueError, match=match):
        strict[0]
    source = open_source(write(tmp_path, with_top(S2_S1, "same_place = false")))
    assert (source[0]["s2"] == 900).all()
    assert (source[0]["s1"] == -9).all()
    assert split_digest(source) == split_digest(strict)
    strict = open_source(write(tmp_path, with_top(S2_S1, "same_place = true")))
    with pytest.raises(ValueError, match="not in one CRS"):
        strict[0]


def test_pairs_may_be_a_pixel_apart_or_as_many_as_the_file_says(tmp_path):
    write_pair(tmp_path, radar={"left": 300010.0})
    plain = open_source(write(tmp_path, S2_S1))
    assert (plain[0]["s1"] == -9).all()
    write_pair(tmp_path, radar={"left": 300015.0})
    with pytest.raises(ValueError, match=r"1\.5 pixels apart, more than 1, .*shift"):
        plain[0]
    wide = open_source(write(tmp_path, with_top(S2_S1, "max_shift = 1.5")))
    assert (wide[0]["s1"] == -9).all()
    assert split_digest(wide) == split_digest(plain)
    write_pair(tmp_path, radar={"left": 300001.0})
    with pytest.raises(ValueError, match=r"0\.1 pixels apart, more than 0"):
        open_source(write(tmp_path, with_top(S2_S1, "max_shift = 0")))[0]


def test_the_second_sensor_is_warped_onto_the_grid_of_the_first(tmp_path):
    """Radar in pixels of 5 m around the optical file's, in another UTM zone's CRS."""
    (x,), (y,) = transform("EPSG:32633", "EPSG:32632", [300020.0], [5000020.0])
    place = {"pixel": 5.0, "left": x - 80, "top": y + 80, "epsg": 32632}
    write_pair(tmp_path, radar=place, side=32)
    source = open_source(write(tmp_path, with_top(S2_S1, "reproject = true")))
    for keys in (("s1", "s2"), ("s1",)):
        record = source.read(0, keys)
        np.testing.assert_allclose(record["s1"], np.full((4, 4, 2), -9), rtol=1e-6)
    np.testing.assert_array_equal(record.get("s2", 900), 900)
    plain = open_source(write(tmp_path, S2_S1))
    assert split_digest(plain) != split_digest(source)  # its records are others
    write_pair(tmp_path, radar={**place, "left": x}, side=32)
    with pytest.raises(ValueError, match=r"50 % of the s1_grd pixels are missing"):
        source[0]
    write_pair(tmp_path, radar={**place, "left": x + 5000}, side=32)
    with pytest.raises(ValueError, match=r"radar/a\.tif.* do not overlap"):
        source[0]


def test_a_class_missing_in_one_sensor_has_only_strays(tmp_path):
    save(tmp_path / "optical/sea/a.png", flat(1))
    save(tmp_path / "radar/ice/a.png", flat(1, 4, 4))
    path = write(tmp_path, with_top(PAIRS, 'task = "single"'))
    with pytest.raises(ValueError, match=r"2 file\(s\) have no partner: .*ice.*sea"):
        open_source(path)


def test_a_missing_sensor_folder_is_named(tmp_path):
    save(tmp_path / "optical/a.png", flat(1))
    with pytest.raises(
        FileNotFoundError, match=r"radar: this sensor's folder does not"
    ):
        open_source(write(tmp_path, PAIRS))


def test_an_ambiguous_partner_is_refused(tmp_path):
    save(tmp_path / "radar/a.png", flat(1, 4, 4))
    save(tmp_path / "optical/a.png", flat(1))
    save(tmp_path / "optical/a.bmp", flat(2))
    with pytest.raises(ValueError, match=r"a\.png: a\.bmp has the same name; keep one"):
        open_source(write(tmp_path, PAIRS))


# The file.

S2 = PHOTOS.replace('rgb = "rgb"', 's2 = "s2_l2a"')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("reader = [", "not a TOML file"),
        ("reader = " + "[" * 3000, "not a TOML file"),
        (
            "folder = 'x'",
            "reader = None should be one of class_folders, flat, folder, paired",
        ),
        ('reader = "zarr"', "reader = 'zarr' should be one of class_folders, flat, fo"),
        ('reader = ["csv"]', r"reader = \['csv'\] should be one of"),
        (
            with_top(PHOTOS, "fodler = 1").replace('folder = "photos"', ""),
            r"unknown keys \['fodler'\], missing keys \['folder'\]; reader 'class_fold"
            r"ers' has reader, folder, sensors, classes, classnames, templates,",
        ),
        (with_top(PHOTOS, 'table = "t.csv"'), r"unknown keys \['table'\]"),
        (PHOTOS.replace('"photos"', "7"), "folder = 7 should be a string"),
        (PHOTOS.replace('"photos"', '""'), "folder = '' should be a string, not empty"),
        (PHOTOS.replace('rgb = "rgb"', ""), r"sensors = \{\} should be a table of str"),
        (PHOTOS.replace('= "rgb"', "= 3"), "sensors = .* a table of strings"),
        (
            PHOTOS.replace('= "rgb"', '= "rbg"'),
            "sensors.rgb: unknown sensor 'rbg': did",
        ),
        (
            PHOTOS.replace('= "rgb"', '= "s2_l2a"'),
            "has the modality 's2': write s2 = 's2",
        ),
        (
            PHOTOS + 's1 = "s1_grd"',
            "reads one file for each record; use paired_folders",
        ),
        (with_top(PAIRS, "same_place = 0"), "same_place = 0 should be true or false"),
        (with_top(PAIRS, "reproject = 1"), "reproject = 1 should be true or false"),
        (with_top(PAIRS, "max_shift = -1"), "max_shift = -1 should be a number"),
        (
            with_top(PAIRS, "reproject = true\nmax_shift = 2"),
            "max_shift has no effect with reproject = true",
        ),
        (with_top(PHOTOS, "same_place = false"), r"unknown keys \['same_place'\]"),
        (
            with_top(PHOTOS, "classes = []"),
            r"classes = \[\] should be a list of strings",
        ),
        (with_top(PHOTOS, 'classes = ["a", "a"]'), "classes = .* without repeats"),
        (
            with_top(PHOTOS, 'classes = "a"'),
            "classes = 'a' should be a list of strings",
        ),
        (with_top(PHOTOS, 'classnames = ["a"]'), "classnames = .* a table of strings"),
        (
            with_top(PHOTOS, 'classes = ["sea"]') + '[classnames]\nsee = "lake"',
            "classnames: unknown class 'see': did you mean 'sea'",
        ),
        (with_top(PHOTOS, 'classes = ["a_b", "a-b"]'), "a_b, a-b would have"),
        (with_top(PHOTOS, 'classes = ["Sea", "sea"]'), "Sea, sea would have the same"),
        (
            with_top(PHOTOS, 'templates = ["a {}"]'),
            r"templates: template 'a \{\}' has n",
        ),
        (
            with_top(PHOTOS, 'task = "multi"'),
            "task = 'multi' should be single with rea",
        ),
        (
            PHOTOS + '[splits]\ndev = "d"',
            r"splits has unknown keys \['dev'\].*train, v",
        ),
        (PHOTOS + '[splits]\nval = "test"', "two of the splits .* have the same name"),
        (S2 + '[composites]\nrgb = "s2_rgb"', "composites.rgb: unknown composite"),
        (PHOTOS + '[composites]\nrgb = "s2_l2a_rgb"', "rgb is in sensors and in com"),
        (S2 + '[composites]\nrgb = "s2_l1c_rgb"', "is made of s2_l1c, and sensors ="),
        (
            S2 + '[composites]\ns1 = "s2_l1c_rgb"',
            r"composites has unknown keys \['s1'\]",
        ),
        (S2 + '[file_bands]\ns1 = ["VV"]', r"file_bands has unknown keys \['s1'\].*s2"),
        (
            S2 + '[file_bands]\ns2 = "B01"',
            "file_bands = .* a table of lists of strings",
        ),
        (
            S2 + '[file_bands]\ns2 = ["B01"]',
            "file_bands.s2 = .* hold the bands of s2_l2a",
        ),
        (
            with_top(PHOTOS.replace("class_folders", "folder"), 'classes = ["a"]'),
            r"unknown keys \['classes'\]",
        ),
        (with_top(PAIRS, 'classes = ["a"]'), "classes need labels, .*; set task, or"),
        (PAIRS.replace('s1 = "radar"', ""), r"subfolders has .*missing keys \['s1'\]"),
        (
            TABLE.replace('rgb = "path"', ""),
            r"columns has .*missing keys \['rgb'\].*lab",
        ),
        (TABLE + 's1 = "x"', r"columns has unknown keys \['s1'\]"),
        (TABLE + "y = [1]", "columns = .* a table of strings"),
        (with_top(TABLE, 'task = "none"'), "task = 'none', and columns has a label"),
        (
            with_top(TABLE, 'task = "multi"').replace('label = "class"', ""),
            "task = 'multi', and columns has no label",
        ),
        (with_top(TABLE, 'separator = ";"'), "separator needs task = 'multi', not"),
    ],
)
def test_each_fault_of_a_dataset_file_is_named(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=words) as error:
        get_dataset(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_missing_file_and_a_public_name_are_refused(tmp_path):
    path = str(tmp_path / "none.toml")
    with pytest.raises(FileNotFoundError, match=rf"{path}: this dataset file does not"):
        open_source(path)
    with pytest.raises(ValueError, match="eurosat_ms is the name of a public dataset"):
        get_dataset(write(tmp_path, PHOTOS, "eurosat_ms.toml"))
    text = PHOTOS.replace('rgb = "rgb"', 'ir = "no.toml"')
    with pytest.raises(FileNotFoundError, match=r"mine\.toml: sensors\.ir: .*no\.toml"):
        get_dataset(write(tmp_path, text))


def test_the_digest_depends_on_records_and_not_on_prompts(photos):
    path = write(photos, PHOTOS)
    digest = split_digest(open_source(path))
    write(photos, "# a comment\n" + PHOTOS + '[classnames]\nSeaLake = "lake"\n')
    assert split_digest(open_source(path)) == digest
    write(photos, with_top(PHOTOS, 'classes = ["dry-land", "SeaLake"]'))
    source = open_source(path)
    assert split_digest(source) != digest


# rsclip_jax/data/README.md


def readme_block(name):
    """The TOML block in the README of data/ that begins with this file's name."""
    text = (REPO / "rsclip_jax/data/README.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", text, re.S)
    (block,) = (b for b in blocks if b.startswith(f"# {name}"))
    return block


def swir_block():
    return readme_block("my_swir.toml")


def test_the_readmes_sensor_loads(tmp_path):
    sensor = load_sensor(write(tmp_path, swir_block(), "my_swir.toml"))
    assert sensor.bands == ("SWIR1", "SWIR2")


def test_the_readmes_photos_open(photos):
    source = open_source(
        write(photos, readme_block("my_photos.toml"), "my_photos.toml")
    )
    assert source.dataset.name == "my_photos"
    assert source.dataset.classnames == ("lake or sea", "dry land")
    assert len(source) == 20


def test_the_readmes_table_opens(tmp_path):
    path = write(tmp_path, readme_block("my_table.toml"), "my_table.toml")
    array = save(tmp_path / "tiles/1.tif", noise(4, 4, 12))
    (tmp_path / "labels.csv").write_text(
        "scene,path,land_cover,fold\nx,tiles/1.tif,Sea; Ice,validation\n"
    )
    source = open_source(path, "", "val")
    assert source.ids == ["x"]
    assert source.dataset.classes == ("Ice", "Sea")
    np.testing.assert_array_equal(source[0]["label"], [1, 1])
    np.testing.assert_array_equal(source[0]["s2"], array)
    assert source[0]["rgb"].dtype == np.uint8
    dataset = load_dataset(path)
    assert list(dataset.sensors) == ["rgb", "s2"]
