"""Text files of other programs, and values in messages."""

import pytest

from rsclip_jax.io.texts import (
    clip,
    decode_text,
    first_of,
    read_csv,
    read_lines,
    shown,
)

MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("mark", [b"", MARK])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_are_read_as_any_editor_ends_them(tmp_path, mark, end):
    path = tmp_path / "a.txt"
    path.write_bytes(mark + end.join([b"one", b"", b" two\xe2\x80\xa8b ", b""]))
    assert read_lines(path) == [(1, "one"), (3, "two\u2028b")]


@pytest.mark.parametrize("mark", [b"", MARK])
def test_rows_of_a_csv_keep_their_lines(tmp_path, mark):
    path = tmp_path / "a.csv"
    path.write_bytes(mark + b'"a",b\r\n\r\n , \r\n"c\nd", e\r\n')
    assert list(read_csv(path)) == [(1, ["a", "b"]), (5, ["c\nd", "e"])]


def test_a_row_that_is_no_csv_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\nc,"d\n')
    with pytest.raises(ValueError, match=r"a\.csv, line 2: unexpected end of data"):
        list(read_csv(path))


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_another_encoding_is_named(order):
    with pytest.raises(ValueError, match="x: saved as UTF-16; save the file as UTF-8"):
        decode_text("\ufeffname".encode(order), "x")
    with pytest.raises(ValueError, match=r"x: not UTF-8 \(byte 1 is 0xe9\); save"):
        decode_text(b"t\xe9", "x")


def test_long_values_are_cut():
    assert clip("abc", 3) == "abc"
    assert clip("ab" + "." * 1995 + "cde", 4) == "ab...de (2,000 characters)"
    assert shown(b"ab") == "b'ab'"
    assert len(shown(bytes(50_000))) < 150


def test_the_first_things_of_a_list_are_as_many_as_there_is_room_for():
    assert first_of(["a", 2, "c"], "; ") == "a; 2; c"
    assert first_of(range(6)) == "0, 1, 2, 3, 4, ..."
    assert first_of(range(30), most=20).count(",") == 20
    long = first_of(["x" * 500, "y" * 300, "z"], most=20)
    assert long == "x" * 500 + ", ..."
    assert len(first_of(["x" * 10_000])) < 750
    assert first_of([]) == ""


def test_a_list_in_lists_without_end_is_no_error():
    value: list = []
    for _ in range(3000):
        value = [value]
    assert shown(value) == "a deeply nested list"
