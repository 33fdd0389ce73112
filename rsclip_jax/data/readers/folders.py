"""Class folders and paired folders, with or without split folders above them."""

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rsclip_jax.data.codecs.images import SUFFIXES
from rsclip_jax.data.types import SPLIT_NAMES, SPLITS, Entry, Listing, tail_of
from rsclip_jax.io.texts import clip, first_of

# The splits' ranges of the hash, in percent, where an archive has no split folders.
HASH_SPLITS = {"train": (0, 70), "val": (70, 85), "test": (85, 100)}


def hash_percent(key: str) -> float:
    """Hashes a key ("<class>/<stem>") to [0, 100), which decides its split.

    It is the first 8 hex digits of SHA-256 over 2^32, so it depends on neither the
    machine nor the other files.
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


def in_split(
    split: str,
    *,
    made: bool = False,
    spans: Mapping[str, tuple[int, int]] = HASH_SPLITS,
) -> Callable[[str], bool]:
    """Returns a function that says whether a key is in a split, by its hash.

    made: whether the archive made the split, so that the hash decides only a part such
    as "[:90%]". spans: split -> its range of the hash in percent; other splits have the
    whole range.
    """
    name, low, high = parse_split(split)
    start, end = (0, 100) if made else spans.get(name, (0, 100))
    width = (end - start) / 100
    first, last = start + low * width, start + high * width
    return lambda key: first <= hash_percent(key) < last


def find_classes(
    folder: Path, names: Mapping[str, str], subfolders: Iterable[str] = ("",)
) -> tuple[str, ...]:
    """The folders with images in <folder>/[<split>/][<subfolder>/], sorted.

    names: split -> its folder. Raises ValueError if there is none, or if another folder
    beside the split folders could be a split.
    """
    tops = [folder / name for name in names.values() if folders_in(folder / name)]
    beside = [p.name for p in folders_in(folder) if tops and p not in tops]
    if beside:
        raise ValueError(
            f"{folder}: {first_of(beside)} beside the split folders"
            f" {', '.join(p.name for p in tops)}; if it is a split, name it in a table"
            f" [splits] of the dataset's TOML file, such as val = {beside[0]!r}; if"
            " not, list the classes"
        )
    bases = [base / sub for base in tops or [folder] for sub in subfolders]
    held = {
        p: there for base in bases for p in folders_in(base) if (there := images_in(p))
    }
    if not held:
        raise ValueError(
            f"{bases[0]}: no class folders with images in it{files_there(bases[0])}"
        )
    _check_depth(folder, held)
    return tuple(sorted({path.name for path in held}))


def _check_depth(folder: Path, held: Mapping[Path, Sequence[Path]]) -> None:
    """Raises ValueError where the class folders seem to be one level further down.

    That is where no image is directly in a folder, and either there is one folder
    alone, or folders in two of them have the same names. held: folder -> its images.
    """
    below = {top: {p.relative_to(top).parts[0] for p in held[top]} for top in held}
    if any(p.parent == top for top, paths in held.items() for p in paths):
        return
    counts = Counter(name for names in below.values() for name in names)
    again = sorted(name for name, n in counts.items() if n > 1 or len(held) == 1)
    if again:
        tops = first_of(sorted({top.name for top in held}))
        raise ValueError(
            f"{folder}: {tops} hold no images but folders, {first_of(again)}; if these"
            f" are the classes, name {tops} as splits in a table [splits] of the"
            " dataset's TOML file, or set folder to the folder above the classes; if"
            " not, list the classes"
        )


def class_folder_entries(
    folder: Path,
    split: str,
    classes: tuple[str, ...],
    key: str = "rgb",
    names: Mapping[str, str] = SPLIT_NAMES,
    *,
    all_there: bool = True,
) -> Listing:
    """Lists <folder>/[<split>/]<class>/[<more>/]<image> in class order, by name.

    names: split -> its folder. all_there: whether all class folders must exist. Raises
    FileNotFoundError naming all missing class folders, or the existing split folders.
    """
    entries = []
    for base, low, high, tops in split_folders(folder, split, names, classes):
        if all_there:
            check_folders([base], classes)
        for name, path in class_images(base, classes):
            stem = path.relative_to(base / name).with_suffix("").as_posix()
            hashed = f"{name}/{stem}"  # correct for CIFAR-100's class "train", too
            if low <= hash_percent(hashed) < high:
                example = "/".join([*tops, hashed])
                entries.append(Entry(example, name, {key: path}, hash_key=hashed))
    return Listing(entries)


def class_images(base: Path, classes: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Yields (class, image) of <base>/<class>/, in class order, then by name.

    Images in folders within a class folder belong to the class, as torchvision has it.
    Raises ValueError for such a folder that has the name of a split.
    """
    for name in classes:
        for path in images_in(base / name):
            yield name, path


def paired_folder_entries(
    folder: Path,
    split: str,
    subfolders: Mapping[str, str],
    names: Mapping[str, str] = SPLIT_NAMES,
    classes: tuple[str, ...] = (),
    *,
    all_there: bool = True,
) -> Listing:
    """Lists <folder>/[<split>/]<sensor folder>/[<class>/]<same name in each>.

    The arguments are those of class_folder_entries; without classes the examples are
    unlabelled. Files whose partner is missing are stray.
    """
    entries: list[Entry] = []
    stray: list[Path] = []
    for base, low, high, tops in split_folders(folder, split, names):
        bases = {k: base / sub for k, sub in subfolders.items()}
        for path in bases.values():
            if not path.is_dir():
                raise FileNotFoundError(f"{path}: this sensor's folder does not exist")
        if all_there:
            check_folders(list(bases.values()), classes)
        for label in classes or ("",):
            files = {k: _by_stem(path / label) for k, path in bases.items()}
            common = set.intersection(*(set(f) for f in files.values()))
            for stems in files.values():
                stray += [stems[stem] for stem in sorted(set(stems) - common)]
            for stem in sorted(common):
                key = f"{label}/{stem}".lstrip("/")
                if low <= hash_percent(key) < high:
                    paths = {k: stems[stem] for k, stems in files.items()}
                    id_ = "/".join([*tops, key])
                    entries.append(Entry(id_, label, paths, hash_key=key))
    return Listing(entries, stray)


def plain_folder_entries(folder: Path, split: str, key: str) -> Listing:
    """Lists all images below a folder, unlabelled, sorted by path.

    The id is the path below the folder; its hash decides the split.
    """
    wanted = in_split(split)
    kept = (id_ for id_ in sorted(_walk(str(folder), "")) if wanted(tail_of(id_)))
    return Listing([Entry(id_, "", {key: folder / id_}) for id_ in kept])


def check_folders(bases: Sequence[Path], classes: Iterable[str]) -> None:
    """Raises FileNotFoundError naming the classes without a folder in any base."""
    missing = [c for c in classes if not any((base / c).is_dir() for base in bases)]
    if missing:
        raise missing_folders(bases, missing)


def missing_folders(bases: Sequence[Path], missing: Sequence[str]) -> FileNotFoundError:
    """The error for classes without a folder in any base, naming those that exist."""
    there = sorted({p.name for b in bases for p in b.iterdir() if p.is_dir()})
    return FileNotFoundError(
        f"{bases[0]}: no folder for the class(es) {clip(', '.join(missing), 400)};"
        f" found {clip(', '.join(there), 300) or 'no folders'}"
    )


def splits_there(
    folder: Path, classes: tuple[str, ...] = (), names: Mapping[str, str] = SPLIT_NAMES
) -> list[str]:
    """The splits that have a folder. names: split -> its folder.

    A class folder of that name (CIFAR-100 has "train") is not a split. Neither is a
    test folder without class folders beside other splits, as ImageNet's unlabelled test
    images are in.
    """
    present = [s for s in SPLITS if (folder / names[s]).is_dir()]
    present = [
        s
        for s in present
        if names[s] not in classes
        or any((folder / names[s] / c).is_dir() for c in classes)
    ]
    unlabelled = classes and present[1:] and _is_flat(folder / names[present[-1]])
    return present[:-1] if unlabelled and present[-1] == "test" else present


def _is_flat(folder: Path) -> bool:
    with os.scandir(folder) as files:  # fast for ImageNet's 100,000 files
        return not any(file.is_dir() for file in files)


def split_folders(
    folder: Path, split: str, names: Mapping[str, str], classes: tuple[str, ...] = ()
) -> list[tuple[Path, float, float, list[str]]]:
    """(folder, percent from, to, id prefix) for each folder of a split."""
    name, low, high = parse_split(split)
    if present := splits_there(folder, classes, names):
        wanted = present if name == "all" else [name]
        if wanted[0] not in present:
            raise no_split(folder, name, present)
        return [(folder / names[s], low, high, [s]) for s in wanted]
    start, end = (0, 100) if name == "all" else HASH_SPLITS[name]
    width = (end - start) / 100
    return [(folder, start + low * width, start + high * width, [])]


def no_split(where: Path, name: str, present: Sequence[str]) -> FileNotFoundError:
    """The error for a split that the archive does not have, naming those it has."""
    there = where / name
    unlabelled = f" ({there} has no class folders)" if there.is_dir() else ""
    return FileNotFoundError(
        f"{where}: no split {name!r}{unlabelled}; it has {', '.join(present)}. Use one"
        f" of them or a part, such as '{present[0]}[90%:]'"
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    """{name without suffix: file}, of files in folders within with their folders.

    Raises ValueError for files with the same name.
    """
    found: dict[str, Path] = {}
    for path in images_in(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise ValueError(
                f"{path}: {found[stem].name} has the same name; keep one of them"
            )
        found[stem] = path
    return found


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones and archive leftovers."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._"]
    return sorted(found)


def images_in(folder: Path) -> list[Path]:
    """The images in a folder and in folders within it, sorted by name.

    Raises ValueError for a folder within it that has the name of a split.
    """
    found = sorted(_walk(str(folder), "")) if folder.is_dir() else []
    for name in found:
        first, *rest = name.split("/")
        if rest and first.lower() in _SPLIT_WORDS:
            raise ValueError(
                f"{folder}: a folder {first!r} is in it; the folders of the splits lie"
                f" above those of the classes or sensors: move {folder.name}/{first} to"
                f" {first}/{folder.name}"
            )
    return [folder / name for name in found]


_SPLIT_WORDS = {*SPLITS, "training", "valid", "validation", "testing"}


def _walk(folder: str, below: str) -> Iterator[str]:
    """Yields the images below a folder; below: its path below the first one, with "/".

    Hidden files are left out, such as the "._name.jpg" that macOS leaves beside a
    copied name.jpg, and a link to a folder above.
    """
    with os.scandir(folder) as files:
        for file in files:
            if file.name.startswith(".") or file.name == "__MACOSX":
                continue
            if file.is_dir():
                if not file.is_symlink() or not _is_above(file.path, folder):
                    yield from _walk(file.path, f"{below}{file.name}/")
            elif file.name.lower().endswith(SUFFIXES):
                yield below + file.name


def _is_above(link: str, folder: str) -> bool:
    real = os.path.realpath(link)
    return os.path.commonpath([real, os.path.realpath(folder)]) == real


_LOOKED = 10_000  # files at which the search for other files ends


def files_there(folder: Path) -> str:
    """What a folder holds beside images, and what is read; for an error."""
    files = (file for _, _, names in os.walk(folder) for file in names)
    looked = [f for f in itertools.islice(files, _LOOKED) if not f.startswith(".")]
    counts = Counter(Path(file).suffix or "no suffix" for file in looked)
    if counts and all(suffix.lower() in SUFFIXES for suffix in counts):
        return ""
    held = first_of([f"{suffix} ({n})" for suffix, n in counts.most_common()])
    return f"; its files are {held or 'none'}, and images are {', '.join(SUFFIXES)}"
