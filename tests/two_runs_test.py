"""Two runs started in one workdir: the second is refused, and the first is unharmed."""

import json
import signal

import pytest

from rsclip_jax.records.results import read_results
from tests.helpers.pauses import Pauses, wait_until
from tests.helpers.processes import start_alone, write_config

CHANGES = """
config.variant = "toy"
config.pretrain.update(steps=12, checkpoint_every=5, test=("miniature:test",))
config.pretrain.allow_other_data = True
"""


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "config.py", CHANGES, "('pretrain',)")


@pytest.mark.slow
def test_the_second_is_refused_and_a_killed_first_frees_the_workdir(config, tmp_path):
    workdir, pauses = tmp_path / "w", Pauses(tmp_path / "pauses", 4, 8)
    with start_alone(config, workdir, pauses.variables) as first:
        wait_until(lambda: pauses.reached(4), first)
        first.send_signal(signal.SIGSTOP)  # so that all that changes is the second's
        before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
        with start_alone(config, workdir) as second:
            out, error = second.communicate(timeout=240)
        assert second.returncode == 1
        (line,) = error.splitlines()
        assert f"error: {workdir} is in use by another run: pid {first.pid} on" in line
        assert "wait for it, or stop it there, or choose another --workdir" in line
        assert out == ""
        assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before
        first.send_signal(signal.SIGCONT)
        pauses.let_go(4)
        saved = workdir / "pretrain" / "checkpoints" / "5"
        wait_until(lambda: pauses.reached(8) and saved.is_dir(), first)
        first.kill()
        first.communicate()
    with start_alone(config, workdir) as again:
        out, error = again.communicate(timeout=240)
    assert again.returncode == 0, error
    assert f"the run that left it (pid {first.pid} on" in out
    curve = (workdir / "pretrain" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(x)["step"] for x in curve] == list(range(1, 13))
    assert not (workdir / "lock.json").exists()


@pytest.mark.slow
def test_of_tasks_that_know_nothing_of_each_other_one_runs(config, tmp_path):
    """As srun starts two of them where no job is set up: each believes to be alone."""
    pauses = Pauses(tmp_path / "pauses", 3)  # the one that runs waits for the other
    with (
        start_alone(config, tmp_path / "w", pauses.variables) as one,
        start_alone(config, tmp_path / "w", pauses.variables) as other,
    ):
        tasks = one, other
        wait_until(lambda: any(p.poll() is not None for p in tasks))
        pauses.let_go(3)
        ended = [(p.communicate(timeout=280)[1], p.returncode) for p in tasks]
    (refused, _), (said, _) = sorted(ended, key=lambda x: -x[1])
    assert sorted(code for _, code in ended) == [0, 1], ended
    assert "is in use by another run" in refused
    assert "Traceback" not in said
    with start_alone(config, tmp_path / "alone") as alone:
        alone.communicate(timeout=240)
    assert alone.returncode == 0
    found, wanted = (
        read_results(tmp_path / name / "results.jsonl") for name in ("w", "alone")
    )
    assert found == wanted
    assert len(found) > 0
