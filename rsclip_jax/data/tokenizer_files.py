"""Tokenizers other than CLIP's: a tokenizer.json of the tokenizers library.

A variant names its files by digest. Loading weights or a finished stage registers the
files beside them, and saving writes them again: tokenizer.json, tokenizer_config.json
and, for transformers' SiglipTokenizer alone, spiece.model.
"""

import contextlib
import dataclasses
import functools
import hashlib
import html
import re
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import tokenizers

from rsclip_jax.io.files import write_bytes
from rsclip_jax.io.texts import shown

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
FILES = (FILE, CONFIG, "spiece.model")  # the first is read, all are kept
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclasses.dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer.json by its digest, and what goes on around it.

    sha256: of the contents of FILES. clean: what is done to a text
    before, names of CLEANING in order. pad: the id that fills a text up; pad_left:
    whether before its tokens.
    """

    sha256: str
    clean: tuple[str, ...] = ()
    pad: int = 0
    pad_left: bool = False

    def __post_init__(self):
        if unknown := [name for name in self.clean if name not in CLEANING]:
            raise ValueError(f"clean {unknown}: use some of {', '.join(CLEANING)}")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TokenizerFile":
        """The TokenizerFile of a stored dict."""
        return cls(**{**values, "clean": tuple(values.get("clean", ()))})


def _basic(text: str) -> str:
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _spaces(text: str) -> str:
    return " ".join(text.split())


def _canonicalize(text: str) -> str:
    return _spaces(_basic(text).replace("_", " ").translate(_PUNCTUATION).lower())


def _siglip(text: str) -> str:
    # a special token keeps its place and its punctuation, so it is cut out before
    plain = text.lower().translate(_PUNCTUATION)
    return re.sub(r"\s+", " ", plain).strip()


# The first three are open_clip's, the others those of transformers' tokenizers.
CLEANING: dict[str, Callable[[str], str]] = {
    "whitespace": lambda text: _spaces(_basic(text)),
    "lower": lambda text: _spaces(_basic(text)).lower(),
    "canonicalize": _canonicalize,
    "siglip": _siglip,
    "lowercase": lambda text: tokenizers.normalizers.Lowercase().normalize_str(text),
}

_registered: dict[str, dict[str, bytes]] = {}


def register(folder: Path) -> str:
    """Keeps the contents of a tokenizer's files; returns their digest."""
    paths = [path for name in FILES if (path := folder / name).is_file()]
    files = {path.name: path.read_bytes() for path in paths}
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    _registered[digest.hexdigest()] = files
    return digest.hexdigest()


def contents(tokenizer: TokenizerFile) -> dict[str, bytes]:
    """{name of FILES: content} of a registered tokenizer.

    Raises ValueError if nothing with this digest was loaded.
    """
    if tokenizer.sha256 not in _registered:
        raise ValueError(
            f"the tokenizer with sha256 {tokenizer.sha256} is not at hand: load the"
            f" weights or the workdir that have its {FILE}"
        )
    return _registered[tokenizer.sha256]


def save(tokenizer: TokenizerFile, folder: Path) -> None:
    """Writes a registered tokenizer's files into a folder."""
    for name, content in contents(tokenizer).items():
        write_bytes(folder / name, content)


def read_saved(tokenizer: TokenizerFile, folder: Path) -> None:
    """Registers the files that save wrote, unless they are registered.

    Raises ValueError naming the folder whose files are missing or others.
    """
    if tokenizer.sha256 in _registered:
        return
    if register(folder) != tokenizer.sha256:
        raise ValueError(
            f"{folder}: {', '.join(FILES)} are missing or not those of the model, whose"
            f" sha256 is {tokenizer.sha256}; restore them from a copy"
        )


@functools.cache
def _engine(sha256: str, most: int | None) -> tokenizers.Tokenizer:
    """most: ids to which texts are cut, special tokens kept; None cuts none."""
    engine = read_engine(contents(TokenizerFile(sha256))[FILE])
    if most is not None:
        engine.enable_truncation(most)
    return engine


def read_engine(whole: bytes) -> tokenizers.Tokenizer:
    """The tokenizer of a file's content, neither padding nor truncating.

    Raises ValueError for a content that the library does not read, or with which it
    fails on a text.
    """
    with _failing("not a tokenizer.json"):
        engine = tokenizers.Tokenizer.from_buffer(whole)
        engine.no_padding()
        engine.no_truncation()
        engine.encode_batch(["", "a photo", "\N{SNOWMAN}"])
    return engine


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    """Turns what the library raises into a ValueError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # where its Rust panics, it is no Exception
        raise ValueError(f"{what} ({shown(str(error), 200)})") from error


def tokenize_by(
    tokenizer: TokenizerFile,
    texts: str | Sequence[str],
    context_length: int,
    truncate: bool = False,
) -> np.ndarray:
    """int32 [n, context_length]; the arguments and errors are those of tokenize.

    A text that is cut keeps the special tokens at its end.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    rows = _encode(tokenizer, texts, context_length if truncate else None)
    out = np.full((len(rows), context_length), tokenizer.pad, np.int32)
    for i, row in enumerate(rows):
        if len(row) > context_length:
            raise ValueError(
                f"texts[{i}] has {len(row)} tokens, special tokens included, but"
                f" context_length is {context_length}: {shown(texts[i], 80)}; shorten"
                " it, or cut it with truncate=True"
            )
        start = context_length - len(row) if tokenizer.pad_left else 0
        out[i, start : start + len(row)] = row.ids
    return out


def count_tokens_by(tokenizer: TokenizerFile, texts: Sequence[str]) -> np.ndarray:
    """int64 [n]: the number of tokens of each text, special tokens included."""
    return np.array([len(row) for row in _encode(tokenizer, texts)], np.int64)


def _encode(
    tokenizer: TokenizerFile, texts: Sequence[str], most: int | None = None
) -> list[tokenizers.Encoding]:
    cleaned = []
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{i}] is {type(text).__name__}, not str")
        for name in tokenizer.clean:
            text = CLEANING[name](text)
        cleaned.append(text)
    with _failing(f"the tokenizer of sha256 {tokenizer.sha256} fails on a text"):
        return _engine(tokenizer.sha256, most).encode_batch(cleaned)
