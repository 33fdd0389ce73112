"""BigEarthNet as it is downloaded: version 1 (Sumbul et al. 2019, 2021) and 2 (reBEN).

Version 1: BigEarthNet-v1.0/<patch>/<patch>_{B02.tif, ..., labels_metadata.json} and
BigEarthNet-S1-v1.0/<patch>/<patch>_{VV.tif, ...} likewise; train.csv, val.csv, test.csv
(s2_name,s1_name or s2_name alone) there, in splits/, or as bigearthnet-train.csv.
Version 2: BigEarthNet-S2/<tile>/<patch>/..., BigEarthNet-S1/<scene>/<patch>/... and
metadata.parquet.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rsclip_jax.data.readers.folders import (
    SPLITS,
    Entry,
    in_split,
    no_split,
    parse_split,
)

S2_V1, S1_V1 = "BigEarthNet-v1.0", "BigEarthNet-S1-v1.0"
S2_V2, S1_V2, TABLE_V2 = "BigEarthNet-S2", "BigEarthNet-S1", "metadata.parquet"
# Patches under snow or cloud, by the authors' lists, are not used.
UNUSABLE = (
    "patches_with_seasonal_snow.csv",
    "patches_with_cloud_and_shadow.csv",
)
S2_BANDS = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12".split())
S1_BANDS = ("VV", "VH")
_HASHED = "the hash of the patch's name, which puts neighbours into several splits"
_SPLIT_V2 = {"train": "train", "val": "validation", "test": "test"}


def v1_entries(
    folder: Path, split: str, keys: Iterable[str]
) -> tuple[list[Entry], list[Path], str]:
    """(entries, patches without a partner, what made the split) of version 1.

    keys: "s2" and "s1", or "s2" alone. Labels are read later. Without csv files a hash
    of the patch's name makes the splits, and so parts neighbours. Raises
    FileNotFoundError naming what a csv lists and is not there.
    """
    name, _, _ = parse_split(split)
    with_s1 = "s1" in keys
    sheets = _find_csvs(folder)
    pairs = _v1_pairs(folder, sheets, name, with_s1)
    bad = set().union(*(_read_column(folder / file) for file in UNUSABLE))
    wanted = in_split(split, made=bool(sheets))
    entries: list[Entry] = []
    stray: list[Path] = []
    for s2, s1 in pairs:
        if s2 in bad or not wanted(s2):
            continue
        files: dict[str, tuple[Path, ...]] = {
            "s2": _bands(folder / S2_V1 / s2, S2_BANDS)
        }
        if with_s1:
            if not s1:
                stray.append(folder / S2_V1 / s2)
                continue
            files["s1"] = _bands(folder / S1_V1 / s1, S1_BANDS)
        label = folder / S2_V1 / s2 / f"{s2}_labels_metadata.json"
        entries.append(Entry(s2, "", files, label_file=label))
    return entries, stray, ", ".join(p.name for p in sheets.values()) or _HASHED


def v2_entries(folder: Path, split: str, keys: Iterable[str]) -> list[Entry]:
    """Entries of version 2, from TABLE_V2's patch_id, labels, split, s1_name.

    Raises FileNotFoundError without that file, ValueError for one without a column.
    """
    name, _, _ = parse_split(split)
    wanted = in_split(split, made=True)
    table = _read_parquet(folder / TABLE_V2, with_s1="s1" in keys)
    entries = []
    for row in table:
        if name != "all" and row["split"] != _SPLIT_V2[name]:
            continue
        patch = row["patch_id"]
        if not wanted(patch):
            continue
        tile = patch.rsplit("_", 2)[0]
        files = {"s2": _bands(folder / S2_V2 / tile / patch, S2_BANDS)}
        if "s1" in keys:
            s1 = row["s1_name"]
            scene = s1.rsplit("_", 3)[0]
            files["s1"] = _bands(folder / S1_V2 / scene / s1, S1_BANDS)
        entries.append(Entry(patch, "", files, labels=tuple(row["labels"])))
    return entries


def read_labels(path: Path) -> tuple[str, ...]:
    """The label names in a patch's json; ValueError naming the file without any."""
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: no labels to be read in it ({error})") from error


def _bands(folder: Path, bands: Iterable[str]) -> tuple[Path, ...]:
    return tuple(folder / f"{folder.name}_{band}.tif" for band in bands)


def _v1_pairs(
    folder: Path, sheets: Mapping[str, Path], split: str, with_s1: bool
) -> list[tuple[str, str]]:
    """[(S2 patch, S1 patch or "")] of a split's csv, or of all that there are."""
    if sheets:
        if split not in (*sheets, "all"):
            raise no_split(next(iter(sheets.values())), split, list(sheets))
        read = [sheets[split]] if split in sheets else sheets.values()
        pairs = [pair for path in read for pair in _read_pairs(path)]
        if with_s1 and not all(s1 for _, s1 in pairs):
            partners = _partners(folder / S1_V1)
            pairs = [(s2, s1 or partners.get(s2, "")) for s2, s1 in pairs]
        _check_there(folder, pairs, with_s1)
        return pairs
    s2 = sorted(_listed(folder / S2_V1))
    partners = _partners(folder / S1_V1) if with_s1 else {}
    return [(name, partners.get(name, "")) for name in s2]


def _find_csvs(folder: Path) -> dict[str, Path]:
    """{split: its csv} of those that are there."""
    found: dict[str, Path] = {}
    for split in SPLITS:
        places = (folder / f"{split}.csv", folder / "splits" / f"{split}.csv")
        for path in (*places, folder / f"bigearthnet-{split}.csv"):
            if path.is_file():
                found.setdefault(split, path)
    return found


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    """Rows of "s2_name[,s1_name]"; a header and an empty line are left out."""
    with path.open(newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    pairs = [(row[0], row[1] if len(row) > 1 else "") for row in rows]
    pairs = [p for p in pairs if p[0].startswith("S2")]
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"{path}: {name} is listed twice")
        seen.add(name)
    if not pairs:
        raise ValueError(f"{path}: no line begins with the name of a Sentinel-2 patch")
    return pairs


def _check_there(folder: Path, pairs: list[tuple[str, str]], with_s1: bool) -> None:
    """One listing of each folder, not a question a patch: there are 590,326."""
    for place, names in (
        (folder / S2_V1, [s2 for s2, _ in pairs]),
        (folder / S1_V1, [s1 for _, s1 in pairs if s1] if with_s1 else []),
    ):
        there = _listed(place) if names else set()
        absent = [name for name in names if name not in there]
        if absent:
            listed = ", ".join(absent[:3]) + (", ..." if absent[3:] else "")
            raise FileNotFoundError(
                f"{place}: {len(absent)} of {len(names)} listed patches are not there:"
                f" {listed}; fetch them, or take them out of the csv"
            )


def _partners(folder: Path) -> dict[str, str]:
    """{S2 patch: S1 patch}, as the S1 patches' json files say."""
    found: dict[str, str] = {}
    for patch in sorted(_listed(folder)):
        path = folder / patch / f"{patch}_labels_metadata.json"
        try:
            found[json.loads(path.read_text())["corresponding_s2_patch"]] = patch
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: no corresponding_s2_patch in it") from error
    return found


def _listed(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not there; the sets whose names end in _s2 do without"
            " Sentinel-1"
        )
    return {path.name for path in folder.iterdir()}


def _read_column(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    lines = path.read_text().splitlines()
    return {line.split(",")[0].strip() for line in lines}


def _read_parquet(path: Path, with_s1: bool) -> list[dict]:
    import pyarrow.parquet  # slow to import, and needed here alone

    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: version 2 keeps its labels and splits in it"
        )
    wanted = ["patch_id", "labels", "split", *(["s1_name"] if with_s1 else [])]
    there = pyarrow.parquet.read_schema(path).names
    if missing := [column for column in wanted if column not in there]:
        raise ValueError(f"{path}: no column {', '.join(missing)}; it has {there}")
    return pyarrow.parquet.read_table(path, columns=wanted).to_pylist()
