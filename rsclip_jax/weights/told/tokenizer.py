"""The tokenizer in a folder of weights: CLIP's is compared, any other is read."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsclip_jax.data.tokenizer import END, START, vocabulary_names
from rsclip_jax.data.tokenizer_files import TokenizerFile, read_engine, register
from rsclip_jax.io.files import read_json, read_object
from rsclip_jax.io.texts import shown
from rsclip_jax.weights.files import TOKENIZER_FILES

# transformers' classes -> what they do to a text before their tokenizer.json does.
_CLASSES: dict[str, tuple[str, ...]] = {
    "SiglipTokenizer": ("siglip",),
    "Siglip2Tokenizer": ("lowercase",),
    "GemmaTokenizer": (),
    "T5Tokenizer": (),
    "XLMRobertaTokenizer": (),
    "PreTrainedTokenizer": (),
    "TokenizersBackend": (),
}
_CONFIG, _WHOLE, _VOCABULARY, _MERGES, _ = TOKENIZER_FILES
# The side of padding where no config says it, by transformers' classes.
_SIDES = {"Siglip2Tokenizer": "left", "GemmaTokenizer": "left"}
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


def read_tokenizer(folder: Path, cleaning: tuple[str, ...] = ()) -> TokenizerFile:
    """Reads and registers the tokenizer.json of a folder.

    cleaning: names of tokenizer_files.CLEANING that come first. Raises
    FileNotFoundError or ValueError naming the file and what is missing or not known.
    """
    for name in (_WHOLE, _CONFIG):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: texts are tokenized by this file: put it"
                " beside the weights (transformers writes it:"
                " AutoTokenizer.from_pretrained(...).save_pretrained(folder); a"
                " spiece.model alone is not read)"
            )
    told = read_object(folder / _CONFIG)
    kind = str(told.get("tokenizer_class")).removesuffix("Fast")
    if kind not in _CLASSES or told.get("do_lower_case") is False:
        named, lower = told.get("tokenizer_class"), told.get("do_lower_case")
        raise ValueError(
            f"{folder / _CONFIG}: tokenizer_class = {shown(named)} with do_lower_case ="
            f" {lower} is not supported, only {', '.join(_CLASSES)}, in lower case"
        )
    try:
        engine = read_engine((folder / _WHOLE).read_bytes())
    except ValueError as error:
        raise ValueError(f"{folder / _WHOLE}: {error}") from error
    pad = told.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    number = engine.token_to_id(pad) if isinstance(pad, str) else None
    if number is None:
        raise ValueError(
            f"{folder / _CONFIG}: pad_token = {shown(pad)} is no token of {_WHOLE}"
        )
    side = told.get("padding_side", _SIDES.get(kind, "right"))
    clean = (*cleaning, *_CLASSES[kind])
    return TokenizerFile(register(folder), clean, number, side == "left")


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
