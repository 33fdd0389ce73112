import json

import numpy as np
import pytest

from rsclip_jax.io import files


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "deep" / "a.json"
    files.write_json(path, {"b": 1, "a": "é"})
    assert json.loads(path.read_text("utf-8")) == {"a": "é", "b": 1}
    assert list(files.read_json(path)) == ["a", "b"]
    files.write_json(path, {"b": 1, "a": 2}, sort_keys=False)
    assert list(files.read_json(path)) == ["b", "a"]
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("old", [None, "old"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, old):
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)

    def stop():
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError("stopped")

    with pytest.raises(KeyError):
        stop()
    found = [(p.name, p.read_text()) for p in tmp_path.iterdir()]
    assert found == ([("a.txt", "old")] if old else [])


def test_json_that_cannot_be_encoded_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"b": object()})
    assert files.read_json(path) == {"b": 1}


def test_arrays_are_written_uncompressed_and_without_pickles(tmp_path):
    path = tmp_path / "a.npz"
    files.write_npz(path, **{"z/rgb": np.arange(3), "ids": np.array(["a", "é"])})
    with np.load(path, allow_pickle=False) as stored:
        assert stored["z/rgb"].tolist() == [0, 1, 2]
        assert stored["ids"].tolist() == ["a", "é"]
    with pytest.raises(ValueError, match="Object arrays"):
        files.write_npz(path, a=np.array([object()]))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_an_error_of_writing_names_the_file(tmp_path):
    full = OSError(28, "No space left on device")
    path = tmp_path / "a.txt"
    with (
        pytest.raises(OSError, match=r"a\.txt could not be written: .*No space"),
        files.naming(path),
        files.replacing(path),
    ):
        raise full
    folder = tmp_path / "folder"
    folder.mkdir()
    for write in (files.write_text, files.write_json):
        with pytest.raises(OSError, match="folder could not be written"):
            write(folder, "x")
    with pytest.raises(OSError, match="folder could not be written"):
        files.write_npz(folder, a=np.zeros(1))


@pytest.mark.parametrize("data", [b"{", b"", b'{"a": "\xff"}', b"{'a': 1}"])
def test_what_is_not_json_is_named(tmp_path, data):
    path = tmp_path / "meta.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"meta\.json is not valid JSON: "):
        files.read_json(path)
    with pytest.raises(FileNotFoundError, match=r"other\.json"):
        files.read_json(tmp_path / "other.json")


def test_json_nested_without_end_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a":' * 3000)
    with pytest.raises(ValueError, match=r"a\.json is JSON that is nested too deeply"):
        files.read_json(path)
    with pytest.raises(ValueError, match=r"the header is .* nested too deeply.*; go"):
        files.parse_json("[" * 3000, "the header", "go")
