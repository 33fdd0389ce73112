"""What training scripts put around weights: dicts in dicts, and prefixes of names."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax.io.texts import first_of

# Keys of averaged weights (timm, DeiT), which timm prefers to the raw ones beside them.
EMA = ("state_dict_ema", "model_ema")
# Keys under which training scripts save weights: open_clip and MoCo, MAE, DINO.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher", "student")
# What data-parallel training, and modules that hold the model (Lightning), put first.
PREFIXES = ("module.", "model.", "clip_model.", "clip.", "net.")
_COMPILED = "_orig_mod."
# MS-CLIP's module holds the whole CLIP, its towers again under other names, and a
# temperature of its training loss.
_WHOLE = "clip_base_model.model."
_AGAIN = ("image_encoder.model.", "text_encoder.model.")
_BESIDE = ("temperature",)


def unwrap(loaded: Any, path: Path, ema: bool) -> dict[str, np.ndarray]:
    """The state dict inside what a training script saved, without other entries.

    ema: whether averaged weights are taken where raw ones lie beside them. Raises
    ValueError naming the file for anything that is no state dict.
    """
    if not isinstance(loaded, dict):
        kind = type(loaded).__name__
        raise ValueError(f"{path}: contains a {kind}, not a state dict")
    for key in (*EMA, *_WRAPPERS) if ema else _WRAPPERS:
        if isinstance(loaded.get(key), dict):
            return unwrap(loaded[key], path, ema)
    tensors = {
        name: array for name, array in loaded.items() if isinstance(array, np.ndarray)
    }
    if not tensors:
        raise ValueError(
            f"{path}: no tensors, only {first_of(list(loaded)) or 'an empty dict'}"
        )
    return tensors


def bare_names(names: Iterable[str]) -> dict[str, str]:
    """{name without what wraps the model: name}.

    A prefix goes where all names have it, one after the other; what torch.compile puts
    in, anywhere. Names that would become equal stay.
    """
    bare = _whole_once(names)
    compiled = {name.replace(_COMPILED, ""): old for name, old in bare.items()}
    bare = compiled if len(compiled) == len(bare) else bare
    while bare:
        shared = [p for p in PREFIXES if all(name.startswith(p) for name in bare)]
        if not shared:
            break
        bare = {name.removeprefix(shared[0]): old for name, old in bare.items()}
    return bare


def _whole_once(names: Iterable[str]) -> dict[str, str]:
    """{name: name}; of a module that holds the same CLIP again, the whole one alone."""
    names = list(names)
    whole = {n.removeprefix(_WHOLE): n for n in names if n.startswith(_WHOLE)}
    rest = [n for n in names if not n.startswith(_WHOLE) and n not in _BESIDE]
    known = all(
        any(n.startswith(p) and n.removeprefix(p) in whole for p in _AGAIN)
        for n in rest
    )
    return whole if whole and known else {name: name for name in names}


def shared_prefix(names: Iterable[str]) -> str:
    """The prefix of PREFIXES that most names have, "" if fewer than half have it."""
    names = list(names)
    counts = {p: sum(name.startswith(p) for name in names) for p in PREFIXES}
    best = max(counts, key=lambda p: counts[p])
    return best if 2 * counts[best] > len(names) else ""
