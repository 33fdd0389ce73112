"""Every notebook's cells run in order, on the miniature at toy size."""

import json
import os

import matplotlib
import pytest

from configs import align_sar
from tests.conftest import REPO
from tests.runs import few_scenes, tiny_config

NOTEBOOKS = sorted((REPO / "colabs").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    config = tiny_config()
    monkeypatch.setattr(align_sar, "get_config", lambda: config)
    cells = json.loads(path.read_text())["cells"]
    cells = [c for c in cells if c["cell_type"] == "code"]
    assert len(cells) >= 2
    assert all(c["outputs"] == [] for c in cells), "clear the outputs before a commit"
    names: dict = {}
    with few_scenes():
        for cell in cells:
            source = "".join(cell["source"])
            if not source.startswith("%pip"):
                exec(compile(source, f"{path.name}", "exec"), names)
    assert os.listdir(tmp_path / "runs")
    assert len(plt.get_fignums()) == 3
    plt.close("all")
