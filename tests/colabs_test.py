"""The notebooks: they run as they are, and are stored as they are made."""

import os
import re
import subprocess
import sys

import nbformat
import pytest

from colabs import make
from tests.conftest import REPO

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
        XLA_FLAGS="",  # one device, as most have
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
        ("every number: /home/ann/runs/colab/results.jsonl", True),
        ("wrote it\n/home/ann", True),
        (r"C:\Users\ann", True),
        ("every number: runs/colab/results.jsonl", False),
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


# What all share: the cell that installs the package where there is none.


def setup_cell(name: str) -> str:
    return code_cells(make.read_source(name))[0].source


def test_all_begin_with_the_same_set_up():
    first, *others = [setup_cell(name) for name in make.NAMES]
    assert others == [first] * len(others)


def run_setup(folder, path: str = "", **variables: str):
    """The set-up cell in a fresh interpreter, with git and pip replaced by a note."""
    note = (
        "import subprocess, pathlib\n"
        "def run(command, check):\n"
        "    print(*command)\n"
        "    if command[0] == 'git':\n"
        "        configs = pathlib.Path(command[-1]) / 'configs'\n"
        "        configs.mkdir(parents=True)\n"
        "        (configs / 'common.py').touch()\n"
        "subprocess.run = run\n"
    )
    shown = "\nprint('clone:', find_clone())"
    code = note + setup_cell(make.NAMES[0]) + shown
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RSCLIP")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**env, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("folder", [".", "colabs"])
def test_in_a_clone_nothing_is_installed(folder):
    done = run_setup(REPO / folder)
    assert done.stdout == f"clone: {REPO}\n", done.stderr


def test_where_the_package_can_be_imported_nothing_is_installed(tmp_path):
    done = run_setup(tmp_path, path=str(REPO))
    assert done.stdout == f"clone: {REPO}\n", done.stderr


def test_a_hosted_notebook_clones_and_installs_once(tmp_path):
    done = run_setup(tmp_path, RSCLIP_REPOSITORY="https://host/owner/name")
    clone, install, place = done.stdout.splitlines()
    assert clone == "git clone --depth=1 https://host/owner/name rsclip-jax"
    assert install.endswith("-m pip install -q ./rsclip-jax")
    assert place == f"clone: {tmp_path / 'rsclip-jax'}"
    assert run_setup(tmp_path).stdout.splitlines() == [place]


def test_without_an_address_the_set_up_says_what_it_wants(tmp_path):
    done = run_setup(tmp_path)
    assert "set REPOSITORY, above, to the address" in done.stderr
    assert done.stdout == ""
