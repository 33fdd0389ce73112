"""CONTRIBUTING.md's "How to add": its lines go into a copy of the package and work."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.helpers import xla

# what uses all that was added, in the copy
USE = """
from pathlib import Path

import numpy as np
from PIL import Image

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.train.objectives import make_align_loss
from rsclip_jax.weights.encoders import get_encoder

folder = Path("DATA/MyLakes")
for i, name in enumerate(("Lake", "River")):
    (folder / name).mkdir(parents=True)
    for j in range(10):
        image = np.full((8, 8, 3), 10 * i + j, np.uint8)
        Image.fromarray(image).save(folder / name / f"{j}.png")
source = open_source("my_lakes", "DATA")
assert sorted(source[i]["label"] for i in range(20)) == [0] * 10 + [1] * 10

assert get_sensor("my_swir").bands == ("SWIR1", "SWIR2")
assert get_encoder("my-vits16-s1").sensor.modality == "s1"

loss_fn = make_align_loss(
    lambda p, b: b["x"] + p["shift"],
    lambda p, b: b["x"] + p["shift"],
    terms={"l1": 1.0},
)
params, frozen = {"shift": np.float32(3)}, {"teacher": {"shift": np.float32(1)}}
loss, metrics = loss_fn(params, frozen, {"x": np.zeros((4, 2), np.float32)})
assert float(loss) == 2.0
assert set(metrics) == {"l1"}
"""


def steps(text: str) -> list[tuple[str, str, str]]:
    """(where, file, lines) of each block of the guide: where is "in", "at", "new"."""
    guide = text.split("## How to add")[1]
    found = re.findall(r"```python\n# (.*?)\n(.*?)```", guide, re.S)
    return [(head, *re.findall(r"[\w/]+\.py", head)[:1], code) for head, code in found]


def apply(root: Path, head: str, file: str, code: str) -> None:
    """Puts a block where its first line says. Raises ValueError where that is not."""
    path = root / file
    if head == f"new file {file}":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, "utf-8")
        return
    text = path.read_text("utf-8")
    if head == f"at the end of {file}":
        path.write_text(text + code, "utf-8")
        return
    lines = text.splitlines(keepends=True)
    if head == f"in {file}, among the imports":
        first = next(i for i, x in enumerate(lines) if x.startswith("from rsclip_jax"))
        path.write_text("".join([*lines[:first], code, *lines[first:]]), "utf-8")
        return
    name = head.removeprefix(f"in {file}, first in ")
    opens = [
        i
        for i, line in enumerate(lines)
        if re.match(rf"{re.escape(name)}\b.*[(\[{{]$", line)
    ]
    if len(opens) != 1:
        raise ValueError(f"{file} has {len(opens)} lines that open {name}")
    lines.insert(opens[0] + 1, code)
    path.write_text("".join(lines), "utf-8")


def copy_package(folder: Path) -> Path:
    for name in ("rsclip_jax", "configs"):
        shutil.copytree(
            REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return folder


def run(folder: Path, *args: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "XLA_FLAGS": xla.flags(), "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *args], cwd=folder, env=env, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the package with every block of the guide in its place."""
    folder = copy_package(tmp_path_factory.mktemp("added"))
    for step in steps((REPO / "CONTRIBUTING.md").read_text("utf-8")):
        apply(folder, *step)
    return folder


def test_what_the_guide_adds_works(extended):
    done = run(extended, "-c", USE)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_stage_that_the_guide_adds_runs_once(extended):
    command = ("-m", "rsclip_jax.main", "--config=configs/count.py", "--workdir=w")
    done = run(extended, *command)
    assert done.returncode == 0, done.stderr
    assert "count: done in" in done.stdout
    counts = (extended / "w/count/counts.json").read_text()
    assert json.loads(counts) == {"miniature:test": 1000}
    assert "count: already done, skipped" in run(extended, *command).stdout
    done = run(extended, *command, "--config.datasets=()", "--workdir=x")
    assert "error: config.datasets is empty: name what to count" in done.stderr


def test_without_the_guides_lines_nothing_is_there(tmp_path):
    done = run(copy_package(tmp_path), "-c", USE)
    assert "unknown dataset 'my_lakes'" in done.stderr


def test_a_place_that_is_not_there_is_an_error(tmp_path):
    (tmp_path / "a.py").write_text("_ROWS = (\n    1,\n)\n")
    apply(tmp_path, "in a.py, first in _ROWS", "a.py", "    0,\n")
    assert (tmp_path / "a.py").read_text() == "_ROWS = (\n    0,\n    1,\n)\n"
    with pytest.raises(ValueError, match="0 lines that open _OTHER"):
        apply(tmp_path, "in a.py, first in _OTHER", "a.py", "    0,\n")
