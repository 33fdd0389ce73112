"""Conversion tables, applied strictly in both directions.

A table is a list of (name in the file, our path, transform); "{i}" and "{j}" are layer
numbers in both. A path that ends in "[1/3]" is the second of three equal parts of our
array's last axis, "[1-3/3]" the second and third together, for files that store the
parts separately. Every name is matched
exactly once, and one error reports all problems.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.traverse_util
import numpy as np

from rsclip_jax.io.texts import first_of

Rule = tuple[str, str, str]

# name: (file -> ours, ours -> file); torch stores dense kernels [out, in], convolutions
# [out, in, h, w], and timm adds a leading 1 to its tokens.
_TRANSFORMS: dict[str, tuple[Callable, Callable]] = {
    "same": (lambda x: x, lambda x: x),
    "dense": (lambda x: x.T, lambda x: x.T),
    "conv": (lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)),
    "token": (lambda x: x.reshape(x.shape[-1]), lambda x: x[None, None]),
    "tokens": (lambda x: x.reshape(x.shape[-2:]), lambda x: x[None]),
    "one": (lambda x: x.reshape(()), lambda x: x[None]),
}


def block_rules(prefix: str, path: str, names: Mapping[str, str]) -> list[Rule]:
    """The rules of a transformer block; names: ours -> the layout's."""
    rules = []
    for ours, theirs in names.items():
        transform = "dense" if "/kernel" in ours else "same"
        rules.append((f"{prefix}.{{i}}.{theirs}", f"{path}_{{i}}/{ours}", transform))
    return rules


def in_parts(rules: Sequence[Rule], name: str, parts: Sequence[str]) -> list[Rule]:
    """The rules for files that hold equal parts of the tensor `name` separately."""
    out = []
    for rule in rules:
        theirs, ours, transform = rule
        cut = [(p, f"{ours}[{i}/{len(parts)}]", transform) for i, p in enumerate(parts)]
        out.extend(cut if theirs == name else [rule])
    return out


def convert_names(
    names: Iterable[str], rules: Sequence[Rule]
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """({name: (our path, transform)}, names that no rule matches)."""
    out, unknown = {}, []
    for name in names:
        for theirs, ours, transform in rules:
            if (path := _rename(name, theirs, ours)) is not None:
                out[name] = path, transform
                break
        else:
            unknown.append(name)
    return out, unknown


def count_blocks(paths: Iterable[str], prefix: str) -> int:
    """The number of blocks in paths "<prefix>_<number>/..."."""
    found = (re.match(rf"{re.escape(prefix)}_(\d+)/", path) for path in paths)
    return 1 + max((int(m[1]) for m in found if m), default=-1)


def our_shapes(
    shapes: Mapping[str, tuple[int, ...]], rules: Sequence[Rule]
) -> dict[str, tuple[int, ...]]:
    """{our path: shape in our order} of the names that the rules match."""
    found, _ = convert_names(shapes, rules)
    ours = ((path, _new_shape(shapes[n], how)) for n, (path, how) in found.items())
    return {path: shape for path, shape in ours if shape is not None}


def _names_of(path: str, rules: Sequence[Rule]) -> list[tuple[str, str, str]]:
    """[(name in the file, our path with its part, transform)] for one of our paths."""
    out = []
    for theirs, ours, transform in rules:
        whole, part = _split(ours)
        if (name := _rename(path, whole, theirs)) is not None:
            out.append((name, path + part, transform))
    return out


def _rename(name: str, pattern: str, new: str) -> str | None:
    """The new name with the same numbers if the pattern matches the whole name."""
    match = _compiled(pattern).fullmatch(name)
    return None if match is None else new.format_map(match.groupdict())


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    numbers = re.sub(r"\\{([ij])\\}", r"(?P<\1>\\d+)", re.escape(pattern))
    return re.compile(numbers)


def _split(path: str) -> tuple[str, str]:
    """("a/kernel", "[1/3]") of "a/kernel[1/3]"; ("a/kernel", "") of "a/kernel"."""
    at = path.find("[")
    return (path, "") if at < 0 else (path[:at], path[at:])


def _part_of(part: str, size: int) -> slice:
    if not part:
        return slice(None)
    span, _, n = part.strip("[]").partition("/")
    i, _, j = span.partition("-")
    end = int(j or int(i) + 1)
    return slice(size * int(i) // int(n), size * end // int(n))


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

    Args:
        shapes: name -> shape of all tensors in the file.
        read: returns one tensor by name.
        where: the start of an error message.
        ignore: regular expressions of names to skip.

    Raises ValueError before any is read, with the number of missing, unknown and
    misshapen tensors and the first of each kind.
    """
    names = [n for n in shapes if not any(re.fullmatch(p, n) for p in ignore)]
    found, unknown = convert_names(names, rules)
    want = flax.traverse_util.flatten_dict(targets, sep="/")
    problems = [f"unknown tensor {n} {tuple(shapes[n])}" for n in unknown]
    by_path: dict[str, str] = {}
    for name, (path, transform) in found.items():
        whole, part = _split(path)
        if path in by_path:
            problems.append(f"{name} and {by_path[path]} are both {path}")
        elif whole not in want:
            problems.append(f"extra tensor {name} {tuple(shapes[name])} (our {path})")
        else:
            got = _new_shape(shapes[name], transform)
            if got != (shape := _shape_of(want[whole].shape, part)):
                problems.append(
                    f"misshapen tensor {name}: {got} in the file (our order),"
                    f" {shape} in the model's {path}"
                )
        by_path.setdefault(path, name)
    for path in sorted(want):
        for name, full, _ in _names_of(path, rules) or [("?", path, "")]:
            if full not in by_path:
                shape = _shape_of(want[path].shape, _split(full)[1])
                problems.append(f"missing tensor {name} (our {full} {shape})")
    if problems:
        raise ValueError(
            f"{where}: {len(problems)} tensor(s) do not fit the model:\n  "
            + first_of(_in_turn(problems), "\n  ", most=10)
        )
    flat = _read_all(by_path, found, want, read, where)
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _read_all(
    by_path: Mapping[str, str],
    found: Mapping[str, tuple[str, str]],
    want: Mapping[str, Any],
    read: Callable[[str], np.ndarray],
    where: str,
) -> dict[str, np.ndarray]:
    """{our path: its array in float32}; ValueError naming tensors with NaN."""
    flat: dict[str, np.ndarray] = {}
    broken: list[str] = []
    for path, name in by_path.items():
        whole, part = _split(path)
        array = flat.setdefault(whole, np.empty(want[whole].shape, np.float32))
        written = array[_index(array.shape, part)]
        written[...] = _TRANSFORMS[found[name][1]][0](read(name))
        # a sum is not finite if a number is not, and may overflow: then look at all
        with np.errstate(all="ignore"):
            if not np.isfinite(written.sum()) and not np.isfinite(written).all():
                broken.append(name)
    if broken:
        raise ValueError(
            f"{where}: NaN or infinite values in {len(broken)} tensor(s):"
            f" {first_of(broken)}; fetch or train the weights again"
        )
    return flat


def _in_turn(problems: Sequence[str]) -> list[str]:
    """The problems, one of each kind in turn; a kind is the first word."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.split()[0], []).append(problem)
    rows = itertools.zip_longest(*kinds.values())
    return [problem for row in rows for problem in row if problem]


def _shape_of(shape: Sequence[int], part: str) -> tuple[int, ...]:
    if not part:
        return tuple(shape)
    span = _part_of(part, shape[-1])
    return (*shape[:-1], span.stop - span.start)


def _index(shape: Sequence[int], part: str):
    return (..., _part_of(part, shape[-1])) if part else ...


def _new_shape(shape: Sequence[int], transform: str) -> tuple[int, ...] | None:
    try:
        return _TRANSFORMS[transform][0](np.broadcast_to(np.float32(0), shape)).shape
    except ValueError:
        return None


def export_names(params: dict, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """The params under the layout's names and in its order of axes.

    Raises ValueError naming the first leaves without a name in the layout.
    """
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(params, sep="/")
    out, unknown = {}, []
    for path, leaf in flat.items():
        array = np.asarray(leaf)
        names = _names_of(path, rules)
        for name, full, transform in names:
            part = array[_index(array.shape, _split(full)[1])]
            out[name] = np.array(_TRANSFORMS[transform][1](part), order="C")
        if not names:
            unknown.append(path)
    if unknown:
        raise ValueError(f"this layout has no name for {first_of(unknown)}")
    return out
