"""fMoW-rgb (Christie et al., arXiv 1711.07846), as it is downloaded.

<split>/<class>/<class>_<place>/<class>_<place>_<time>_rgb.jpg    beside it .json
                                <class>_<place>_<time>_msrgb.jpg  not read

The label is that of a box in the image, which the .json gives as [x, y, width, height];
what is read is the box with the context that fMoW's baseline leaves around it. Images
without a .json were cut before, and are read whole.

A csv (train_62classes.csv or train.csv) beside the split folders, or above them, says
which images a split has; where any lies, a split without one is none. Its columns are
category, location_id and image_id; or, as SatMAE's scripts read theirs, by place: the
label, the image's path, ...
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rsclip_jax.data.readers.folders import in_split, no_split, parse_split
from rsclip_jax.data.types import SPLITS, Entry, Listing

_COLUMNS = ("category", "location_id", "image_id")
# A box narrower than this share of the image gets this much of its width around it.
_CONTEXT = ((0.1, 2.0), (0.2, 1.0), (0.3, 0.5), (0.4, 0.3), (0.5, 0.2), (np.inf, 0.15))


def fmow_entries(folder: Path, split: str, classes: tuple[str, ...]) -> Listing:
    """Lists a split; images that a csv names and that do not exist are absent.

    A part such as "train[:90%]" is chosen by the hash of the location, so the images of
    one location are never in two parts.
    """
    name, _, _ = parse_split(split)
    sheets = _find_csvs(folder)
    present = list(sheets) or [s for s in SPLITS if _class_folders(folder / s, classes)]
    if not present:
        raise FileNotFoundError(
            f"{folder}: no csv such as train_62classes.csv, and no class folders such"
            f" as train/{classes[0]}"
        )
    wanted = present if name == "all" else [name]
    if wanted[0] not in present:
        raise no_split(next(iter(sheets.values()), folder), name, present)
    in_part = in_split(split, made=True)
    entries: list[Entry] = []
    absent: dict[Path, list[str]] = {}
    for one in wanted:
        if one in sheets:
            paths, lost = _csv_images(sheets[one], folder, one, classes)
            absent |= {sheets[one]: lost} if lost else {}
        else:
            below = _class_folders(folder / one, classes)
            paths = [p for base in below for p in sorted(base.rglob("*_rgb.jpg"))]
        entries += [_entry(p, folder) for p in paths if in_part(_place(p, folder))]
    rule = ", ".join(sheets[s].name for s in wanted if sheets)
    return Listing(entries, absent=absent, rule=rule)


def _entry(path: Path, folder: Path) -> Entry:
    parts = path.relative_to(folder).with_suffix("").parts
    return Entry(
        "/".join(parts),
        parts[1],
        {"rgb": path},
        box_file=_box_file(path),
        hash_key=_place(path, folder),
    )


def _box_file(path: Path) -> Path | None:
    file = path.with_suffix(".json")
    return file if file.exists() else None


def _place(path: Path, folder: Path) -> str:
    return "/".join(path.relative_to(folder).parts[1:3])


def _find_csvs(folder: Path) -> dict[str, Path]:
    for base in (folder, folder.parent):
        found: dict[str, Path] = {}
        for split in SPLITS:
            for name in (f"{split}_62classes.csv", f"{split}.csv"):
                if (base / name).is_file():
                    found.setdefault(split, base / name)
        if found:
            return found
    return {}


def _class_folders(base: Path, classes: tuple[str, ...]) -> list[Path]:
    """Of the classes that are there: a part of the set can be downloaded.

    The test images have none before the ground truth is joined to them.
    """
    return [base / c for c in classes if (base / c).is_dir()]


def _csv_images(
    sheet: Path, folder: Path, split: str, classes: tuple[str, ...]
) -> tuple[list[Path], list[str]]:
    """(the images that there are, the others' names) in the csv's order."""
    paths: list[Path] = []
    absent: list[str] = []
    seen: set[Path] = set()
    for path in _csv_paths(sheet, folder, split):
        category = path.relative_to(folder).parts[1]
        if category not in classes:
            raise ValueError(f"{sheet}: category {category!r} is not one of fMoW's 62")
        if path in seen:
            raise ValueError(f"{sheet}: {path.name} stands twice; remove one row")
        seen.add(path)
        if path.exists():
            paths.append(path)
        else:
            absent.append(str(path.relative_to(folder)))
    return paths, absent


def _csv_paths(sheet: Path, folder: Path, split: str) -> Iterator[Path]:
    with sheet.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        places = [header.index(c) for c in _COLUMNS if c in header]
        for number, row in enumerate(rows, 2):
            if len(places) == len(_COLUMNS):
                if len(row) <= max(places):
                    raise ValueError(f"{sheet}, line {number}: cut short: {row}")
                category, place, image = (row[i] for i in places)
                stem = f"{category}_{place}"
                name = f"{stem}_{image}_rgb.jpg"
                yield folder / split / category / stem / name
            elif len(row) > 1 and row[1].lower().endswith(".jpg"):
                yield _by_path(sheet, row[1], folder, split)
            else:
                missing = [c for c in _COLUMNS if c not in header]
                raise ValueError(
                    f"{sheet}: no column {', '.join(missing)}; it has"
                    f" {', '.join(header) or 'none'}, and its second column is no path"
                    " of a .jpg"
                )


def _by_path(sheet: Path, text: str, folder: Path, split: str) -> Path:
    """The path from its split's folder on, wherever the csv's author kept it."""
    parts = Path(text).parts
    if split not in parts or len(parts) - parts.index(split) < 4:
        raise ValueError(
            f"{sheet}: {text} is not {split}/<class>/<class>_<place>/<image>.jpg"
        )
    return folder.joinpath(*parts[parts.index(split) :])


def crop_to_box(array: np.ndarray, file: Path, category: str) -> np.ndarray:
    """The part of an image [h, w, c] that its .json's box of that category asks for."""
    left, top, width, height = read_box(file, category)
    rows = _span(top, height, array.shape[0], file)
    columns = _span(left, width, array.shape[1], file)
    return np.ascontiguousarray(array[rows, columns])  # the whole one is let go


def read_box(file: Path, category: str) -> tuple[int, int, int, int]:
    """(x, y, width, height) in pixels; of several, the first of the category."""
    try:
        boxes = json.loads(file.read_text("utf-8"))["bounding_boxes"]
        boxes = boxes if isinstance(boxes, list) else [boxes]
        named = [b for b in boxes if b.get("category") == category]
        x, y, width, height = map(int, (named or boxes)[0]["box"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file}: no readable bounding_boxes ({error}); fetch the file again"
        ) from error
    return x, y, width, height


def _span(start: int, length: int, side: int, file: Path) -> slice:
    share = next(context for limit, context in _CONTEXT if length / side < limit)
    around = int(length * share / 2)
    first, end = max(start - around, 0), min(start + length + around, side)
    if length < 1 or first >= end:
        raise ValueError(
            f"{file}: a box from {start} over {length} pixels lies outside the image's"
            f" {side}; fetch both files again"
        )
    return slice(first, end)
