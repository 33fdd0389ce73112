"""Captioned images in Karpathy's JSON: RSICD, RSITMD, UCM-captions, Sydney-captions.

<folder>/<name>.json, {"images": [{"filename", "split", "sentences": [{"raw"}, ...]}]},
beside a folder of images. RSICD (Lu et al. 2017, arXiv 1712.07835) has five sentences
per image, but most images repeat some. UCM- and Sydney-captions: Qu et al. 2016.
RSITMD (Yuan et al. 2021) has only train and test.
"""

from pathlib import Path
from typing import Any

from rsclip_jax.data.codecs.images import SUFFIXES
from rsclip_jax.data.readers.folders import hash_percent, in_split, parse_split
from rsclip_jax.data.types import SPLITS, Entry, Listing
from rsclip_jax.io.files import parse_json
from rsclip_jax.io.texts import shown

# Dataset -> possible paths of its JSON, and of its images; the archive's names first.
FILES = {
    "rsicd": (
        ("dataset_rsicd.json", "annotations_rsicd/dataset_rsicd.json"),
        ("RSICD_images",),
    ),
    "rsitmd": (("dataset_RSITMD.json",), ("images",)),
    "ucm_captions": (("dataset.json", "dataset_ucm.json"), ("imgs", "images")),
    "sydney_captions": (("dataset.json", "dataset_sydney.json"), ("imgs", "images")),
}
VAL_PERCENT = 20  # of train, if the JSON has no val


def caption_entries(folder: Path, name: str, split: str) -> Listing:
    """Lists a split in the file's order.

    Captions are the file's sentences, stripped. If the file has no val split, a fifth
    of train becomes val, by the hash of "val/<stem>". Faults are an image that does not
    exist, is listed twice or has no caption, which is left out, and an empty sentence,
    without which the image is kept. Raises ValueError for a file in another format.
    """
    files, folders = FILES[name]
    path, images = _first_of(folder, files), _Images(_first_of(folder, folders))
    listed = _read_listed(path)
    made = any(image["split"] == "val" for image in listed)
    wanted, part = parse_split(split)[0], in_split(split, made=True)
    entries, faults = [], []
    seen: set[str] = set()
    for image in listed:
        stem = Path(image["filename"]).stem
        again = stem in seen
        seen.add(stem)
        if wanted not in ("all", _split_of(image, stem, made)) or not part(stem):
            continue
        captions = tuple(filter(None, (s["raw"].strip() for s in image["sentences"])))
        file = images.find(image["filename"])
        if again:
            faults.append(f"{stem} is listed twice")
        elif file is None:
            faults.append(f"{image['filename']} is not in {images.folder}")
        elif not captions:
            faults.append(f"{image['filename']} has no caption")
        else:
            if len(captions) < len(image["sentences"]):
                faults.append(f"{image['filename']} has an empty sentence")
            entries.append(Entry(stem, "", {"rgb": file}, captions=captions))
    return Listing(entries, faults={folder: faults} if faults else {})


def _split_of(image: dict[str, Any], stem: str, made: bool) -> str:
    if made or image["split"] != "train":
        return image["split"]
    return "val" if hash_percent(f"val/{stem}") < VAL_PERCENT else "train"


def _read_listed(path: Path) -> list[dict[str, Any]]:
    """Reads and checks the JSON's images: filename, split and sentences."""
    data, at = path.read_bytes(), "the file"
    try:
        listed = parse_json(data, at)["images"]
        for i, image in enumerate(listed):
            at = f"images[{i}]"
            _check_image(image)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: cut short, or not a captions file ({len(data):,} bytes; {at}:"
            f" {type(error).__name__}: {error}), expected {{'images': [{{'filename',"
            " 'split', 'sentences': [{'raw'}, ...]}, ...]}; fetch it again"
        ) from error
    return listed


def _check_image(image: dict[str, Any]) -> None:
    texts = [image["filename"], *(s["raw"] for s in image["sentences"])]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"not text in {shown(image)}")
    if image["split"] not in SPLITS:
        raise ValueError(
            f"{image['filename']} has split {shown(image['split'])}, expected"
            f" {', '.join(SPLITS)}"
        )


class _Images:
    """The images of a folder by name, or by stem where they were converted."""

    def __init__(self, folder: Path):
        self.folder = folder
        there = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES]
        self._names = {p.name: p for p in there}
        self._stems = {p.stem: p for p in sorted(there, reverse=True)}

    def find(self, name: str) -> Path | None:
        return self._names.get(name) or self._stems.get(Path(name).stem)


def _first_of(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{folder}: no {' or '.join(names)} in it")
