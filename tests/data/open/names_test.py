"""Errors for unknown dataset names and missing data roots."""

import pytest

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.specs import DatasetSpec


def said_of(name, **options) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        open_source(name, **options)
    return str(error.value)


@pytest.mark.parametrize("name", ["eurosat_rbg", "EUROSAT_RBG", "eurosat_rbg:val"])
def test_the_error_for_an_unknown_name_has_three_names_and_a_command(name):
    words = said_of(name)
    assert "did you mean 'eurosat_rgb', 'eurosat_" in words
    assert sum(f"'{dataset}'" in words for dataset in DATASETS) == 3
    assert "rsclip_jax/data/README.md" in words
    printed: list[str] = []
    code = words.partition('python -c "')[2].rstrip('"')
    exec(code, {"print": lambda *names: printed.extend(names)})
    assert printed == list(DATASETS)


def test_a_split_after_the_name_is_refused():
    words = said_of("eurosat_rgb:val:64")
    assert "give only the name 'eurosat_rgb' here, without the split 'val:64'" in words
    assert "names no folder; write wds:FOLDER" in said_of("wds:")


@pytest.mark.parametrize(
    ("path", "name", "root"),
    [
        ("/data/EuroSAT_RGB", "eurosat_rgb", "/data"),
        ("sets/UCMerced_LandUse/Images", "ucmerced", "sets"),
        ("../NWPU-RESISC45/", "resisc45", ".."),
    ],
)
def test_the_error_for_a_path_names_the_dataset_in_that_folder(path, name, root):
    assert f"here {name!r} with root = {root}." in said_of(path)


def test_the_error_for_another_folder_suggests_a_toml_file(tmp_path):
    words = said_of(str(tmp_path))
    assert "is a path: give the name of a dataset" in words
    assert "give a TOML file that describes it" in words
    assert "did you mean" not in words
    with pytest.raises(ValueError, match="a TOML file describes a folder of your own"):
        DatasetSpec.parse(f"{tmp_path}:val")


def test_the_error_names_the_argument(tmp_path):
    words = said_of("resisc45")
    assert "set root to the folder that holds resisc45 or" in words
    root = tmp_path / "none"
    words = said_of("resisc45", root=root)
    assert f"root = {root} is not a folder" in words
    words = said_of("resisc45", root=tmp_path)
    assert f"root = {tmp_path} holds none of resisc45, NWPU-RESISC45" in words
    words = said_of("resisc45", max_nodata=2)
    assert "max_nodata = 2 should be" in words
    assert get_dataset("resisc45").name == "resisc45"
