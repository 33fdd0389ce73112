"""Conversion tables, applied strictly in both directions.

A table is a list of (name in the file, our path, transform); "{i}" stands for a layer
number in both. Every name is matched exactly once and every problem is reported at
once.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.traverse_util
import numpy as np

Rule = tuple[str, str, str]

# name: (file -> ours, ours -> file); torch keeps dense kernels [out, in], convolutions
# [out, in, h, w], and timm a leading 1 on its tokens.
_TRANSFORMS: dict[str, tuple[Callable, Callable]] = {
    "same": (lambda x: x, lambda x: x),
    "dense": (lambda x: x.T, lambda x: x.T),
    "conv": (lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)),
    "token": (lambda x: x.reshape(x.shape[-1]), lambda x: x[None, None]),
    "tokens": (lambda x: x.reshape(x.shape[-2:]), lambda x: x[None]),
}


def block_rules(prefix: str, path: str, names: Mapping[str, str]) -> list[Rule]:
    """The rules of a transformer block; names: ours -> the layout's."""
    rules = []
    for ours, theirs in names.items():
        kernel = ours.rsplit("/", 1)[1] == "kernel"
        transform = "dense" if kernel else "same"
        rules.append((f"{prefix}.{{i}}.{theirs}", f"{path}_{{i}}/{ours}", transform))
    return rules


def convert_names(
    names: Iterable[str], rules: Sequence[Rule]
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """({name: (our path, transform)}, names that no rule knows)."""
    out, unknown = {}, []
    for name in names:
        found = _match(name, rules, 0)
        if found is None:
            unknown.append(name)
        else:
            out[name] = found
    return out, unknown


def _match(name: str, rules: Sequence[Rule], side: int) -> tuple[str, str] | None:
    for rule in rules:
        pattern = re.escape(rule[side]).replace(re.escape("{i}"), r"(\d+)")
        match = re.fullmatch(pattern, name)
        if match:
            other = rule[1 - side]
            number = match[1] if match.groups() else ""
            return other.replace("{i}", number), rule[2]
    return None


def load_strict(
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    rules: Sequence[Rule],
    targets: dict,
    *,
    where: str,
    ignore: Sequence[str] = (),
) -> dict:
    """The params tree of `targets` (ShapeDtypeStructs), float32, from a file's tensors.

    shapes: name -> shape of all the file's tensors; read gives one. Raises ValueError
    listing every missing, unknown and misshapen tensor before any is read.
    """
    names = [n for n in shapes if not any(re.fullmatch(p, n) for p in ignore)]
    found, unknown = convert_names(names, rules)
    want = flax.traverse_util.flatten_dict(targets, sep="/")
    problems = [f"unknown tensor {n} {tuple(shapes[n])}" for n in unknown]
    by_path: dict[str, str] = {}
    for name, (path, transform) in found.items():
        if path in by_path:
            problems.append(f"{name} and {by_path[path]} are both {path}")
        elif path not in want:
            problems.append(f"extra tensor {name} {tuple(shapes[name])} (our {path})")
        elif (got := _new_shape(shapes[name], transform)) != want[path].shape:
            problems.append(
                f"misshapen tensor {name}: {got} in the file (our order),"
                f" {want[path].shape} in the model's {path}"
            )
        by_path.setdefault(path, name)
    for path in sorted(want.keys() - by_path.keys()):
        name, _ = _match(path, rules, 1) or ("?", "")
        problems.append(f"missing tensor {name} (our {path} {want[path].shape})")
    if problems:
        raise ValueError(
            f"{where}: {len(problems)} tensor(s) do not fit the model:\n  "
            + "\n  ".join(problems)
        )
    flat = {}
    for path, name in by_path.items():
        array = _TRANSFORMS[found[name][1]][0](read(name))
        flat[path] = np.array(array, np.float32, order="C")  # 0-d stays 0-d
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _new_shape(shape: Sequence[int], transform: str) -> tuple[int, ...] | None:
    try:
        return _TRANSFORMS[transform][0](np.broadcast_to(np.float32(0), shape)).shape
    except ValueError:
        return None


def export_names(params: dict, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """The params under the layout's names and in its order of axes.

    Raises ValueError naming every leaf that the layout has no name for.
    """
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(params, sep="/")
    out, unknown = {}, []
    for path, array in flat.items():
        found = _match(path, rules, 1)
        if found is None:
            unknown.append(path)
        else:
            back = _TRANSFORMS[found[1]][1](np.asarray(array))
            out[found[0]] = np.array(back, order="C")
    if unknown:
        raise ValueError(f"this layout has no name for {', '.join(unknown)}")
    return out
