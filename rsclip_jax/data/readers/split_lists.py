"""Official split lists: text files that name the images of each split.

A line is an image's file name ("Forest_1.jpg") or "<class>/<name>". The suffix is
ignored: EuroSAT's lists name JPEGs and are used for its TIFFs, too. Examples are the
lists of Neumann et al. (arXiv 1911.06721) as torchgeo reads them (eurosat-train.txt),
and Food-101's meta/train.txt.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rsclip_jax.data.codecs.images import SUFFIXES
from rsclip_jax.data.readers.folders import in_split, no_split, parse_split
from rsclip_jax.data.types import SPLITS, Listing
from rsclip_jax.io.texts import first_of, read_lines


def find_lists(folders: Sequence[Path], pattern: str) -> dict[str, Path]:
    """{split: its list} in the first folder that has any; {} without lists.

    pattern: the lists' name, such as "eurosat-{split}.txt".
    """
    for folder in folders:
        lists = {s: folder / pattern.format(split=s) for s in SPLITS}
        if there := {s: path for s, path in lists.items() if path.is_file()}:
            return there
    return {}


def listed_entries(listing: Listing, lists: Mapping[str, Path], split: str) -> Listing:
    """Keeps the entries of a listing, "<class>/<stem>", that the split's list names.

    "all" is the union of the lists, so an image in none of them is left out. Names
    whose image does not exist are absent; a stray image counts as existing.
    """
    name, _, _ = parse_split(split)
    wanted = list(lists) if name == "all" else [name]
    if wanted[0] not in lists:
        raise no_split(next(iter(lists.values())), name, list(lists))
    known = {entry.id for entry in listing.entries}
    known |= {f"{path.parent.name}/{path.stem}" for path in listing.stray}
    named, absent = read_lists(lists, known)
    keys, in_part = set().union(*(named[s] for s in wanted)), in_split(split, made=True)
    kept = [e for e in listing.entries if e.id in keys and in_part(e.id)]
    missing = {lists[s]: absent[s] for s in wanted if absent[s]}
    return dataclasses.replace(listing, entries=kept, absent=missing)


def read_lists(
    lists: Mapping[str, Path], known: Collection[str]
) -> tuple[dict[str, set[str]], dict[str, list[str]]]:
    """({split: keys of its images}, {split: the lines whose image is absent}).

    known: the keys, "<class>/<stem>", of the images that exist. Raises ValueError for
    an empty list, and for an image that is listed twice, is in two lists, or has a name
    that two classes have, naming lists and images.
    """
    by_stem: dict[str, list[str]] = {}
    for key in known:
        by_stem.setdefault(key.split("/")[-1], []).append(key)
    names = {split: _read_list(path) for split, path in lists.items()}
    check_disjoint(lists, names)
    found: dict[str, set[str]] = {}
    absent: dict[str, list[str]] = {}
    for split, path in lists.items():
        keys = {name: _resolve(name, by_stem, path) for name in names[split]}
        found[split] = {key for key in keys.values() if key}
        absent[split] = [name for name, key in keys.items() if not key]
    return found, absent


def _read_list(path: Path) -> list[str]:
    """Reads the names in a list without suffixes and blank lines."""
    lines = [line for _, line in read_lines(path)]
    names = [_without_suffix(line.replace("\\", "/")) for line in lines]
    if not names:
        raise ValueError(f"{path}: the list is empty; fetch it again, or remove it")
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise ValueError(
            f"{path}: {len(twice)} image(s) occur twice in this list:"
            f" {first_of(twice)}; fetch it again, or remove the repeated lines"
        )
    return names


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name


def check_disjoint(
    lists: Mapping[str, Path], names: Mapping[str, Sequence[str]]
) -> None:
    """Raises ValueError if two lists share names. names: split -> the list's names."""
    splits = list(lists)
    for i, one in enumerate(splits):
        for other in splits[i + 1 :]:
            if common := sorted(set(names[one]) & set(names[other])):
                raise ValueError(
                    f"{lists[one]} and {lists[other].name} both name {len(common)}"
                    f" image(s): {first_of(common)}; an image can be in one split only:"
                    " fetch both lists again"
                )


def _resolve(name: str, by_stem: Mapping[str, list[str]], path: Path) -> str:
    """The key of the image with this name; "" without one."""
    *above, stem = name.split("/")
    keys = by_stem.get(stem, [])
    if above:
        keys = [key for key in keys if above[-1] in key.split("/")[:-1]]
    if len(keys) > 1:
        raise ValueError(
            f"{path}: {name!r} could be any of {first_of(keys)}; write"
            " '<class>/<name>' instead"
        )
    return keys[0] if keys else ""
