"""launch/tpu_vm.sh, with a gcloud that plays the states of a slice of two workers.

The pieces of shell for the workers are run in earnest, each worker with a home of its
own; only the installation is a stand-in.
"""

import os
import shlex
import shutil
import subprocess
import tarfile
import time

import pytest

from rsclip_jax.io.commit import git_commit
from rsclip_jax.train.watchdog import EXIT_CODE
from tests.conftest import REPO

SETTINGS = {
    "NAME": "me",
    "ZONE": "us-west4-a",
    "CONFIG": "align_sar",
    "WORKDIR": "gs://bucket/runs/x",
    "POLL": "0",
}
FLAGS = ("--config.mesh=(-1, 2)", "--config.note=it's $HOME", "--config.init=")

# `next FILE` takes the first line of a file; its last line stays. A state NONE is an
# error, as gcloud says it.
GCLOUD = """
next() {
    line=$(head -n 1 "$STUBS/$1")
    sed '1d' "$STUBS/$1" > "$STUBS/rest"
    [ ! -s "$STUBS/rest" ] || cat "$STUBS/rest" > "$STUBS/$1"
    case $line in
        NONE) echo "ERROR: NOT_FOUND: no such thing" >&2; exit 1 ;;
        "DENIED") echo "ERROR: PERMISSION_DENIED: ask for it" >&2; exit 1 ;;
        *) echo "$line" ;;
    esac
}
case "$3 $4" in
    "queued-resources describe") next queue ;;
    "tpu-vm describe") next node ;;
    "tpu-vm scp")
        for home in "$STUBS"/worker*; do cat "$5" > "$home/rsclip_jax.tgz"; done ;;
    "tpu-vm ssh")
        [ ! -e "$STUBS/offline" ] || exit 255
        for word; do case $word in --command=*) script=${word#--command=} ;; esac; done
        code=0
        for home in "$STUBS"/worker*; do
            HOME=$home bash -c "$script" || code=$?
        done
        exit $code ;;
esac
"""
# the interpreter of a worker: notes its words and does what the test has put in "run"
PYTHON = """#!/bin/sh
printf '%s\\n' "$@" > "$HOME/words"
printf '%s' "$RSCLIP_COMMIT" > "$HOME/commit"
. "$STUBS/run"
"""


@pytest.fixture
def cloud(stubs):
    """The stand-ins; the request is served and the slice there."""
    stubs.add("gcloud", GCLOUD)
    stubs.add("python3")
    for i in range(2):
        home = stubs.folder / f"worker{i}"
        python = home / "rsclip_venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON)
        python.chmod(0o755)
        uv = home / ".local" / "bin" / "uv"
        uv.parent.mkdir(parents=True)
        uv.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >> "$HOME/installed"\n')
        uv.chmod(0o755)
        (home / "rsclip_jax").mkdir()
    play(stubs, run="exit 0", queue=["ACTIVE"], node=["READY"])
    return stubs


def play(stubs, **files):
    """run: what a worker's run does; queue, node: a state each time of asking."""
    for name, lines in files.items():
        text = lines if isinstance(lines, str) else "\n".join(lines)
        (stubs.folder / name).write_text(text + "\n")


def verbs(stubs) -> list[str]:
    """What gcloud was told to do, without the questions."""
    told = [" ".join(call[3:5]) for call in stubs.calls() if call[0] == "gcloud"]
    return [verb for verb in told if not verb.endswith(" describe")]


def flags_of(call: list[str]) -> dict[str, str]:
    pairs = (word.partition("=") for word in call if word.startswith("--"))
    return {name: value for name, _, value in pairs}


def find_call(stubs, verb: str) -> list[str]:
    (call,) = [c for c in stubs.calls() if c[1:5] == ["compute", "tpus", *verb.split()]]
    return call


# the slice


def test_a_slice_is_requested_and_waited_for(cloud):
    play(cloud, queue=["NONE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    play(cloud, node=["CREATING", "READY"])
    options = {"SPOT": "yes", "VALID_UNTIL": "6h", "PROJECT": "p", "DATA_DISK": "d"}
    done = cloud.run("tpu_vm.sh", "create", **SETTINGS, **options)
    assert done.returncode == 0, done.stderr
    assert flags_of(find_call(cloud, "queued-resources create")) == {
        "--node-id": "me",
        "--accelerator-type": "v5litepod-8",
        "--runtime-version": "v2-alpha-tpuv5-lite",
        "--spot": "",
        "--valid-until-duration": "6h",
        "--data-disk": "source=d,mode=read-only",
        "--quiet": "",
        "--zone": "us-west4-a",
        "--project": "p",
    }
    for state in ("NONE", "WAITING_FOR_RESOURCES", "PROVISIONING", "CREATING", "READY"):
        assert f"me: {state}\n" in done.stderr


@pytest.mark.parametrize(
    ("accelerator", "runtime"),
    [
        ("v4-16", "tpu-ubuntu2204-base"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
    ],
)
def test_the_software_follows_the_accelerator(cloud, accelerator, runtime):
    play(cloud, queue=["NONE", "ACTIVE"])
    cloud.run("tpu_vm.sh", "create", ACCELERATOR=accelerator, **SETTINGS)
    flags = flags_of(find_call(cloud, "queued-resources create"))
    assert flags["--accelerator-type"] == accelerator
    assert flags["--runtime-version"] == runtime
    assert "--spot" not in flags


def test_a_slice_that_is_there_is_taken_as_it_is(cloud):
    assert cloud.run("tpu_vm.sh", "create", **SETTINGS).returncode == 0
    assert verbs(cloud) == []


@pytest.mark.parametrize(
    ("queue", "node"),
    [
        (["SUSPENDING", "SUSPENDED", "NONE", "ACTIVE"], ["READY"]),
        (["ACTIVE", "NONE", "ACTIVE"], ["PREEMPTED", "READY"]),
        (["ACTIVE", "NONE", "ACTIVE"], ["NONE", "READY"]),
    ],
)
def test_a_slice_that_was_taken_away_is_deleted_and_requested_anew(cloud, queue, node):
    play(cloud, queue=queue, node=node)
    done = cloud.run("tpu_vm.sh", "create", **SETTINGS)
    assert done.returncode == 0, done.stderr
    assert verbs(cloud) == ["queued-resources delete", "queued-resources create"]
    assert {"--force", "--quiet"} <= set(find_call(cloud, "queued-resources delete"))


def test_a_request_that_failed_ends_the_script(cloud):
    play(cloud, queue=["FAILED"])
    done = cloud.run("tpu_vm.sh", "create", **SETTINGS)
    assert done.returncode == 2
    assert "the request of me failed" in done.stderr
    assert verbs(cloud) == []


def test_what_gcloud_says_of_a_failure_is_shown(cloud):
    play(cloud, queue=["DENIED"])
    done = cloud.run("tpu_vm.sh", "create", **SETTINGS)
    assert done.returncode == 2
    assert "PERMISSION_DENIED: ask for it" in done.stderr
    assert "gcloud does not say the state of me" in done.stderr
    assert len(cloud.calls()) == 1  # at once


def test_after_an_answer_a_question_that_fails_is_asked_again(cloud):
    play(cloud, queue=["PROVISIONING", "DENIED", "DENIED", "ACTIVE"])
    assert cloud.run("tpu_vm.sh", "create", **SETTINGS).returncode == 0
    play(cloud, queue=["PROVISIONING", "DENIED"])
    assert cloud.run("tpu_vm.sh", "create", **SETTINGS).returncode == 2


def test_a_slice_of_someone_else_is_neither_created_nor_deleted(cloud):
    existing = {**SETTINGS, "SLICE": "existing"}
    assert cloud.run("tpu_vm.sh", "create", **existing).returncode == 0
    play(cloud, node=["PREEMPTED"])
    done = cloud.run("tpu_vm.sh", "create", **existing)
    assert (done.returncode, "it has to be READY" in done.stderr) == (2, True)
    done = cloud.run("tpu_vm.sh", "delete", **existing)
    assert (done.returncode, "is not deleted here" in done.stderr) == (2, True)
    assert verbs(cloud) == []
    assert "queued-resources" not in {call[3] for call in cloud.calls()}


# the run


def test_the_run_has_its_flags_as_they_were_given_on_every_worker(cloud):
    done = cloud.run("tpu_vm.sh", "run", *FLAGS, **SETTINGS)
    assert done.returncode == 0, done.stderr
    words = ["-m", "rsclip_jax.main", "--config=align_sar"]
    words += ["--workdir=gs://bucket/runs/x", *FLAGS]
    for i in range(2):
        text = (cloud.folder / f"worker{i}" / "words").read_text()
        assert text.splitlines() == words


def test_the_workers_know_the_commit_of_the_clone(cloud):
    assert cloud.run("tpu_vm.sh", "run", **SETTINGS).returncode == 0
    assert (cloud.folder / "worker1" / "commit").read_text() == git_commit()


def test_the_log_of_every_worker_is_shown(cloud):
    play(cloud, run='echo "step 1 on ${HOME##*/}"; echo "and an error" >&2')
    done = cloud.run("tpu_vm.sh", "run", **SETTINGS)
    assert "step 1 on worker0" in done.stdout
    assert "step 1 on worker1" in done.stdout
    assert done.stdout.count("and an error") == 2


@pytest.mark.parametrize("worker", [0, 1])
def test_the_code_of_a_worker_that_fails_is_the_scripts(cloud, worker):
    play(cloud, run=f"case $HOME in *worker{worker}) exit 3 ;; esac")
    for action in ("run", "up"):
        assert cloud.run("tpu_vm.sh", action, **SETTINGS).returncode == 3
    assert "queued-resources create" not in verbs(cloud)


@pytest.mark.parametrize("code", [0, 3])
def test_the_slice_is_deleted_at_the_end_if_asked(cloud, code):
    play(cloud, run=f"exit {code}")
    done = cloud.run("tpu_vm.sh", "up", **SETTINGS)
    assert (done.returncode, "me is still there" in done.stderr) == (code, True)
    assert "queued-resources delete" not in verbs(cloud)
    done = cloud.run("tpu_vm.sh", "up", WHEN_DONE="delete", **SETTINGS)
    assert done.returncode == code
    assert verbs(cloud)[-1] == "queued-resources delete"


def test_a_second_run_beside_one_that_goes_on_is_refused(cloud):
    run = cloud.folder / "worker0" / "rsclip_run"
    run.mkdir()
    (run / "pid").write_text(f"{os.getpid()}\n")
    done = cloud.run("tpu_vm.sh", "run", **SETTINGS)
    assert done.returncode == 1
    assert "a run goes on here: follow it or stop it" in done.stderr
    assert not (cloud.folder / "worker0" / "words").exists()


def test_stop_ends_the_run_with_a_code_of_its_own(cloud):
    ends = "trap 'exit 143' TERM; : > $HOME/up; while :; do sleep 0.1; done"
    play(cloud, run=ends)
    script = subprocess.Popen(
        [shutil.which("bash"), REPO / "launch" / "tpu_vm.sh", "up"],
        env=cloud.environment(**SETTINGS),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(*(cloud.folder / f"worker{i}" / "up" for i in range(2)))
        assert cloud.run("tpu_vm.sh", "stop", **SETTINGS).returncode == 0
        assert script.wait(timeout=120) == 130
    finally:
        script.kill()
        script.wait()


def wait_for(*files):
    until = time.monotonic() + 120
    while not all(file.exists() for file in files):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_up_does_all_of_it_and_again_after_a_preemption(cloud):
    # the first run is lost with its slice; the second ends
    lost = 'if [ -e "$STUBS/lost" ]; then exit 0; fi; '
    lost += 'case $HOME in *1) : > "$STUBS/lost" ;; esac; exit 143'
    play(cloud, run=lost)
    play(cloud, queue=["NONE", "ACTIVE", "SUSPENDED", "SUSPENDED", "NONE", "ACTIVE"])
    done = cloud.run("tpu_vm.sh", "up", *FLAGS, SPOT="yes", **SETTINGS)
    assert done.returncode == 0, done.stderr
    assert "the slice was taken away: restart 1 of 50" in done.stderr
    asked = [verb for verb in verbs(cloud) if verb != "tpu-vm ssh"]
    once = ["queued-resources create", "tpu-vm scp"]
    assert asked == [*once, "queued-resources delete", *once]
    words = (cloud.folder / "worker1" / "words").read_text().splitlines()
    assert words[-3:] == list(FLAGS)


@pytest.mark.parametrize(
    ("code", "why"),
    [(143, "the hosts were told to end"), (EXIT_CODE, "a process was gone")],
)
def test_up_gives_up_after_so_many_restarts(cloud, code, why):
    play(cloud, run=f"exit {code}")  # and the slice is there
    done = cloud.run("tpu_vm.sh", "up", MAX_RESTARTS="1", **SETTINGS)
    assert done.returncode == 2
    assert f"{why}" in done.stderr
    assert "restart 1 of 1" in done.stderr
    assert "for the 2. time: MAX_RESTARTS=1" in done.stderr
    assert verbs(cloud).count("tpu-vm scp") == 2


def test_a_host_that_started_anew_has_lost_its_run(cloud):
    # its process is gone, without a code
    lost = """
    case $HOME$(cat "$STUBS/lost" 2> /dev/null) in *1)
        until [ -s "$HOME/rsclip_run/pid" ]; do sleep 0.1; done
        echo before > "$STUBS/lost"
        kill -KILL $PPID $$ ;;
    esac"""
    play(cloud, run=lost)
    done = cloud.run("tpu_vm.sh", "up", **SETTINGS)
    assert done.returncode == 0, done.stderr
    assert "a process was gone or stood still" in done.stderr
    assert "restart 1 of 50" in done.stderr
    assert verbs(cloud).count("tpu-vm scp") == 2


def test_a_lost_connection_is_followed_again(cloud):
    wait = 'until [ -e "$STUBS/again" ]; do sleep 0.1; done'
    play(cloud, run=f"{wait}; echo the end")
    # the first time of following fails, as when ssh is cut
    cut = GCLOUD.replace("code=0\n", FIRST_IS_CUT + "code=0\n", 1)
    cloud.add("gcloud", cut)
    done = cloud.run("tpu_vm.sh", "run", **SETTINGS)
    assert done.returncode == 0, done.stderr
    assert "the connection was lost; the run goes on" in done.stderr
    assert "the end" in done.stdout


FIRST_IS_CUT = """
case $script in *tail*)
    [ -e "$STUBS/cut" ] || { : > "$STUBS/cut"; exit 255; }
    : > "$STUBS/again" ;;
esac
"""


# what is copied


def test_setup_copies_the_clone_and_installs_the_requirements(cloud):
    settings = {**SETTINGS, "SETUP": "echo mounted > ~/mounted"}
    done = cloud.run("tpu_vm.sh", "setup", **settings)
    assert done.returncode == 0, done.stderr
    home = cloud.folder / "worker1"
    (line,) = (home / "installed").read_text().splitlines()
    assert line.endswith(f"-r {home}/rsclip_jax/requirements.txt jax[tpu]")
    assert (home / "mounted").read_text() == "mounted\n"
    assert (home / "rsclip_jax" / "rsclip_jax" / "main.py").exists()
    with tarfile.open(home / "rsclip_jax.tgz") as archive:
        names = set(archive.getnames())
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert names == {name for name in listed if (REPO / name).exists()}


def test_a_setup_that_fails_on_one_worker_ends_the_script(cloud):
    settings = {**SETTINGS, "SETUP": "case $HOME in *1) exit 9 ;; esac"}
    assert cloud.run("tpu_vm.sh", "up", **settings).returncode == 9
    assert not (cloud.folder / "worker0" / "words").exists()


# dry runs and errors


@pytest.mark.parametrize("action", ["up", "create", "setup", "run", "stop", "delete"])
def test_a_dry_run_prints_what_a_run_does_and_does_nothing(cloud, action):
    words = FLAGS if action in ("up", "run") else ()
    done = cloud.run("tpu_vm.sh", action, "--dry-run", *words, **SETTINGS)
    assert (done.returncode, done.stderr) == (0, "")
    assert cloud.calls() == []
    printed = [line for line in split_commands(done.stdout) if line[0] == "gcloud"]
    # pasted, they are the calls that the script makes
    play(cloud, queue=["NONE", "ACTIVE"])
    if action in ("up", "run"):
        start = next(c for c in printed if any("nohup" in word for word in c))
        subprocess.run(start, env=cloud.environment(), check=True, timeout=120)
        wait_for(cloud.folder / "worker1" / "commit")  # which it writes last
        words = (cloud.folder / "worker1" / "words").read_text().splitlines()
        assert words[-3:] == list(FLAGS)
    assert [" ".join(c[3:5]) for c in printed] == {
        "up": ["queued-resources create", "tpu-vm scp", *["tpu-vm ssh"] * 3],
        "create": ["queued-resources create"],
        "setup": ["tpu-vm scp", "tpu-vm ssh"],
        "run": ["tpu-vm ssh"] * 2,
        "stop": ["tpu-vm ssh"],
        "delete": ["queued-resources delete"],
    }[action]


def split_commands(text: str) -> list[list[str]]:
    """The commands of a dry run; a quoted word may hold line ends."""
    lines = shlex.shlex(text, posix=True, punctuation_chars="")
    lines.whitespace = " "
    lines.whitespace_split = True
    lines.commenters = ""
    commands, words = [], []
    for word in lines:
        first, *others = word.split("\ngcloud") if "\ngcloud" in word else [word]
        words.append(first.rstrip("\n"))
        if others:
            commands.append(words)
            words = ["gcloud"]
    return [*commands, words]


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        ((), {}, "say what to do: up, create"),
        (("launch",), {}, "there is no 'launch': up, create"),
        (("create",), {"ZONE": ""}, "set ZONE"),
        (("run",), {"CONFIG": ""}, "set CONFIG"),
        (("up",), {"WORKDIR": ""}, "set WORKDIR"),
        (
            ("run",),
            {"WORKDIR": "runs/x"},
            "WORKDIR=runs/x is a folder of each worker's",
        ),
        (("create",), {"ACCELERATOR": "tpu7x-16"}, "Ironwood is served by GKE only"),
        (
            ("create",),
            {"ACCELERATOR": "v9"},
            "ACCELERATOR=v9 is not known here: set RU",
        ),
        (("create",), {"SPOT": "true"}, "SPOT=true: set it to yes or no"),
        (("create",), {"SLICE": "mine"}, "SLICE=mine: set it to queued or existing"),
        (("up",), {"WHEN_DONE": "stop"}, "set WHEN_DONE to keep, or to delete"),
        (("up",), {"WHEN_DONE": "delete", "SLICE": "existing"}, "with SLICE=existing"),
        (("create",), {"POLL": "1m"}, "POLL=1m is no whole number"),
        (("delete", "--config.a=1"), {}, "delete takes no --config.a=1"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_done(cloud, words, settings, said):
    done = cloud.run("tpu_vm.sh", *words, **{**SETTINGS, **settings})
    assert done.returncode == 2
    assert said in done.stderr
    assert cloud.calls() == []


def test_gcloud_that_is_not_installed_is_named(stubs):
    done = stubs.run("tpu_vm.sh", "status", **SETTINGS)
    assert done.returncode == 2
    assert "there is no gcloud on PATH: install the Google Cloud CLI" in done.stderr
