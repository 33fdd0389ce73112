"""A pack's manifest and the files beside it, checked as they are read."""

import hashlib
from pathlib import Path

import numpy as np

from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.specs import folder_name
from rsclip_jax.data.types import (
    Dataset,
)
from rsclip_jax.io.files import read_object

# In the second, records of several sensors have an entry for each.
FORMATS = ("rsclip_jax packed 1", "rsclip_jax packed 2")

HASH_KEYS, LABELS, CAPTIONS = "hash_keys.txt", "labels.npy", "captions.jsonl"


def describe_sensors(sensors: dict[str, str]) -> dict[str, dict]:
    """{record key: {sensor, bands in order, dtype, unit}}, for a manifest."""
    found = {key: get_sensor(name) for key, name in sensors.items()}
    return {
        key: {
            "sensor": Path(sensor.name).name,  # a custom sensor's file name, not path
            "bands": list(sensor.bands),
            "dtype": sensor.dtype,
            "unit": sensor.unit,
        }
        for key, sensor in found.items()
    }


def entries_of(dataset: Dataset) -> tuple[str, ...]:
    """The sensors with an entry each in a pack; () for a dataset of one sensor."""
    return tuple(dataset.sensors) if len(dataset.sensors) > 1 else ()


def ids_digest(ids: list[str]) -> str:
    """Digest of the ids in order, for a manifest."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def describe_own(dataset: Dataset) -> dict[str, str] | None:
    """Digests of a custom dataset's TOML file and, if it exists, of its table."""
    if dataset.custom is None:
        return None
    found = {"file": dataset.custom.digest}
    if dataset.custom.table and dataset.custom.table.is_file():
        found["table"] = hashlib.sha256(dataset.custom.table.read_bytes()).hexdigest()
    return found


def pack_folder(root: str | Path, name: str) -> Path:
    """The folder of a dataset's pack."""
    return Path(root) / folder_name(name)


def find_manifest(root: str | Path, name: str) -> dict | None:
    """The manifest of one packed split of a dataset; None without a pack."""
    found = sorted(pack_folder(root, name).glob("*/manifest.json")) if str(root) else []
    return load_manifest(found[0]) if found else None


def load_manifest(path: Path) -> dict:
    """A manifest.json. Raises ValueError naming one that is damaged or no manifest."""
    way = "remove it and run configs/pack.py again"
    manifest = read_object(path, way)
    kinds = _KINDS | ({"splits": list} if "splits" in manifest else {"shards": list})
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise ValueError(
                f"{path}: {key} is {manifest.get(key)!r}, so it is not a pack's"
                f" manifest; {way}"
            )
    return manifest


# What readers of packs need, besides what read_manifest compares.
_KINDS: dict[str, type] = {"records": int, "ids_sha256": str, "sensors": dict}
_KINDS |= {"classes": list, "task": str}


def read_manifest(dataset: Dataset, folder: Path) -> dict:
    """Reads a split's manifest.

    Raises ValueError, naming both sides, if it differs from the dataset or the format.
    """
    path = folder / "manifest.json"
    manifest = load_manifest(path)
    expected = {
        "format": manifest["format"] if manifest.get("format") in FORMATS else FORMATS,
        "dataset": dataset.name,
        "task": dataset.task,
        "sensors": describe_sensors(dataset.sensors),
        "classes": list(dataset.classes),
    }
    for key, value in expected.items():
        if manifest.get(key) != value:
            raise ValueError(
                f"{path}: packed with {key} {manifest.get(key)}, but this version"
                f" expects {value}; pack the archive again into another folder"
            )
    _check_own(path, dataset, manifest)
    return manifest


def _check_own(path: Path, dataset: Dataset, manifest: dict) -> None:
    """Raises ValueError if a custom dataset's files have changed since packing."""
    if dataset.custom is None:
        return
    packed, now = manifest.get("own") or {}, describe_own(dataset) or {}
    for key, digest in now.items():  # a pack can be read without the table
        if packed.get(key) != digest:
            name = dataset.custom.path if key == "file" else dataset.custom.table
            raise ValueError(
                f"{path}: {name} has changed since it was packed; pack it again into"
                " another folder, or give another root"
            )


def check_nodata(
    path: Path, dataset: Dataset, manifest: dict, max_nodata: float
) -> None:
    """Raises ValueError if the pack was made with another max_nodata.

    Integers of a sensor without nodata have no missing pixels, so it does not matter.
    """
    packed, now = manifest.get("max_nodata", 0.0), max_nodata
    sensors = [get_sensor(name) for name in dataset.sensors.values()]
    if packed != now and any(
        s.nodata is not None or np.dtype(s.dtype).kind == "f" for s in sensors
    ):
        raise ValueError(
            f"{path}: packed with max_nodata {packed:g}, but"
            f" max_nodata = {now:g} now; set it to {packed:g}, or pack the archive"
            f" again, with {now:g}, into another folder"
        )


def read_beside(folder: Path, manifest: dict, name: str) -> bytes | None:
    """Reads a file that the manifest lists in "files"; None if it does not.

    Raises ValueError if the file has changed.
    """
    wanted, path = manifest.get("files", {}).get(name), folder / name
    if wanted is None:
        return None
    data = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(data).hexdigest() != wanted:
        raise ValueError(
            f"{path} has changed since it was packed; remove manifest.json beside"
            " it and run configs/pack.py again"
        )
    return data


def read_ids(folder: Path, manifest: dict) -> list[str]:
    """Reads ids.txt. Raises ValueError if it has changed."""
    path = folder / "ids.txt"
    text = path.read_text(encoding="utf-8")
    ids = text.split("\n")[:-1]
    if ids_digest(ids) != manifest["ids_sha256"]:
        raise ValueError(
            f"{path}: {len(ids)} ids, not the {manifest['records']} that were packed;"
            " remove manifest.json beside it and run configs/pack.py again"
        )
    return ids
