"""Where a dataset lies under the data root."""

from pathlib import Path

from rsclip_jax.data.readers import bigearthnet
from rsclip_jax.data.sources import Dataset

# Where a folder is that of no other set: what must lie in it.
MARKS = {
    "bigearthnet_v1": bigearthnet.S2_V1,
    "bigearthnet_v2": bigearthnet.S2_V2,
    "eurosat_s1_s2": "EuroSAT-SAR",
}


def find_folder(row: Dataset, root: str | Path) -> Path:
    """Where the dataset lies; FileNotFoundError says where it was looked for."""
    if row.own:
        if not row.own.place.is_dir():
            raise FileNotFoundError(
                f"{row.own.path}: its folder is not there: {row.own.place}"
            )
        return row.own.place
    mark = MARKS.get(row.kind, "")
    looked = [f"{folder}/{mark}".strip("/") for folder in row.folders]
    if not str(root):
        raise FileNotFoundError(
            f"dataset {row.name} is read from files: set --config.data_root to the"
            f" folder that holds {' or '.join(looked)}"
        )
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"config.data_root = {root} is not a folder; it should hold"
            f" {' or '.join(looked)}"
        )
    for folder in row.folders:
        if (Path(root) / folder / mark).is_dir():
            return Path(root) / folder
    raise FileNotFoundError(
        f"config.data_root = {root} holds none of {', '.join(looked)}, where"
        f" dataset {row.name} would be"
    )
