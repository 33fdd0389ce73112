"""Layouts by class in which copies of the field's sets lie."""

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.readers.folders import class_folder_entries
from rsclip_jax.data.readers.scenes import scene_entries

# RSI-CB256's groups, as its archive has them
GROUPS = {
    "construction land": "city_building container residents storage_room",
    "cultivated land": "bare_land dry_farm green_farmland",
    "other land": "desert mountain sandbeach snow_mountain",
    "other objects": "airplane pipeline town",
    "transportation": "airport_runway avenue bridge crossroads highway marina"
    " parkinglot",
    "water area": "coastline dam hirst lakeshore river sea stream",
    "woodland": "artificial_grassland forest mangrove river_protection_forest sapling"
    " shrubwood sparse_forest",
}


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("below", ["RSI-CB256", "rsi_cb256"])
def test_rsi_cb256_is_read_by_its_groups(tmp_path, below):
    assert sum(len(names.split()) for names in GROUPS.values()) == 35
    for i, (group, names) in enumerate(GROUPS.items()):
        for name in names.split():
            save(tmp_path / below / group / name / f"{name}(1).tif", i)
    source = open_source("rsi_cb256", tmp_path)
    assert source.ids == [f"{c}/{c}(1)" for c in sorted(source.classes)]
    river = source[source.ids.index("river/river(1)")]
    assert (river["label"], river["rgb"].max()) == (source.classes.index("river"), 5)


@pytest.mark.parametrize(
    ("name", "below", "spell"),
    [
        ("whu_rs19", "WHU-RS19", str),
        ("whu_rs19", "WHU-RS19/RSDataset", str.lower),
        ("optimal31", "OPTIMAL-31/Images", str),
        ("optimal31", "optimal31", lambda c: c.replace("_", " ").title()),
        ("mlrsnet", "MLRSNet/Images", lambda c: c.replace("&", "_")),
        ("aid", "AID", str.lower),
        ("resisc45", "NWPU-RESISC45", lambda c: c.replace("_", "-")),
    ],
)
def test_folders_of_classes_may_be_spelled_in_other_ways(tmp_path, name, below, spell):
    classes = DATASETS[name].classes
    touch(*(tmp_path / below / spell(c) / f"{spell(c)}_1.jpg" for c in classes))
    source = open_source(name, tmp_path)
    assert source.ids == [f"{c}/{spell(c)}_1" for c in classes]


def test_two_files_of_one_name_are_refused(tmp_path):
    classes = DATASETS["whu_rs19"].classes
    touch(*(tmp_path / "WHU-RS19" / name / f"{name}_01.jpg" for name in classes))
    assert len(open_source("whu_rs19", tmp_path)) == 19
    touch(tmp_path / "WHU-RS19" / classes[3] / f"{classes[3]}_01.png")
    with pytest.raises(ValueError, match=r"_01\.png: files with the same name; keep"):
        open_source("whu_rs19", tmp_path)


def test_two_folders_of_one_class_are_refused(tmp_path):
    touch(
        tmp_path / "bare_land/1.jpg", tmp_path / "Bare Land/1.jpg", tmp_path / "a/1.jpg"
    )
    with pytest.raises(ValueError, match="could both be class 'bareland'; remove one"):
        scene_entries(tmp_path, "all", ("a", "bareland"))
    names = (
        "a",
        "bare_land",
    )  # the exact name counts, and the other is another class's
    assert len(scene_entries(tmp_path, "all", names).entries) == 2


@pytest.mark.parametrize(
    "form", ["{}_{:03d}", "{}{:02d}", "{}({})", "{} ({})", "{}-{}", "{}_{}"]
)
def test_flat_images_have_their_class_before_a_number(tmp_path, form):
    classes = DATASETS["optimal31"].classes
    stems = {c: form.format(c, i) for i, c in enumerate(classes)}
    touch(*(tmp_path / "flat" / f"{stem}.jpg" for stem in stems.values()))
    wanted = [f"{c}/{stem}" for c, stem in stems.items()]
    listing = scene_entries(tmp_path / "flat", "all", classes)
    assert [e.id for e in listing.entries] == wanted
    assert not listing.faults
    # the same splits as in folders
    touch(*(tmp_path / "folders" / c / f"{stem}.jpg" for c, stem in stems.items()))
    for split in ("train", "val", "test"):
        flat = scene_entries(tmp_path / "flat", split, classes).entries
        ids = [e.id for e in flat]
        assert ids == [
            e.id
            for e in class_folder_entries(tmp_path / "folders", split, classes).entries
        ]


def test_flat_copies_of_published_sets_are_read_by_their_lists(tmp_path):
    folder = tmp_path / "EuroSAT_RGB"
    for split, number in (("train", 1), ("val", 2), ("test", 3)):
        lines = [f"{c}_{number}.jpg" for c in DATASETS["eurosat_rgb"].classes]
        touch(*(folder / line for line in lines))
        (tmp_path / f"eurosat-{split}.txt").write_text("\n".join(lines))
    ids = open_source("eurosat_rgb", tmp_path, "val").ids
    assert ids == [f"{c}/{c}_2" for c in DATASETS["eurosat_rgb"].classes]
    touch(folder / "lake_9.jpg")
    (tmp_path / "eurosat-val.txt").unlink()
    with pytest.raises(
        ValueError, match=r"lake_9\.jpg does not begin with the name of"
    ):
        open_source("eurosat_rgb", tmp_path, "train")


FLAT = 'reader = "flat"\nfolder = "photos"\n[sensors]\nrgb = "rgb"\n'


def test_a_flat_folder_of_ones_own(tmp_path):
    for name, value in (("sea_1", 1), ("sea_2", 2), ("dry lake (3)", 3)):
        save(tmp_path / "photos" / f"{name}.png", value)
    (tmp_path / "mine.toml").write_text(FLAT)
    source = open_source(str(tmp_path / "mine.toml"))
    assert source.classes == ("dry lake", "sea")
    assert source.ids == ["dry lake/dry lake (3)", "sea/sea_1", "sea/sea_2"]
    assert [record["rgb"].max() for record in source] == [3, 1, 2]
    save(tmp_path / "photos" / "overview.png")
    words = r"photos: 1 fault.* overview\.png does not begin with the name of a class"
    with pytest.raises(ValueError, match=words):
        open_source(str(tmp_path / "mine.toml"))
    assert len(open_source(str(tmp_path / "mine.toml"), on_error="skip")) == 3


def test_a_flat_folder_without_numbers_or_with_twins_is_refused(tmp_path):
    save(tmp_path / "photos" / "sea.png")
    (tmp_path / "mine.toml").write_text(FLAT)
    with pytest.raises(
        ValueError, match="no image is called <class>_<number>, such as"
    ):
        open_source(str(tmp_path / "mine.toml"))
    for end in ("png", "bmp"):
        save(tmp_path / "photos" / f"sea_1.{end}")
    (tmp_path / "photos" / "sea.png").unlink()
    with pytest.raises(ValueError, match="files with the same name; keep one of them"):
        open_source(str(tmp_path / "mine.toml"))


def test_flat_folders_of_splits(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / "photos" / split / "sea_1.png")
    (tmp_path / "mine.toml").write_text(FLAT)
    assert open_source(str(tmp_path / "mine.toml"), "", "test").ids == [
        "test/sea/sea_1"
    ]
