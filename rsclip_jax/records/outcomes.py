"""A model's outputs on a split, kept for pictures and comparisons: one .npz each."""

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax.data.specs import DatasetSpec
from rsclip_jax.io.files import write_npz

ARRAYS = ("labels", "head", "ztxt", "owners")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A model's outputs on a split, in the order of its ids.

    pins: stage, dataset, split, split_digest, prompts, prompt_set, step and tile, as in
    a Result; the dataset's task; checkpoint as {sensor: digest}.

    z: {sensor: unit-norm embeddings [n, d]}, including RGB and fused sensors. labels:
    [n], multi-hot [n, k] or None. head: [d, k] for classnames; logits = z @ head. For
    captions: ztxt [m, d], and owners [m], the index of each caption's image.
    """

    pins: Mapping[str, Any]
    ids: tuple[str, ...]
    z: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    classnames: tuple[str, ...] = ()
    head: np.ndarray | None = None
    ztxt: np.ndarray | None = None
    owners: np.ndarray | None = None

    @property
    def name(self) -> str:
        """The dataset as in settings: "name:split" or "name:split:tile"."""
        pins = self.pins
        spec = DatasetSpec(pins["dataset"], pins["split"], pins.get("tile") or 0)
        return str(spec)

    @property
    def file_name(self) -> str:
        """The name as a file name: "cifar10:train[95%:]" is cifar10-train[95_-]."""
        return re.sub(r"[^\w.\[\]-]", "_", self.name.replace(":", "-"))

    def logits(self, sensor: str) -> np.ndarray:
        """Zero-shot logits [n, k] from a sensor. Raises ValueError without a head."""
        if self.head is None:
            raise ValueError(f"{self.name} has no classes, so there are no logits")
        return self.z[sensor] @ self.head


def save_outcome(folder: Path, outcome: Outcome) -> Path:
    """Writes folder/<file_name>.npz atomically; returns its path."""
    path = folder / f"{outcome.file_name}.npz"
    text = {"pins": dict(outcome.pins), "classnames": outcome.classnames}
    arrays = {key: getattr(outcome, key) for key in ARRAYS}
    arrays = {key: array for key, array in arrays.items() if array is not None}
    arrays |= {f"z/{sensor}": z for sensor, z in outcome.z.items()}
    arrays["ids"] = np.array(outcome.ids, dtype=str)
    arrays["text"] = np.array(json.dumps(text))
    write_npz(path, **arrays)
    return path


def load_outcome(path: Path) -> Outcome:
    """Reads a file of save_outcome. Raises ValueError for any other file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = {key: stored[key] for key in stored.files}
        text = json.loads(str(found["text"]))
        z = {k.removeprefix("z/"): v for k, v in found.items() if k.startswith("z/")}
        outcome = Outcome(
            pins={**text["pins"]},
            ids=tuple(found["ids"].tolist()),
            z=z,
            classnames=tuple(text["classnames"]),
            **{key: found[key] for key in ARRAYS if key in found},
        )
        _check_counts(outcome)
        return outcome
    except Exception as error:  # a damaged zip file raises many kinds
        raise ValueError(
            f"{path}: not a file of kept embeddings ({type(error).__name__}: {error});"
            " delete it to continue without it, or delete the stage's folder to run"
            " the stage again"
        ) from error


def _check_counts(outcome: Outcome) -> None:
    """Raises ValueError if arrays of one row an example differ in length."""
    n = len(outcome.ids)
    for name, array in {**outcome.z, "labels": outcome.labels}.items():
        if array is not None and len(array) != n:
            raise ValueError(f"{name} has {len(array)} rows for {n} ids")


def load_outcomes(folder: Path) -> list[Outcome]:
    """All outcomes of a folder by file name; [] if there is no folder."""
    return [load_outcome(path) for path in sorted(folder.glob("*.npz"))]


def find_mismatch(
    a: Outcome, b: Outcome, names: tuple[str, str], *, prompts: bool = True
) -> str:
    """How the examples or texts of two outcomes differ; "" if they are the same.

    names: how the message calls the two. prompts: whether to compare the prompts.
    """
    for pin in ("split_digest", *(("prompts",) if prompts else ())):
        if (one := a.pins.get(pin)) != (other := b.pins.get(pin)):
            return f"{pin} is {one!r} in {names[0]} and {other!r} in {names[1]}"
    if a.ids != b.ids:
        pairs = itertools.zip_longest(a.ids, b.ids)
        i, (one, other) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
        return f"id {i} is {one!r} in {names[0]} and {other!r} in {names[1]}"
    for name in ("labels", "owners"):
        one, other = getattr(a, name), getattr(b, name)
        if one is not None and other is not None and not np.array_equal(one, other):
            return f"{name} of {names[0]} differ from those of {names[1]}"
    return ""
