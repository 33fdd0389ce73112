"""CLIP's byte-pair tokenizer, token for token.

Byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909) over lower-cased words, as in
CLIP (Radford et al. 2021, arXiv 2103.00020, section 2.4). The merges file is the one
that OpenAI published with CLIP (github.com/openai/CLIP, MIT licence).
"""

import functools
import gzip
import html
import importlib.resources
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import ftfy
import numpy as np
import regex

MERGES = "bpe_simple_vocab_16e6.txt.gz"
VOCAB_SIZE = 49_408
START, END = VOCAB_SIZE - 2, VOCAB_SIZE - 1
SPECIAL = {"<start_of_text>": START, "<end_of_text>": END}

# A word is a special token, an English contraction, a run of letters, one digit, or a
# run of anything else that is not white space. IGNORECASE still matters for
# lower-cased text: it lets the long s match in "'s".
WORD = regex.compile(
    r"<start_of_text>|<end_of_text>"
    r"|'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


class Vocabulary(NamedTuple):
    byte_ids: dict[int, int]  # byte -> id within a word; + 256 at its end
    merges: dict[
        tuple[int, int], int
    ]  # pair of ids -> merged id; lower ids merge first
    pieces: tuple[bytes, ...]  # id -> its bytes, with a space at the end of a word
    names: dict[str, int]  # token as written in the merges file -> id


def tokenize(
    texts: str | Sequence[str], context_length: int = 77, truncate: bool = False
) -> np.ndarray:
    """Converts texts to token ids: start, words, end, then zeros.

    Args:
        texts: one text or several. Special tokens are written as in open_clip:
            "<start_of_text>" and "<end_of_text>".
        context_length: the number of ids for each text.
        truncate: whether to cut a text that is too long; its last id is the end token.

    Returns:
        int32 [n, context_length].

    Raises:
        ValueError: for a text that is too long, unless truncate is True.
        TypeError: for a text that is not a string.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    tokens = np.zeros((len(texts), context_length), np.int32)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{i}] is {type(text).__name__}, not str")
        ids = [START, *_encode(text), END]
        if len(ids) > context_length:
            if not truncate:
                short = text if len(text) <= 80 else text[:77] + "..."
                raise ValueError(
                    f"texts[{i}] has {len(ids)} tokens, start and end included, but "
                    f"context_length is {context_length}: {short!r}; shorten it, or "
                    "cut it with truncate=True"
                )
            ids = [*ids[: context_length - 1], END]
        tokens[i, : len(ids)] = ids
    return tokens


def count_tokens(texts: Sequence[str]) -> np.ndarray:
    """int64 [n]: the number of tokens of each text, including start and end."""
    return np.array([len(_encode(text)) + 2 for text in texts], np.int64)


def decode(ids: Iterable[int]) -> str:
    """Decodes one text's token ids up to the first end token, without the start."""
    words = [i for i in itertools.takewhile(END.__ne__, map(int, ids)) if i != START]
    if wrong := [i for i in words if not 0 <= i < VOCAB_SIZE]:
        raise ValueError(f"token ids {wrong} are not in 0..{VOCAB_SIZE - 1}")
    text = b"".join(_vocabulary().pieces[i] for i in words)
    return text.decode(errors="replace").rstrip()


def vocabulary_names() -> tuple[dict[str, int], list[str]]:
    """({token: id}, merges "left right" in order), written as in the merges file."""
    vocabulary = _vocabulary()
    by_id = {i: name for name, i in vocabulary.names.items()}
    merges = [f"{by_id[a]} {by_id[b]}" for a, b in vocabulary.merges]
    return dict(vocabulary.names), merges


def _encode(text: str) -> list[int]:
    text = html.unescape(
        html.unescape(ftfy.fix_text(text))
    )  # captions are escaped twice
    text = " ".join(text.split()).lower()
    return [i for word in WORD.findall(text) for i in _word_ids(word)]


@functools.lru_cache(maxsize=2**16)
def _word_ids(word: str) -> tuple[int, ...]:
    if word in SPECIAL:
        return (SPECIAL[word],)
    vocabulary = _vocabulary()
    merges = vocabulary.merges
    ids = [vocabulary.byte_ids[byte] for byte in word.encode()]
    ids[-1] += 256
    while pairs := set(itertools.pairwise(ids)) & merges.keys():
        first = min(pairs, key=merges.__getitem__)
        ids = _merge(ids, first, merges[first])
    return tuple(ids)


def _merge(ids: list[int], pair: tuple[int, int], merged: int) -> list[int]:
    """`ids` with each occurrence of `pair`, from the left, replaced by `merged`."""
    out: list[int] = []
    rest = iter(range(len(ids)))
    for i in rest:
        if (ids[i], *ids[i + 1 : i + 2]) == pair:
            out.append(merged)
            next(rest)
        else:
            out.append(ids[i])
    return out


@functools.cache
def _vocabulary() -> Vocabulary:
    """The 256 bytes, the 256 that end a word, one id for each merge, start and end."""
    # In the file a byte is one visible character: itself if Latin-1 prints it, else the
    # next one from 256 on. Printable bytes have the first ids.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = printable + [byte for byte in range(256) if byte not in printable]
    visible = [chr(b) for b in printable] + [chr(256 + i) for i in range(68)]
    ids = {c: i for i, c in enumerate(visible)}
    ids |= {c + "</w>": i + 256 for i, c in enumerate(visible)}
    pieces = [bytes([byte]) for byte in order]
    pieces += [piece + b" " for piece in pieces]

    merges = {}
    file = importlib.resources.files(__package__) / "assets" / MERGES
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    # The first line is a header; the file has more merges than CLIP's vocabulary.
    for line in lines[1 : START - 512 + 1]:
        left, right = line.split()
        pair = ids[left], ids[right]
        ids[left + right] = merges[pair] = len(pieces)
        pieces.append(pieces[pair[0]] + pieces[pair[1]])
    byte_ids = {byte: i for i, byte in enumerate(order)}
    return Vocabulary(byte_ids, merges, tuple(pieces), ids)
