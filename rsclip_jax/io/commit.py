"""Which code made a file: the commit of the clone, or the installed version."""

import os
import subprocess
from pathlib import Path

from rsclip_jax.version import __version__


def git_commit() -> str:
    """The commit of the clone that this file is tracked in, else the version.

    A package that is installed below another project's clone (in its .venv) is not
    tracked there, so that project's commit says nothing about it.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return __version__
    return _git(here.parent, "rev-parse", "HEAD") or __version__


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints when run in a folder; None where it fails or is absent."""
    # within a hook, these name the repository of the hook
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
