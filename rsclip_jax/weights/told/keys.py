"""How the keys of a config are taken, and the check of a section by such a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rsclip_jax.io.texts import shown


class Key(NamedTuple):
    """What is done with a key; values: the only ones allowed, if not all are."""

    how: str
    values: tuple[Any, ...] = ()


BUILT = Key("built")
SIZE = Key("compared with the tensors' shapes")
FREE = Key("changes no embedding")
Keys = Mapping[str, Key]


def only(*values: Any) -> Key:
    """A key whose other values are refused."""
    return Key("only " + " or ".join(map(repr, values)), values)


def check_section(path: Path, name: str, section: Mapping, keys: Keys) -> None:
    """Raises ValueError for a key that keys lacks or a value that it does not allow."""
    for key, value in section.items():
        if key not in keys:
            raise ValueError(
                f"{path}: {name}.{key} = {shown(value)} is not known, nor what it does"
                " to embeddings; load the model with the library that wrote it"
            )
        found = keys[key]
        # an empty dict of options is none
        if found.values and (value or None) not in (v or None for v in found.values):
            raise ValueError(
                f"{path}: {name}.{key} = {value!r} is not supported, {found.how}"
            )


def check_sizes(
    path: Path, told: Mapping[str, tuple[str, Any]], sizes: Mapping[str, Any]
) -> None:
    """Raises ValueError where a config's sizes are not those of the tensors.

    told: field of Variant -> (name of the key, its value).
    """
    for field, (key, value) in told.items():
        value = tuple(value) if isinstance(value, list) else value
        if value != (found := sizes[field]):
            raise ValueError(
                f"{path}: its config says {key} = {value}, but its tensors have"
                f" {found}: the config is of other weights"
            )


def square_side(path: Path, key: str, value: Any) -> int:
    """An image's side in pixels; ValueError for an image that is not square."""
    sides = set(value) if isinstance(value, list | tuple) else {value}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise ValueError(f"{path}: {key} = {value} is not supported, only a square")
    return side


def whole_heads(path: Path, key: str, width: int, heads: Any) -> int:
    """A number of attention heads; ValueError if they do not divide the width."""
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise ValueError(
            f"{path}: {key} = {heads!r} attention heads do not divide a width of"
            f" {width}"
        )
    return heads
