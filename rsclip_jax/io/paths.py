"""Paths of workdirs: local folders, or gs://, s3:// and az:// through etils.epath."""

import fnmatch
import functools
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from etils.epath import gpath

# The package that reaches each object store, and how it is installed.
_STORES = {
    "gs": ("gcsfs", 'pip install "rsclip-jax[gcs]"'),
    "s3": ("s3fs", 'pip install "rsclip-jax[s3]"'),
    "az": ("adlfs", "pip install adlfs"),
}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/+", re.IGNORECASE)


class ObjectPath(gpath.PosixGPath):
    """A path in an object store, with the methods of pathlib that workdirs use.

    It differs from epath's own path where that would lose data or the store: resolve
    keeps gs://, opening to append is refused (gcsfs overwrites instead), text is UTF-8,
    ** matches in glob, and mkdir does nothing, as a store has no folders.
    """

    def resolve(self, strict: bool = False) -> "ObjectPath":
        return self

    absolute = resolve

    def is_file(self) -> bool:
        return self.exists() and not self.is_dir()

    def mkdir(self, mode=None, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: the first object in a folder makes it."""

    def open(self, mode: str = "r", **options: Any):
        """As pathlib's, in UTF-8. Raises ValueError for appending."""
        if "a" in mode or "+" in mode:
            raise ValueError(f"{self}: an object store cannot append; use append_text")
        if "b" not in mode:
            options["encoding"] = "utf-8"
        return _filesystem(str(self)).open(str(self), mode, **options)

    def read_text(self, encoding: str | None = "utf-8") -> str:
        return self.read_bytes().decode(encoding or "utf-8")

    def glob(self, pattern: str) -> "Iterator[ObjectPath]":
        """Files and folders that match; ** matches any number of folders."""
        if "**" not in pattern:
            yield from sorted(super().glob(pattern))
            return
        flat = pattern.replace("**/", "*")  # fnmatch's * matches slashes too
        for path in self.files():
            if fnmatch.fnmatch(str(path)[len(str(self)) + 1 :], flat):
                yield path

    def rglob(self, pattern: str) -> "Iterator[ObjectPath]":
        return self.glob(f"**/{pattern}")

    def files(self) -> "list[ObjectPath]":
        """All objects below this path, by name."""
        scheme = str(self).partition("://")[0]
        found = _filesystem(str(self)).find(str(self))
        return [type(self)(f"{scheme}://{name}") for name in sorted(found)]

    def upload(self, local: Path) -> None:
        """Replaces the object by a local file, all or none. Raises OSError."""
        try:
            _filesystem(str(self)).put_file(str(local), str(self))
        except OSError:
            raise
        except Exception as error:  # each store's package has its own kinds
            raise OSError(f"{type(error).__name__}: {error}") from error

    def download(self, local: Path) -> None:
        _filesystem(str(self)).get_file(str(self), str(local))


def as_path(text: str | os.PathLike) -> Path:
    """A pathlib.Path, or an ObjectPath for gs://, s3:// and az://.

    The two share the methods that workdirs use, so both are typed as Path. Raises
    ValueError for another scheme, for a store whose package is not installed, and for
    gs:/ with one slash, which is what pathlib makes of gs://.
    """
    if isinstance(text, ObjectPath):
        return cast(Path, text)
    text = os.fspath(text)
    found = _SCHEME.match(text)
    if not found:
        return Path(text)
    scheme = found[1].lower()
    if scheme not in _STORES or len(found[1]) == 1:  # C:/ is a drive
        if "://" not in text[: found.end()]:
            return Path(text)
        known = ", ".join(f"{name}://" for name in _STORES)
        raise ValueError(f"{text}: {scheme}:// is not supported; there are {known}")
    if not text.startswith(f"{scheme}://"):
        raise ValueError(
            f"{text}: an object store is written with two slashes: write"
            f" {scheme}://{text[found.end() :]} (as text: pathlib.Path drops one)"
        )
    bucket = text[found.end() :].partition("/")[0]
    if not bucket:
        raise ValueError(f"{text}: names no bucket; write {scheme}://BUCKET/FOLDER")
    package, install = _STORES[scheme]
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"{text}: needs the package {package}: {install}")
    _use_fsspec()
    return cast(Path, ObjectPath(text.rstrip("/")))


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path or text names an object store."""
    if isinstance(path, ObjectPath):
        return True
    return str(path).startswith(tuple(f"{name}://" for name in _STORES))


def check_local(path: str | os.PathLike, what: str) -> None:
    """Raises ValueError if a path that has to be local names an object store."""
    if is_remote(path):
        raise ValueError(
            f"{what} = {str(path)!r} has to be local: only workdirs may lie in an"
            " object store"
        )


@functools.cache
def _use_fsspec() -> None:
    """Sets epath's and fsspec's own switches, before their first use."""
    import fsspec

    # with TensorFlow installed epath would use its file system, which is untested here
    os.environ.setdefault("EPATH_USE_TF", "0")
    # other processes write too, so a listing is never kept
    for name in ("gs", "gcs", "s3", "az", "abfs"):
        fsspec.config.conf.setdefault(name, {}).setdefault("use_listings_cache", False)


def _filesystem(path: str):
    import fsspec

    return fsspec.core.url_to_fs(path)[0]
