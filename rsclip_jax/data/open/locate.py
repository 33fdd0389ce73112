"""Where a dataset lies under the data root."""

import re
import shlex
from pathlib import Path

from rsclip_jax.data.readers import bigearthnet
from rsclip_jax.data.readers.folders import first_of
from rsclip_jax.data.types import Dataset

# Where a folder is that of no other set: what must lie in it.
MARKS = {
    "bigearthnet_v1": bigearthnet.S2_V1,
    "bigearthnet_v2": bigearthnet.S2_V2,
    "eurosat_s1_s2": "EuroSAT-SAR",
}
# As they are downloaded, and what unpacks them into the folder named last.
_UNPACK = {
    r"\.(tar(\.\w+)?|tgz|txz|tbz2?)": "tar -xf {file} -C {folder}",
    r"\.zip": "unzip {file} -d {folder}",
}


def find_folder(row: Dataset, root: str | Path) -> Path:
    """Where the dataset lies; FileNotFoundError says where it was looked for."""
    if row.custom:
        if not row.custom.folder.is_dir():
            raise FileNotFoundError(
                f"{row.custom.path}: its folder is not there: {row.custom.folder}"
            )
        return row.custom.folder
    mark = MARKS.get(row.kind, "")
    looked = [f"{folder}/{mark}".strip("/") for folder in row.folders]
    if not str(root):
        raise FileNotFoundError(
            f"dataset {row.name} is read from files: set root to"
            f" the folder that holds {' or '.join(looked)}"
        )
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"root = {root} is not a folder; it should hold {' or '.join(looked)}"
        )
    for folder in row.folders:
        if (Path(root) / folder / mark).is_dir():
            return Path(root) / folder
    raise FileNotFoundError(
        f"root = {root} holds none of {', '.join(looked)}, where"
        f" dataset {row.name} would be{_packed_there(Path(root))}"
    )


def _packed_there(root: Path) -> str:
    """Of archives that lie there instead, in words: how to unpack the first."""
    for pattern, command in _UNPACK.items():
        found = sorted(p for p in root.iterdir() if re.search(f"{pattern}$", p.name))
        if found:
            file, folder = shlex.quote(str(found[0])), shlex.quote(str(root))
            return (
                f"; {first_of([p.name for p in found])} there would have to be unpacked"
                f" first: {command.format(file=file, folder=folder)}"
            )
    return ""
