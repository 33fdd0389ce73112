"""git_commit of copies of the package that lie in real repositories."""

import os
import shutil
import subprocess
import sys

import pytest

from rsclip_jax import __version__
from rsclip_jax.io import commit
from tests.conftest import REPO


def git(folder, *arguments):
    """Runs git, without the settings of the person who runs the tests."""
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments],
        cwd=folder,
        env={**os.environ, **own},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@pytest.fixture
def project(tmp_path):
    """A repository with one commit, and what is recorded by a copy of the package."""
    git(tmp_path, "init", "-q")
    (tmp_path / "theirs.py").write_text("x = 1\n")
    git(tmp_path, "add", "theirs.py")
    git(tmp_path, "commit", "-q", "-m", "theirs")
    return tmp_path


def copy_package(folder):
    """The few files that git_commit needs."""
    for name in ("__init__.py", "version.py", "io/__init__.py", "io/commit.py"):
        (folder / "rsclip_jax" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / "rsclip_jax" / name, folder / "rsclip_jax" / name)


def recorded(folder, **env):
    code = "from rsclip_jax.io.commit import git_commit; print(git_commit())"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_a_package_in_anothers_venv_does_not_record_that_projects_commit(project):
    installed = project / ".venv" / "lib" / "site-packages"
    copy_package(installed)
    assert recorded(installed) == __version__
    (project / ".gitignore").write_text(".venv\n")  # ignored or not
    assert recorded(installed) == __version__


def test_a_clone_records_its_own_commit(project):
    copy_package(project)
    assert recorded(project) == __version__  # not tracked yet
    git(project, "add", "rsclip_jax")
    git(project, "commit", "-q", "-m", "ours")
    head = git(project, "rev-parse", "HEAD")
    assert len(head) == 40
    assert recorded(project) == head
    other = project / "other"  # as within a hook of another repository
    other.mkdir()
    git(other, "init", "-q")
    assert recorded(project, GIT_DIR=str(other / ".git")) == head


def test_without_git_or_a_repository_it_is_the_version(tmp_path, monkeypatch):
    copy_package(tmp_path)
    assert recorded(tmp_path) == __version__
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit.git_commit() == __version__


def test_a_copy_of_a_clones_files_is_told_its_commit(tmp_path, project):
    copy_package(tmp_path / "copy")
    assert recorded(tmp_path / "copy", RSCLIP_COMMIT="abc") == "abc"
    assert recorded(tmp_path / "copy", RSCLIP_COMMIT="") == __version__
    copy_package(project)
    git(project, "add", "rsclip_jax")
    head = git(project, "rev-parse", "HEAD")
    assert recorded(project, RSCLIP_COMMIT="abc") == head  # a clone knows better
