"""Finds the folder of a dataset under the data root."""

import re
import shlex
from pathlib import Path

from rsclip_jax.data.readers import bigearthnet
from rsclip_jax.data.types import Dataset
from rsclip_jax.io.texts import first_of

# Kind -> folder that tells its datasets from others in the same folder.
MARKS = {
    "bigearthnet_v1": bigearthnet.S2_V1,
    "bigearthnet_v2": bigearthnet.S2_V2,
    "bigearthnet_txt": bigearthnet.S2_V2,
    "bigearthnet_txt_bench": bigearthnet.S2_V2,
    "eurosat_s1_s2": "EuroSAT-SAR",
}
# Suffix of a downloaded archive -> the command that unpacks it into a folder.
_UNPACK = {
    r"\.(tar(\.\w+)?|tgz|txz|tbz2?)": "tar -xf {file} -C {folder}",
    r"\.zip": "unzip {file} -d {folder}",
}


def find_folder(dataset: Dataset, root: str | Path) -> Path:
    """Finds a dataset's folder. Raises FileNotFoundError naming the folders tried."""
    if dataset.custom:
        if not dataset.custom.folder.is_dir():
            raise FileNotFoundError(
                f"{dataset.custom.path}: its folder {dataset.custom.folder} does not"
                " exist"
            )
        return dataset.custom.folder
    mark = MARKS.get(dataset.kind, "")
    looked = [f"{folder}/{mark}".strip("/") for folder in dataset.folders]
    if not str(root):
        raise FileNotFoundError(
            f"dataset {dataset.name} is read from files: set root to"
            f" the folder that holds {' or '.join(looked)}"
        )
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"root = {root} is not a folder; it should hold {' or '.join(looked)}"
        )
    for folder in dataset.folders:
        if (Path(root) / folder / mark).is_dir():
            return Path(root) / folder
    raise FileNotFoundError(
        f"root = {root} holds none of {', '.join(looked)}, where"
        f" dataset {dataset.name} should be{_packed_there(Path(root))}"
    )


def _packed_there(root: Path) -> str:
    """How to unpack the first archive in the data root; "" without archives."""
    for pattern, command in _UNPACK.items():
        found = sorted(p for p in root.iterdir() if re.search(f"{pattern}$", p.name))
        if found:
            file, folder = shlex.quote(str(found[0])), shlex.quote(str(root))
            return (
                f"; {first_of([p.name for p in found])} must be unpacked"
                f" first: {command.format(file=file, folder=folder)}"
            )
    return ""
