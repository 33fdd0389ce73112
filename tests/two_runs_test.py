"""Two runs started in one workdir: the second is refused, and the first is unharmed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from rsclip_jax.records.results import read_results
from tests.conftest import REPO

RUN = [
    sys.executable, "-m", "rsclip_jax.main", "--config=configs/align_sar.py",
    "--config.stages=('pretrain',)", "--config.pretrain.steps=30",
    "--config.pretrain.batch_size=16", "--config.pretrain.warmup=2",
    "--config.pretrain.log_every=1", "--config.pretrain.checkpoint_every=5",
    "--config.progress=False",
]  # fmt: skip


def start(workdir, *flags):
    return subprocess.Popen(
        [*RUN, f"--workdir={workdir}", *flags],
        cwd=REPO,
        env={**os.environ, "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, lines, process):
    deadline = time.monotonic() + 240
    while not (path.exists() and path.read_text().count("\n") >= lines):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_the_second_is_refused_and_a_killed_first_frees_the_workdir(tmp_path):
    workdir, curve = tmp_path / "w", tmp_path / "w" / "pretrain" / "metrics.jsonl"
    with start(workdir) as first:
        wait_for(curve, 3, first)
        first.send_signal(signal.SIGSTOP)  # so that all that changes is the second's
        before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
        with start(workdir) as second:
            out, error = second.communicate(timeout=240)
        assert second.returncode == 1
        (line,) = error.splitlines()
        assert f"error: {workdir} is in use by another run: pid {first.pid} on" in line
        assert "wait for it, or stop it there, or choose another --workdir" in line
        assert out == ""
        assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before
        first.send_signal(signal.SIGCONT)
        wait_for(curve, 7, first)
        first.kill()
        first.communicate()
    with start(workdir) as again:
        out, error = again.communicate(timeout=240)
    assert again.returncode == 0, error
    assert f"the run that left it (pid {first.pid} on" in out
    steps = [json.loads(x)["step"] for x in curve.read_text().splitlines()]
    assert steps == list(range(1, 31))
    assert not (workdir / "lock.json").exists()


@pytest.mark.slow
def test_of_tasks_that_know_nothing_of_each_other_one_runs(tmp_path):
    """As srun starts two of them where no job is set up: each believes to be alone."""
    few = "--config.pretrain.steps=6"
    with start(tmp_path / "w", few) as one, start(tmp_path / "w", few) as other:
        ended = [(p.communicate(timeout=280)[1], p.returncode) for p in (one, other)]
    (refused, _), (said, _) = sorted(ended, key=lambda x: -x[1])
    assert sorted(code for _, code in ended) == [0, 1], ended
    assert "is in use by another run" in refused
    assert "Traceback" not in said
    with start(tmp_path / "alone", few) as alone:
        alone.communicate(timeout=240)
    assert alone.returncode == 0
    found, wanted = (
        read_results(tmp_path / name / "results.jsonl") for name in ("w", "alone")
    )
    assert found == wanted
    assert len(found) > 0
