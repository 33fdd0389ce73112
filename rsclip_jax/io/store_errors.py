"""Errors of an object store's client, as one line that says what to check."""

import contextlib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from rsclip_jax.io.paths import is_remote

# The packages that speak with a store.
_CLIENTS = frozenset(
    "adlfs aiobotocore aiohttp azure botocore fsspec gcsfs google requests s3fs"
    " urllib3".split()
)
# TensorStore, with which Orbax reads and writes, raises a bare ValueError that begins
# with a status and holds the code of the request that failed.
_TENSORSTORE = re.compile(r"[A-Z_]+: .*\[(curl_code|http_response_code)='", re.DOTALL)
_LOCATIONS = re.compile(r" *\[(tensorstore_spec|source locations)='.*?'\]", re.DOTALL)
_CREDENTIALS = {
    "gs": "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "aws configure, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "az": "AZURE_STORAGE_CONNECTION_STRING",
}


class StoreFailed(OSError):
    """The store of a workdir did not do what was asked; the text is one line."""


def store_failed(path: Path, error: BaseException) -> StoreFailed:
    """The error to raise in place of a client's."""
    scheme, _, rest = str(path).partition("://")
    bucket = rest.partition("/")[0]
    said = " ".join(_LOCATIONS.sub("", str(error)).split()) or "no message"
    return StoreFailed(
        f"{path}: the object store failed ({type(error).__name__}: {said}); check the"
        f" network, the credentials ({_CREDENTIALS.get(scheme, 'of the store')}), and"
        f" that the bucket {bucket!r} exists and may be read and written; then run the"
        " same command again"
    )


@contextlib.contextmanager
def naming_store(path: Path) -> Iterator[None]:
    """Raises StoreFailed in place of an error of the store's client.

    Where path is local, and for errors of another origin, it does nothing.
    """
    try:
        yield
    except Exception as error:
        if not is_store_failure(path, error) or isinstance(error, StoreFailed):
            raise
        raise store_failed(path, error) from error


def raise_if_unanswered(path: Path, error: Exception) -> None:
    """Raises StoreFailed if an object was not read because the store failed.

    Else it returns. That an object is not there is an answer of the store.
    """
    if is_store_failure(path, error) and not isinstance(error, FileNotFoundError):
        raise store_failed(path, error) from error


def is_store_failure(path: Path, error: Exception) -> bool:
    """Whether path is remote, and the store's client raised the error."""
    return is_remote(path) and _comes_from_client(error)


def _comes_from_client(error: BaseException | None) -> bool:
    """Whether it, or the error that it was raised from, is the client's.

    A ValueError of this package says what is wrong by itself.
    """
    while error is not None and not _is_clients(error):
        if isinstance(error, (ValueError, ArithmeticError, MemoryError)):
            return False
        error = error.__cause__
    return error is not None


def _is_clients(error: BaseException) -> bool:
    """Whether a client defines the error, or has raised this OSError itself."""
    if type(error).__module__.partition(".")[0] in _CLIENTS:
        return True
    if type(error) is ValueError:
        return bool(_TENSORSTORE.match(str(error)))
    if not isinstance(error, OSError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_in = frames[-1].f_globals.get("__name__", "") if frames else ""
    return raised_in.partition(".")[0] in _CLIENTS
