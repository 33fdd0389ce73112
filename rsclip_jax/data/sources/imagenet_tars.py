"""ImageNet's tars as downloaded; images are read without unpacking.

ILSVRC2012_img_train.tar holds one tar for each class, <synset>.tar, of <image>.JPEG.
ILSVRC2012_img_val.tar holds the images only. LOC_val_solution.csv beside it has a line
"ImageId,PredictionString" for each image, whose second cell begins with the synset.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from rsclip_jax.data.codecs.images import decode_image
from rsclip_jax.data.codecs.tars import Member, walk_once
from rsclip_jax.data.readers.folders import in_split, parse_split
from rsclip_jax.data.types import DEFAULTS, Dataset, OpenOptions, Record, Source
from rsclip_jax.io.texts import read_csv, shown

TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
SOLUTION = "LOC_val_solution.csv"


class TarImages(Source):
    """Reads a split's images from the tars, in any order and from any thread."""

    def __init__(
        self,
        dataset: Dataset,
        folder: Path,
        split: str,
        options: OpenOptions = DEFAULTS,
    ):
        self.dataset, self.split, self.ids = dataset, split, list[str]()
        self.max_nodata, self.max_pixels = options.max_nodata, options.max_pixels
        self._members: list[tuple[Path, Member]] = []
        self._labels: list[int] = []
        name, _, _ = parse_split(split)
        wanted = in_split(split, made=True)
        there = [part for part, tar in TARS.items() if (folder / tar).is_file()]
        for part in there if name == "all" else (name,):
            found = _list_part(folder, part)
            if strange := sorted(set(found) - set(dataset.classes)):
                raise ValueError(
                    f"{folder / TARS[part]}: {strange[0]!r} is not a class of"
                    f" {dataset.name}: is this another tar?"
                )
            for label, synset in enumerate(dataset.classes):
                for member in sorted(found.get(synset, [])):
                    key = f"{synset}/{_stem(member)}"
                    if wanted(key):
                        self.ids.append(f"{part}/{key}")
                        self._members.append((folder / TARS[part], member))
                        self._labels.append(label)

    def read(self, index: int, keys: Collection[str]) -> Record:
        record: Record = {"id": self.ids[index], "label": self._labels[index]}
        if "rgb" in keys:
            path, member = self._members[index]
            with path.open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), member.size, member.offset)
            where = f"{path}: {member.name}"
            record["rgb"] = decode_image(data, where, max_pixels=self.max_pixels)
        return record


def _list_part(folder: Path, part: str) -> dict[str, list[Member]]:
    """{synset: its images} in the tar of train or val.

    Raises FileNotFoundError if the tar does not exist.
    """
    path = folder / TARS.get(part, "")
    if part not in TARS or not path.is_file():
        there = ", ".join(s for s, tar in TARS.items() if (folder / tar).is_file())
        raise FileNotFoundError(f"{folder}: no tar of split {part!r}; it has {there}")
    found: dict[str, list[Member]] = {}
    if part == "train":
        for tar in walk_once(path):
            found[_stem(tar)] = list(walk_once(path, tar))
        return found
    synsets: dict[str, str] = {}
    for image, synset in _read_solution(folder / SOLUTION):
        if image in synsets:
            raise ValueError(f"{folder / SOLUTION}: {image} is listed twice")
        synsets[image] = synset
    for member in walk_once(path):
        if _stem(member) not in synsets:
            raise ValueError(f"{folder / SOLUTION}: no line for {_stem(member)}")
        found.setdefault(synsets[_stem(member)], []).append(member)
    return found


def _read_solution(path: Path) -> Iterator[tuple[str, str]]:
    """(image, synset) of each line."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. It has the classes of the images in"
            f" {TARS['val']} and comes with ImageNet's download from Kaggle. Or sort"
            " the images into val/<synset>/ by the ground truth and the meta.mat of"
            " ILSVRC2012_devkit_t12"
        )
    rows = read_csv(path)
    _, header = next(rows, (0, []))
    for line, cells in rows:
        row = dict(zip(header, cells, strict=False))
        synset, *_ = row.get("PredictionString", "").split() or [""]
        if not row.get("ImageId") or not synset:
            raise ValueError(
                f"{path}, line {line}: a line without ImageId or synset: {shown(cells)}"
            )
        yield row["ImageId"], synset


def _stem(member: Member) -> str:
    return Path(member.name).stem
