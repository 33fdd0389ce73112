"""Where a set lies, and what is said of a folder that does not hold it."""

import os
import tarfile

import pytest

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.open.locate import find_folder


@pytest.mark.parametrize("end", ["tar.gz", "tgz", "tar"])
def test_an_archive_that_lies_there_instead_comes_with_its_command(tmp_path, end):
    root, row = tmp_path / "my data", DATASETS["eurosat_rgb"]
    (root / "2750" / "Forest").mkdir(parents=True)
    with tarfile.open(root / f"EuroSAT.{end}", "w:gz" if "g" in end else "w") as tar:
        tar.add(root / "2750", "2750")
    (root / "2750" / "Forest").rmdir()
    (root / "2750").rmdir()
    with pytest.raises(FileNotFoundError, match=rf"EuroSAT\.{end} there") as error:
        find_folder(row, root)
    os.system(str(error.value).rpartition("first: ")[2])
    assert find_folder(row, root) == root / "2750"
    assert (root / "2750" / "Forest").is_dir()
