"""Stage pack: the command of the README, what it says, and what it refuses."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import rsclip_jax
from configs import pack
from rsclip_jax.data.catalog.datasets import CIFAR10_CLASSES
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pipeline.texts import read_captions
from rsclip_jax.data.sources import packed
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.sources.packed import PackedSource, Selection
from rsclip_jax.io.commit import git_commit
from rsclip_jax.main import run_stages
from tests.conftest import REPO
from tests.helpers.caption_sets import listed, write_set


@pytest.fixture
def archive(tmp_path):
    """A data root with 20 images a class of cifar10, without split folders."""
    rng, root = np.random.default_rng(0), tmp_path / "data"
    for name, i in itertools.product(CIFAR10_CLASSES, range(20)):
        path = root / "CIFAR-10" / name / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return root


def run_pack(tmp_path, name="cifar10", on_error="raise", **settings):
    config = pack.get_config()
    config.update(dataset=name, data_root=str(tmp_path / "data"), progress=False)
    config.data.on_error = on_error
    config.pack.update(out=str(tmp_path / "out"), **settings)
    run_stages(config.lock(), tmp_path / "w")


@pytest.mark.slow
def test_the_command_packs_all_splits_and_then_skips_them(tmp_path, archive):
    command = [sys.executable, "-m", "rsclip_jax.main", "--config=configs/pack.py"]
    command += ["--config.dataset=cifar10", f"--config.data_root={archive}"]
    command += [f"--config.pack.out={tmp_path / 'out'}", f"--workdir={tmp_path / 'w'}"]

    def run():
        return subprocess.run(command, cwd=REPO, capture_output=True, text=True)

    first = run()
    assert first.returncode == 0, first.stderr
    assert "pack cifar10:train: 100%" in first.stderr
    assert "record/s" in first.stderr
    for split in ("train", "val", "test", "all", "train[:50%]"):
        found = open_source("cifar10", tmp_path / "out", split)
        want = open_source("cifar10", archive, split)
        assert split_digest(found) == split_digest(want)
        for i in range(0, len(want), 7):
            np.testing.assert_array_equal(found[i]["rgb"], want[i]["rgb"])
            assert found[i]["label"] == want[i]["label"]
    again = run()
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("packed before: ") == 3


def test_the_manifest_says_where_it_comes_from(tmp_path, archive):
    run_pack(tmp_path)
    path = tmp_path / "out" / "cifar10" / "train" / "manifest.json"
    assert json.loads(path.read_text())["provenance"] == {
        "source": "CIFAR-10",
        "version": rsclip_jax.__version__,
        "git_commit": git_commit(),
    }
    assert str(tmp_path) not in path.read_text()


def test_the_packed_set_is_preferred_where_both_lie_in_one_root(tmp_path, archive):
    run_pack(tmp_path)
    want = open_source("cifar10", archive, "val")
    (tmp_path / "out" / "cifar10").rename(archive / "cifar10")
    found = open_source("cifar10", archive, "val")
    assert type(found) is not type(want)
    assert split_digest(found) == split_digest(want)


def test_one_split_after_another(tmp_path, archive, capsys):
    run_pack(tmp_path, splits=("val",))
    assert "cifar10:all cannot be read: not all of its spl" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"'all' is not packed; val are"):
        open_source("cifar10", tmp_path / "out")
    run_pack(tmp_path, splits=("train", "test"))
    found, want = (open_source("cifar10", tmp_path / d) for d in ("out", "data"))
    assert found.ids == want.ids
    np.testing.assert_array_equal(found[150]["rgb"], want[150]["rgb"])


def test_unreadable_files_are_left_out_when_asked(tmp_path, archive, capsys):
    bad = archive / "CIFAR-10" / "cat" / "3.jpg"
    bad.write_bytes(b"\xff\xd8 no image")
    with pytest.raises(ValueError, match=rf"{bad}: unreadable or cut image"):
        run_pack(tmp_path)
    run_pack(tmp_path, on_error="skip")
    assert "1 left out, listed in " in capsys.readouterr().out
    (listed,) = (tmp_path / "out").rglob("skipped.txt")
    assert listed.read_text().startswith(f"cat/3\t{bad}: unreadable or cut image")
    found = open_source("cifar10", tmp_path / "out")
    assert found.ids == [x for x in open_source("cifar10", archive).ids if x != "cat/3"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": ""}, r"needs --config\.dataset=NAME and --config\.pack\.out=DIR"),
        ({"name": "cifar"}, "did you mean 'cifar10'"),
        ({"workers": 0}, r"config\.pack\.workers = 0 must be more than 0"),
        ({"compression": "gzip"}, r"compression = 'gzip' is not known; use auto, none"),
        (
            {"splits": ("all",)},
            r"config\.pack\.splits = \('all',\): name some of train",
        ),
    ],
)
def test_bad_settings_are_named(tmp_path, archive, settings, words):
    with pytest.raises(ValueError, match=words):
        run_pack(tmp_path, **settings)


def test_a_split_that_the_archive_lacks_says_what_to_set(tmp_path, archive):
    folder = archive / "CIFAR-10"
    folder.rename(archive / "x")
    (archive / "CIFAR-10").mkdir()
    (archive / "x").rename(archive / "CIFAR-10" / "train")
    words = r"no split 'val'; it has train.*--config\.pack\.splits="
    with pytest.raises(FileNotFoundError, match=words):
        run_pack(tmp_path)


def test_a_pack_does_not_lie_beside_its_archive(tmp_path, archive):
    config = pack.get_config()
    config.update(dataset="cifar10", data_root=str(archive))
    config.pack.out = str(archive)
    with pytest.raises(
        ValueError, match=r"is config\.data_root, where cifar10/ may be"
    ):
        run_stages(config.lock(), tmp_path / "w")


@pytest.mark.parametrize(
    ("folder", "out"),
    [("photos", "."), ("photos", "photos"), ("photos/old", "."), ("x", "x/packs")],
)
def test_a_pack_and_its_archive_do_not_share_a_folder(tmp_path, folder, out):
    base = tmp_path / folder
    for name, i in itertools.product(("barn", "pond"), range(12)):
        path = base / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(path)
    file = tmp_path / "photos.toml"
    file.write_text(
        f'reader = "class_folders"\nfolder = "{folder}"\n[sensors]\nrgb = "rgb"\n'
    )
    config = pack.get_config()
    config.update(dataset=str(file), progress=False)
    before = sorted(tmp_path.rglob("*"))
    config.pack.out = str(tmp_path / out)
    ours, theirs = tmp_path / out / "photos", base
    words = rf"be in {ours}, and the archive is in {theirs}: .*--config\.pack\.out"
    with pytest.raises(ValueError, match=words):
        run_stages(config.lock(), tmp_path / "w")
    assert sorted(p for p in tmp_path.rglob("*") if p.name != "w") == before


def test_captions_come_back_as_they_were(tmp_path, monkeypatch):
    splits = ("train", "train", "val", "test")
    images = [
        listed(
            f"port_{i}",
            splits[i % 4],
            *(f"a port №{i}.{j} é" for j in range(1 + i % 3)),
        )
        for i in range(40)
    ]
    write_set(tmp_path / "data", "rsicd", images)
    run_pack(tmp_path, "rsicd")
    for split in ("train", "val", "test", "all", "train[:50%]", "train[50%:]"):
        found = open_source("rsicd", tmp_path / "out", split)
        want = open_source("rsicd", tmp_path / "data", split)
        assert isinstance(found, PackedSource | Selection)
        assert split_digest(found) == split_digest(want)
        for mine, theirs in zip(found, want, strict=True):
            assert mine["captions"] == theirs["captions"]
            assert list(mine) == list(theirs)
            np.testing.assert_array_equal(mine["rgb"], theirs["rgb"])
        with monkeypatch.context() as m:
            m.setattr(packed, "decode_record", None)
            assert read_captions(found) == read_captions(want)


def test_rsitmd_s_val_is_the_same_in_a_pack(tmp_path):
    images = [listed(f"p_{i}", "train", f"port {i}", suffix=".tif") for i in range(60)]
    images += [listed(f"q_{i}", "test", f"q {i}", suffix=".tif") for i in range(3)]
    write_set(tmp_path / "data", "rsitmd", images)
    run_pack(tmp_path, "rsitmd")
    for split in ("train", "val", "test", "all", "train[:70%]", "val[70%:]"):
        found = open_source("rsitmd", tmp_path / "out", split)
        assert found.ids == open_source("rsitmd", tmp_path / "data", split).ids
