"""Class folders and paired folders, with or without split folders above them."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from rsclip_jax.data.readers.images import SUFFIXES

SPLITS = ("train", "val", "test")
# Without split folders a file's place is its hash: these percent ranges are the splits.
HASH_SPLITS = {"train": (0, 70), "val": (70, 85), "test": (85, 100)}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One example: its id, its label, and where each sensor's image lies.

    files: a path, or one for each band. label: its class folder; of several, labels, or
    the file that label names are read from when they are asked for.
    """

    id: str
    label: str
    files: Mapping[str, Path | tuple[Path, ...]]
    labels: tuple[str, ...] = ()
    label_file: Path | None = None


def hash_percent(key: str) -> float:
    """Where a key ("<class>/<stem>") falls in [0, 100): the fixed split's only rule.

    The first 8 hex digits of SHA-256 over 2^32, so it depends on neither the machine
    nor the other files.
    """
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32 * 100


def parse_split(split: str) -> tuple[str, float, float]:
    """ "train" -> (train, 0, 100); "train[:90%]" -> (train, 0, 90), by hash_percent.

    Raises ValueError on anything else.
    """
    part = r"(train|val|test|all)(?:\[(?:(\d+)%)?:(?:(\d+)%)?\])?"
    match = re.fullmatch(part, split)
    low, high = (float(match[2] or 0), float(match[3] or 100)) if match else (0.0, 0.0)
    if not match or not low < high <= 100:
        raise ValueError(
            f"split {split!r} is not known; use train, val, test or all, or a part of"
            " one such as 'train[:90%]' or 'train[90%:]'"
        )
    return match[1], low, high


def in_split(split: str, *, made: bool = False) -> Callable[[str], bool]:
    """Whether a key's hash puts it in a split; made: the archive made the split itself.

    Then only a part such as "[:90%]" is left to the hash.
    """
    name, low, high = parse_split(split)
    start, end = (0, 100) if made or name == "all" else HASH_SPLITS[name]
    width = (end - start) / 100
    first, last = start + low * width, start + high * width
    return lambda key: first <= hash_percent(key) < last


def class_folder_entries(
    folder: Path, split: str, classes: tuple[str, ...], key: str = "rgb"
):
    """Entries of <folder>/[<split>/]<class>/<image>, sorted, all in class order.

    Raises FileNotFoundError naming the class folders that are missing (all of them), or
    the split folders that there are.
    """
    entries = []
    for base, low, high, tops in split_folders(folder, split, classes):
        missing = [c for c in classes if not (base / c).is_dir()]
        if missing:
            there = sorted(p.name for p in base.iterdir() if p.is_dir())
            raise FileNotFoundError(
                f"{base}: no folder for the class(es) {', '.join(missing)}; found"
                f" {', '.join(there) or 'no folders'}"
            )
        for name in classes:
            for path in _images(base / name):
                if low <= hash_percent(f"{name}/{path.stem}") < high:
                    example = "/".join([*tops, name, path.stem])
                    entries.append(Entry(example, name, {key: path}))
    return entries


def paired_folder_entries(folder: Path, split: str, subfolders: dict[str, str]):
    """Entries of <folder>/[<split>/]<sensor folder>/<same name in each>, unlabelled.

    Returns (entries, stray): stray lists the files whose partner is missing.
    """
    entries: list[Entry] = []
    stray: list[Path] = []
    for base, low, high, tops in split_folders(folder, split):
        files = {k: _by_stem(base / sub) for k, sub in subfolders.items()}
        common = set.intersection(*(set(f) for f in files.values()))
        for stems in files.values():
            stray += [stems[stem] for stem in sorted(set(stems) - common)]
        for stem in sorted(common):
            if low <= hash_percent(stem) < high:
                paths = {k: stems[stem] for k, stems in files.items()}
                entries.append(Entry("/".join([*tops, stem]), "", paths))
    return entries, stray


def split_folders(folder: Path, split: str, classes: tuple[str, ...] = ()):
    """(folder, percent from, to, id prefix) for each folder that the split reads."""
    name, low, high = parse_split(split)
    present = [s for s in SPLITS if (folder / s).is_dir()]
    # CIFAR-100 has a class "train": a split only if classes lie in it
    present = [
        s
        for s in present
        if s not in classes or any((folder / s / c).is_dir() for c in classes)
    ]
    if present:
        wanted = present if name == "all" else [name]
        if wanted[0] not in present:
            raise FileNotFoundError(
                f"{folder}: no split {name!r}; it has {', '.join(present)} (a part of"
                f" one can serve: '{present[0]}[90%:]')"
            )
        return [(folder / s, low, high, [s]) for s in wanted]
    start, end = (0, 100) if name == "all" else HASH_SPLITS[name]
    width = (end - start) / 100
    return [(folder, start + low * width, start + high * width, [])]


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: this sensor's folder is missing")
    return {path.stem: path for path in _images(folder)}


def _images(folder: Path) -> list[Path]:
    files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES]
    return sorted(files, key=lambda p: p.name)
