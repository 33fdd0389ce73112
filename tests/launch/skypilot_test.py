"""launch/skypilot.yaml: its fields, and its two pieces of shell with stand-ins."""

import shutil
import subprocess

import pytest
import yaml

from rsclip_jax.train.watchdog import EXIT_CODE
from tests.conftest import REPO

TASK = yaml.safe_load((REPO / "launch" / "skypilot.yaml").read_text())
BASIC = ["-m", "rsclip_jax.main", "--config=align_sar", "--workdir=gs://b/x"]
TPU = {"SKYPILOT_NUM_NODES": "4", "SKYPILOT_NUM_GPUS_PER_NODE": "0"}
GPU = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8"}


def run(stubs, part: str, **variables):
    """Runs setup or run on a host, with the file's variables."""
    envs = {**TASK["envs"], "WORKDIR": "gs://b/x", "HOME": str(stubs.folder)}
    return subprocess.run(
        [shutil.which("bash"), "-c", TASK[part]],
        env=stubs.environment(**envs, **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def host(stubs):
    home = stubs.folder / "rsclip_venv" / "bin"
    home.mkdir(parents=True)
    stubs.add("python")
    (home / "python").symlink_to(stubs.folder / "python")
    return stubs


def words(host) -> list[str]:
    (call,) = host.calls()
    return call[1:]


def test_the_job_is_on_spot_and_comes_back():
    resources = TASK["resources"]
    assert resources["accelerators"] == "tpu-v5litepod-16"
    runtime = resources["accelerator_args"]["runtime_version"]
    assert runtime == "v2-alpha-tpuv5-lite"
    assert resources["use_spot"] is True
    # of a run that was told to end, and of its watchdog
    assert resources["job_recovery"]["recover_on_exit_codes"] == [143, EXIT_CODE]


def test_the_workdir_has_to_be_given():
    assert TASK["envs"]["WORKDIR"] is None
    assert TASK["workdir"] == "."


def test_on_a_slice_jax_finds_the_other_hosts(host):
    done = run(host, "run", SKYPILOT_NODE_RANK="3", **TPU)
    assert done.returncode == 0, done.stderr
    assert words(host) == BASIC


def test_hosts_with_gpus_are_told_of_each_other(host):
    ips = "10.0.0.1\n10.0.0.2"
    run(host, "run", SKYPILOT_NODE_RANK="1", SKYPILOT_NODE_IPS=ips, **GPU)
    told = ["--coordinator=10.0.0.1:8482", "--processes=2", "--process=1"]
    assert words(host) == [*BASIC, *told]


def test_flags_are_those_of_a_shell(host):
    flags = "--config.seed=1 '--config.mesh=(-1, 2)'"
    envs = {**TASK["envs"], "FLAGS": flags}
    environment = {"SKYPILOT_NODE_RANK": "0", **TPU, **envs, "WORKDIR": "gs://b/x"}
    env = host.environment(**environment, HOME=str(host.folder))
    command = [shutil.which("bash"), "-c", TASK["run"]]
    subprocess.run(command, env=env, check=True, timeout=120)
    assert words(host) == [*BASIC, "--config.seed=1", "--config.mesh=(-1, 2)"]


def test_the_code_of_the_run_is_the_hosts(host):
    host.add("python", "exit 143")
    assert run(host, "run", SKYPILOT_NODE_RANK="0", **TPU).returncode == 143


def test_setup_installs_the_requirements_and_jax_for_the_devices(stubs):
    stubs.add("pip")
    stubs.add("uv")
    assert run(stubs, "setup").returncode == 0
    pip, venv, install = stubs.calls()
    assert pip == ["pip", "install", "--quiet", "uv"]
    assert venv[1] == "venv"
    assert install[-3:] == ["-r", "requirements.txt", "jax[tpu]"]


def test_a_setup_that_fails_ends_the_job(stubs):
    stubs.add("pip", "exit 5")
    stubs.add("uv")
    assert run(stubs, "setup").returncode == 5
