"""SEN12MS as downloaded (Schmitt et al. 2019), labelled by its land cover.

<season>/{s1,s2,lc}_<scene>/<season>_{s1,s2,lc}_<scene>_p<patch>.tif, such as
ROIs1158_spring/s2_0/ROIs1158_spring_s2_0_p30.tif. train_list.txt and test_list.txt of
the authors' toolbox (one file name per line) are beside the seasons or in splits/.

The authors give no validation list, so the tenth of the training scenes with the
highest hash is val. Patches of a scene are neighbours, so all are in the same split and
in the same part of it.
Without lists a hash of the scene makes all three splits.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rsclip_jax.data.codecs.geotiff import read_raster
from rsclip_jax.data.readers.folders import files_there, in_split, parse_split
from rsclip_jax.data.types import Entry, Listing
from rsclip_jax.io.texts import read_lines, shown

# (season, scene, patch). The Sentinel-1 image of DAMAGED holds NaN. The authors left it
# out of their lists, but the lists may be missing.
Patch = tuple[str, str, str]
DAMAGED: Patch = ("ROIs1868_summer", "146", "p202")
# The simplified scheme of Schmitt and Wu (2021, arXiv 2104.00704): the IGBP numbers in
# a land cover map's first band, by class.
IGBP = {
    "Forest": (1, 2, 3, 4, 5),
    "Shrubland": (6, 7),
    "Savanna": (8, 9),
    "Grassland": (10,),
    "Wetlands": (11,),
    "Croplands": (12, 14),
    "Urban/Built-up": (13,),
    "Snow/Ice": (15,),
    "Barren": (16,),
    "Water": (17,),
}
_UNCLASSIFIED = (0, 255)  # 255 as MODIS has it
_LISTS = ("train", "test")
LIST_SPANS = {"train": (0, 90), "val": (90, 100)}  # of the training list, in per cent
_LINE = re.compile(r"(ROIs\d+_[a-z]+)_(?:s1|s2|lc)_(\d+)_(p\d+)(?:\.tif)?")


def patch_entries(folder: Path, split: str, keys: Iterable[str]) -> Listing:
    """Lists a split, sorted by name; files without a partner are stray.

    keys: "s2" and "s1". Labels are read later, from lc. Raises FileNotFoundError where
    only one of the two lists exists, ValueError for a line that is repeated, is in both
    lists, or is not a patch's file name.
    """
    keys = tuple(keys)
    paths = {key: _listed(folder, key) for key in (*keys, "lc")}
    there = {key: set(found) for key, found in paths.items()}
    lists = _read_lists(folder)
    absent: dict[Path, list[str]] = {}
    if lists:
        chosen, absent = _chosen(folder, lists, split, there["s2"])
        there = {key: found & chosen for key, found in there.items()}
    wanted = in_split(split, spans=LIST_SPANS) if lists else in_split(split)
    common = set.intersection(*there.values())
    stray = [
        paths[key][patch]
        for key, found in there.items()
        for patch in sorted(found - common)
    ]
    entries = []
    for patch in common:
        season, scene, _ = patch
        if wanted(scene_key := f"{season}_{scene}"):
            files = {key: paths[key][patch] for key in keys}
            lc, id_ = paths["lc"][patch], _name("s2", patch)
            entries.append(Entry(id_, "", files, label_file=lc, hash_key=scene_key))
    rule = ", ".join(path.name for path in lists)
    return Listing(sorted(entries, key=lambda entry: entry.id), stray, absent, rule)


def read_largest(path: Path) -> tuple[str, ...]:
    """The class with the most pixels of a land cover map; the first one in a tie.

    Raises ValueError naming a file that is not an IGBP map.
    """
    counts, _ = _count(path)
    return (max(counts, key=counts.__getitem__),)


def read_present(path: Path) -> tuple[str, ...]:
    """The classes that cover at least a tenth of a land cover map's pixels.

    The authors' IGBP_probability_labels.pkl has the same shares as decimal numbers;
    only a share that rounding moves across a tenth could differ. Raises ValueError
    naming a file that is not an IGBP map.
    """
    counts, pixels = _count(path)
    return tuple(name for name, count in counts.items() if 10 * count >= pixels)


def _count(path: Path) -> tuple[dict[str, int], int]:
    """({class: pixels}, all pixels) of a land cover map's first band."""
    band = read_raster(path).pixels[..., 0]
    values, found = np.unique(band, return_counts=True)
    pixels = dict(zip(values.tolist(), found.tolist(), strict=True))
    known = {n for numbers in IGBP.values() for n in numbers}
    if strange := sorted(set(pixels) - known - set(_UNCLASSIFIED)):
        raise ValueError(
            f"{path}: {strange[0]} in the first band is not an IGBP class (1 to 17); is"
            " this a land cover map of SEN12MS?"
        )
    counts = {name: sum(pixels.get(n, 0) for n in of) for name, of in IGBP.items()}
    if not any(counts.values()):
        raise ValueError(
            f"{path}: no pixel has a class; fetch the file again, or leave out the"
            " patch"
        )
    return counts, band.size


def _name(key: str, patch: Patch) -> str:
    season, scene, number = patch
    return f"{season}_{key}_{scene}_{number}"


def _listed(folder: Path, key: str) -> dict[Patch, Path]:
    """{patch: its file} of s1, s2 or lc (180,662), by listing each folder once."""
    found: dict[Patch, Path] = {}
    for scene_folder in folder.glob(f"ROIs*/{key}_*"):
        season = scene_folder.parent.name
        scene = scene_folder.name.removeprefix(f"{key}_")
        start = f"{season}_{scene_folder.name}_"
        for name in os.listdir(scene_folder):
            if name.startswith(start) and name.lower().endswith(".tif"):
                number = name.removeprefix(start)[: -len(".tif")]
                found[season, scene, number] = scene_folder / name
    if not found:
        raise FileNotFoundError(
            f"{folder}: no patches ROIs*/{key}_*/*.tif in it; unpack the archives"
            f" ROIs*_{key}.tar.gz there{files_there(folder)}"
        )
    found.pop(DAMAGED, None)
    return found


def _chosen(
    folder: Path, lists: dict[Path, list[Patch]], split: str, there: set[Patch]
) -> tuple[set[Patch], dict[Path, list[str]]]:
    """(patches of the split's lists that exist, {list: the others})."""
    name = parse_split(split)[0]
    wanted = {"all": _LISTS, "test": ("test",)}.get(name, ("train",))
    chosen: set[Patch] = set()
    absent: dict[Path, list[str]] = {}
    for kind in wanted:
        path = next((p for p in lists if p.name == f"{kind}_list.txt"), None)
        if path is None:
            raise FileNotFoundError(
                f"{folder}: no {kind}_list.txt beside {next(iter(lists)).name}; fetch"
                " it, too; or remove the other list, so that a hash makes the splits"
            )
        if lost := [_name("s2", p) for p in lists[path] if p not in there]:
            absent[path] = lost
        chosen.update(lists[path])
    return chosen & there, absent


def _read_lists(folder: Path) -> dict[Path, list[Patch]]:
    """{existing list: its patches}. Raises ValueError for a patch in two lists."""
    lists: dict[Path, list[Patch]] = {}
    seen: dict[Patch, str] = {}
    for kind in _LISTS:
        paths = [folder / f"{kind}_list.txt", folder / "splits" / f"{kind}_list.txt"]
        for path in [p for p in paths if p.is_file()][:1]:
            lists[path] = _read_list(path, seen)
    return lists


def _read_list(path: Path, seen: dict[Patch, str]) -> list[Patch]:
    patches = []
    for number, line in read_lines(path):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{path}: line {number}, {shown(line)}, is not a patch's file name,"
                " such as ROIs1158_spring_s2_0_p30.tif"
            )
        patch = (match[1], match[2], match[3])
        if patch in seen:
            raise ValueError(
                f"{path}: line {number}, {line}, is in {seen[patch]} already;"
                " remove one of the two"
            )
        seen[patch] = f"line {number} of {path.name}"
        if patch != DAMAGED:
            patches.append(patch)
    return patches
