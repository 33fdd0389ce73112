"""Which code wrote a file: the clone's commit, or the installed version."""

import os
import subprocess
from pathlib import Path

from rsclip_jax.version import __version__


def git_commit() -> str:
    """The commit of the clone that tracks this file, else the version.

    A package installed inside another project's clone (in its .venv) is not tracked
    there, so that project's commit does not describe it. A copy of a clone's files, as
    on a cloud machine, has the commit in the variable RSCLIP_COMMIT.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return os.environ.get("RSCLIP_COMMIT") or __version__
    return _git(here.parent, "rev-parse", "HEAD") or __version__


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git in a folder; None if it fails or is not installed."""
    # within a git hook, these variables name the hook's repository
    env = {k: v for k, v in os.environ.items() if k not in _REPOSITORY}
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


_REPOSITORY = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
