"""Paths that a user gives as text: a store's name never becomes a local folder."""

import json
import shutil
import subprocess
import sys

import pytest

import rsclip_jax
from rsclip_jax.io.files import write_bytes
from rsclip_jax.io.paths import as_path
from rsclip_jax.main import run_stages
from rsclip_jax.records.lost import find_lost
from rsclip_jax.stages.align.settings import AlignSettings
from rsclip_jax.stages.align.teacher import cache_folders
from rsclip_jax.stages.shared.saved_config import get_config
from tests.conftest import REPO
from tests.helpers.object_store import BUCKET, environment, serving
from tests.helpers.runs import make_run, run_tiny, tiny_config


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """No folder "gs:" appears in the working directory."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not any(p.name in ("gs:", "s3:") for p in tmp_path.iterdir())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with (
        serving(tmp_path_factory.mktemp("store") / "log") as variables,
        environment(variables),
    ):
        yield f"gs://{BUCKET}"


def test_local_paths_are_named_where_a_store_cannot_be():
    config = tiny_config(data_root="gs://bucket/data")
    with pytest.raises(ValueError, match=r"config\.data_root = 'gs://.* has to be loc"):
        run_stages(config, as_path("run"))


def test_features_cannot_be_cached_in_a_store(tmp_path):
    config = tiny_config()
    config.align.cache = "exact"
    run = make_run(as_path("gs://bucket/run"), config)
    source = run.open("miniature:val")
    c = AlignSettings.of(config.align)
    words = r"config\.align\.cache = 'exact': .*set config\.align\.cache_dir to a local"
    with pytest.raises(ValueError, match=words):
        cache_folders(run, c, [source])
    config.align.cache_dir = str(tmp_path / "features")
    ((_, folder),) = cache_folders(run, AlignSettings.of(config.align), [source])
    assert folder == tmp_path / "features"


def test_a_model_is_loaded_from_a_store_or_its_absence_is_named(store):
    with pytest.raises(FileNotFoundError, match=f"{store}/none: not a weight file"):
        rsclip_jax.load(f"{store}/none")
    path = as_path(f"{store}/a.safetensors")
    write_bytes(path, b"x")
    with pytest.raises(ValueError, match=r"a\.safetensors' has to be local"):
        rsclip_jax.load(str(path))


def test_a_saved_config_is_read_from_a_store(store):
    config = tiny_config(stages=())
    run_stages(config, as_path(f"{store}/saved"))
    path = as_path(f"{store}/saved/config.json")
    assert json.loads(path.read_text())["variant"] == "mini"
    assert get_config(str(path)).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("workdir", "words"),
    [
        ("ftp://host/run", "ftp:// is not supported; there are gs://"),
        ("gs:/bucket/run", "an object store is written with two slashes"),
    ],
)
def test_a_workdir_that_is_no_place_is_one_line(workdir, words):
    command = [sys.executable, "-m", "rsclip_jax.main", f"--workdir={workdir}"]
    done = subprocess.run(
        [*command, "--config=align_sar"], cwd=REPO, capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {workdir}: ")
    assert words in line


# Results that are lost later


def test_a_run_in_a_workdir_that_lost_results_warns(tiny_run, tmp_path, capsys):
    workdir = shutil.copytree(tiny_run, tmp_path / "run")
    for stage in ("pretrain", "patch", "align", "evaluate"):
        assert find_lost(workdir, stage) == ""
    path = workdir / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    patch = [x for x in lines if json.loads(x)["stage"] == "patch"]
    path.write_text("".join(x for x in lines if x != patch[0]))
    run_tiny(workdir, tiny_config())
    out = capsys.readouterr().out
    n = len(patch)
    text = f"{path} has {n - 1} of the {n} results of stage 'patch'; restore it"
    assert f"warning: {text}" in out
    assert f"warning: this table is not complete: {text}" in out
    assert "evaluate: already done, skipped" in out
