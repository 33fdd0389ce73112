"""launch/slurm.sbatch, with an sbatch that submits and an srun that plays the step."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from rsclip_jax.train.watchdog import EXIT_CODE
from tests.conftest import REPO

SETTINGS = {"CONFIG": "align_sar", "WORKDIR": "/shared/x"}
FLAGS = ("--config.mesh=(-1, 2)", "--config.note=it's $HOME")
IN_A_JOB = {**SETTINGS, "SLURM_JOB_ID": "7"}
STEP = ["python3", "-m", "rsclip_jax.main", "--config=align_sar", "--workdir=/shared/x"]


def test_outside_a_job_the_script_submits_itself(stubs):
    stubs.add("sbatch", 'echo "$RSCLIP_LAUNCH"')
    options = {"NODES": "2", "GPUS": "4", "PARTITION": "gpu", "ACCOUNT": "me"}
    more = {**options, "SBATCH_FLAGS": "--qos=low --exclusive"}
    done = stubs.run("slurm.sbatch", *FLAGS, **more, **SETTINGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{REPO / 'launch'}\n"
    (call,) = stubs.calls()
    assert call == [
        "sbatch",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--cpus-per-task=8",
        "--time=24:00:00",
        "--partition=gpu",
        "--account=me",
        "--qos=low",
        "--exclusive",
        str(REPO / "launch" / "slurm.sbatch"),
        *FLAGS,
    ]


def test_a_job_starts_a_process_for_each_task_that_sees_all_gpus(stubs):
    stubs.add("srun", "")
    done = stubs.run("slurm.sbatch", *FLAGS, SLURM_CPUS_PER_TASK="3", **IN_A_JOB)
    assert done.returncode == 0, done.stderr
    (call,) = stubs.calls()
    path = f"PYTHONPATH={REPO}"
    options = ["--kill-on-bad-exit=1", "--gpu-bind=none", "--cpus-per-task=3"]
    assert call == ["srun", *options, "env", path, *STEP, *FLAGS]


def test_slurms_copy_of_the_script_finds_the_clone(stubs, tmp_path):
    stubs.add("srun", "")
    copy = tmp_path / "slurm_script"
    shutil.copy(REPO / "launch" / "slurm.sbatch", copy)
    env = stubs.environment(**IN_A_JOB, RSCLIP_LAUNCH=str(REPO / "launch"))
    subprocess.run([shutil.which("bash"), copy], env=env, check=True, timeout=120)
    assert f"PYTHONPATH={REPO}" in stubs.calls()[0]


@pytest.mark.parametrize("code", [1, 143])
def test_the_code_of_the_step_is_the_jobs(stubs, code):
    stubs.add("srun", f"exit {code}")
    stubs.add("scontrol")
    assert stubs.run("slurm.sbatch", **IN_A_JOB).returncode == code
    assert [call[0] for call in stubs.calls()] == ["srun"]


SAVES = """
trap 'exit {code}' TERM
trap 'exit 130' INT
echo $$ > "$STUBS/step.new"
mv "$STUBS/step.new" "$STUBS/step"
i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done  # no longer, if a test fails
"""
# scancel signals the processes of the run, not srun, which plays them here
SCANCEL = """
[ "$2" = 7 ] && kill -s "${1#--signal=}" "$(cat "$STUBS/step")"
"""


def signal_job(stubs, *sent, code: int = 143, **variables):
    """(the job's code, its calls of Slurm) where it gets a signal as the step runs.

    sent: the signal of the job's script, and that of the run, if Slurm signals both.
    """
    stubs.add("srun", SAVES.format(code=code))
    stubs.add("scancel", SCANCEL)
    stubs.add("scontrol")
    job = subprocess.Popen(
        [shutil.which("bash"), REPO / "launch" / "slurm.sbatch"],
        env=stubs.environment(**IN_A_JOB, **variables),
        stderr=subprocess.DEVNULL,
    )
    step = stubs.folder / "step"
    try:
        until = time.monotonic() + 120
        while not step.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        for pid, one in zip((job.pid, int(step.read_text())), sent, strict=False):
            os.kill(pid, one)
        ended = job.wait(timeout=120)
    finally:
        job.kill()
        job.wait()
    return ended, [call for call in stubs.calls() if call[0] != "srun"]


def test_a_job_in_which_a_process_hangs_goes_back(stubs):
    stubs.add("srun", f"exit {EXIT_CODE}")  # the watchdog's
    stubs.add("scontrol")
    assert stubs.run("slurm.sbatch", **IN_A_JOB).returncode == EXIT_CODE
    assert stubs.calls()[-1] == ["scontrol", "requeue", "7"]


STOP = ["scancel", "--signal=TERM", "7"]


def test_near_the_time_limit_the_run_saves_and_the_job_goes_back(stubs):
    ended, calls = signal_job(stubs, signal.SIGUSR1)
    assert (ended, calls) == (143, [STOP, ["scontrol", "requeue", "7"]])


def test_a_job_that_is_cancelled_does_not_go_back(stubs):
    assert signal_job(stubs, signal.SIGTERM, signal.SIGTERM) == (143, [])


def test_control_c_in_an_allocation_reaches_the_run(stubs):
    stop = [["scancel", "--signal=INT", "7"]]
    assert signal_job(stubs, signal.SIGINT) == (130, stop)


def test_a_run_that_fails_near_the_time_limit_does_not_go_back(stubs):
    assert signal_job(stubs, signal.SIGUSR1, code=1) == (1, [STOP])


def test_a_job_goes_back_so_many_times(stubs):
    restarts = {"SLURM_RESTART_COUNT": "3", "MAX_RESTARTS": "3"}
    assert signal_job(stubs, signal.SIGUSR1, **restarts) == (2, [STOP])


def test_the_directives_of_the_script_give_it_time_to_save():
    text = (REPO / "launch" / "slurm.sbatch").read_text()
    head = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --signal=B:USR1@300" in head
    assert "#SBATCH --requeue" in head
    # Slurm reads directives up to the first command only
    assert text.index(head[-1]) < text.index("\nset -euo pipefail")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"CONFIG": ""}, "set CONFIG"),
        ({"WORKDIR": ""}, "set WORKDIR"),
        ({"NODES": "0"}, "NODES=0: set NODES to 1 or more"),
        ({"TIME": "one day"}, "TIME=one day: set it to minutes, HOURS"),
        ({"GPUS": "all"}, "GPUS=all is no whole number"),
        ({}, "there is no sbatch on PATH: start this on a login node"),
        ({"SLURM_JOB_ID": "7"}, "there is no srun on PATH"),
    ],
)
def test_what_is_wrong_is_named(stubs, settings, said):
    done = stubs.run("slurm.sbatch", **{**SETTINGS, **settings})
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("limit", ["90", "90:00", "1:30:00", "2-12", "2-12:30:00"])
def test_each_form_of_a_time_limit_is_slurms(stubs, limit):
    done = stubs.run("slurm.sbatch", "--dry-run", TIME=limit, **SETTINGS)
    assert f" --time={limit} " in done.stdout


def test_the_help_leaves_out_slurms_directives(stubs):
    said = stubs.run("slurm.sbatch", "--help").stdout
    assert "SBATCH " not in said
    assert said.startswith("Runs rsclip_jax on the GPUs")


def test_a_dry_run_prints_the_commands(stubs):
    done = stubs.run("slurm.sbatch", "--dry-run", *FLAGS, **SETTINGS)
    assert done.stdout.startswith("sbatch --nodes=1 --ntasks-per-node=1 ")
    assert done.stdout.endswith(
        "/launch/slurm.sbatch '--config.mesh=(-1, 2)' '--config.note=it'\\''s $HOME'\n"
    )
    done = stubs.run("slurm.sbatch", "--dry-run", **IN_A_JOB)
    assert done.stdout.startswith("srun --kill-on-bad-exit=1 ")
