"""A pack's files beside its shards: labels, captions and the manifest."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsclip_jax.data.sources.manifest import (
    CAPTIONS,
    FORMATS,
    LABELS,
    describe_own,
    describe_sensors,
    entries_of,
    ids_digest,
)
from rsclip_jax.data.sources.packed import hash_spans, part_of
from rsclip_jax.data.types import Dataset, Source
from rsclip_jax.io.files import naming, write_bytes


def append_line(path: Path, line: dict) -> None:
    """Appends a line of JSON; a kill leaves it whole, cut or absent."""
    with naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def write_beside(folder: Path, files: dict[str, bytes]) -> dict[str, str]:
    """Writes files {name: bytes}; returns {name: SHA-256}, as read_beside needs it."""
    for name, data in files.items():
        write_bytes(folder / name, data)
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def as_text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def read_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def labels_beside(dataset: Dataset, notes: list[dict]) -> dict[str, bytes]:
    """labels.npy and captions.jsonl, made from the shards' notes."""
    if not all("labels" in note for note in notes):  # written by an older version
        return {}
    labels = [label for note in notes for label in note["labels"]]
    if dataset.task == "multi":
        array = np.zeros((len(labels), len(dataset.classes)), np.uint8)
        for hot, some in zip(array, labels, strict=True):
            hot[some] = 1
    else:
        array = np.array(labels, np.int64)
    file = io.BytesIO()
    np.save(file, array)
    found = {LABELS: file.getvalue()}
    if dataset.task == "captions":
        lines = [json.dumps(texts) for note in notes for texts in note["captions"]]
        found[CAPTIONS] = as_text(lines).encode()
    return found


def describe(
    source: Source, ids: list[str], span: list[float] | None, provenance: dict
) -> dict:
    """A manifest's description of a dataset's split, without its files."""
    dataset = source.dataset
    return {
        "format": FORMATS[bool(entries_of(dataset))],
        "dataset": dataset.name,
        "split": source.split,
        "split_rule": source.split_rule,
        "task": dataset.task,
        "sensors": describe_sensors(dataset.sensors),
        "classes": list(dataset.classes),
        "classnames": list(dataset.classnames),
        "own": describe_own(dataset),
        "templates": list(dataset.templates),
        "records": len(ids),
        "ids_sha256": ids_digest(ids),
        "parts": span,  # the split's range of the ids' hash, in percent
        "provenance": provenance,
    }


def find_span(source: Source, half: Sequence[str] | None) -> list[float] | None:
    """The hash range of a split with which its parts equal those of the archive.

    half: the ids of the archive's "[:50%]". Returns None if no range gives these ids.
    """
    whole, *fixed = hash_spans(source.split)
    in_folders = source.ids[0].startswith(f"{source.split}/")
    keys = source.hash_keys
    for span in (whole, *fixed) if in_folders else (*fixed, whole):
        indices = part_of(keys, span, 0, 50)
        agree = half is not None and [source.ids[i] for i in indices] == list(half)
        if agree and len(part_of(keys, span, 0, 100)) == len(keys):
            return span
    return None
