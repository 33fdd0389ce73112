"""Files that no record uses; the tests of stage inspect have whole datasets."""

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.inspect.unread import find_unread
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


def test_records_with_a_file_per_band_are_not_searched(tmp_path):
    entry = Entry("a", "", {"s1": (tmp_path / "VV.tif", tmp_path / "VH.tif")})
    assert find_unread([FileSource(ROW, "all", [entry])]) is None
