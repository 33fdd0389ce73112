"""The tokenizer against open_clip's, on ids recorded in tests/golden/tokenizer.json.

open_clip's SimpleTokenizer() (clean="lower") and OpenAI's original give the same ids
but for one thing: how a text can spell the special tokens themselves. open_clip reads
"<start_of_text>" and "<end_of_text>" as such, the original "<|startoftext|>" and
"<|endoftext|>". We read open_clip's. And where a text is too long open_clip cuts, the
original raises unless truncate=True; there we follow the original.
"""

import importlib.metadata
import json
import string
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsclip_jax.data.tokenizer import (
    END,
    SPECIAL,
    START,
    count_tokens,
    decode,
    tokenize,
)
from tests.conftest import REPO
from tests.golden import FOLDER


@pytest.mark.parity
def test_ids_equal_open_clips():
    cases = json.loads((FOLDER / "tokenizer.json").read_text())
    texts = [case["text"] for case in cases]
    want = np.zeros((len(texts), 77), np.int32)
    for row, case in zip(want, cases, strict=True):
        row[: len(case["ids"])] = case["ids"]
    got = tokenize(texts, truncate=True)
    assert got.dtype == np.int32
    wrong = [t for t, g, w in zip(texts, got, want, strict=True) if (g != w).any()]
    assert not wrong


def test_ids_equal_open_clips_on_random_texts(torch_python, tmp_path):
    """Three thousand of all scripts, emoji, entities, mojibake, white space, ..."""
    command = [torch_python, REPO / "tests" / "golden" / "live.py", "tokens", tmp_path]
    subprocess.run(command, check=True, timeout=300)
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert versions == {k: importlib.metadata.version(k) for k in versions}
    texts = json.loads((tmp_path / "texts.json").read_text())
    want = np.load(tmp_path / "ids.npy")
    got = tokenize(texts, truncate=True)
    assert len(texts) > 3000
    wrong = [t for t, g, w in zip(texts, got, want, strict=True) if (g != w).any()]
    assert not wrong


def test_known_ids():
    want = [START, 320, 1125, 539, 320, 2368, END, 0]
    np.testing.assert_array_equal(tokenize("a photo of a cat", 8), [want])


@pytest.mark.parametrize("texts", ["a river", ["a river"], ("a river",)])
def test_one_text_or_many(texts):
    assert tokenize(texts).shape == (1, 77)


def test_no_texts():
    assert tokenize([]).shape == (0, 77)


def test_special_tokens_by_name():
    ids = tokenize("<start_of_text> <END_OF_TEXT>", 5)[0]
    assert ids.tolist() == [START, START, END, END, 0]
    # OpenAI's own spelling is ordinary text here: "<|", "endoftext", "|>" in pieces.
    assert END not in tokenize("<|endoftext|>")[0][1:3]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=200), max_size=3), st.integers(3, 90))
def test_every_row_is_start_words_end_zeros(texts, context_length):
    tokens = tokenize(texts, context_length, truncate=True)
    assert tokens.shape == (len(texts), context_length)
    for text, row in zip(texts, tokens, strict=True):
        if any(name in text.lower() for name in SPECIAL):
            continue
        end = row.argmax()  # the end token has the largest id: where CLIP pools
        assert row[0] == START
        assert row[end] == END
        assert (row[1:end] < START).all()
        assert (row[end + 1 :] == 0).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(string.ascii_letters, min_size=1, max_size=8), max_size=8))
def test_decode_gives_words_back(words):
    text = " ".join(words)
    assert decode(tokenize(text)[0]) == text.lower()


def test_decode_joins_bytes_of_one_character():
    assert decode(tokenize("森林 🛰 café")[0]) == "森林 🛰 café"


def test_decode_marks_broken_characters():
    start, first, *_ = tokenize("\U0010ffff")[0]
    assert decode([start, first]) == "\ufffd"


@pytest.mark.parametrize("wrong", [-1, 49_408])
def test_decode_rejects_ids_outside_the_vocabulary(wrong):
    with pytest.raises(ValueError, match=rf"\[{wrong}\] are not in 0..49407"):
        decode([START, 320, wrong])


def test_a_text_that_just_fits():
    assert (tokenize("a " * 75)[0] > 0).all()


def test_the_error_for_a_long_text_names_the_text_and_the_way_out():
    long = "an aerial photo of " + "forest " * 100
    message = (
        r"^texts\[1\] has 106 tokens.* context_length is 77: "
        r"'an aerial photo of forest[^']{0,55}\.\.\.'.*truncate=True"
    )
    with pytest.raises(ValueError, match=message):
        tokenize(["a river", long])


def test_truncation_keeps_the_end_token():
    cut = tokenize("forest " * 100, 6, truncate=True)[0]
    forest = tokenize("forest")[0][1]
    assert cut.tolist() == [START, *[forest] * 4, END]


@pytest.mark.parametrize(
    ("text", "name"), [(None, "NoneType"), (b"river", "bytes"), (["river"], "list")]
)
def test_not_a_text(text, name):
    with pytest.raises(TypeError, match=rf"texts\[1\] is {name}, not str"):
        tokenize(["a river", text])


def test_tokens_are_counted_without_cutting():
    texts = ["", "a lake", "don't!", "of a very long road " * 40, "café 🚀"]
    counts = count_tokens(texts)
    whole = tokenize(texts, context_length=300)
    np.testing.assert_array_equal(counts, whole.argmax(axis=1) + 1)
    assert counts.max() == 202
    fits = tokenize(texts[3:4], context_length=202)
    assert fits[0, -1] == END
