"""Damaged files of a workdir: readers name the file, the damage and the way out."""

import json
import re
import shutil

import numpy as np
import pytest

from rsclip_jax import api
from rsclip_jax.io.json_lines import (
    append_lines,
    count_cut,
    keep_lines,
    read_json_lines,
)
from rsclip_jax.records.lost import find_all_lost, find_lost, note_results
from rsclip_jax.records.meta import read_meta
from rsclip_jax.records.outcomes import load_outcome
from rsclip_jax.records.results import read_results, start_stage
from rsclip_jax.report.page import write_report
from rsclip_jax.stages.compare import open_run
from rsclip_jax.stages.shared.workdir import check_workdir
from tests.helpers.runs import tiny_config
from tests.helpers.workdirs import make_workdir


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_workdir(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def workdir(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def halve(data):
    return data[: len(data) // 2]


def spoil(data):
    """A byte that is not UTF-8, in the middle of the first line."""
    return data[:20] + b"\xff" + data[21:]


LINES = [
    ("halved", lambda data: halve(data[: data.index(b"\n")]) + b"\n", "not JSON"),
    ("utf8", spoil, "not UTF-8 (byte 21)"),
    ("foreign", lambda data: b"Traceback (most recent\n" + data, "'Traceback (most"),
    ("list", lambda data: b"[1, 2]\n" + data, "not a JSON object: '[1, 2]'"),
]


@pytest.mark.parametrize("name", ["results.jsonl", "align/metrics.jsonl"])
@pytest.mark.parametrize(("kind", "damage", "words"), LINES, ids=[x[0] for x in LINES])
def test_a_damaged_line_is_named(workdir, name, kind, damage, words):
    del kind
    path = workdir / name
    path.write_bytes(damage(path.read_bytes()))
    way = "restore the file from a copy, or remove that line"
    with pytest.raises(ValueError, match=rf"{path}, line 1: .*{way}") as error:
        read_json_lines(path)
    assert words in str(error.value)
    with pytest.raises(ValueError, match=f"{path}, line 1"):
        keep_lines(path, lambda values: True)
    with pytest.raises(ValueError, match=f"{path}, line 1"):
        open_run(workdir)  # as configs/compare.py does
    if name == "results.jsonl":
        with pytest.raises(ValueError, match=f"{path}, line 1"):
            start_stage(path, "patch")
    else:  # the report does without a curve
        said = []
        write_report(workdir, said.append)
        assert any(f"left out {path}, line 1" in line for line in said)


TYPES = [
    ("value", "high", r"value is 'high', not a number"),
    ("value", True, r"value is True, not a number"),
    ("n", None, r"n is None, not a number"),
    ("stage", 3, r"stage is 3, not a text"),
    ("prompts", [1], r"prompts is \[1\], not a text"),
]


@pytest.mark.parametrize(("field", "value", "words"), TYPES)
def test_a_result_of_another_type_is_named(workdir, field, value, words):
    path = workdir / "results.jsonl"
    first, *rest = path.read_text().splitlines()
    lines = [json.dumps({**json.loads(first), field: value}), *rest]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"{path}, line 1: {words}; remove that"):
        read_results(path)


OBJECTS = [
    ("empty", lambda data: b"", "is not valid JSON"),
    ("halved", halve, "is not valid JSON"),
    ("utf8", lambda data: b'{"a": "\xff"}', "is not valid JSON"),
    ("list", lambda data: b"[]", r"holds \[\], not a JSON object"),
    ("number", lambda data: b"7", "holds 7, not a JSON object"),
]
WRONG = [
    ("digest", lambda data: b'{"digest": 5}', "digest is 5, not a text"),
    ("steps", lambda data: b'{"steps": "9"}', "steps is '9', not a whole number"),
    ("sources", lambda data: b'{"sources": []}', r"sources is \[\], not an object"),
    ("rounds", lambda data: b'{"rounds": [{"x": 1}]}', "rounds has .*not a choice"),
]


@pytest.mark.parametrize(
    ("kind", "damage", "words"), OBJECTS + WRONG, ids=[x[0] for x in OBJECTS + WRONG]
)
def test_a_damaged_meta_is_named(workdir, kind, damage, words):
    del kind
    path = workdir / "patch" / "meta.json"
    path.write_bytes(damage(path.read_bytes()))
    (workdir / "patch" / "params").mkdir()
    way = f"or remove {workdir}/patch to run the stage again"
    readers = [read_meta, lambda folder: api.find_variant(folder.parent)]
    readers.append(lambda folder: open_run(folder.parent))
    for read in readers:
        with pytest.raises(ValueError, match=f"{path}.*{words}.*{way}"):
            read(workdir / "patch")
    said = []
    write_report(workdir, said.append)
    assert any(f"left out {path}" in line for line in said)


@pytest.mark.parametrize(
    ("kind", "damage", "words"), OBJECTS, ids=[x[0] for x in OBJECTS]
)
def test_a_damaged_config_is_named_and_can_be_started_over(
    workdir, kind, damage, words
):
    from rsclip_jax.stages.registry import STAGES

    del kind
    path = workdir / "config.json"
    path.write_bytes(damage(path.read_bytes()))
    config = tiny_config()
    way = "choose another --workdir, or --config.overwrite=True to remove its"
    with pytest.raises(ValueError, match=f"{path} {words}.*{way}"):
        check_workdir(config, workdir, STAGES)
    config.overwrite = True
    assert check_workdir(config, workdir, STAGES)
    with pytest.raises(ValueError, match=f"{path} {words}"):
        open_run(workdir)
    said = []
    write_report(workdir, said.append)
    assert any(f"left out {path}" in line for line in said)


def without(name):
    """An outcome's file that lacks an array."""

    def damage(path):
        with np.load(path) as stored:
            arrays = {key: stored[key] for key in stored.files if key != name}
        np.savez(path, **arrays)

    return damage


def with_rows(path):
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    np.savez(path, **{**arrays, "labels": arrays["labels"][1:]})


def with_bytes(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


ARRAYS = [
    ("empty", with_bytes(lambda data: b""), "EOFError|BadZipFile|ValueError"),
    ("halved", with_bytes(halve), "BadZipFile|ValueError"),
    ("other", with_bytes(lambda data: b"\x93NUMPY" + data), ""),
    ("flipped", with_bytes(lambda d: d[:200] + bytes([d[200] ^ 4]) + d[201:]), ""),
    ("text", without("text"), "KeyError"),
    ("ids", without("ids"), "KeyError"),
    ("rows", with_rows, "labels has 29 rows for 30 ids"),
]


@pytest.mark.parametrize(
    ("kind", "damage", "words"), ARRAYS, ids=[x[0] for x in ARRAYS]
)
def test_a_damaged_outcome_is_named(workdir, kind, damage, words):
    del kind
    path = workdir / "align" / "outcomes" / "after" / "scenes-test.npz"
    damage(path)
    way = "delete it to continue without it, or delete the stage's folder"
    with pytest.raises(
        ValueError, match=rf"(?s){path}: not a file of kept.*{way}"
    ) as e:
        load_outcome(path)
    assert re.search(words, str(e.value))
    said = []
    write_report(workdir, said.append)
    assert any(f"left out {path}" in line for line in said)


@pytest.mark.parametrize("stage", ["patch", "align"])
def test_a_meta_that_lacks_what_a_product_has_is_named(tiny_run, tmp_path, stage):
    workdir = shutil.copytree(tiny_run, tmp_path / "run")
    path = workdir / stage / "meta.json"
    kept = {"digest": json.loads(path.read_text())["digest"]}
    path.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=f"{path} does not describe .*; restore"):
        api.load(workdir)


def test_damaged_thumbnails_are_named_and_left_out(workdir):
    path = workdir / "align" / "thumbnails" / "scenes-test.npz"
    path.write_bytes(halve(path.read_bytes()))
    said = []
    write_report(workdir, said.append)
    assert any(f"{path}: not a file of thumbnails" in line for line in said)


# What a kill leaves is no damage


def test_a_cut_last_line_is_removed_before_the_next_one(workdir):
    path = workdir / "results.jsonl"
    data, lines = path.read_bytes(), read_json_lines(path)
    for cut in (1, 2, 30, 3000):  # 1: the line is whole but for its line break
        path.write_bytes(data[:-cut])
        kept = read_json_lines(path)
        assert count_cut(path) == (not data[:-cut].endswith(b"\n") and cut > 1)
        append_lines(path, ['{"stage": "x"}', "{}"])
        assert read_json_lines(path) == [*kept, {"stage": "x"}, {}]
        assert kept == lines[: len(kept)]


def test_lines_that_cannot_be_written_leave_none(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    append_lines(path, ["{}"])
    path.write_bytes(b'{}\n{"cut')
    open_ = type(path).open

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.file.write(data[:3])
            self.file.flush()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "open", lambda *a: Full(open_(*a)))
    with pytest.raises(OSError, match=r"a\.jsonl could not be written: .*No space"):
        append_lines(path, ['{"a": 1}', '{"b": 2}'])
    monkeypatch.undo()
    assert path.read_bytes() == b"{}\n"


# Lost lines of a finished stage


@pytest.fixture
def noted(workdir):
    """As main leaves it: every stage's results are counted in its meta."""
    for stage in ("patch", "align"):
        note_results(workdir, stage)
    return workdir


def lines_of(path, stage):
    lines = path.read_text().splitlines(keepends=True)
    return [line for line in lines if json.loads(line)["stage"] == stage], lines


def test_a_whole_workdir_has_lost_nothing(noted):
    assert find_all_lost(noted) == []
    assert read_meta(noted / "patch").results["lines"] == 12
    assert find_lost(noted, "evaluate") == ""  # not finished


def test_a_workdir_of_an_older_version_counts_as_whole(workdir):
    (workdir / "results.jsonl").unlink()
    assert find_all_lost(workdir) == []


def test_lost_lines_are_counted_and_the_way_out_is_named(noted):
    path = noted / "results.jsonl"
    ours, lines = lines_of(path, "patch")
    path.write_text("".join(x for x in lines if x not in ours[:3]))
    (text,) = find_all_lost(noted)
    assert text == (
        f"{path} has 9 of the 12 results of stage 'patch'; restore it from a copy, or"
        f" remove {noted}/patch to run the stage again"
    )
    said = []
    page = write_report(noted, said.append).read_text()
    assert f"report.html: warning: {text}" in said
    assert "not complete: " in page
    assert "has 9 of the 12 results of stage" in page
    with pytest.raises(ValueError, match="has 9 of the 12 results of stage 'patch'"):
        open_run(noted)


def test_changed_and_added_lines_are_noticed(noted):
    path = noted / "results.jsonl"
    ours, lines = lines_of(path, "align")
    other = json.dumps({**json.loads(ours[0]), "value": 0.99}) + "\n"
    path.write_text("".join(other if x == ours[0] else x for x in lines))
    assert "results of stage 'align' have changed" in find_lost(noted, "align")
    path.write_text("".join([*lines, ours[0]]))
    n = len(ours)
    assert f"has {n + 1} results of stage 'align', which wrote {n}" in find_lost(
        noted, "align"
    )
