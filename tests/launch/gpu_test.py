"""launch/gpu.sh, with a stand-in for Python that prints how it is started."""

import shutil
import subprocess

import pytest

from tests.conftest import REPO

PRINTS = """
pwd
echo "$PYTHONPATH"
printf '%s\\n' "$@"
"""
SETTINGS = {"CONFIG": "configs/align_sar.py", "WORKDIR": "runs/x"}


def test_a_relative_workdir_is_one_of_the_folder_that_it_is_started_in(stubs, tmp_path):
    stubs.add("python3", PRINTS)
    done = stubs.run("gpu.sh", "--config.seed=1", "--config.init=a b", **SETTINGS)
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


def test_the_persons_own_python_and_its_path_are_kept(stubs):
    stubs.add("mine", PRINTS)
    done = stubs.run("gpu.sh", PYTHON="mine", PYTHONPATH="a:b", **SETTINGS)
    assert done.stdout.splitlines()[1] == f"{REPO}:a:b"


def test_the_clones_own_environment_is_the_default(stubs, tmp_path):
    shutil.copytree(REPO / "launch", tmp_path / "launch")
    stubs.add("python3", "echo system")
    command = [shutil.which("bash"), tmp_path / "launch" / "gpu.sh"]
    env = stubs.environment(**SETTINGS, PYTHON="")

    def start() -> str:
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, timeout=120)
        return done.stdout.decode()

    assert start() == "system\n"
    stubs.add("own", "echo own")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(stubs.folder / "own")
    assert start() == "own\n"


def test_the_code_of_the_run_is_the_scripts(stubs):
    stubs.add("python3", "exit 7")
    assert stubs.run("gpu.sh", **SETTINGS).returncode == 7


@pytest.mark.parametrize("missing", ["CONFIG", "WORKDIR"])
def test_what_is_not_set_is_named(stubs, missing):
    stubs.add("python3", PRINTS)
    done = stubs.run("gpu.sh", **{**SETTINGS, missing: ""})
    assert done.returncode != 0
    assert f"set {missing}" in done.stderr
    assert done.stdout == ""


def test_a_python_that_is_not_there_is_named(stubs):
    done = stubs.run("gpu.sh", PYTHON="python9", **SETTINGS)
    assert done.returncode == 2
    assert "there is no python9 on PATH: set PYTHON" in done.stderr
