"""Makes the notebooks of their sources: python -m colabs.make [NAME ...]

Each .py (jupytext's percent format) runs from top to bottom and is stored with its
outputs as the .ipynb beside it. Without names all of them run, one after the other in
one folder, empty at first, so that a later one finds what an earlier one trained.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError as CellExecutionError
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
NAMES = ("zero_shot", "patch_and_sweep", "align_sar", "search_archive")
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read_source(name: str) -> NotebookNode:
    """The notebook of a source, without outputs; the same one at every call."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:02d}"  # random ones would change with every call
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def execute(notebook: NotebookNode, folder: Path, **variables: str) -> str:
    """Runs all cells with folder as the working directory; what went to stderr.

    stderr has progress bars and warnings, which are not kept as outputs. variables:
    added to the environment. Raises nbclient's CellExecutionError with the traceback of
    the cell that fails.
    """
    env = {
        **os.environ,
        "PYTHONPATH": str(FOLDER.parent),
        "IPYTHONDIR": str(folder / ".ipython"),  # not the start-up files of a user
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        **variables,
    }
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=env)
    notebook.metadata = nbformat.from_dict(METADATA)
    stderr = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            named = [(output.get("name"), output) for output in cell.outputs]
            stderr += [output.text for name, output in named if name == "stderr"]
            cell.outputs = [output for name, output in named if name != "stderr"]
    return "".join(stderr)


def main(names: list[str]) -> None:
    """Makes these notebooks, or all."""
    if unknown := set(names) - set(NAMES):
        raise SystemExit(f"no notebook {unknown}; there are {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or NAMES:
            started = time.perf_counter()
            notebook = read_source(name)
            print(execute(notebook, Path(folder)), file=sys.stderr)
            path = FOLDER / f"{name}.ipynb"
            nbformat.write(notebook, path)
            took, size = time.perf_counter() - started, path.stat().st_size / 1e6
            print(f"{name}: {took:.0f} s, {size:.2f} MB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
