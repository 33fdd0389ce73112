"""BigEarthNet as downloaded: version 1 (Sumbul et al. 2019, 2021) and 2 (reBEN).

Version 1: BigEarthNet-v1.0/<patch>/<patch>_{B02.tif, ..., labels_metadata.json} and
BigEarthNet-S1-v1.0/<patch>/<patch>_{VV.tif, ...} likewise; train.csv, val.csv, test.csv
(s2_name,s1_name or s2_name alone) there, in splits/, or as bigearthnet-train.csv.
Version 2: BigEarthNet-S2/<tile>/<patch>/..., BigEarthNet-S1/<scene>/<patch>/... and
metadata.parquet. BigEarthNet.txt (arXiv 2603.29630): BigEarthNet.txt.parquet beside
these, a row a text, with the type "captioning" where it is a caption.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from rsclip_jax.data.readers.folders import in_split, no_split, parse_split
from rsclip_jax.data.readers.split_lists import check_disjoint
from rsclip_jax.data.types import SPLITS, Entry, Listing
from rsclip_jax.io.files import read_json
from rsclip_jax.io.texts import read_csv, shown

S2_V1, S1_V1 = "BigEarthNet-v1.0", "BigEarthNet-S1-v1.0"
S2_V2, S1_V2, TABLE_V2 = "BigEarthNet-S2", "BigEarthNet-S1", "metadata.parquet"
TABLE_TEXT = "BigEarthNet.txt.parquet"
# The authors' lists of patches with snow or clouds, which are not used.
UNUSABLE = ("patches_with_seasonal_snow.csv", "patches_with_cloud_and_shadow.csv")
S2_BANDS = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12".split())
S1_BANDS = ("VV", "VH")
_HASHED = "the hash of the patch's name, which separates neighbours"
_OURS_V2 = {"train": "train", "validation": "val", "test": "test"}


def v1_entries(folder: Path, split: str, keys: Iterable[str]) -> Listing:
    """Lists a split of version 1; patches without a partner are stray.

    keys: "s2" and "s1", or "s2" alone. Labels are read later. Without csv files a hash
    of the patch's name makes the splits, and so separates neighbours. Raises
    FileNotFoundError for a missing folder, or a missing csv where others exist;
    ValueError for a patch that is listed twice.
    """
    name, _, _ = parse_split(split)
    with_s1 = "s1" in keys
    sheets = _find_csvs(folder)
    pairs, absent = _v1_pairs(folder, sheets, name, with_s1)
    wanted = in_split(split, made=bool(sheets))
    entries: list[Entry] = []
    stray: list[Path] = []
    for s2, s1 in pairs:
        if not wanted(s2):
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
    rule = ", ".join(path.name for path in sheets.values()) or _HASHED
    return Listing(entries, stray, absent, rule)


def v2_entries(folder: Path, split: str, keys: Iterable[str]) -> Listing:
    """Lists a split of version 2 by its table; patches that do not exist are absent.

    The table has patch_id, labels, split and s1_name. Raises FileNotFoundError for a
    missing table or sensor folder, ValueError for a missing column or cell, and for a
    patch that is listed twice.
    """
    name, _, _ = parse_split(split)
    wanted = in_split(split, made=True)
    path, with_s1 = folder / TABLE_V2, "s1" in keys
    rows = [
        row
        for row in _read_parquet(path, with_s1=with_s1)
        if name in ("all", _OURS_V2.get(row["split"]))
    ]
    pairs = {row["patch_id"]: row["s1_name"] if with_s1 else "" for row in rows}
    files, lost = _v2_files(folder, pairs)
    entries = [
        Entry(s2, "", files[s2], labels=tuple(row["labels"]))
        for row in rows
        if (s2 := row["patch_id"]) in files and wanted(s2)
    ]
    absent = {path: list(lost.values())} if lost else {}
    return Listing(entries, absent=absent, rule=TABLE_V2)


def _v2_files(
    folder: Path, pairs: Mapping[str, str]
) -> tuple[dict[str, dict[str, tuple[Path, ...]]], dict[str, str]]:
    """({S2 patch: its files by sensor}, {S2 patch: the missing patch of its pair}).

    pairs: S2 patch -> S1 patch, or "".
    """
    tiles = {s2: folder / S2_V2 / s2.rsplit("_", 2)[0] for s2 in pairs}
    scenes = {s1: folder / S1_V2 / s1.rsplit("_", 3)[0] for s1 in pairs.values() if s1}
    there = _listed_below([*tiles.values(), *scenes.values()])
    lost = _lost(pairs.items(), there)
    files: dict[str, dict[str, tuple[Path, ...]]] = {}
    for s2, s1 in pairs.items():
        if s2 not in lost:
            files[s2] = {"s2": _bands(tiles[s2] / s2, S2_BANDS)}
            if s1:
                files[s2]["s1"] = _bands(scenes[s1] / s1, S1_BANDS)
    return files, lost


def text_entries(folder: Path, split: str, bench: bool = False) -> Listing:
    """Lists the captioned patches of a split of BigEarthNet.txt, in the table's order.

    bench: whether the texts are the benchmark's, whose only split is test. Patches that
    do not exist are absent. Raises FileNotFoundError for a missing table or split,
    ValueError for a missing column or cell.
    """
    name, _, _ = parse_split(split)
    wanted = in_split(split, made=True)
    path, ours = folder / TABLE_TEXT, {"bench": "test"} if bench else _OURS_V2
    rows = [row for row in _read_captions(path) if row["split"] in ours]
    present = [s for s in SPLITS if s in {ours[row["split"]] for row in rows}]
    if name not in (*present, "all"):
        raise no_split(path, name, present or ["no split"])
    pairs: dict[str, str] = {}
    captions: dict[str, list[str]] = {}
    for row in rows:
        if name in ("all", ours[row["split"]]):
            pairs[row["patch_id"]] = row["s1_name"]
            captions.setdefault(row["patch_id"], []).append(row["output"].strip())
    files, lost = _v2_files(folder, pairs)
    entries = [
        Entry(s2, "", files[s2], captions=tuple(captions[s2]))
        for s2 in pairs
        if s2 in files and wanted(s2)
    ]
    absent = {path: list(lost.values())} if lost else {}
    return Listing(entries, absent=absent, rule=TABLE_TEXT)


def read_labels(path: Path) -> tuple[str, ...]:
    """Reads the labels of a patch's json. Raises ValueError for a file without any."""
    try:
        labels = read_json(path)["labels"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: it has no readable labels ({error})") from error
    if not isinstance(labels, list) or not all(isinstance(x, str) for x in labels):
        raise ValueError(
            f"{path}: its labels are {shown(labels)}, expected a list of names; fetch"
            " the file again"
        )
    return tuple(labels)


def _bands(folder: Path, bands: Iterable[str]) -> tuple[Path, ...]:
    return tuple(folder / f"{folder.name}_{band}.tif" for band in bands)


def _v1_pairs(
    folder: Path, sheets: Mapping[str, Path], split: str, with_s1: bool
) -> tuple[list[tuple[str, str]], dict[Path, list[str]]]:
    """([(S2 patch, S1 patch or "")] of a split, {csv: absent patches}).

    Without csv files: all patches. Each folder is listed once, since a query for each
    of the 590,326 patches would be slow.
    """
    bad = set().union(*(_read_column(folder / file) for file in UNUSABLE))
    there = _listed(folder / S2_V1)
    if not sheets:
        partners = _partners(folder / S1_V1) if with_s1 else {}
        return [(s2, partners.get(s2, "")) for s2 in sorted(there - bad)], {}
    in_csv = {s: _read_pairs(path) for s, path in sheets.items()}
    check_disjoint(sheets, {s: [s2 for s2, _ in in_csv[s]] for s in in_csv})
    if split not in (*sheets, "all"):
        raise no_split(next(iter(sheets.values())), split, list(sheets))
    wanted = [split] if split in sheets else list(sheets)
    listed = {sheets[s]: in_csv[s] for s in wanted}
    partners = {}
    if with_s1:
        there |= _listed(folder / S1_V1)
        if not all(s1 for pairs in listed.values() for _, s1 in pairs):
            partners = _partners(folder / S1_V1)
    kept: list[tuple[str, str]] = []
    absent: dict[Path, list[str]] = {}
    for path, named in listed.items():
        pairs = [
            (s2, (s1 or partners.get(s2, "")) if with_s1 else "")
            for s2, s1 in named
            if s2 not in bad
        ]
        lost = _lost(pairs, there)
        kept += [pair for pair in pairs if pair[0] not in lost]
        absent |= {path: list(lost.values())} if lost else {}
    return kept, absent


def _lost(pairs: Iterable[tuple[str, str]], there: set[str]) -> dict[str, str]:
    """{S2 patch: the missing patch of its pair} for incomplete pairs."""
    return {
        pair[0]: name
        for pair in pairs
        for name in reversed(pair)
        if name and name not in there
    }


def _find_csvs(folder: Path) -> dict[str, Path]:
    """{split: its csv} for the csv files that exist."""
    found: dict[str, Path] = {}
    for split in SPLITS:
        paths = (folder / f"{split}.csv", folder / "splits" / f"{split}.csv")
        for path in (*paths, folder / f"bigearthnet-{split}.csv"):
            if path.is_file():
                found.setdefault(split, path)
    return found


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    """Reads rows "s2_name[,s1_name]" below a header, if there is one."""
    pairs: dict[str, str] = {}
    for i, (line, row) in enumerate(read_csv(path)):
        name, s1 = row[0], row[1] if len(row) > 1 else ""
        if name in pairs:
            raise ValueError(
                f"{path}, line {line}: {name} is listed twice; remove one of the lines"
            )
        if name.startswith("S2"):
            pairs[name] = s1
        elif i:
            raise ValueError(
                f"{path}, line {line}: {shown(name)} is not the name of a Sentinel-2"
                " patch; the first column should have these"
            )
    if not pairs:
        raise ValueError(f"{path}: no line begins with the name of a Sentinel-2 patch")
    return list(pairs.items())


def _partners(folder: Path) -> dict[str, str]:
    """{S2 patch: S1 patch}, from the json files of the S1 patches."""
    found: dict[str, str] = {}
    for patch in sorted(_listed(folder)):
        path = folder / patch / f"{patch}_labels_metadata.json"
        try:
            found[read_json(path)["corresponding_s2_patch"]] = patch
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: no corresponding_s2_patch in it") from error
    return found


def _listed(folder: Path) -> set[str]:
    """The patches, tiles or scenes in a folder; programs leave other files there."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist; datasets whose names end in _s2 do not need"
            " Sentinel-1"
        )
    return {name for name in os.listdir(folder) if name.startswith(("S1", "S2"))}


def _listed_below(folders: Iterable[Path]) -> set[str]:
    """The names in these folders of tiles or scenes; each folder is listed once."""
    folders = set(folders)
    tops = {top: _listed(top) for top in {folder.parent for folder in folders}}
    there = [folder for folder in folders if folder.name in tops[folder.parent]]
    return {name for folder in there for name in os.listdir(folder)}


def _read_column(path: Path) -> set[str]:
    return {row[0] for _, row in read_csv(path)} if path.is_file() else set()


def _read_parquet(path: Path, with_s1: bool) -> list[dict]:
    import pyarrow.parquet  # slow to import, and needed only here

    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: it has the labels and splits of version 2"
        )
    wanted = ["patch_id", "labels", "split", *(["s1_name"] if with_s1 else [])]
    there = pyarrow.parquet.read_schema(path).names
    if missing := [column for column in wanted if column not in there]:
        raise ValueError(
            f"{path}: no column {', '.join(missing)}; it has {shown(there)}"
        )
    rows = pyarrow.parquet.ParquetFile(path).read(columns=wanted).to_pylist()
    _check_rows(path, rows, wanted)
    return rows


def _read_captions(path: Path) -> list[dict]:
    """The rows of BigEarthNet.txt that are captions."""
    import pyarrow.parquet  # slow to import, and needed only here

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: it has the captions")
    wanted = ["patch_id", "s1_name", "output", "split"]
    there = pyarrow.parquet.read_schema(path).names
    if missing := [column for column in (*wanted, "type") if column not in there]:
        raise ValueError(
            f"{path}: no column {', '.join(missing)}; it has {shown(there)}"
        )
    captions = [("type", "==", "captioning")]  # of 9.5 million texts
    read = pyarrow.parquet.read_table(
        path, columns=wanted, filters=captions, partitioning=None
    )
    rows = read.to_pylist()
    for row in rows:
        if lost := [column for column in wanted if _is_empty(row[column])]:
            raise ValueError(
                f"{path}: a caption of {row['patch_id']} has nothing in column"
                f" {lost[0]}; fetch the table again"
            )
    return rows


def _is_empty(cell: object) -> bool:
    """Whether a cell has no value, or a list one without a value."""
    return cell in (None, "") or (isinstance(cell, list) and None in cell)


def _check_rows(path: Path, rows: Iterable[Mapping], columns: Iterable[str]) -> None:
    """Raises ValueError for a patch that is listed twice, and for an empty cell."""
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        name = row["patch_id"]
        if lost := [column for column in columns if _is_empty(row[column])]:
            raise ValueError(
                f"{path}, row {number} ({name}): nothing in column {lost[0]}; fetch the"
                " table again, or remove the row"
            )
        if name in seen:
            raise ValueError(
                f"{path}, row {number}: {name} is listed twice; remove one of the rows"
            )
        seen.add(name)
