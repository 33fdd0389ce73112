"""The notebooks: they run as they are, and are stored as they are made."""

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest

from colabs import make
from tests.conftest import REPO
from tests.helpers import xla

# A path from the root on: nothing before it makes it a relative one or a URL.
ABSOLUTE = re.compile(r"(?<![\w.:/<{-])(/[\w.-]+){2,}|\b[A-Z]:\\")
EACH = pytest.mark.parametrize("name", make.NAMES)


def stored(name: str) -> nbformat.NotebookNode:
    return nbformat.read(make.FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def has_picture(cell) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def test_every_source_is_a_notebook_and_the_reverse():
    found = {path.stem for path in make.FOLDER.glob("*.py")} - {"make", "__init__"}
    assert found == set(make.NAMES)
    assert {path.stem for path in make.FOLDER.glob("*.ipynb")} == set(make.NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the notebooks run: a later one finds what an earlier one trained."""
    return tmp_path_factory.mktemp("colabs")


@pytest.mark.slow
@EACH
def test_a_notebook_runs_from_top_to_bottom(name, folder):
    notebook = make.read_source(name)
    refused = "http://127.0.0.1:9"  # nothing listens there
    make.execute(
        notebook,
        folder,
        RSCLIP_QUICK="1",
        XLA_FLAGS=xla.flags(),  # one device, as most have
        HTTP_PROXY=refused,
        HTTPS_PROXY=refused,
        http_proxy=refused,
        https_proxy=refused,
        NO_PROXY="",
        HF_HOME=str(folder / "hub"),
    )
    assert (folder / "runs/quick/results.jsonl").exists()
    found = [has_picture(cell) for cell in code_cells(notebook)]
    assert sum(found) >= 3
    assert found == [has_picture(cell) for cell in code_cells(stored(name))]


@EACH
def test_a_notebook_is_its_source(name):
    def contents(notebook):
        return [(c.cell_type, c.id, c.source, c.metadata) for c in notebook.cells]

    assert contents(stored(name)) == contents(make.read_source(name)), (
        "python -m colabs.make makes the notebooks anew"
    )


def faults(notebook) -> list[str]:
    """What a stored notebook should not have, or lacks."""
    found = []
    if notebook.metadata != make.METADATA:
        found.append(f"metadata {notebook.metadata}")
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        found.append(f"execution counts {counts}")
    for output in (output for cell in cells for output in cell.outputs):
        if output.output_type == "error" or output.get("name") == "stderr":
            found.append(f"{output.output_type} {output.get('name')}")
        texts = [v for k, v in output.get("data", {}).items() if "image" not in k]
        text = "\n".join([output.get("text", ""), *map(str, texts)])
        if ABSOLUTE.search(text):
            found.append(f"a path of a machine: {text}")
    return found


@EACH
def test_a_notebook_has_its_outputs_and_nothing_of_a_machine(name):
    notebook = stored(name)
    nbformat.validate(notebook)
    assert faults(notebook) == []
    assert (make.FOLDER / f"{name}.ipynb").stat().st_size < 1.5e6


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"execution_count": 7}, "execution counts"),
        ({"outputs": [nbformat.v4.new_output("error", ename="E")]}, "error"),
        (
            {"outputs": [nbformat.v4.new_output("stream", name="stderr", text="w")]},
            "stderr",
        ),
        (
            {"outputs": [nbformat.v4.new_output("stream", text="in /home/ann/a")]},
            "path",
        ),
    ],
)
def test_faults_are_found(fault, words):
    notebook = stored(make.NAMES[0])
    code_cells(notebook)[1].update(fault)
    (found,) = faults(notebook)
    assert words in found


def test_metadata_of_a_machine_are_found():
    notebook = stored(make.NAMES[0])
    notebook.metadata.kernelspec.name = "ann"
    assert "ann" in faults(notebook)[0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("all results: /home/ann/runs/colab/results.jsonl", True),
        ("wrote it\n/home/ann", True),
        (r"C:\Users\ann", True),
        ("all results: runs/colab/results.jsonl", False),
        ("pictures: runs/a/b.png, runs/c/d.png", False),
        ("https://example.org/a/b", False),
    ],
)
def test_paths_of_a_machine_are_found(text, found):
    assert bool(ABSOLUTE.search(text)) is found


def test_a_cell_that_fails_fails_the_run(tmp_path):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell("assert 1 == 2, 'planted'")]
    with pytest.raises(make.CellExecutionError, match="planted"):
        make.execute(notebook, tmp_path)


# What all share: the badge, and the cell that makes the package importable.

DEVICE = "[CpuDevice(id=0)]"
# What stands in for the host: its packages, and a git and a pip that print.
HOST = """
import importlib.metadata, json, os, pathlib, shutil, subprocess

real, host = importlib.metadata.version, json.loads(os.environ.get("HOST", "null"))

def version(name):
    if host is None:
        return real(name)
    if name not in host:
        raise importlib.metadata.PackageNotFoundError(name)
    return host[name]

def run(command, check):
    print(*command)
    if command[0] == "git":
        clone = pathlib.Path(command[-1])
        (clone / "configs").mkdir(parents=True)
        (clone / "configs" / "common.py").touch()
        shutil.copy(os.environ["PROJECT"], clone)

importlib.metadata.version, subprocess.run = version, run
"""


def setup_cell(name: str) -> str:
    return code_cells(make.read_source(name))[0].source


def test_all_begin_with_the_same_set_up():
    first, *others = [setup_cell(name) for name in make.NAMES]
    assert others == [first] * len(others)


@EACH
def test_the_badge_opens_the_notebook_itself(name):
    first = stored(name).cells[0].source
    assert first.startswith("[![Open In Colab](https://colab.research.google.com/")
    assert f"/colabs/{name}.ipynb)" in first.splitlines()[0]


def run_setup(folder, host=None, path: str = "", **variables: str) -> list[str]:
    """The lines that the set-up cell prints in a fresh interpreter.

    host: {package: version} of the host; by default the real ones.
    """
    done = subprocess.run(
        [sys.executable, "-c", HOST + setup_cell(make.NAMES[0])],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if k not in ("TPU_NAME", "HOST")},
            "PYTHONPATH": path,
            "XLA_FLAGS": xla.flags(),
            "PROJECT": str(REPO / "pyproject.toml"),
            **({} if host is None else {"HOST": json.dumps(host)}),
            **variables,
        },
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines() + done.stderr.splitlines()[-1:]


@pytest.mark.parametrize("folder", [".", "colabs"])
def test_in_a_clone_nothing_is_installed(folder):
    assert run_setup(REPO / folder) == [DEVICE]


def test_where_the_package_can_be_imported_nothing_is_installed(tmp_path):
    assert run_setup(tmp_path, path=str(REPO), host={}) == [DEVICE]


ADDRESS = "https://host/owner/name"


def installed(folder, host, **variables) -> list[str]:
    """What a hosted runtime with these packages installs, after it has cloned."""
    told = {"RSCLIP_REPOSITORY": ADDRESS, **variables}
    clone, command, devices = run_setup(folder, host, **told)
    assert clone == f"git clone --depth=1 {ADDRESS} rsclip-jax"
    assert devices == DEVICE
    assert run_setup(folder, host) == [command, devices]  # cloned once
    return command.split(" -m pip install -q ")[1].split()


def test_the_jax_of_a_host_stays_as_it_is(tmp_path):
    host = {"jax": "0.10.5", "jaxlib": "0.10.4", "numpy": "2.3", "tqdm": "1.0"}
    found = installed(tmp_path, host)
    assert found[-2:] == ["jax==0.10.5", "jaxlib==0.10.4"]
    names = {re.split(r"\W", line)[0] for line in found[:-2]}
    assert {"flax", "grain", "tqdm"} <= names  # missing, and one that is too old
    assert not {"jax", "numpy"} & names


@pytest.mark.parametrize(
    ("machine", "extra", "host"),
    [
        ("gpu", ["jax[cuda12]"], {}),
        ("tpu", ["jax[tpu]"], {"jax": "0.4.30", "jaxlib": "0.4.30"}),
        ("cpu", [], {}),
    ],
)
def test_without_a_jax_that_fits_the_machines_own_is_installed(
    tmp_path, machine, extra, host
):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh")
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    told = {
        "gpu": {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        "tpu": {"TPU_NAME": "local"},
        "cpu": {},
    }[machine]
    (tmp_path / "work").mkdir()
    found = run_setup(
        tmp_path / "work", host, RSCLIP_REPOSITORY=ADDRESS, JAX_PLATFORMS="cpu", **told
    )[1].split()
    assert any(line.startswith("jax>=") for line in found)
    assert [line for line in found if line.startswith("jax[")] == extra
    assert not any("==" in line for line in found)


def test_without_an_address_the_set_up_says_what_it_wants(tmp_path):
    (error,) = run_setup(tmp_path, host={}, RSCLIP_REPOSITORY="")
    assert "set REPOSITORY, above, to the address" in error
