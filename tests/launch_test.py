"""launch/gpu.sh, with a stand-in for Python that prints how it is started."""

import os
import subprocess

import pytest

from tests.conftest import REPO

SCRIPT = REPO / "launch" / "gpu.sh"
STUB = """#!/bin/sh
pwd
echo "$PYTHONPATH"
printf '%s\\n' "$@"
"""


def start(folder, *flags, **variables):
    stub = folder / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        ["bash", SCRIPT, *flags],
        cwd=folder,
        env={**env, "PYTHON": "./python", **variables},
        capture_output=True,
        text=True,
    )


def test_a_relative_workdir_is_one_of_the_folder_that_it_is_started_in(tmp_path):
    settings = {"CONFIG": "configs/align_sar.py", "WORKDIR": "runs/x"}
    done = start(tmp_path, "--config.seed=1", "--config.init=a b", **settings)
    folder, path, *command = done.stdout.splitlines()
    assert folder == str(tmp_path)
    assert path == str(REPO)
    assert command == [
        "-m",
        "rsclip_jax.main",
        "--config=configs/align_sar.py",
        "--workdir=runs/x",
        "--config.seed=1",
        "--config.init=a b",
    ]


def test_the_persons_own_python_path_is_kept(tmp_path):
    done = start(tmp_path, CONFIG="a", WORKDIR="b", PYTHONPATH="mine:theirs")
    assert done.stdout.splitlines()[1] == f"{REPO}:mine:theirs"


@pytest.mark.parametrize("missing", ["CONFIG", "WORKDIR"])
def test_what_is_not_set_is_named(tmp_path, missing):
    settings = {"CONFIG": "a", "WORKDIR": "b", missing: ""}
    done = start(tmp_path, **settings)
    assert done.returncode != 0
    assert f"set {missing}" in done.stderr
    assert done.stdout == ""
