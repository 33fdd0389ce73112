"""What a table's cells are: labels, missing, or refused."""

import datetime
import decimal

import pytest

from rsclip_jax.data.readers.cells import Column, labels_of, plain_text, texts_of

NAN = float("nan")


def labels(cells, separator="", classes=(), kind="t"):
    column = Column("c", kind, cells, range(2, 2 + len(cells)))
    return labels_of("x", column, separator, classes)


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["sea", " ice "], ["sea", "ice"]),
        ([b"sea", "s\u00e9a".encode()], ["sea", "s\u00e9a"]),
        ([3, 11], ["3", "11"]),
        ([3.0, NAN, 11.0], ["3", "", "11"]),  # pandas: whole numbers, one missing
        (["3.0", "", "11.0"], ["3", "", "11"]),  # ... in a csv
        (["3.0", "sea"], ["3.0", "sea"]),
        (["sea", None, "", "nan", "NaN", "<NA>", "NULL"], ["sea", *[""] * 6]),
        (["Beaches, dunes, sands", "sea"], ["Beaches, dunes, sands", "sea"]),
        (
            ["Urban/Built-up", "a-b", "(dry) land"],
            ["Urban/Built-up", "a-b", "(dry) land"],
        ),
        (["True", "2020-01-01"], ["True", "2020-01-01"]),
    ],
)
def test_one_label_a_cell(cells, wanted):
    assert labels(cells) == [(w,) if w else () for w in wanted]


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        ([["a", "b"], [], None, ["b", None]], ["ab", "", "", "b"]),
        ([[b"a"], ["b"]], ["a", "b"]),
        (["a| b", b"b", "", "a|"], ["ab", "b", "", "a"]),
        ([[3, 5], [5]], ["35", "5"]),
        ([[0, 1], [1], [0]], ["01", "1", "0"]),  # lengths differ: numbers of classes
        ([["0", "1"], ["0", "1"]], ["01", "01"]),
    ],
)
def test_several_labels_a_cell(cells, wanted):
    assert labels(cells, "|") == [tuple(w) for w in wanted]


HOT = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    "cells",
    [
        HOT,
        [[float(x) for x in row] for row in HOT],
        [[bool(x) for x in row] for row in HOT],
        ["|".join(map(str, row)) for row in HOT],
    ],
)
def test_vectors_of_0_and_1_take_the_classes_in_order(cells):
    assert labels([*cells, None], "|", "abc") == [("a", "c"), (), ("b",), ()]
    for classes, words in (((), "classes is not set"), ("ab", "classes has 2 names")):
        with pytest.raises(
            ValueError, match=f"vectors of 3 numbers 0 and 1, and {words}"
        ):
            labels(cells, "|", classes)


def test_two_classes_one_hot_are_no_label_numbers():
    assert labels([[0, 1], [1, 0]], "|", ("no", "yes")) == [("yes",), ("no",)]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("b'Forest'", "bytes written as text: decode them"),
        ("['a', 'b']", "a list written as text"),
        ('["a", "b"]', "a list written as text"),
        ("[1 0 1]", "a list written as text"),
        ("('a', 'b')", "a list written as text"),
        ("{'a'}", "a list written as text"),
        ("array(['a'], dtype=object)", "a list written as text"),
        ("0.25", "a measured number"),
        ("1e-3", "a measured number"),
        (0.25, "a measured number"),
        (float("inf"), "a measured number"),
        (True, "write text"),
        (b"\xff\xfe", "write text"),
        (datetime.date(2020, 1, 1), "write text"),
        (decimal.Decimal("1.5"), "write text"),
        ({"a": 1}, "write text"),
    ],
)
@pytest.mark.parametrize("separator", ["", "|"])
def test_what_is_no_label_is_refused_with_line_and_type(cell, words, separator):
    with pytest.raises(ValueError, match=words) as error:
        labels(["sea", cell], separator, kind="odd")
    assert "x, line 3: " in str(error.value)
    assert "column 'c' of type odd" in str(error.value)
    named = str(cell)  # unless it is a class's name
    if isinstance(cell, str):
        assert labels(["sea", cell], separator, ("sea", named))[1] == (named,)


def test_missing_words_are_labels_where_they_are_classes():
    assert labels(["None", "sea"]) == [(), ("sea",)]
    assert labels(["None", "sea"], "", ("None", "sea")) == [("None",), ("sea",)]


@pytest.mark.parametrize(
    ("cells", "separator", "way"),
    [
        (["sea;ice", "sea"], "", "set task = \"multi\" with separator = ';'"),
        (["sea|ice"], "", "set task = \"multi\" with separator = '|'"),
        (["sea;ice", "sea"], "|", "set separator = ';'"),
        (["sea, ice", "sea"], "|", "set separator = ','"),
        (["sea\tice"], "|", r"set separator = '\\t'"),
        ([["sea;ice"], ["sea"]], "|", "set separator = ';'"),
    ],
)
def test_labels_that_another_mark_separates_are_refused(cells, separator, way):
    with pytest.raises(ValueError, match=rf"line 2: .* looks like 2 labels; {way}"):
        labels(cells, separator)
    whole = cells[0] if isinstance(cells[0], str) else cells[0][0]
    assert labels(cells, separator, (whole, "sea"))[0] == (whole,)


def test_a_list_needs_several_labels():
    with pytest.raises(ValueError, match=r'a list of labels .*; set task = "multi"'):
        labels([["a"]])


def test_paths_and_ids_are_text():
    column = Column("c", "t", [b"a.png", 3, None, NAN, 4.0], range(5))
    assert texts_of("x", column) == ["a.png", "3", "", "", "4"]
    assert plain_text(True) is None
    with pytest.raises(
        ValueError, match=r"x, line 0: b'.*' in column 'c' of type t is"
    ):
        texts_of("x", Column("c", "t", [b"\xff"], [0]))
