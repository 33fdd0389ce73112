"""Reads torch's .pt, .pth and .bin files without torch and without running code.

Such a file is a pickle and raw storages: in a zip (torch.save since 1.6, and OpenAI's
TorchScript archives of CLIP) or concatenated (before 1.6). torch_pickle.py reads the
pickle; this module maps its tensors to their storages.
"""

import io
import math
import mmap
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from rsclip_jax.io.texts import clip, shown
from rsclip_jax.io.torch_pickle import (
    Module,
    Refused,
    Storage,
    Tensor,
    expect,
    unpickle,
)

_BIG_ENDIAN = "written on a big-endian machine, which is not supported"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, before the zip format
# The most attributes of a module, and characters of their names: submodules that are
# shared can multiply endlessly.
_MAX_ATTRIBUTES, _MAX_NAMES = 200_000, 2**24


def load_torch(path: str | Path) -> Any:
    """Reads a file of torch.save or torch.jit.save as containers of numpy arrays.

    A TorchScript module becomes {"visual.conv1.weight": array, ...}. Arrays keep the
    file's dtype (bfloat16 as ml_dtypes'), are read-only and memory-mapped. Raises
    ValueError naming the file and the part that is refused or damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # mmap of an empty file
        raise ValueError(f"{path}: the file is empty") from error
    return _read(data, str(path))


def read_torch(data: bytes, where: str) -> Any:
    """load_torch for a file's bytes; where: their name in errors."""
    if not data:
        raise ValueError(f"{where}: the file is empty")
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return _read(memory, where)


def _read(data: mmap.mmap, where: str) -> Any:
    try:
        if data[:4] == b"PK\x03\x04":
            return _read_zip(data)
        return _read_legacy(data)
    except Refused as error:
        raise ValueError(f"{where}: {error}") from error
    except _BROKEN as error:
        raise ValueError(
            f"{where}: damaged, or not a torch file ({clip(str(error), 200)});"
            " download it again"
        ) from error


# Errors of zipfile, pickle and the stand-ins on damaged bytes.
_BROKEN = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


def _read_zip(data: mmap.mmap) -> Any:
    # a mmap has the methods that zipfile needs, but zipfile's types do not allow it
    with zipfile.ZipFile(cast(IO[bytes], data)) as archive:
        records = {info.filename: info for info in archive.infolist()}
        if len(records) < len(archive.infolist()):
            raise Refused("a zip file in which a record is twice")
        pickles = [n for n in records if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused(
                "a zip file, but not one of torch's: it holds"
                f" {len(pickles)} */data.pkl instead of 1"
            )
        folder = pickles[0].removesuffix("data.pkl")
        order = records.get(f"{folder}byteorder")
        if order is not None and bytes(_record(data, order)) != b"little":
            raise Refused(_BIG_ENDIAN)

    def storage(key: str) -> memoryview:
        info = records.get(f"{folder}data/{key}")
        if info is None:
            raise Refused(f"storage {shown(key)} is not in the file")
        return _record(data, info)

    pickled = io.BytesIO(_record(data, records[pickles[0]]))
    return _resolve(unpickle(pickled), storage)


def _record(data: mmap.mmap, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of an uncompressed record, without a copy."""
    name = clip(info.filename)
    if info.compress_type != zipfile.ZIP_STORED:
        raise Refused(f"record {name} is compressed, which torch never does")
    header = data[max(info.header_offset, 0) : info.header_offset + 30]
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise Refused(f"record {name} is damaged; download the file again")
    names = int.from_bytes(header[26:28], "little")
    extra = int.from_bytes(header[28:30], "little")
    start = info.header_offset + 30 + names + extra
    if start + info.file_size > len(data):
        raise Refused(f"record {name} is cut off; download the file again")
    return memoryview(data)[start : start + info.file_size]


def _read_legacy(data: mmap.mmap) -> Any:
    """Reads pickles of magic, protocol, system, object and keys, then the storages."""
    try:
        magic = unpickle(data)
    except Refused:
        magic = None
    if magic != _LEGACY_MAGIC:
        raise Refused("neither a zip archive nor written by torch.save")
    unpickle(data)
    system = expect(dict, unpickle(data))
    if not system.get("little_endian", True):
        raise Refused(_BIG_ENDIAN)
    found: dict[str, Storage] = {}
    root = unpickle(data, found)
    keys = expect(list, unpickle(data))
    spans, at = {}, data.tell()
    for key in keys:
        if expect(str, key) not in found:
            raise Refused(f"storage {shown(key)} belongs to no tensor")
        size = found[key].size * found[key].dtype.itemsize
        if int.from_bytes(data[at : at + 8], "little") != found[key].size:
            raise Refused(f"storage {shown(key)} is damaged; download the file again")
        spans[key] = (at + 8, at + 8 + size)
        at += 8 + size

    def storage(key: str) -> memoryview:
        if key not in spans or spans[key][1] > len(data):
            raise Refused(f"storage {shown(key)} is cut off; download the file again")
        return memoryview(data)[slice(*spans[key])]

    return _resolve(root, storage)


def _resolve(root: Any, storage) -> Any:
    """The tree with an array for each tensor; shared parts are resolved once."""
    done: dict[int, Any] = {}

    def walk(x):
        if id(x) not in done:
            done[id(x)] = None  # for a container that contains itself
            done[id(x)] = convert(x)
        return done[id(x)]

    def convert(x):
        if isinstance(x, Tensor):
            return _view(x, storage)
        if isinstance(x, Module):
            return {name: walk(t) for name, t in _module_tensors(x)}
        if isinstance(x, dict):
            return {key: walk(value) for key, value in dict.items(x)}
        if isinstance(x, list | tuple):
            return type(x)(walk(value) for value in x)
        return x

    return walk(root)


def _module_tensors(module: Module) -> list[tuple[str, Tensor]]:
    """A module's tensors and its submodules', by the names of torch's state_dict."""
    out, pending, seen, letters = [], [("", module)], 0, 0
    while pending:
        prefix, module = pending.pop()
        attributes = expect(dict, module.state or {})
        seen += 1 + len(attributes)
        if seen > _MAX_ATTRIBUTES:
            raise Refused(f"a module has more than {_MAX_ATTRIBUTES} attributes")
        for name, value in attributes.items():
            letters += len(prefix) + len(expect(str, name))
            if letters > _MAX_NAMES:
                raise Refused(f"a module's names have more than {_MAX_NAMES} letters")
            if isinstance(value, Module):
                pending.append((f"{prefix}{name}.", value))
            elif isinstance(value, Tensor):
                out.append((f"{prefix}{name}", value))
    return out


def _view(tensor: Tensor, storage) -> np.ndarray:
    """A view of the tensor's elements in the file."""
    s = tensor.storage
    count = math.prod(tensor.shape)
    reach = sum((n - 1) * m for n, m in zip(tensor.shape, tensor.strides, strict=True))
    last = tensor.offset + reach if count else 0
    if count > s.size or last >= max(s.size, 1):
        raise Refused(
            f"a tensor of shape {shown(tensor.shape)} and strides"
            f" {shown(tensor.strides)} at"
            f" {tensor.offset} exceeds its storage of {s.size} elements"
        )
    raw = storage(s.key)
    if len(raw) < s.size * s.dtype.itemsize:
        raise Refused(
            f"storage {shown(s.key)} has {len(raw)} bytes, not {s.size} x"
            f" {s.dtype.itemsize}; download the file again"
        )
    flat = np.frombuffer(raw, s.dtype, s.size) if s.size else np.zeros(0, s.dtype)
    strides = tuple(n * s.dtype.itemsize for n in tensor.strides)
    return np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.shape, strides, writeable=False
    )
