"""Writes of whole files, all or none, and JSON whose errors name the file.

The paths are local, or in an object store (io/paths.py).
"""

import contextlib
import errno
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax.io.paths import ObjectPath, is_remote
from rsclip_jax.io.texts import shown

_REWRITE_SECONDS = 30.0  # a store limits how often one object is written


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary local file that becomes `path` at the end.

    A killed process leaves the whole old or new file; a block that raises leaves the
    old one. The temporary file is `path` with ".tmp" appended, or for an object store
    one of the same name in the system's temporary folder. Creates the folder.
    """
    if isinstance(path, ObjectPath):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
            path.upload(Path(folder) / path.name)
        return
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


_FULL = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EFBIG: "File too large",
}


def is_full(error: BaseException | None) -> bool:
    """Whether a write failed because the disk, or a quota, is full.

    Libraries raise other errors for it, whose text or cause says so.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(text in str(error) for text in _FULL.values()):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_bytes(path: Path, data: bytes) -> None:
    with naming(path), replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def append_text(path: Path, text: str) -> None:
    """Appends to a file, which it creates with its folder if it is not there.

    An object store cannot append: there the whole object is written again, all or none.
    """
    if is_remote(path):
        old = path.read_bytes() if path.exists() else b""
        write_bytes(path, old + text.encode())
        return
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text.encode())


class LineWriter:
    """Appends lines to a file: at once if it is local, in groups in an object store.

    There the object is written again at most every `seconds`, and by flush.
    """

    def __init__(self, path: Path, seconds: float = _REWRITE_SECONDS):
        self.path, self.seconds = path, seconds if is_remote(path) else 0.0
        self._waiting: list[str] = []
        self._last = time.monotonic()

    def add(self, line: str) -> None:
        """Appends one line, given without its line break."""
        self._waiting.append(f"{line}\n")
        if time.monotonic() - self._last >= self.seconds:
            self.flush()

    def flush(self) -> None:
        """Writes the lines that wait."""
        if self._waiting:
            append_text(self.path, "".join(self._waiting))
        self._waiting, self._last = [], time.monotonic()


def write_json(path: Path, value: Any, *, sort_keys: bool = True) -> None:
    text = json.dumps(value, indent=1, sort_keys=sort_keys) + "\n"
    write_text(path, text)


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    with naming(path), replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_json(path: Path, way: str = "") -> Any:
    """The content of a JSON file.

    way: what to do about a damaged file, for the error. Raises ValueError naming a file
    that is not JSON.
    """
    return parse_json(path.read_bytes(), str(path), way)


def parse_json(text: str | bytes, where: str, way: str = "") -> Any:
    """As read_json, from text; where: its name in the error."""
    try:
        return json.loads(text)
    except ValueError as error:  # includes decoding errors
        raise ValueError(f"{where} is not valid JSON: {error}{_after(way)}") from error
    except RecursionError as error:
        raise ValueError(
            f"{where} is JSON that is nested too deeply to be read{_after(way)}"
        ) from error


def read_object(path: Path, way: str = "") -> dict[str, Any]:
    """As read_json, for a file that has to hold a JSON object."""
    found = read_json(path, way)
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} holds {shown(found, 60)}, not a JSON object{_after(way)}"
        )
    return found


def _after(way: str) -> str:
    return f"; {way}" if way else ""


@contextlib.contextmanager
def local_folder(folder: Path) -> Iterator[Path]:
    """Yields a local folder for programs that write files by themselves.

    It is `folder` itself, or for an object store a temporary one whose files are
    uploaded when the block ends.
    """
    if not isinstance(folder, ObjectPath):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
        upload_tree(Path(temporary), folder)


def upload_tree(local: Path, folder: Any, *, but: str = "") -> None:
    """Uploads the files of a local folder, except one, by name, to an ObjectPath."""
    for path in sorted(local.rglob("*")):
        name = path.relative_to(local).as_posix()
        if path.is_file() and name != but:
            (folder / name).upload(path)


@contextlib.contextmanager
def local_copy(folder: Path) -> Iterator[Path]:
    """Yields a local folder with the files of `folder`, for programs that read them."""
    if not isinstance(folder, ObjectPath):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        for path in folder.files():
            local = Path(temporary) / str(path)[len(str(folder)) + 1 :]
            local.parent.mkdir(parents=True, exist_ok=True)
            path.download(local)
        yield Path(temporary)


def move_tree(folder: Path, target: Path) -> None:
    """Renames a folder, replacing the target; in an object store it copies first."""
    remove_tree(target)
    if not isinstance(folder, ObjectPath):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return
    for path in folder.files():
        path.copy(target / str(path)[len(str(folder)) + 1 :])
    remove_tree(folder)


def remove_tree(folder: Path) -> None:
    """Removes a folder and all that is in it; an absent one is no error."""
    if isinstance(folder, ObjectPath):
        folder.rmtree(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
