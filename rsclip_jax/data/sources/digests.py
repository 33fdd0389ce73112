"""Digests of a source, which identify the examples behind a number."""

import hashlib

import numpy as np

from rsclip_jax.data.types import Source


def split_digest(source: Source) -> str:
    """Digest of the dataset's name and the ids in order.

    It identifies the examples behind a number. For a custom dataset it includes the
    digest of its TOML file.
    """
    dataset = source.dataset
    name = f"{dataset.name} {dataset.custom.digest}" if dataset.custom else dataset.name
    text = "\n".join([name, *source.ids])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def labels_digest(source: Source) -> str:
    """Digest of the labels in order and of the classes, for a custom dataset's table.

    It is "" for other datasets: their ids contain the labels.
    """
    dataset = source.dataset
    if dataset.custom is None or dataset.custom.table is None or dataset.task == "none":
        return ""
    labels = [source.read(i, ())["label"] for i in range(len(source))]
    found = hashlib.sha256("\n".join(dataset.classes).encode())
    found.update(np.asarray(labels, "<i8").tobytes())
    return found.hexdigest()[:16]
