"""Compares the tokenizer in a Hugging Face folder with CLIP's, which is built in."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsclip_jax.data.tokenizer import END, START, vocabulary_names
from rsclip_jax.io.files import read_json
from rsclip_jax.io.texts import shown
from rsclip_jax.weights.files import TOKENIZER_FILES

_CONFIG, _WHOLE, _VOCABULARY, _MERGES = TOKENIZER_FILES
_ENDS = {"<|startoftext|>": START, "<|endoftext|>": END}


def check_tokenizer(folder: Path) -> None:
    """Raises ValueError naming the file that is not of CLIP's tokenizer.

    Reads tokenizer_config.json, vocab.json, merges.txt and tokenizer.json where they
    are. A folder without them is taken to be CLIP's.
    """
    path = folder / _CONFIG
    if path.is_file() and read_json(path).get("do_lower_case") is False:
        raise _other(path, "do_lower_case = False")
    names, merges = _clips()
    if (path := folder / _VOCABULARY).is_file():
        _compare(path, read_json(path), names)
    if (path := folder / _MERGES).is_file():
        lines = path.read_text("utf-8").splitlines()
        lines = [x for x in lines if x and not x.startswith("#version")]
        _compare(path, dict(enumerate(lines)), dict(enumerate(merges)))
    if (path := folder / _WHOLE).is_file():
        _check_whole(path, read_json(path))


def _check_whole(path: Path, whole: Mapping[str, Any]) -> None:
    names, merges = _clips()
    model = whole.get("model") or {}
    if model.get("type", "BPE") != "BPE":
        raise _other(path, f"a model of type {shown(model['type'])}")
    _compare(path, model.get("vocab") or {}, names)
    pairs = [x if isinstance(x, str) else " ".join(x) for x in model.get("merges", ())]
    _compare(path, dict(enumerate(pairs)), dict(enumerate(merges)))
    normalizer = whole.get("normalizer") or {}
    kinds = [x.get("type") for x in normalizer.get("normalizers", [normalizer])]
    if "Lowercase" not in kinds:
        raise _other(path, f"no lower case in its normalizer ({kinds})")


@functools.cache
def _clips() -> tuple[dict[str, int], list[str]]:
    """CLIP's tokens with their ids, and its merges in order."""
    names, merges = vocabulary_names()
    return {**names, **_ENDS}, merges


def _compare(path: Path, found: Mapping, own: Mapping) -> None:
    if found == own:
        return
    if len(found) != len(own):
        raise _other(path, f"{len(found)} entries for CLIP's {len(own)}")
    key = next(k for k in found if own.get(k) != found[k])
    raise _other(path, f"{shown(key)} is {shown(found[key])}, CLIP's {own.get(key)!r}")


def _other(path: Path, what: str) -> ValueError:
    return ValueError(
        f"{path}: this is not CLIP's tokenizer ({what}), and texts would get other ids"
        " than in training; only CLIP's tokenizer is supported"
    )
