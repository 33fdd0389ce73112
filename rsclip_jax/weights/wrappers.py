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
    bare = {name: name for name in names}
    compiled = {name.replace(_COMPILED, ""): name for name in bare}
    bare = compiled if len(compiled) == len(bare) else bare
    while bare:
        shared = [p for p in PREFIXES if all(name.startswith(p) for name in bare)]
        if not shared:
            break
        bare = {name.removeprefix(shared[0]): old for name, old in bare.items()}
    return bare


def shared_prefix(names: Iterable[str]) -> str:
    """The prefix of PREFIXES that most names have, "" if fewer than half have it."""
    names = list(names)
    counts = {p: sum(name.startswith(p) for name in names) for p in PREFIXES}
    best = max(counts, key=lambda p: counts[p])
    return best if 2 * counts[best] > len(names) else ""
