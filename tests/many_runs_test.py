"""Two processes do what one does in the stages and settings that are seldom used.

A few runs here; RSCLIP_ALL_RUNS=1 asks for all of helpers/many_runs.py.
"""

import json
import os

import jax
import pytest

from rsclip_jax.records.results import read_results
from rsclip_jax.train import checkpoint, sharding
from rsclip_jax.weights import load_clip
from tests.helpers import alike, many_runs, processes

pytestmark = pytest.mark.slow
NAMES = many_runs.FEW if not os.environ.get("RSCLIP_ALL_RUNS") else many_runs.ALL


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of what one process with four devices makes."""
    folder, make_mesh = tmp_path_factory.mktemp("alone"), sharding.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        four = jax.devices()[:4]
        patch.setattr(sharding, "make_mesh", lambda shape: make_mesh(shape, four))
        many_runs.run_all(folder, NAMES)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of what two processes with two devices each make."""
    folder = tmp_path_factory.mktemp("two")
    module = "tests.helpers.many_runs"
    told = f"--workdir={folder}", f"--names={','.join(NAMES)}"
    with processes.start(folder / "logs", *told, module=module) as job:
        assert job.wait(590) == [0, 0], job.text()
    return folder


def results_of(folder):
    """{the workdir and what was measured: its results}, of all workdirs."""
    found = {}
    for path in sorted(folder.rglob("results.jsonl")):
        for r in read_results(path):
            more = r.setting, r.model and r.model.rpartition("/")[2]
            key = path.parent.relative_to(folder), *more, r.prompts, *alike.key_of(r)
            found.setdefault(key, []).append(r)
    return found


def test_their_results_are_equal(alone, two):
    ours, theirs = results_of(two), results_of(alone)
    assert ours.keys() == theirs.keys()
    stages = {r.stage for found in ours.values() for r in found}
    all_stages = {"patch", "align", "ablate", "survey"}
    assert stages - {"evaluate"} == all_stages & {*NAMES, "patch", "align"}
    for key, expected in theirs.items():
        values = [alike.as_number(r.value) for r in expected]
        assert [alike.as_number(r.value) for r in ours[key]] == pytest.approx(
            values, rel=1e-5, abs=1e-7, nan_ok=True
        ), key


def test_their_products_are_equal(alone, two):
    made = [p.parent.relative_to(alone) for p in alone.rglob("params")]
    products = sorted(p for p in made if "checkpoints" not in p.parts)
    assert len(products) >= len({*NAMES} - {"survey", "compare", "inspect", "export"})
    for name in products:
        with processes.toy_variant():
            (a, meta), (b, other) = (
                checkpoint.load_product(folder / name) for folder in (two, alone)
            )
        alike.assert_close(a, b)
        assert (meta.alpha, meta.steps) == (other.alpha, other.steps), name


def test_they_leave_the_same_files(alone, two):
    ours, theirs = (
        {str(p.relative_to(folder)) for p in folder.rglob("*") if wanted(p, folder)}
        for folder in (two, alone)
    )
    assert ours == theirs


def wanted(path, folder):
    """Whether it is a file of a run, and not inside of Orbax or of one process."""
    parts = path.relative_to(folder).parts
    inner = {"logs", "processes", "params", "theta_1", "checkpoints"}
    return path.is_file() and not inner.intersection(parts)


def test_an_inspection_finds_the_same(alone, two):
    where = "inspect/inspect/miniature/summary.json"
    ours, theirs = (json.loads((folder / where).read_text()) for folder in (two, alone))
    assert ours.pop("contact_sheet") != theirs.pop("contact_sheet")  # its path
    assert ours == theirs


def test_an_exported_file_holds_the_same(alone, two):
    with processes.toy_variant():
        (_, ours), (_, theirs) = (
            load_clip(folder / "export" / "export" / "clip", variant="toy")
            for folder in (two, alone)
        )
    alike.assert_close(ours, theirs)
