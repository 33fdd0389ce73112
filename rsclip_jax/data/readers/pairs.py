"""Unlabelled pairs of Sentinel-1 and Sentinel-2: SSL4EO-S12 and Sen1Floods11.

SSL4EO-S12 (Wang et al. 2023): {s1,s2c,s2a}/<location>/<scene>/<band>.tif, up to four
scenes per location, one per season. Sen1Floods11 (Bonafilia et al. 2020): S1Hand/ (or
S1/) <chip>_S1Hand.tif beside S2Hand/ <chip>_S2Hand.tif.
"""

import re
from pathlib import Path

from rsclip_jax.data.readers.folders import folders_in, in_split
from rsclip_jax.data.types import Entry, Listing

# Record key -> sensor folder, band files.
_SSL4EO = {
    "s1": ("s1", ("VV", "VH")),
    "s2": ("s2c", tuple("B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12".split())),
}


def ssl4eo_entries(folder: Path, split: str) -> Listing:
    """Lists pairs of scenes; locations without a partner are stray.

    Scenes are ordered by the date in their names, and the n-th scenes of both sensors
    are a pair: each season has one of each. A location's scenes are all in one split.
    """
    wanted = in_split(split)
    locations = {key: _folders(folder / sub) for key, (sub, _) in _SSL4EO.items()}
    common = set.intersection(*(set(found) for found in locations.values()))
    stray = [
        p for found in locations.values() for n, p in found.items() if n not in common
    ]
    entries = []
    for location in sorted(filter(wanted, common)):
        scenes = {
            key: sorted(_folders(locations[key][location]).values(), key=_date)
            for key in _SSL4EO
        }
        if len({len(found) for found in scenes.values()}) > 1:
            stray.append(next(iter(locations.values()))[location])
            continue
        for n, paths in enumerate(zip(*scenes.values(), strict=True)):
            files = {
                key: tuple(path / f"{band}.tif" for band in _SSL4EO[key][1])
                for key, path in zip(_SSL4EO, paths, strict=True)
            }
            entries.append(Entry(f"{location}/{n}", "", files, hash_key=location))
    return Listing(entries, stray)


def sen1floods_entries(folder: Path, split: str) -> Listing:
    """Lists the hand-labelled chips' images; those without a partner are stray."""
    wanted = in_split(split)
    found = {}
    for key in ("s1", "s2"):
        end = f"_{key}hand.tif"
        base = _first_of(folder, f"{key.upper()}Hand", key.upper())
        there = [p for p in sorted(base.iterdir()) if not p.name.startswith(".")]
        paths = [p for p in there if p.name.lower().endswith(end)]
        found[key] = {p.name[: -len(end)]: p for p in paths}
    common = sorted(set(found["s1"]) & set(found["s2"]))
    stray = [p for one in found.values() for n, p in one.items() if n not in common]
    entries = [
        Entry(chip, "", {key: found[key][chip] for key in found})
        for chip in filter(wanted, common)
    ]
    return Listing(entries, stray)


def _date(scene: Path) -> str:
    """The first date in a scene's name. Raises ValueError for a name without one."""
    found = re.search(r"(?<!\d)20\d{6}(?=T|_|$)", scene.name)
    if found is None:
        raise ValueError(f"{scene}: no date in the name of this scene")
    return found[0]


def _folders(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: this sensor's folder does not exist")
    return {path.name: path for path in folders_in(folder)}


def _first_of(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise FileNotFoundError(f"{folder}: no folder {' or '.join(names)} in it")
