"""Several processes stop at one step when one of them gets a signal."""

import signal

import pytest

from rsclip_jax.train.stores import steps_in
from tests.helpers import processes
from tests.helpers.pauses import Pauses

CHANGES = """
config.variant = "toy"
config.pretrain.update(steps=2000, log_every=1, checkpoint_every=1000, test=())
"""


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_saves_the_state_of_all_and_ends_them(tmp_path, signum):
    config = processes.write_config(tmp_path / "c.py", CHANGES, "('pretrain',)")
    pauses = Pauses(tmp_path / "pauses", 4)
    flags = [f"--config={config}", f"--workdir={tmp_path}/w"]
    with processes.start(
        tmp_path / "logs", *flags, devices=1, env=pauses.variables
    ) as job:
        job.wait_until(lambda: pauses.reached(4))
        job.kill(1, signum)
        pauses.let_go(4)
        codes = job.wait()
    stopped = [x for x in job.output(0).splitlines() if x.startswith("stopped at step")]
    assert codes[0] == 128 + signal.SIGTERM, job.text()
    assert codes[1] == 128 + signum, job.text()
    (step,) = steps_in(tmp_path / "w" / "pretrain" / "checkpoints")
    assert 4 <= step < 2000
    (line,) = stopped
    assert line.startswith(f"stopped at step {step} of 2000 of pretrain; the state is")
    assert "Traceback" not in job.text()


@pytest.mark.slow  # 10 s
def test_a_signal_right_after_a_save_is_not_lost(tmp_path):
    """A save must not count in the agreement on the point of the stop."""
    folder, module = f"--workdir={tmp_path}/checkpoints", "tests.helpers.stops"
    with processes.start(tmp_path / "logs", folder, module=module, devices=1) as job:
        assert job.wait() == [0, 0], job.text()
    for i in (0, 1):
        assert "stopped at points [1] after the save" in job.output(i), job.text()
