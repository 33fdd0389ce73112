"""What each script refuses alike, in dry runs too, before it starts anything."""

import shutil

import pytest

from tests.conftest import REPO

ACTIONS = {
    "tpu_vm.sh": ("run",),
    "gke.sh": ("apply",),
    "slurm.sbatch": (),
    "gpu.sh": (),
    "two_process_cpu.sh": (),
}
ON_OTHERS = ("tpu_vm.sh", "gke.sh")  # which get a copy of the clone
SETTINGS = {
    "CONFIG": "align_sar",
    "WORKDIR": "/shared/x",
    "ZONE": "z",
    "IMAGE": "i",
    "PORT": "4321",
}
TOOLS = ("gcloud", "kubectl", "sbatch", "python3")


def start(stubs, script, *words, **settings):
    for tool in TOOLS:
        stubs.add(tool)
    return stubs.run(script, *ACTIONS[script], *words, **{**SETTINGS, **settings})


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (["--dryrun"], {}, "there is no --dryrun here: --dry-run, --help, or"),
        (["config.seed=1"], {}, "there is no config.seed=1 here"),
        (["--config.seed=1", "x"], {}, "there is no x here"),
        (["--workdir=y"], {}, "--workdir=y: set the variable WORKDIR instead"),
        (["--config=patch"], {}, "--config=patch: set the variable CONFIG instead"),
        ([], {"CONFIG": "align_sra"}, "CONFIG=align_sra is no file in "),
        ([], {"CONFIG": "configs"}, "CONFIG=configs is no file in "),
        ([], {"CONFIG": "common"}, "CONFIG=common is no file in "),
        ([], {"CONFIG": "/none/align_sar.py"}, "no shipped config; there are: ablate"),
        ([], {"WORKDIR": "gs:/b/x"}, "WORKDIR=gs:/b/x: write gs://BUCKET/PATH"),
        ([], {"WORKDIR": "gs:///x"}, "WORKDIR=gs:///x: write gs://BUCKET/PATH"),
        ([], {"WORKDIR": "http://b/x"}, "WORKDIR=http://b/x: there are gs://, s3://"),
    ],
)
@pytest.mark.parametrize("script", ACTIONS)
def test_what_is_wrong_is_named_and_nothing_starts(
    stubs, script, words, settings, said, dry
):
    done = start(stubs, script, *words, *dry, **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert stubs.calls() == []


@pytest.mark.parametrize(
    "config",
    [
        "align_sar.py",
        "configs/patch.py:large",
        "patch:large",
        "./configs/export.py",
        "gs://b/run/config.json",
        "README.md",  # a file, which the run then judges
    ],
)
@pytest.mark.parametrize("script", ACTIONS)
def test_a_config_that_is_there_is_taken(stubs, script, config, tmp_path):
    shutil.copy(REPO / "README.md", tmp_path)  # where the script is started
    done = start(stubs, script, "--dry-run", CONFIG=config)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"--config={config}" in done.stdout or script == "slurm.sbatch"


@pytest.mark.parametrize("script", ACTIONS)
def test_a_persons_own_config_is_found_where_the_run_will_look(stubs, script, tmp_path):
    (tmp_path / "mine.py").write_text("")
    done = start(stubs, script, "--dry-run", CONFIG="mine.py")
    whole = start(stubs, script, "--dry-run", CONFIG=str(tmp_path / "mine.py"))
    wanted = 2 if script in ON_OTHERS else 0  # this machine's files are not copied
    assert (done.returncode, whole.returncode) == (wanted, wanted)


def test_one_machine_takes_the_flags_that_name_processes(stubs):
    done = start(stubs, "gpu.sh", "--dry-run", "--processes=1")
    assert "--processes=1" in done.stdout
    done = start(stubs, "two_process_cpu.sh", "--dry-run", "--processes=1")
    assert done.returncode == 2  # PROCESSES says it
