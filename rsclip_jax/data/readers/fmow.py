"""fMoW-rgb (Christie et al., arXiv 1711.07846) as downloaded.

<split>/<class>/<class>_<location>/<class>_<location>_<time>_rgb.jpg    with a .json
                                   <class>_<location>_<time>_msrgb.jpg  not read

The label belongs to a box in the image, which the .json gives as [x, y, width, height].
An example is the box with the context around it that fMoW's baseline uses. Images
without a .json are already cropped and are read whole.

A csv (train_62classes.csv or train.csv) beside the split folders, or above them, lists
the images of a split; if any csv exists, splits without one do not exist. Its columns
are category, location_id and image_id; or, as for SatMAE's scripts, the label, the
image's path, ...
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rsclip_jax.data.readers.folders import in_split, no_split, parse_split
from rsclip_jax.data.types import SPLITS, Entry, Listing
from rsclip_jax.io.files import read_json
from rsclip_jax.io.texts import clip, read_csv, shown

_SIDES = ("height", "width")
_STRETCH = 1.02  # sides of a smaller copy are rounded, each by less than this
_COLUMNS = ("category", "location_id", "image_id")
# Where a box is narrower than this share of the image, context of this share of the
# box's width is added around it.
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
            paths = [
                p
                for base in below
                for p in sorted(base.rglob("*"))
                if p.name.lower().endswith("_rgb.jpg") and p.name[0] != "."
            ]
        entries += [_entry(p, folder) for p in paths if in_part(_location(p, folder))]
    rule = ", ".join(sheets[s].name for s in wanted if sheets)
    return Listing(entries, absent=absent, rule=rule)


def _entry(path: Path, folder: Path) -> Entry:
    parts = path.relative_to(folder).with_suffix("").parts
    return Entry(
        "/".join(parts),
        parts[1],
        {"rgb": path},
        box_file=_box_file(path),
        hash_key=_location(path, folder),
    )


def _box_file(path: Path) -> Path | None:
    file = path.with_suffix(".json")
    return file if file.exists() else None


def _location(path: Path, folder: Path) -> str:
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
    """The class folders that exist, since the download may be a part of the dataset.

    The test images are in class folders only once the ground truth is joined to them.
    """
    return [base / c for c in classes if (base / c).is_dir()]


def _csv_images(
    sheet: Path, folder: Path, split: str, classes: tuple[str, ...]
) -> tuple[list[Path], list[str]]:
    """(images that exist, names of the others) in the csv's order."""
    paths: list[Path] = []
    absent: list[str] = []
    seen: set[Path] = set()
    for path in _csv_paths(sheet, folder, split):
        category = path.relative_to(folder).parts[1]
        if category not in classes:
            raise ValueError(
                f"{sheet}: category {shown(category)} is not one of fMoW's 62"
            )
        if path in seen:
            raise ValueError(f"{sheet}: {path.name} occurs twice; remove one row")
        seen.add(path)
        if path.exists():
            paths.append(path)
        else:
            absent.append(str(path.relative_to(folder)))
    return paths, absent


def _csv_paths(sheet: Path, folder: Path, split: str) -> Iterator[Path]:
    rows = read_csv(sheet)
    _, header = next(rows, (0, []))
    columns = [header.index(c) for c in _COLUMNS if c in header]
    for number, row in rows:
        if len(columns) == len(_COLUMNS):
            if len(row) <= max(columns):
                raise ValueError(f"{sheet}, line {number}: cut short: {shown(row)}")
            category, location, image = (row[i] for i in columns)
            stem = f"{category}_{location}"
            name = f"{stem}_{image}_rgb.jpg"
            yield folder / split / category / stem / name
        elif len(row) > 1 and row[1].lower().endswith(".jpg"):
            yield _by_path(sheet, row[1], folder, split)
        else:
            missing = [c for c in _COLUMNS if c not in header]
            raise ValueError(
                f"{sheet}: no column {', '.join(missing)}; it has"
                f" {clip(', '.join(header), 300) or 'none'}, and its second column is"
                " not the path of a .jpg"
            )


def _by_path(sheet: Path, text: str, folder: Path, split: str) -> Path:
    """The image's path below its split's folder, from any path in a csv."""
    parts = Path(text).parts
    if split not in parts or len(parts) - parts.index(split) < 4:
        raise ValueError(
            f"{sheet}: {shown(text)} is not"
            f" {split}/<class>/<class>_<location>/<image>.jpg"
        )
    return folder.joinpath(*parts[parts.index(split) :])


def crop_to_box(array: np.ndarray, file: Path, category: str) -> np.ndarray:
    """Crops an image [h, w, c] to the box of a category in its .json.

    The image may be a smaller copy of the one that the .json describes.
    """
    left, top, width, height = read_box(file, category, array.shape[:2])
    rows = _span(top, height, array.shape[0], file)
    columns = _span(left, width, array.shape[1], file)
    return np.ascontiguousarray(array[rows, columns])  # frees the whole image


def read_box(
    file: Path, category: str, shape: Sequence[int]
) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the first box of a category.

    shape: (height, width) of the image, whose pixels the result is in. The file has its
    own in img_height and img_width.

    Raises ValueError for a file without a box, and for an image of another shape.
    """
    try:
        told = read_json(file)
        boxes = told["bounding_boxes"]
        boxes = boxes if isinstance(boxes, list) else [boxes]
        named = [b for b in boxes if b.get("category") == category]
        x, y, width, height = map(int, (named or boxes)[0]["box"])
        stated = [
            int(told.get(f"img_{k}", n)) for k, n in zip(_SIDES, shape, strict=True)
        ]
        if min(stated) < 1:
            raise ValueError(f"its image has {stated[1]} x {stated[0]} pixels")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file}: no readable bounding_boxes ({error}); fetch the file again"
        ) from error
    if stated == list(shape):
        return x, y, width, height
    down, across = (side / of for side, of in zip(shape, stated, strict=True))
    if not 1 / _STRETCH < down / across < _STRETCH:
        raise ValueError(
            f"{file}: says img_width {stated[1]} and img_height {stated[0]}, but the"
            f" image has {shape[1]} x {shape[0]} pixels: it is a part of that image, so"
            " the box is not in its pixels; fetch the image again"
        )
    left, top = round(x * across), round(y * down)
    wide = max(round(width * across), min(width, 1))
    high = max(round(height * down), min(height, 1))
    return left, top, wide, high


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
