"""Files in a dataset's folders that no record uses."""

import os
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from rsclip_jax.data.codecs.images import SUFFIXES
from rsclip_jax.data.sources.files import FileSource
from rsclip_jax.data.types import Source


def find_unread(
    sources: Collection[Source],
) -> tuple[dict[Path, int], list[Path]] | None:
    """Finds files in a dataset's folders that no record uses.

    It looks into the folders of the records' files, and beside class folders at other
    folders and images. Hidden files and a source's left_out do not count.

    Args:
      sources: all splits of the dataset.

    Returns:
      ({folder that is not a class: the number of its files}, unused files). None where
      records are not in files of their own, or have one file per band (millions).
    """
    files = [source for source in sources if isinstance(source, FileSource)]
    if len(files) < len(sources) or any(map(_one_file_per_band, files)):
        return None
    used = {name for source in files for name, _ in source.left_out}
    dirs: set[str] = set()
    tops: set[str] = set()  # folders of class folders
    for source in files:
        for entry in source.entries:
            more = (entry.label_file, entry.box_file)
            for file in map(str, filter(None, (*entry.files.values(), *more))):
                used.add(file)
                folder = os.path.dirname(file)
                dirs.add(folder)
                parts = folder.split(os.sep)
                if entry.label in parts:  # images may be in folders within the class's
                    last = len(parts) - parts[::-1].index(entry.label)
                    tops.add(os.sep.join(parts[: last - 1]))
    classes = {c for source in files for c in source.dataset.classes}
    strange: dict[Path, int] = {}
    unread = [file for folder in dirs for file in _files(folder)]
    for top in tops:
        unread += [f for f in _files(top) if f.lower().endswith(SUFFIXES)]
        for folder in sorted(_folders(top) - dirs):
            if os.path.basename(folder) in classes:
                unread += _files(folder)  # a class without any record
            else:
                strange[Path(folder)] = sum(len(f) for _, _, f in os.walk(folder))
    return strange, sorted(Path(file) for file in set(unread) - used)


def find_nested(sources: Collection[Source]) -> dict[str, int]:
    """{"<class>/<folder>": the images in it} of folders within a class's folder."""
    found: Counter[str] = Counter()
    for source in sources:
        if not isinstance(source, FileSource) or _one_file_per_band(source):
            continue
        for entry in source.entries if source.dataset.task == "single" else ():
            for file in map(str, entry.files.values()):
                parts = os.path.dirname(file).split(os.sep)
                if entry.label in parts[:-1]:
                    last = len(parts) - 1 - parts[::-1].index(entry.label)
                    found["/".join(parts[last:])] += 1
    found.pop("", None)
    return {name: n for name, n in sorted(found.items()) if "/" in name}


def _one_file_per_band(source: FileSource) -> bool:
    first = source.entries[:1]
    return any(isinstance(f, tuple) for entry in first for f in entry.files.values())


def _files(folder: str) -> list[str]:
    return _listed(folder, os.DirEntry.is_file)


def _folders(folder: str) -> set[str]:
    return set(_listed(folder, os.DirEntry.is_dir))


def _listed(folder: str, kind: Callable[[os.DirEntry], bool]) -> list[str]:
    if not os.path.isdir(folder):  # a record may name a folder that is missing
        return []
    with os.scandir(folder) as found:
        return [x.path for x in found if kind(x) and not x.name.startswith(".")]
