"""The command line, as a person starts it: mistakes, another config, Ctrl-C."""

import json
import os
import runpy
import signal
import subprocess
import sys

import pytest

from rsclip_jax.main import run_stages
from rsclip_jax.stages.registry import STAGES, check_sections, find_stages
from rsclip_jax.stages.shared.saved_config import get_config
from rsclip_jax.stages.shared.workdir import check_folder, differences
from tests.conftest import REPO
from tests.helpers import xla
from tests.helpers.marks import slow
from tests.helpers.pauses import Pauses, wait_until
from tests.helpers.processes import start_alone, write_config
from tests.helpers.runs import tiny_config

MAIN = [sys.executable, "-m", "rsclip_jax.main", "--config=configs/align_sar.py"]
ONE_DEVICE = {
    **{k: v for k, v in os.environ.items() if not k.startswith("AWS_")},
    "XLA_FLAGS": xla.flags(),
    # s3:// without credentials
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def run_main(*args, config="configs/align_sar.py"):
    command = [*MAIN[:-1], f"--config={config}", *args]
    return subprocess.run(
        command, cwd=REPO, env=ONE_DEVICE, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ("config", "flag", "words"),
    [
        ("configs/align_sar.py", "--config.patch.lrr=1", "'lr'"),
        (
            "configs/align_sar.py",
            "--config.patch.learning_rate=1",
            "config.patch.learning_rate is not a setting: There are accumulate,",
        ),
        ("configs/align_sar.py", "--config.patsch.lr=1", "'patch'"),
        ("configs/align_sar.py", "--config.patch.steps=many", "steps"),
        ("configs/align_sar.py:huge", "", "miniature, small, vit_b32"),
        ("configs/nothing.py", "", "no config file 'configs/nothing.py'"),
        ("common", "", "no config file 'common'"),
        ("configs/common.py", "", "get_config"),
        (
            "align_sar",
            "--config.stages=patch --config.seed=1 --config.stages=align",
            "--config.stages is given 2 times, as 'patch', 'align': give it once",
        ),
        (
            "align_sar",
            "--config.patch.train a:b --config.patch.train=c:d",
            "--config.patch.train is given 2 times, as 'a:b', 'c:d'",
        ),
        ("s3://b/c.json", "", "s3://b/c.json: the object store failed (NoCredentials"),
        ("configs/patch.py:x", "", "has no variants: omit ':x'"),
        ("configs", "", "--config=configs is not a config: give a Python file"),
        ("pyproject.toml", "", "--config=pyproject.toml is not a config"),
    ],
)
def test_a_mistyped_command_is_one_line(config, flag, words):
    done = run_main(*flag.split(), config=config)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


def test_a_command_without_a_config_says_how_to_give_one():
    done = subprocess.run(MAIN[:-1], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 1
    assert "give a config, such as --config=configs/align_sar.py" in done.stderr


def test_the_papers_setting_says_which_archive_it_wants(tmp_path):
    done = run_main(f"--workdir={tmp_path}/w", config="configs/align_sar.py:vit_b32")
    assert done.returncode == 1
    error, trace = done.stderr.splitlines()
    assert error.startswith(
        "error: config.patch.train: dataset bigearthnet_s2 is read from files: set"
        " root (--config.data_root)"
    )
    assert "Traceback" in (tmp_path / "w" / "error.txt").read_text()
    assert "error.txt" in trace
    # a start that failed does not bind the next one to its config
    run_stages(tiny_config(stages=()), tmp_path / "w")
    assert json.loads((tmp_path / "w" / "config.json").read_text())["variant"] == "mini"
    assert not (tmp_path / "w" / "error.txt").exists()


@pytest.mark.parametrize("inside", ["", slow("w")])
def test_a_workdir_that_is_a_file_is_named(tmp_path, inside):
    (tmp_path / "notes.txt").write_text("mine")
    done = run_main(f"--workdir={tmp_path / 'notes.txt' / inside}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --workdir={tmp_path}/notes.txt")
    assert f"{tmp_path}/notes.txt is a file; name a folder" in line
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_saved_config_can_be_run_again(tmp_path):
    """Into another workdir, with a setting changed; None and tuples come back."""
    config = tiny_config(stages=())
    run_stages(config, tmp_path / "w")
    saved = tmp_path / "w" / "config.json"
    several = "('miniature:train','miniature:val')"  # where it was one
    flags = ["--config.patch.alpha=0.5", f"--config.patch.train={several}"]
    done = run_main(*flags, f"--workdir={tmp_path}/again", config=str(saved))
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "again" / "config.json").read_text())
    wanted = json.loads(saved.read_text())
    wanted["patch"].update(alpha=0.5, train=["miniature:train", "miniature:val"])
    assert told == wanted
    assert get_config(str(saved)).to_dict() == config.to_dict()
    done = run_main("--config.align.stepz=7", config=str(saved))
    assert "config.align.stepz is not a setting: did you mean 'steps'" in done.stderr


def test_a_saved_config_of_an_older_version_gets_the_newer_settings(tmp_path):
    saved = tmp_path / "config.json"
    values = tiny_config().to_dict()
    del values["keep_embeddings"], values["data"]["dataset"]
    del values["patch"]["allow_shared"], values["patch"]["augment"]["rotate"]
    saved.write_text(json.dumps(values))
    config = get_config(str(saved))
    assert config.keep_embeddings
    assert config.data.dataset == ""
    assert not config.patch.allow_shared
    assert not config.patch.augment.rotate
    assert config.patch.steps == values["patch"]["steps"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no config file"),
        ("{", "is not JSON"),
        ('{"digest": "ab"}', "is not a saved config: it has no 'stages'"),
    ],
)
def test_json_that_is_no_config_is_one_line(tmp_path, text, words):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    done = run_main(config=str(tmp_path / "config.json"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert f"{tmp_path}/config.json" in line


def test_an_unknown_stage_lists_the_stages():
    with pytest.raises(ValueError, match=r"'patsch'.*'patch'.*pretrain, patch, align"):
        find_stages(("pretrain", "patsch"))
    with pytest.raises(
        ValueError, match=r"^config\.stages is empty: .* pretrain, patch"
    ):
        find_stages(("",))


@pytest.mark.parametrize(
    ("stages", "setting", "value", "words"),
    [
        (
            ("pretrain",),
            "init",
            "clip.safetensors",
            r"config\.init = 'clip\.saf.*'pretr",
        ),
        (("align",), "align.test", (), r"config\.align\.test is empty"),
        (("align",), "seed", 0, "'align' needs a CLIP to start from"),
        (("patch", "align"), "seed", 0, "'patch' needs a CLIP to start from"),
        (
            ("pretrain",),
            "pretrain.train",
            ("miniature_multi:train",),
            r"config\.pretrain\.train = 'miniature_multi:train': .*several labels each",
        ),
        (
            ("pretrain", "patch", "evaluate"),
            "datasets",
            ("minature:test",),
            r"config\.datasets: unknown dataset 'minature'",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(
    tmp_path, stages, setting, value, words
):
    config = tiny_config(stages)
    with config.unlocked():
        config.update_from_flattened_dict({setting: value})
    with pytest.raises(ValueError, match=words):
        run_stages(config, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_a_stage_that_the_config_lacks_is_named(tmp_path):
    from configs import evaluate

    config = evaluate.get_config()
    config.stages = ("patch",)
    with pytest.raises(
        ValueError, match=r"'patch'.* no config\.patch: .*=configs/align_sar\.py"
    ):
        run_stages(config, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_stages_are_found_in_the_order_asked_for():
    names = [stage.name for stage in STAGES]
    assert [stage.name for stage in find_stages(names[::-1])] == names[::-1]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_example_of_a_stage_has_its_settings(stage):
    path, _, variant = stage.example.partition(":")
    get_config = runpy.run_path(str(REPO / path))["get_config"]
    config = get_config(variant) if variant else get_config()
    check_sections(config, [stage])


def test_a_reader_that_goes_away_is_no_error(tiny_run):
    """`... | head` closes the pipe; nothing is written into the workdir for that."""
    command = [*MAIN, f"--workdir={tiny_run}", "--config.stages=()"]
    stored = (tiny_run / "config.json").read_text()
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            command, cwd=REPO, env=ONE_DEVICE, stdout=write, stderr=subprocess.PIPE,
            text=True, timeout=120,
        )  # fmt: skip
    finally:
        os.close(write)
    assert "Broken pipe" not in done.stderr
    assert (tiny_run / "config.json").read_text() == stored


def begun(workdir, config):
    """A workdir in which two stages have begun, with results."""
    run_stages(config, workdir)
    (workdir / "pretrain").mkdir()
    (workdir / "patch").mkdir()
    (workdir / "results.jsonl").write_text("")
    (workdir / "notes.txt").write_text("mine")


def test_another_config_is_refused_with_what_differs(tmp_path):
    begun(tmp_path / "w", tiny_config(stages=()))
    other = tiny_config(stages=())
    with other.unlocked():
        other.patch.lr = 0.5
        other.data_root = "elsewhere"
    with pytest.raises(
        ValueError, match=r"config\.patch\.lr: 0\.0005 in the workdir, 0\.5"
    ) as e:
        run_stages(other, tmp_path / "w")
    assert "--config.overwrite=True" in str(e.value)
    assert "elsewhere" not in str(e.value)
    assert (tmp_path / "w" / "pretrain").exists()
    other.overwrite = True
    with other.unlocked():  # a mistake in the new settings costs nothing of the old run
        other.stages = ("pretrain",)  # which stages to run is free
        other.pretrain.train = ("minature:train",)
    with pytest.raises(ValueError, match=r"config\.pretrain\.train: .*'miniature'"):
        run_stages(other, tmp_path / "w")
    assert (tmp_path / "w" / "pretrain").exists()
    assert (tmp_path / "w" / "results.jsonl").exists()
    (tmp_path / "w" / "report.html").write_text("of the old run")
    with other.unlocked():
        other.stages = ()
    run_stages(other, tmp_path / "w")
    assert not (tmp_path / "w" / "report.html").exists()
    assert not (tmp_path / "w" / "pretrain").exists()
    assert not (tmp_path / "w" / "results.jsonl").exists()
    assert (tmp_path / "w" / "notes.txt").exists()  # not ours to remove
    stored = json.loads((tmp_path / "w" / "config.json").read_text())
    assert stored["patch"]["lr"] == 0.5


def test_settings_of_stages_that_have_not_begun_may_change(tmp_path):
    begun(tmp_path / "w", tiny_config(stages=()))
    other = tiny_config(stages=())
    with other.unlocked():
        other.align.lr = 0.5
        other.datasets = ("miniature:val",)
        other.evaluate.knn_k = 7
    # an evaluation that did not end has kept embeddings, and binds nothing
    (tmp_path / "w" / "evaluate" / "outcomes").mkdir(parents=True)
    run_stages(other, tmp_path / "w")
    stored = json.loads((tmp_path / "w" / "config.json").read_text())
    assert stored["align"]["lr"] == 0.5
    assert (tmp_path / "w" / "results.jsonl").exists()


def test_the_way_out_of_a_bad_file_is_open_in_the_same_workdir(tmp_path):
    """Other pixels are not: max_nodata fills some."""
    begun(tmp_path / "w", tiny_config(stages=()))
    other = tiny_config(stages=())
    other.data.on_error = "skip"
    run_stages(other, tmp_path / "w")
    stored = json.loads((tmp_path / "w" / "config.json").read_text())
    assert stored["data"]["on_error"] == "skip"
    other.data.max_nodata = 0.1
    with pytest.raises(ValueError, match=r"max_nodata: 0\.0 in the workdir, 0\.1"):
        run_stages(other, tmp_path / "w")


def test_the_same_config_may_overwrite_and_loses_nothing(tmp_path):
    config = tiny_config(stages=())
    begun(tmp_path / "w", config)
    config.overwrite = True
    run_stages(config, tmp_path / "w")
    assert (tmp_path / "w" / "results.jsonl").read_text() == ""


def test_a_folder_of_something_else_is_not_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"not empty and holds no config\.json"):
        run_stages(tiny_config(stages=()), tmp_path)


def test_a_lock_that_was_being_written_is_no_other_programs_file(tmp_path):
    for name in ("lock.json", "lock.json.1f", "lock.json.1f.tmp", "lock.json.tmp"):
        (tmp_path / name).write_text("{}")
    check_folder(tmp_path)
    (tmp_path / "lock").write_text("")
    with pytest.raises(ValueError, match=r"not empty and holds no config\.json"):
        check_folder(tmp_path)


def test_new_and_removed_settings_differ():
    assert differences({"a": 1}, {"b": {"c": 2}}) == [
        "config.a: 1 in the workdir, None in this run",
        "config.b: None in the workdir, {'c': 2} in this run",
    ]


def test_permission_to_share_records_may_be_given_later():
    old, new = ({"patch": {"allow_shared": x, "lr": 1}} for x in (False, True))
    assert differences(old, new) == []


CHANGES = """
config.variant = "toy"
config.pretrain.update(steps=8, test=(), allow_other_data=True)
"""


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path):
    config = write_config(tmp_path / "config.py", CHANGES, "('pretrain',)")
    workdir, pauses = tmp_path / "w", Pauses(tmp_path / "pauses", 4)
    with start_alone(config, workdir, pauses.variables) as process:
        wait_until(lambda: pauses.reached(4), process)
        process.send_signal(signal.SIGINT)
        pauses.let_go(4)
        _, stderr = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "stopped at step 4 of 8" in stderr
    assert "Traceback" not in stderr
    with start_alone(config, workdir) as again:
        out, stderr = again.communicate(timeout=240)
    assert again.returncode == 0, stderr
    curve = (workdir / "pretrain" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(x)["step"] for x in curve] == list(range(1, 9))
    assert (workdir / "pretrain" / "params").is_dir()
    assert "pretrain: done" in out
