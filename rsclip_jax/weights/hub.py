"""Files of repositories on the Hugging Face hub, or placed by hand where it is away.

A file is looked for in three places: the folder of hand-placed files (RSCLIP_WEIGHTS,
or ~/.cache/rsclip_jax/weights), the hub, and, where the hub cannot be reached, what its
own cache (HF_HOME) still holds. Only what is read is fetched.
"""

import dataclasses
import logging
import os
import re
from pathlib import Path

from rsclip_jax.weights.files import CONFIGS, WEIGHT_NAMES, shard_names, usual_file

TIMEOUT = 10  # seconds without an answer before the hub counts as not reachable
_LISTED = 12  # files of a repository that an error names
_log = logging.getLogger(__name__)


def fetch(repository: str, filename: str, revision: str | None = None) -> Path:
    """The local path of one file of a repository ("owner/name").

    revision: a branch, a tag or a commit; the default branch where None. Raises
    FileNotFoundError naming the file and where to place it by hand where it cannot be
    had, ValueError for names that no repository has.
    """
    placed = placed_folder(repository, revision) / _checked(filename)
    if placed.is_file():
        return placed
    return _get(_look_up(repository, revision), filename)


def fetch_weights(repository: str, path: str = "", revision: str | None = None) -> Path:
    """The local path of a weight file, or of a folder with one, for open_weights.

    path: a file, or a folder ("": the repository itself) whose usual weight file is
    fetched with its config: the first of files.IN_FOLDER that is there. The shards of
    an index come with it. Raises as fetch does.
    """
    placed = placed_folder(repository, revision) / _checked(path)
    if placed.is_file() or usual_file(placed):
        return placed
    looked = _look_up(repository, revision)
    is_file = path.endswith(WEIGHT_NAMES)
    folder = Path(path).parent if is_file else Path(path)
    first = _get(looked, path) if is_file else _get_usual(looked, folder)
    for shard in shard_names(first):
        _get(looked, (folder / shard).as_posix())
    return first if is_file else first.parent


def placed_folder(repository: str, revision: str | None = None) -> Path:
    """Where hand-placed files of a repository at a revision are looked for."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or ".." in repository:
        raise ValueError(f"{repository!r} is not of the form owner/name")
    name = repository.replace("/", "--")
    if revision:
        name += "@" + revision.replace("/", "--")
    root = os.environ.get("RSCLIP_WEIGHTS") or "~/.cache/rsclip_jax/weights"
    return Path(root).expanduser() / name


def commit_of(path: Path) -> str:
    """The commit that a path in the hub's cache belongs to; "" of any other path."""
    found = re.search(
        r"/models--[^/]+/snapshots/([0-9a-f]{40})/", f"{path.as_posix()}/"
    )
    return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class _Looked:
    """A repository at a revision: its commit and the files that can be had.

    reason: why the hub did not answer as wished; then files are those in its cache.
    """

    repository: str
    revision: str | None
    commit: str
    files: frozenset[str]
    reason: str = ""

    def missing(self, path: Path, what: str) -> str:
        """One line: what could not be had, and the way out. path: in the repository."""
        name = f"hf:{self.repository}"
        if self.reason:
            place = placed_folder(self.repository, self.revision) / path
            return (
                f"{name}: {self.reason}; download {what} by hand from repository"
                f" {self.repository} of the Hugging Face hub and give its path, or"
                f" place it at {place}"
            )
        there = sorted(self.files, key=lambda n: (not n.endswith(WEIGHT_NAMES), n))
        listed = ", ".join(there[:_LISTED]) + (", ..." if there[_LISTED:] else "")
        return (
            f"{name}: it has no {what}, but {listed or 'no files'}; name one, such as"
            f" {name}/{there[0] if there else 'FILE'}"
        )


def _look_up(repository: str, revision: str | None) -> _Looked:
    """Asks the hub for the commit and its files; its cache where it does not answer."""
    from huggingface_hub import HfApi, errors, resolve_revision

    try:
        # With a timeout, which resolve_revision lacks: the hub is there, or it is not.
        info = HfApi().model_info(repository, revision=revision, timeout=TIMEOUT)
        # Leaves the commit in the cache, for when the hub cannot be reached.
        commit = resolve_revision(repository, revision=revision).resolved
        files = frozenset(file.rfilename for file in info.siblings or ())
        return _Looked(repository, revision, commit, files)
    except (errors.HTTPError, errors.OfflineModeIsEnabled, ValueError) as error:
        reason = _reason(error, revision)
    try:
        found = resolve_revision(repository, revision=revision, local_files_only=True)
    except errors.RevisionResolutionError:
        return _Looked(repository, revision, "", frozenset(), reason)
    folder = _snapshot(repository, found.resolved)
    paths = (path for path in folder.rglob("*") if path.is_file())
    files = frozenset(path.relative_to(folder).as_posix() for path in paths)
    if files:
        _log.warning("hf:%s: %s; its files in the cache are used", repository, reason)
    return _Looked(repository, revision, found.resolved, files, reason)


def _snapshot(repository: str, commit: str) -> Path:
    """The folder of a commit in the hub's cache."""
    from huggingface_hub import constants

    folder = f"models--{repository.replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE) / folder / "snapshots" / commit


def _get_usual(looked: _Looked, folder: Path) -> Path:
    """The usual weight file of a folder of the repository, its configs beside it."""
    weights = usual_file(folder, among={Path(name) for name in looked.files})
    if weights is None:
        usual = f"weight file in {folder}" if folder.parts else "usual weight file"
        if looked.reason:
            usual = "its weight file and config (model.safetensors, config.json)"
        raise FileNotFoundError(looked.missing(folder, usual))
    for name in CONFIGS:
        if (folder / name).as_posix() in looked.files:
            _get(looked, (folder / name).as_posix())
    return _get(looked, weights.as_posix())


def _get(looked: _Looked, name: str) -> Path:
    """The path of a file of the repository, fetched where the cache lacks it."""
    from huggingface_hub import errors, hf_hub_download

    if name not in looked.files:
        what = name.rpartition("/")[2] if looked.reason else f"file {name}"
        raise FileNotFoundError(looked.missing(Path(name), what))
    try:  # a file of this commit that the cache has is not asked for
        path = hf_hub_download(looked.repository, name, revision=looked.commit)
    except (errors.HTTPError, errors.EntryNotFoundError) as error:
        reason = _reason(error, looked.revision)
        failed = dataclasses.replace(looked, reason=reason)
        what = name.rpartition("/")[2]
        raise FileNotFoundError(failed.missing(Path(name), what)) from error
    return Path(path)


def _reason(error: Exception, revision: str | None) -> str:
    """Why a file of the hub cannot be had, in a few words."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the hub is not asked, as HF_HUB_OFFLINE is set"
    if isinstance(error, errors.GatedRepoError):
        return "its owner wants terms accepted on its page, and HF_TOKEN set"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or a private one that HF_TOKEN opens"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision!r}"
    first = (str(error) or type(error).__name__).splitlines()[0]
    return f"cannot be reached ({first})"


def _checked(path: str) -> str:
    """A path within a repository; ValueError for one that leads out of it."""
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} is not a path within a repository")
    return path
