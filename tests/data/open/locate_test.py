"""Finding a dataset's folder, and errors where it is missing."""

import os
import tarfile

import pytest

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.open.locate import find_folder


@pytest.mark.parametrize("end", ["tar.gz", "tgz", "tar"])
def test_the_error_for_a_packed_archive_has_the_command_that_unpacks_it(tmp_path, end):
    root, dataset = tmp_path / "my data", DATASETS["eurosat_rgb"]
    (root / "2750" / "Forest").mkdir(parents=True)
    with tarfile.open(root / f"EuroSAT.{end}", "w:gz" if "g" in end else "w") as tar:
        tar.add(root / "2750", "2750")
    (root / "2750" / "Forest").rmdir()
    (root / "2750").rmdir()
    message = rf"EuroSAT\.{end} must be unpacked"
    with pytest.raises(FileNotFoundError, match=message) as error:
        find_folder(dataset, root)
    os.system(str(error.value).rpartition("first: ")[2])
    assert find_folder(dataset, root) == root / "2750"
    assert (root / "2750" / "Forest").is_dir()
