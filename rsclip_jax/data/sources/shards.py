"""The tars of a WebDataset and the samples in them, found by their headers."""

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from rsclip_jax.data.codecs.tars import Member, walk_tar
from rsclip_jax.io.texts import first_of, read_lines, read_text


def first_shard(folder: Path) -> Path:
    """The first tar of the first split that has any."""
    for split in ("test", "val", "train", ""):
        if (folder / split).is_dir() and (shards := list_shards(folder / split)):
            return shards[0]
    raise FileNotFoundError(
        f"{folder}: no train, val or test with 0.tar, 1.tar, ... in it"
    )


def list_shards(folder: Path) -> list[Path]:
    """A split's tars, whose number is in nshards.txt; [] for a folder without tars."""
    names = [p.name for p in folder.iterdir()]
    found = _numbered(folder, names)
    for name in sorted(n for n in names if re.fullmatch(r"\d+\.(tar\.gz|tgz)", n)):
        stem, _, suffix = name.partition(".")
        if int(stem) not in found:
            raise ValueError(
                f"{folder / name}: compressed tars have no random access; unpack all"
                f" of them once: gunzip {shlex.quote(str(folder))}/*.{suffix}"
            )
    if not found and not (folder / "nshards.txt").exists():
        return []
    count = read_count(folder / "nshards.txt", "the number of its tars")
    width = len(Path(next(iter(found.values()), "0.tar")).stem)
    missing = [f"{i:0{width}d}.tar" for i in range(count) if i not in found]
    if missing or not count:
        raise FileNotFoundError(
            f"{folder}: nshards.txt says {count} tars, but {first_of(missing)}"
            f" ({len(missing)}) do not exist; fetch them, or correct nshards.txt"
        )
    if more := [name for i, name in found.items() if i >= count]:
        raise ValueError(
            f"{folder}: nshards.txt says {count} tars, but {first_of(more)} are there,"
            " too; correct nshards.txt, or remove them"
        )
    return [folder / found[i] for i in range(count)]


def _numbered(folder: Path, names: Iterable[str]) -> dict[int, str]:
    """{number: tar} of tars such as 0.tar or 00000.tar.

    Raises ValueError for two tars of one number.
    """
    found: dict[int, str] = {}
    for name in sorted(n for n in names if re.fullmatch(r"\d+\.tar", n)):
        if (number := int(Path(name).stem)) in found:
            raise ValueError(
                f"{folder}: {found[number]} and {name} have the same number; remove the"
                " tars of one download"
            )
        found[number] = name
    return found


def read_count(path: Path, what: str) -> int:
    """A file's number. what: what it counts, for the errors."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; write {what} into it")
    text = read_text(path).strip()
    if not text.isdigit():
        raise ValueError(f"{path}: {text!r:.40} is not {what}")
    return int(text)


def entries_of(path: Path) -> tuple[str, ...]:
    """A file's lines that are not blank; one at least."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; write it with one entry per line")
    lines = tuple(line for _, line in read_lines(path))
    if not lines:
        raise ValueError(f"{path} is empty; write one entry per line into it")
    return lines


def first_sample(shard: Path) -> tuple[str, dict[str, Member]]:
    """(key, {extension: member}) of a tar's first sample."""
    samples = samples_of(shard)
    first = next(samples, ("", dict[str, Member]()))
    next(samples, None)  # raises if the tar is cut within the first sample
    return first


def samples_of(shard: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yields (key, {extension: member}) for consecutive members that share a key.

    A second member with an extension begins another sample of the same key.
    Ends in walk_tar's ValueError if the tar is cut, after the last whole sample.
    """
    last, sample, fault = "", dict[str, Member](), None
    try:
        for member in walk_tar(shard):
            top, _, base = member.name.removeprefix("./").rpartition("/")
            if base.startswith("._"):  # macOS's tar puts one before each member
                continue
            key, _, extension = base.partition(".")
            key = f"{top}/{key}" if top else key
            # Zavras et al. write the key ".cls", which gives "<key>..cls"
            extension = extension.lower().lstrip(".")
            if sample and (key != last or extension in sample):
                yield last, sample
                sample = {}
            last, sample[extension] = key, member
    except ValueError as error:
        fault = error
    if sample:
        yield last, sample
    if fault:
        raise fault
