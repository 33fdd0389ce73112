"""Downloads files from the Hugging Face hub, or finds copies placed by hand.

Files are looked for in the folder of hand-placed files (RSCLIP_WEIGHTS, or
~/.cache/rsclip_jax/weights), then on the hub, then, if the hub cannot be reached, in
its cache (HF_HOME). Only files that are read are downloaded.
"""

import dataclasses
import logging
import os
import re
from pathlib import Path

from rsclip_jax.weights.files import (
    CONFIGS,
    IN_FOLDER,
    WEIGHT_NAMES,
    shard_names,
    usual_file,
)

TIMEOUT = 10  # seconds before the hub counts as unreachable
_LISTED = 12  # files of a repository that an error names
_log = logging.getLogger(__name__)


def fetch(
    repository: str, filename: str, revision: str | None = None, pin: str | None = None
) -> Path:
    """The local path of one file of a repository ("owner/name").

    Args:
        revision: a branch, a tag or a commit; None is the pin.
        pin: the commit of a file that is not placed by hand; None is the default
            branch.

    Raises FileNotFoundError saying where to put the file by hand if it cannot be
    downloaded, ValueError for an invalid name.
    """
    placed = placed_folder(repository, revision) / _checked(filename)
    if placed.is_file():
        return placed
    return _get(_look_up(repository, revision, pin), filename)


def fetch_weights(
    repository: str,
    path: str = "",
    revision: str | None = None,
    pin: str | None = None,
) -> Path:
    """The local path of a weight file, or of a folder with one, for open_weights.

    Args:
        revision, pin: see fetch.
        path: a file, or a folder ("": the whole repository). In a folder, the first
            existing file of files.IN_FOLDER is downloaded. A file of these names comes
            with its config, an index with its shards.

    Raises as fetch does.
    """
    placed = placed_folder(repository, revision) / _checked(path)
    if placed.is_file() or usual_file(placed):
        return placed
    looked = _look_up(repository, revision, pin)
    is_file = path.endswith(WEIGHT_NAMES)
    folder = Path(path).parent if is_file else Path(path)
    first = _get(looked, path) if is_file else _get_usual(looked, folder)
    if first.name in IN_FOLDER:
        for name in CONFIGS:
            if (folder / name).as_posix() in looked.files:
                _get(looked, (folder / name).as_posix())
    for shard in shard_names(first):
        _get(looked, (folder / shard).as_posix())
    return first if is_file else first.parent


def placed_folder(repository: str, revision: str | None = None) -> Path:
    """The folder of a repository's hand-placed files at a revision."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or ".." in repository:
        raise ValueError(f"{repository!r} is not of the form owner/name")
    name = repository.replace("/", "--")
    if revision:
        name += "@" + revision.replace("/", "--")
    root = os.environ.get("RSCLIP_WEIGHTS") or "~/.cache/rsclip_jax/weights"
    return Path(root).expanduser() / name


def commit_of(path: Path) -> str:
    """The commit that a path in the hub's cache belongs to; "" for other paths."""
    found = re.search(
        r"/models--[^/]+/snapshots/([0-9a-f]{40})/", f"{path.as_posix()}/"
    )
    return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class _Looked:
    """A repository at a revision: its commit and its available files.

    reason: why the hub could not be used, if so; then files are those in its cache.
    """

    repository: str
    revision: str | None
    commit: str
    files: frozenset[str]
    reason: str = ""

    def missing(self, path: Path, what: str) -> str:
        """The error for a path of the repository: what is missing and what to do."""
        name = f"hf:{self.repository}"
        if self.reason:
            target = placed_folder(self.repository, self.revision) / path
            return (
                f"{name}: {self.reason}; download {what} by hand from repository"
                f" {self.repository} of the Hugging Face hub and give its path, or"
                f" put it at {target}"
            )
        there = sorted(self.files, key=lambda n: (not n.endswith(WEIGHT_NAMES), n))
        listed = ", ".join(there[:_LISTED]) + (", ..." if there[_LISTED:] else "")
        return (
            f"{name}: the repository has no {what}; it has {listed or 'no files'}: name"
            f" one, such as {name}/{there[0] if there else 'FILE'}"
        )


def _look_up(repository: str, revision: str | None, pin: str | None = None) -> _Looked:
    """Gets the commit and its files from the hub, or from its cache if that fails."""
    from huggingface_hub import HfApi, errors, resolve_revision

    wanted = revision or pin
    try:
        # resolve_revision has no timeout, so ask here whether the hub answers.
        info = HfApi().model_info(repository, revision=wanted, timeout=TIMEOUT)
        # Stores the commit in the cache, for when the hub cannot be reached.
        commit = resolve_revision(repository, revision=wanted).resolved
        files = frozenset(file.rfilename for file in info.siblings or ())
        return _Looked(repository, revision, commit, files)
    except (errors.HTTPError, errors.OfflineModeIsEnabled, ValueError) as error:
        reason = _reason(error, wanted)
    try:
        found = resolve_revision(repository, revision=wanted, local_files_only=True)
    except errors.RevisionResolutionError:
        return _Looked(repository, revision, "", frozenset(), reason)
    folder = _snapshot(repository, found.resolved)
    paths = (path for path in folder.rglob("*") if path.is_file())
    files = frozenset(path.relative_to(folder).as_posix() for path in paths)
    if files:
        _log.warning("hf:%s: %s; using the files in its cache", repository, reason)
    return _Looked(repository, revision, found.resolved, files, reason)


def _snapshot(repository: str, commit: str) -> Path:
    from huggingface_hub import constants

    folder = f"models--{repository.replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE) / folder / "snapshots" / commit


def _get_usual(looked: _Looked, folder: Path) -> Path:
    """Downloads the usual weight file of a folder of the repository."""
    weights = usual_file(folder, among={Path(name) for name in looked.files})
    if weights is None:
        usual = f"weight file in {folder}" if folder.parts else "usual weight file"
        if looked.reason:
            usual = "its weight file and config (model.safetensors, config.json)"
        raise FileNotFoundError(looked.missing(folder, usual))
    return _get(looked, weights.as_posix())


def _get(looked: _Looked, name: str) -> Path:
    """The path of a file of the repository, downloaded unless it is cached."""
    from huggingface_hub import errors, hf_hub_download

    if name not in looked.files:
        what = name.rpartition("/")[2] if looked.reason else f"file {name}"
        raise FileNotFoundError(looked.missing(Path(name), what))
    try:  # uses the cache without asking the hub
        path = hf_hub_download(looked.repository, name, revision=looked.commit)
    except (errors.HTTPError, errors.EntryNotFoundError) as error:
        reason = _reason(error, looked.revision)
        failed = dataclasses.replace(looked, reason=reason)
        what = name.rpartition("/")[2]
        raise FileNotFoundError(failed.missing(Path(name), what)) from error
    return Path(path)


def _reason(error: Exception, revision: str | None) -> str:
    """Why a file cannot be downloaded, in a few words."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the hub is not used because HF_HUB_OFFLINE is set"
    if isinstance(error, errors.GatedRepoError):
        return "access is gated: accept the terms on its page and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private and needs HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision!r}"
    first = (str(error) or type(error).__name__).splitlines()[0]
    return f"cannot be reached ({first})"


def _checked(path: str) -> str:
    """A path within a repository; ValueError for one that leads out of it."""
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} is not a path within a repository")
    return path
