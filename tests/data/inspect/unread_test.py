"""Files that no record uses; the tests of stage inspect have whole datasets."""

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.inspect.unread import find_nested, find_unread
from rsclip_jax.data.sources.files import FileSource
from rsclip_jax.data.types import Entry

ROW = DATASETS["eurosat_sar"]


def test_a_missing_folder_of_a_record_is_not_an_error(tmp_path):
    image, beside = tmp_path / "s1" / "a.tif", tmp_path / "s1" / "a.aux.xml"
    image.parent.mkdir()
    image.write_bytes(b"x")
    beside.write_bytes(b"x")
    gone = tmp_path / "lc" / "a.tif"
    source = FileSource(ROW, "all", [Entry("a", "", {"s1": image}, label_file=gone)])
    assert find_unread([source]) == ({}, [beside])


def test_folders_within_a_class_are_searched_and_are_no_classes(tmp_path):
    for name in ("sea/more/1.tif", "sea/more/1.npy", "odd/2.tif", "3.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    entry = Entry("sea/more/1", "sea", {"s1": tmp_path / "sea/more/1.tif"})
    strange, unread = find_unread([FileSource(ROW, "all", [entry])])
    assert unread == [tmp_path / "3.tif", tmp_path / "sea/more/1.npy"]
    assert strange[tmp_path / "odd"] == 1
    flat = Entry("sea/2", "sea", {"s1": tmp_path / "sea/2.tif"})
    source = FileSource(ROW, "all", [entry, flat])
    assert find_nested([source, source]) == {"sea/more": 2}
    elsewhere = Entry("2", "sea", {"s1": tmp_path / "images/2.tif"})
    assert find_nested([FileSource(ROW, "all", [flat, elsewhere])]) == {}


def test_records_with_a_file_per_band_are_not_searched(tmp_path):
    entry = Entry("a", "", {"s1": (tmp_path / "VV.tif", tmp_path / "VH.tif")})
    assert find_unread([FileSource(ROW, "all", [entry])]) is None
