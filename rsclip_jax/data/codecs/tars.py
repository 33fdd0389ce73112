"""Finds the members of a tar from its headers (POSIX.1-2001, GNU names)."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rsclip_jax.io.texts import shown

_BLOCK = 512
_GZIP = b"\x1f\x8b"
_FILES = (b"0", b"\0", b"7")  # regular files, in new and old tars
_DECIMAL = re.compile("[0-9]{1,19}", re.ASCII)
_OCTAL = re.compile(rb"[0-7]*")
_ABOUT_NEXT = (b"L", b"x")
_DIGITS = 20  # of a length, and a space
_LONG = 2**20  # most bytes of a name, and of the fields of pax


class Member(NamedTuple):
    """A file in a tar: its name, and the position of its bytes."""

    name: str
    offset: int
    size: int


def walk_tar(path: Path, inner: Member | None = None) -> Iterator[Member]:
    """Yields the regular files of a tar, or of a tar inside it, in order.

    Offsets are in the outer file. Raises ValueError naming the tar and the byte where
    it is cut short or damaged, after yielding the members before it.
    """
    with path.open("rb", buffering=0) as file:
        start, end = 0, path.stat().st_size
        if os.pread(file.fileno(), 2, 0) == _GZIP:
            name = shlex.quote(str(path))
            raise ValueError(
                f"{path}: compressed by gzip in spite of its name, so it has no"
                f" random access; unpack it once: mv {name} {name}.gz && gunzip"
                f" {name}.gz"
            )
        if inner is not None:
            start, end = inner.offset, inner.offset + inner.size
        yield from _walk(path, file.fileno(), start, end)


def walk_once(path: Path, inner: Member | None = None) -> Iterator[Member]:
    """As walk_tar. Raises ValueError for a name that is in the tar twice."""
    seen: set[str] = set()
    for member in walk_tar(path, inner):
        if member.name in seen:
            raise ValueError(
                f"{path}: {shown(member.name)} is in it twice; fetch it again"
            )
        seen.add(member.name)
        yield member


def _walk(path: Path, file: int, start: int, end: int) -> Iterator[Member]:
    at, name, pax = start, "", dict[str, str]()
    while True:
        header = os.pread(file, _BLOCK, at)
        if len(header) < _BLOCK:
            raise _cut(path, end, f"a header is missing at byte {at:,}")
        if not header[0] and header == bytes(_BLOCK):
            return
        try:
            _check_sum(header)
            size = _decimal(pax.get("size", "0"), "a size") or _number(header[124:136])
            kind, data = header[156:157], at + _BLOCK
            if data + size > end:
                raise _cut(path, end, f"a member of {size:,} bytes begins at {data:,}")
            if kind in _ABOUT_NEXT and size > _LONG:
                raise _Damaged(f"a name or pax fields of {size:,} bytes")
            if kind == b"L":  # GNU: the next member's name is too long for its header
                name = _text(os.pread(file, size, data))
            elif kind == b"x":  # pax: fields of the next member
                pax = _pax(os.pread(file, size, data))
            else:
                if kind in _FILES:
                    yield Member(pax.get("path") or name or _name(header), data, size)
                name, pax = "", {}
        except _Damaged as error:
            raise ValueError(
                f"{path}: {error} at byte {at:,}: damaged, or not a tar; fetch it again"
            ) from error
        at = data + -(-size // _BLOCK) * _BLOCK


def _cut(path: Path, end: int, what: str) -> ValueError:
    return ValueError(
        f"{path}: cut short: it ends at byte {end:,}, but {what}; fetch it again"
    )


class _Damaged(Exception):
    """A fault of a header."""


def _check_sum(header: bytes) -> None:
    """Compares the checksum, whose own field counts as eight spaces."""
    if sum(header) - sum(header[148:156]) + 256 != _number(header[148:156]):
        raise _Damaged("a header has a wrong checksum")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: in base 256, from 8 GiB on
        return int.from_bytes(field[1:], "big")
    if not _OCTAL.fullmatch(digits := field.strip(b" \0")):
        raise _Damaged(f"{field!r} instead of a number")
    return int(digits or b"0", 8)


def _decimal(text: str, what: str) -> int:
    """A number of pax; int() would also take a sign, spaces and underscores."""
    if not _DECIMAL.fullmatch(text):
        raise _Damaged(f"a pax field has {what} of {shown(text, 40)}")
    return int(text)


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, str]:
    """{key: value} of lines "<length of the line> key=value"."""
    fields, at, data = {}, 0, data.rstrip(b"\0")
    while at < len(data):
        digits, _, _ = data[at : at + _DIGITS].partition(b" ")
        length = _decimal(_text(digits), "a length")
        if not len(digits) < length <= len(data) - at:
            raise _Damaged("a pax field has a wrong length")
        line = data[at + len(digits) + 1 : at + length]
        key, _, value = line.rstrip(b"\n").partition(b"=")
        fields[_text(key)] = _text(value)
        at += length
    return fields
