"""Images by class, in the layouts that copies of the field's sets have.

<class>/<image>                     as published by most
<group>/<class>/<image>             RSI-CB256 (Li et al. 2020), by seven groups
<class>_<number>.jpg, side by side  flat; also <class>(<number>).jpg

Copies spell a class's folder in other ways ("airport", "Airport", "parking lot",
"parking_lot"): where no folder has its exact name, case and all but letters and digits
are ignored. An id is "<class>/<stem>" in each layout, so one hash makes the splits.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rsclip_jax.data.codecs.images import SUFFIXES
from rsclip_jax.data.readers.folders import (
    folders_in,
    hash_percent,
    images_in,
    missing_folders,
    split_folders,
)
from rsclip_jax.data.types import SPLIT_NAMES, Entry, Listing

_NUMBERED = re.compile(r"(.*?[^\W\d_])[\W_]*\d+\)?")


def plain_name(name: str) -> str:
    """A name's letters and digits in lower case."""
    return "".join(filter(str.isalnum, name.lower()))


def scene_entries(
    folder: Path,
    split: str,
    classes: Sequence[str],
    key: str = "rgb",
    *,
    all_there: bool = True,
) -> Listing:
    """Lists a split of a dataset whose classes are known, in class order, by name.

    all_there: whether all classes must have a folder. Raises FileNotFoundError naming
    the classes that have none, and ValueError where two folders could be one class's.
    """
    entries, faults = list[Entry](), dict[Path, list[str]]()
    for base, low, high, tops in split_folders(
        folder, split, SPLIT_NAMES, tuple(classes)
    ):
        found = class_folders(base, classes)
        flat, strange = ([], []) if found else flat_images(base, classes)
        if flat and strange:
            faults[base] = strange
        if all_there and not flat and (lost := [c for c in classes if c not in found]):
            raise missing_folders([base], lost)
        for name, stem, path in flat or _images_of(found, classes):
            hashed = f"{name}/{stem}"
            if low <= hash_percent(hashed) < high:
                example = "/".join([*tops, hashed])
                entries.append(Entry(example, name, {key: path}, hash_key=hashed))
    return Listing(entries, faults=faults)


def flat_entries(
    folder: Path,
    split: str,
    classes: Sequence[str],
    key: str,
    names: Mapping[str, str] = SPLIT_NAMES,
) -> Listing:
    """Lists <folder>/[<split>/]<class>_<number>.*; other images are faults.

    names: split -> its folder.
    """
    entries, faults = list[Entry](), dict[Path, list[str]]()
    for base, low, high, tops in split_folders(folder, split, names):
        images, strange = flat_images(base, classes)
        faults |= {base: strange} if strange else {}
        for name, stem, path in images:
            hashed = f"{name}/{stem}"
            if low <= hash_percent(hashed) < high:
                example = "/".join([*tops, hashed])
                entries.append(Entry(example, name, {key: path}, hash_key=hashed))
    return Listing(entries, faults=faults)


def find_flat_classes(folder: Path, names: Mapping[str, str]) -> tuple[str, ...]:
    """The words before a number in the names of <folder>/[<split>/]'s images, sorted.

    Raises ValueError if there is none.
    """
    bases = [base for base, *_ in split_folders(folder, "all", names)]
    found = {_class_of(path) for base in bases for path in _direct(base)} - {""}
    if not found:
        raise ValueError(
            f"{folder}: no image is called <class>_<number>, such as forest_12.jpg"
        )
    return tuple(sorted(found))


def class_folders(base: Path, classes: Sequence[str]) -> dict[str, Path]:
    """{class: its folder} in a folder, or in the folders of groups in it."""
    there = folders_in(base)
    found = {path.name: path for path in there if path.name in classes}
    rest = [path for path in there if path.name not in found]
    found |= _by_plain_name(rest, [name for name in classes if name not in found])
    if found:
        return found
    below = [path for group in there for path in folders_in(group)]
    return _by_plain_name(below, classes)


def _by_plain_name(paths: Sequence[Path], classes: Sequence[str]) -> dict[str, Path]:
    wanted = {plain_name(name): name for name in classes}
    found: dict[str, Path] = {}
    for path in paths:
        name = wanted.get(plain_name(path.name), "")
        if name in found:
            raise ValueError(
                f"{path} and {found[name]} could both be class {name!r}; remove one"
            )
        if name:
            found[name] = path
    return found


def flat_images(
    base: Path, classes: Sequence[str]
) -> tuple[list[tuple[str, str, Path]], list[str]]:
    """([(class, stem, image)] in class order, faults) of images side by side."""
    wanted = {plain_name(name): name for name in classes}
    found: dict[str, list[Path]] = {name: [] for name in classes}
    faults: list[str] = []
    for path in _direct(base):
        if name := wanted.get(plain_name(_class_of(path)), ""):
            found[name].append(path)
        else:
            faults.append(f"{path.name} does not begin with the name of a class")
    return [
        (c, path.stem, path) for c, paths in found.items() for path in paths
    ], faults


def _images_of(
    found: Mapping[str, Path], classes: Sequence[str]
) -> Iterator[tuple[str, str, Path]]:
    for name in classes:
        for path in images_in(found[name]) if name in found else ():
            stem = path.relative_to(found[name]).with_suffix("").as_posix()
            yield name, stem, path


def _direct(base: Path) -> list[Path]:
    there = sorted(base.iterdir(), key=lambda path: path.name)
    images = [path for path in there if path.suffix.lower() in SUFFIXES]
    return [p for p in images if p.is_file() and not p.name.startswith(".")]


def _class_of(path: Path) -> str:
    """ "parking_lot" of parking_lot_12.jpg, parking_lot (12).jpg; "" without one."""
    match = _NUMBERED.fullmatch(path.stem)
    return match[1] if match else ""
