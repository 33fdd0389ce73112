"""Whole runs whose workdir is on gs:// or s3://, against emulators on this machine.

Orbax, TensorStore, gcsfs, google-cloud-storage and s3fs are the real ones; what
emulators cannot show is in launch/README.md.
"""

import numpy as np
import pytest

import rsclip_jax
from rsclip_jax.io.json_lines import read_json_lines
from rsclip_jax.io.paths import as_path
from rsclip_jax.io.run_lock import read_holder
from rsclip_jax.records.results import read_results
from rsclip_jax.report.page import write_report
from rsclip_jax.stages.compare import open_run
from rsclip_jax.train.checkpoint import load_product
from rsclip_jax.train.stores import steps_in
from tests.helpers import processes
from tests.helpers.object_store import BUCKET, environment, serving, serving_s3
from tests.helpers.pauses import Pauses, wait_until
from tests.helpers.runs import run_tiny, tiny_config


@pytest.fixture(scope="module", params=["gs", "s3"])
def bucket(request, tmp_path_factory):
    serve = {"gs": serving, "s3": serving_s3}[request.param]
    with (
        serve(tmp_path_factory.mktemp("store") / "log") as variables,
        environment(variables),
    ):
        yield as_path(f"{request.param}://{BUCKET}")


@pytest.mark.slow
def test_a_run_equals_a_local_one(bucket, tiny_run, tmp_path, monkeypatch):
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
    assert list(tmp_path.iterdir()) == []  # no folder "gs:" or "s3:"


ONE = """
config.variant = "toy"
config.pretrain.update(steps=12, checkpoint_every=5, test=("miniature:test",))
config.pretrain.allow_other_data = True
"""


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_a_killed_run_goes_on_in_the_store(bucket, tmp_path):
    """And a second one is refused while it runs, by the heartbeat in lock.json."""
    config = processes.write_config(tmp_path / "config.py", ONE, "('pretrain',)")
    workdir, local_dir = bucket / "killed", tmp_path / "local"
    checkpoints = workdir / "pretrain" / "checkpoints"
    pauses = Pauses(tmp_path / "pauses", 8)
    with processes.start_alone(config, workdir, pauses.variables) as first:
        wait_until(lambda: pauses.reached(8) and steps_in(checkpoints) == [5], first)
        with processes.start_alone(config, workdir) as second:
            _, error = second.communicate(timeout=280)
        assert second.returncode == 1
        assert f"{workdir} is in use by another run: pid {first.pid} on" in error
        first.kill()
        first.communicate()
    left = read_holder(workdir / "lock.json")
    assert left.pid == first.pid
    with (
        processes.start_alone(config, workdir) as again,
        processes.start_alone(config, local_dir) as local,
    ):
        out, error = again.communicate(timeout=280)
        local.communicate(timeout=280)
    assert again.returncode == 0, error
    assert f"the run that left it (pid {first.pid} on" in out
    curves = [
        read_json_lines(root / "pretrain" / "metrics.jsonl")
        for root in (workdir, local_dir)
    ]
    timed = {"examples_per_second": 0, "input_wait": 0}
    curves = [[{**x, **timed} for x in curve] for curve in curves]
    assert [x["step"] for x in curves[0]] == list(range(1, 13))
    assert curves[0] == curves[1]
    found = read_results(workdir / "results.jsonl")
    assert found == read_results(local_dir / "results.jsonl")
    kept = [steps_in(x / "pretrain" / "checkpoints") for x in (workdir, local_dir)]
    assert kept[0] == kept[1]
    assert not (workdir / "lock.json").exists()


TWO = """
config.variant = "toy"
config.pretrain.update(steps=4, checkpoint_every=2, test=("miniature:test",))
config.pretrain.allow_other_data = True
"""


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_two_processes_share_a_workdir_in_the_store(bucket, tmp_path):
    config = processes.write_config(tmp_path / "config.py", TWO, "('pretrain',)")
    workdir = bucket / "two"
    given = f"--config={config}", f"--workdir={workdir}"
    with processes.start(tmp_path / "logs", *given) as job:
        assert job.wait(240) == [0, 0], job.text()
    assert steps_in(workdir / "pretrain" / "checkpoints") == [2, 4]
    _, meta = load_product(workdir / "pretrain")  # compared with its digest
    assert meta.steps == 4
    steps = read_json_lines(workdir / "pretrain" / "metrics.jsonl")
    assert [x["step"] for x in steps] == [1, 2, 3, 4]
    assert {r.step for r in read_results(workdir / "results.jsonl")} == {0, 4}
    left = {p.name for p in workdir.iterdir()}
    assert left == {"config.json", "pretrain", "report.html", "results.jsonl"}
