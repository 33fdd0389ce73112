"""launch/two_process_cpu.sh, with a stand-in for Python that plays two processes."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import REPO

SETTINGS = {"CONFIG": "configs/align_sar.py", "WORKDIR": "runs/x", "PORT": "4321"}
# what a process does, by its number: the last flag is --process=I
BY_PROCESS = "for last; do :; done; case $last in --process=0) {} ;; *) {} ;; esac"


def play(stubs, first: str, second: str) -> None:
    stubs.add("python3", BY_PROCESS.format(first, second))


def test_two_processes_get_the_same_flags_and_their_own_number(stubs):
    stubs.add("python3", 'echo "$JAX_PLATFORMS $XLA_FLAGS $PYTHONPATH"')
    flags = ("--config.mesh=(-1, 2)", "--config.init=it's")
    done = stubs.run("two_process_cpu.sh", *flags, DEVICES="3", **SETTINGS)
    assert done.returncode == 0, done.stderr
    command = ["python3", "-m", "rsclip_jax.main", "--config=configs/align_sar.py"]
    command += ["--workdir=runs/x", *flags]
    command += ["--coordinator=127.0.0.1:4321", "--processes=2"]
    assert sorted(stubs.calls()) == [[*command, f"--process={i}"] for i in range(2)]
    line = f"cpu --xla_force_host_platform_device_count=3 {REPO}"
    assert done.stdout.splitlines() == [line] * 2


def test_devices_replace_those_of_the_environment_and_other_flags_stay(stubs):
    stubs.add("python3", 'echo "$XLA_FLAGS"')
    flags = "--a=1 --xla_force_host_platform_device_count=8 --b=2"
    done = stubs.run("two_process_cpu.sh", XLA_FLAGS=flags, **SETTINGS)
    wanted = ["--xla_force_host_platform_device_count=2", "--a=1", "--b=2"]
    assert [line.split() for line in done.stdout.splitlines()] == [wanted] * 2


def test_the_port_is_a_free_one(stubs):
    real = f'[ "$1" != -c ] || exec {sys.executable} -S -E "$@"'
    stubs.add("python3", real)
    done = stubs.run("two_process_cpu.sh", **{**SETTINGS, "PORT": ""})
    assert done.returncode == 0, done.stderr
    words = [word for call in stubs.calls() for word in call]
    ports = {w.split(":")[1] for w in words if w.startswith("--coordinator=127.0.0.1:")}
    assert len(ports) == 1
    assert int(ports.pop()) > 1023


@pytest.mark.parametrize("fails", [0, 1])
def test_the_peer_of_a_failed_process_is_ended_and_its_code_kept(stubs, fails):
    acts = ["exec sleep 50", "exec sleep 50"]
    acts[fails] = "exit 3"
    play(stubs, *acts)
    started = time.monotonic()
    done = stubs.run("two_process_cpu.sh", **SETTINGS)
    assert done.returncode == 3
    assert f"process {fails} ended with code 3: ending the others\n" in done.stderr
    assert time.monotonic() - started < 20


def test_a_peer_that_ignores_sigterm_is_killed(stubs):
    play(stubs, "trap '' TERM; while :; do sleep 0.1; done", "sleep 0.5; exit 4")
    started = time.monotonic()
    done = stubs.run("two_process_cpu.sh", GRACE="1", **SETTINGS)
    assert done.returncode == 4
    assert time.monotonic() - started < 20


def test_a_process_that_is_killed_ends_the_run(stubs):
    play(stubs, "exec sleep 50", "kill -KILL $$")
    done = stubs.run("two_process_cpu.sh", **SETTINGS)
    assert done.returncode == 128 + 9
    said = "process 1 ended with code 137 (SIGKILL); the same command continues the run"
    assert said in done.stderr


def test_it_waits_for_the_slower_process(stubs):
    play(stubs, "exit 0", "sleep 0.7; exit 5")
    assert stubs.run("two_process_cpu.sh", **SETTINGS).returncode == 5


SAVES = """
trap 'echo saved >> "$STUBS/saved"; exit 130' INT
trap 'echo saved >> "$STUBS/saved"; exit 143' TERM
echo x >> "$STUBS/up"
i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done  # no longer, if a test fails
"""


# makes the terminal of its standard input the one that Ctrl-C is typed in
TAKES_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def start_both(stubs, *before, **options):
    """The script as a process, once both of its own have begun."""
    stubs.add("python3", SAVES)
    script = subprocess.Popen(
        [*before, shutil.which("bash"), REPO / "launch" / "two_process_cpu.sh"],
        env=stubs.environment(**SETTINGS),
        **options,
    )
    until = time.monotonic() + 120
    up = stubs.folder / "up"
    while not (up.exists() and len(up.read_text()) == 4):
        assert time.monotonic() < until
        time.sleep(0.05)
    return script


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_reaches_both_processes(stubs, sent, code):
    script = start_both(stubs)
    script.send_signal(sent)
    assert script.wait(timeout=120) == code
    assert (stubs.folder / "saved").read_text() == "saved\n" * 2


def test_control_c_in_a_terminal_reaches_both_processes(stubs):
    keyboard, terminal = pty.openpty()
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    take = (sys.executable, "-S", "-E", "-c", TAKES_TERMINAL)
    script = start_both(stubs, *take, start_new_session=True, **streams)
    os.close(terminal)
    os.write(keyboard, b"\x03")
    assert script.wait(timeout=120) == 130
    os.close(keyboard)
    assert (stubs.folder / "saved").read_text() == "saved\n" * 2


@pytest.mark.parametrize("name", ["PROCESSES", "DEVICES", "GRACE"])
def test_a_number_that_is_none_is_named(stubs, name):
    stubs.add("python3")
    done = stubs.run("two_process_cpu.sh", **{**SETTINGS, name: "two"})
    assert done.returncode == 2
    assert f"{name}=two is no whole number" in done.stderr
    assert stubs.calls() == []


@pytest.mark.parametrize("name", ["PROCESSES", "DEVICES"])
def test_no_process_or_device_at_all_is_refused(stubs, name):
    stubs.add("python3")
    done = stubs.run("two_process_cpu.sh", "--dry-run", **{**SETTINGS, name: "0"})
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name}=0: set {name} to 1 or more" in done.stderr
