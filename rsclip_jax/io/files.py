"""Atomic writes, and JSON whose errors name the file."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file that replaces `path` when the block ends.

    A killed process leaves the whole old or new file; a block that raises leaves the
    old one. The temporary file is `path` with ".tmp" appended. Creates the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the path to an OSError from writing, such as a full disk."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} could not be written: {error}") from error


def write_bytes(path: Path, data: bytes) -> None:
    with naming(path), replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, sort_keys: bool = True) -> None:
    text = json.dumps(value, indent=1, sort_keys=sort_keys) + "\n"
    write_text(path, text)


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    with naming(path), replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError naming a file that is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # includes decoding errors
        raise ValueError(f"{path} is not valid JSON: {error}") from error
