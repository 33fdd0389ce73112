"""Paths by text: local ones stay pathlib's; gs:// reaches a store and stays gs://."""

import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from rsclip_jax.io import files
from rsclip_jax.io.paths import ObjectPath, as_path, check_local, is_remote
from tests.helpers.object_store import BUCKET, environment, serving


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The root of an emulated bucket."""
    with (
        serving(tmp_path_factory.mktemp("store") / "log") as variables,
        environment(variables),
    ):
        yield as_path(f"gs://{BUCKET}")


@pytest.mark.parametrize("text", ["runs/a", "/runs/a", "C:/runs", "hf:a/b", "a:b"])
def test_a_local_path_stays_pathlibs(text):
    assert as_path(text) == Path(text)
    assert type(as_path(text)) is type(Path(text))
    assert not is_remote(text)
    check_local(text, "data_root")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://a/b", r"http:// is not supported; there are gs://, s3://, az://"),
        (
            Path("gs://bucket/run"),
            r"gs:/bucket/run: .*: write gs://bucket/run ",
        ),
        ("gs://", r"names no bucket; write gs://BUCKET/FOLDER"),
    ],
)
def test_what_names_no_store_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        as_path(text)


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_missing_package_is_named_with_its_install(monkeypatch, scheme, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    extra = {"gs": "gcs"}.get(scheme, scheme)
    words = rf"needs the package {package}: pip install \"rsclip-jax\[{extra}\]\""
    with pytest.raises(ValueError, match=words):
        as_path(f"{scheme}://bucket/run")


def test_a_remote_path_keeps_its_two_slashes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = as_path("gs://bucket/run/")
    assert str(path) == "gs://bucket/run"
    assert str(path / "a" / "b.txt") == "gs://bucket/run/a/b.txt"
    assert str((path / "a").resolve().absolute().parent) == "gs://bucket/run"
    assert os.fspath(path) == str(path)
    assert as_path(path) is path
    assert pickle.loads(pickle.dumps(path)) == path
    assert is_remote(path)
    assert is_remote(str(path))
    words = r"data_root = 'gs://bucket/run' has to be local"
    with pytest.raises(ValueError, match=words):
        check_local(path, "data_root")
    assert list(tmp_path.iterdir()) == []  # no folder "gs:"


def test_the_store_reads_what_was_written(store):
    path = store / "written" / "a.json"
    assert not path.exists()
    files.write_json(path, {"a": "é"})
    assert files.read_json(path) == {"a": "é"}
    files.write_npz(path.with_name("b.npz"), x=np.arange(3))
    with path.with_name("b.npz").open("rb") as file, np.load(file) as stored:
        assert stored["x"].tolist() == [0, 1, 2]
    files.write_text(path.parent / "deep" / "c.txt", "c é")
    assert (path.parent / "deep" / "c.txt").read_text() == "c é"
    names = [p.name for p in path.parent.iterdir()]
    assert sorted(names) == ["a.json", "b.npz", "deep"]
    assert path.is_file()
    assert path.parent.is_dir()
    assert not path.is_dir()
    assert not path.parent.is_file()


def test_the_store_forgets_what_was_removed(store):
    folder = store / "removed"
    for name in ("a", "b/c", "b/d/e"):
        files.write_text(folder / name, "x")
    (folder / "a").unlink()
    (folder / "a").unlink(missing_ok=True)
    files.remove_tree(folder / "b")
    files.remove_tree(folder / "b")
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        (folder / "a").read_text()


def test_a_glob_finds_files_in_all_folders(store):
    folder = store / "glob"
    for name in ("m.jsonl", "a/m.jsonl", "a/b/m.jsonl", "a/b/n.jsonl"):
        files.write_text(folder / name, "x")
    found = [str(p).removeprefix(f"{folder}/") for p in folder.glob("**/m.jsonl")]
    assert found == ["a/b/m.jsonl", "a/m.jsonl", "m.jsonl"]
    assert [p.name for p in folder.glob("a/b/*.jsonl")] == ["m.jsonl", "n.jsonl"]
    assert all(type(p) is ObjectPath for p in folder.glob("*"))


def test_appending_keeps_what_is_there(store):
    """gcsfs opens with "a" and overwrites, with a warning only."""
    path = store / "append" / "a.jsonl"
    files.append_text(path, "1\n")
    files.append_text(path, "é\n")
    assert path.read_text() == "1\né\n"
    with pytest.raises(ValueError, match=r"cannot append; use append_text"):
        path.open("a")


def test_a_failed_write_leaves_the_old_object(store):
    path = store / "failed" / "a.txt"
    files.write_text(path, "old")

    def stop():
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError("stopped")

    with pytest.raises(KeyError):
        stop()
    assert path.read_text() == "old"


def test_lines_reach_the_store_in_groups_and_a_folder_at_once(store, tmp_path):
    for root, seen in ((store, False), (tmp_path, True)):
        path = root / "lines" / "m.jsonl"
        lines = files.LineWriter(path, seconds=60)
        lines.add("1")
        lines.add("2")
        assert path.exists() == seen
        lines.flush()
        lines.flush()
        assert path.read_text() == "1\n2\n"
    due = files.LineWriter(store / "lines" / "due", seconds=0)
    due.add("1")
    assert due.path.read_text() == "1\n"
