"""A record as bytes, in packed datasets.

The bytes are: the header's length as a little-endian uint32; the header, JSON padded
with spaces, {"fields": {key: number, text or texts}, "arrays": {key: [dtype, shape]}};
then each array in C order, little-endian, starting at a multiple of 16 bytes. Keys keep
their order: id, label, sensors. A multi-hot label is an array. Integers are stored as
in the archive's files.

A record of several sensors is stored in as many entries, so that a sensor is read
without the others: each has the bytes of a record with one sensor, and the first has
also what is no sensor.
"""

import json
import math
from collections.abc import Sequence

import numpy as np

from rsclip_jax.data.types import (
    Record,
)

_ALIGN = 16


def encode_record(record: Record) -> bytes:
    """Encodes a record {key: array, number, text or tuple of texts} as bytes."""
    arrays = {k: v for k, v in record.items() if isinstance(v, np.ndarray)}
    little = {
        k: v.astype(v.dtype.newbyteorder("<"), copy=False) for k, v in arrays.items()
    }
    fields = {k: _plain(v) for k, v in record.items() if k not in arrays}
    header = json.dumps(
        {
            "fields": fields,
            "arrays": {k: [v.dtype.str, v.shape] for k, v in little.items()},
        },
        separators=(",", ":"),
    ).encode()
    header += b" " * (-(4 + len(header)) % _ALIGN)
    parts = [len(header).to_bytes(4, "little"), header]
    for array in little.values():
        parts += [array.tobytes(), b"\0" * (-array.nbytes % _ALIGN)]
    return b"".join(parts)


def encode_entries(record: Record, entries: Sequence[str]) -> list[bytes]:
    """A record's bytes in one entry for each of these sensors; without any, in one."""
    if not entries:
        return [encode_record(record)]
    rest = {key: value for key, value in record.items() if key not in entries}
    first, *others = ({key: record[key]} for key in entries)
    return [encode_record(part) for part in ({**rest, **first}, *others)]


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def decode_record(data: bytes) -> Record:
    """Decodes a record; its arrays are read-only views of the bytes."""
    start = 4 + int.from_bytes(data[:4], "little")
    header = json.loads(data[4:start])
    record = {
        k: tuple(v) if isinstance(v, list) else v for k, v in header["fields"].items()
    }
    for key, (dtype, shape) in header["arrays"].items():
        count = math.prod(shape)
        array = np.frombuffer(data, dtype, count, start)
        start += array.nbytes + -array.nbytes % _ALIGN
        record[key] = array.reshape(shape)
    return record
