"""Where on the ground a GeoTIFF lies, and whether several are of one place.

GeoTIFF 1.1 (OGC 19-008r4): three tags of the first image, and the keys of the third
that name its CRS.
"""

import functools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_WIDTH, _HEIGHT, _SCALE, _TIEPOINT, _KEYS = 256, 257, 33550, 33922, 34735
_SIZES = {3: 2, 4: 4, 12: 8}  # bytes of a value: unsigned of 16 and 32 bits, double
_ORDERS: dict[str, Any] = {"<": "little", ">": "big"}
_EPSG_KEYS, _NOT_EPSG = (3072, 2048), 32767  # projected before geographic


class Footprint(NamedTuple):
    """The ground that a GeoTIFF covers, in its CRS; epsg 0: a CRS without a number."""

    path: Path
    epsg: int
    left: float
    top: float
    right: float
    bottom: float
    pixel: tuple[float, float]  # width and height

    def __str__(self) -> str:
        box = (self.left, self.bottom, self.right, self.top)
        numbers = ", ".join(f"{x:.10g}" for x in box)
        return f"{self.path} (EPSG:{self.epsg or '?'}, {numbers})"


def read_footprints(path: Path, data: bytes) -> list[Footprint]:
    """The one of a file's first image, as a list; none where it has no such tags.

    Nor of a BigTIFF, of turned axes, or of bytes that are cut. tifffile's own reading
    of the tags would take longer than the decoding of a small band.
    """
    try:
        order, tags = _read_tags(data)
        side = [int.from_bytes(tags[t], _ORDERS[order]) for t in (_WIDTH, _HEIGHT)]
        place = (tags[t] for t in (_SCALE, _TIEPOINT, _KEYS))
        box = _read_box(*place, *side, order)
    except (KeyError, struct.error):
        return []
    return [Footprint(path, *values) for values in box]


def _read_tags(data: bytes) -> tuple[str, dict[int, bytes]]:
    """(byte order, {tag: its values}) of the tags that tell the place."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    magic, start = struct.unpack_from(f"{order}HI", data, 2)
    if magic != 42:
        raise KeyError("no classic TIFF")
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = data[start + 2 : start + 2 + 12 * count]
    tags = {}
    rows = struct.iter_unpack(f"{order}HHI4x", entries)
    for place, (tag, kind, n) in enumerate(rows):
        if tag in (_WIDTH, _HEIGHT, _SCALE, _TIEPOINT, _KEYS):
            size = n * _SIZES[kind]
            at = start + 2 + 12 * place + 8  # small values lie in the entry itself
            if size > 4:
                (at,) = struct.unpack_from(f"{order}I", data, at)
            if at + size <= len(data):
                tags[tag] = data[at : at + size]
    return order, tags


@functools.lru_cache(maxsize=64)  # the bands of a patch have the same
def _read_box(
    scale: bytes, tie: bytes, keys: bytes, width: int, height: int, order: str
) -> list[tuple]:
    """[(epsg, left, top, right, bottom, pixel)] of a page's tags, or none."""
    if len(tie) != 48:  # several tie points: no grid of even pixels
        return []
    wide, high, _ = struct.unpack(f"{order}3d", scale)
    i, j, _, x, y, _ = struct.unpack(f"{order}6d", tie)
    left, top = x - i * wide, y + j * high
    rows = np.frombuffer(keys, f"{order}u2").reshape(-1, 4).tolist()
    values = {key: value for key, _, _, value in rows[1:]}
    epsg = next((values[key] for key in _EPSG_KEYS if key in values), 0)
    epsg = 0 if epsg == _NOT_EPSG else epsg
    box = (left, top, left + width * wide, top - height * high)
    return [(epsg, *box, (wide, high))]


def check_one_place(
    footprints: Sequence[Footprint], max_shift: float, way: str = ""
) -> None:
    """Raises ValueError, naming two files, unless all are of one place.

    They must be in one CRS and overlap, and no edge may lie farther from that of the
    finest than max_shift pixels, of the coarser of the two. way: another way out.
    """
    if not footprints:
        return
    first = min(footprints, key=lambda f: f.pixel)
    for other in footprints:
        if first.epsg and other.epsg and first.epsg != other.epsg:
            fault = "are not in one CRS"
        elif first.epsg != other.epsg:
            continue  # one of them is not known
        elif not _overlap(first, other):
            fault = "do not overlap"
        elif (shift := _shift(first, other)) > max_shift * (1 + 1e-6):
            fault = f"lie {shift:.3g} pixels apart, more than {max_shift:g}"
        else:
            continue
        raise ValueError(
            f"{other} and {first} {fault}, so they are not of one place: pair the right"
            f" files{way}"
        )


def _overlap(a: Footprint, b: Footprint) -> bool:
    across = min(a.right, b.right) > max(a.left, b.left)
    return across and min(a.top, b.top) > max(a.bottom, b.bottom)


def _shift(a: Footprint, b: Footprint) -> float:
    """How far the edges lie apart at most, in pixels of the coarser."""
    x = max(abs(a.left - b.left), abs(a.right - b.right))
    y = max(abs(a.top - b.top), abs(a.bottom - b.bottom))
    return max(x / max(a.pixel[0], b.pixel[0]), y / max(a.pixel[1], b.pixel[1]))
