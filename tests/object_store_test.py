"""A whole run whose workdir is on gs://, against an emulator on this machine.

Real Orbax, TensorStore, gcsfs and google-cloud-storage talk to it; what differs from
Google's service is in launch/README.md.
"""

import numpy as np
import pytest

import rsclip_jax
from rsclip_jax.io.paths import as_path
from rsclip_jax.records.results import read_results
from rsclip_jax.report.page import write_report
from rsclip_jax.stages.compare import open_run
from tests.helpers.object_store import BUCKET, environment, serving
from tests.helpers.runs import run_tiny, tiny_config


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with (
        serving(tmp_path_factory.mktemp("store") / "log") as variables,
        environment(variables),
    ):
        yield as_path(f"gs://{BUCKET}")


@pytest.mark.slow
def test_a_run_on_gs_equals_a_local_one(bucket, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = bucket / "whole"
    found = run_tiny(workdir, tiny_config())
    wanted = read_results(tiny_run / "results.jsonl")
    assert [vars(r) | {"seconds": 0} for r in found] == [
        vars(r) | {"seconds": 0} for r in wanted
    ]
    names = {str(p)[len(str(workdir)) + 1 :] for p in workdir.files()}
    local = {str(p.relative_to(tiny_run)) for p in tiny_run.rglob("*") if p.is_file()}
    ours = {n for n in local if "/params/" not in n and "/checkpoints/" not in n}
    assert ours - names == set()
    model = rsclip_jax.load(str(workdir))
    same = rsclip_jax.load(tiny_run)
    assert model.digests == same.digests
    images = np.zeros((2, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(model.encode_image(images), same.encode_image(images))
    assert write_report(workdir).read_text().startswith("<!")
    assert open_run(workdir).records == found
    assert list(tmp_path.iterdir()) == []  # no folder "gs:"
