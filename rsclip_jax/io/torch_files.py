"""torch's .pt, .pth and .bin files, read without torch and without running anything.

Such a file is a pickle beside raw storages: in a zip (torch.save since 1.6, and the
TorchScript archives that OpenAI's CLIP comes as) or one after the other (before 1.6). A
pickle is a program, so it is read through twice: first only looked at, when any name or
instruction that a weight file has no need of is refused, then run with stand-ins of
ours for the few names that are left. No class of torch or of the file is ever imported.
"""

import collections
import io
import math
import mmap
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import ml_dtypes
import numpy as np

_DTYPES = {
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "ShortStorage": np.int16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "BoolStorage": np.bool_,
}
# These have no storage class of their own: bytes, and the dtype beside them.
_UNTYPED = {"uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64}
# What torch's own writers emit at their default protocol, 2.
_OPCODES = frozenset(
    """PROTO STOP MARK GLOBAL REDUCE NEWOBJ BUILD BINPERSID BINPUT LONG_BINPUT BINGET
    LONG_BINGET TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST EMPTY_DICT APPEND
    APPENDS SETITEM SETITEMS BINUNICODE BININT BININT1 BININT2 LONG1 BINFLOAT NONE
    NEWTRUE NEWFALSE""".split()
)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, before the zip format
_MAX_ATTRIBUTES = 1_000_000  # of a module: shared submodules can multiply without end


def load_torch(path: str | Path) -> Any:
    """What torch.save or torch.jit.save wrote: containers of memory-mapped arrays.

    A TorchScript module becomes {"visual.conv1.weight": array, ...}. Arrays keep the
    file's dtype (bfloat16 as ml_dtypes'), are read-only, and are paged in when read.
    Raises ValueError naming the file and what in it is refused or broken.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # mmap of an empty file
        raise ValueError(f"{path}: the file is empty") from error
    return _read(data, str(path))


def read_torch(data: bytes, where: str) -> Any:
    """As load_torch, of a file's bytes; where: what an error calls them."""
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
    except _Refused as error:
        raise ValueError(f"{where}: {error}") from error
    except _BROKEN as error:
        raise ValueError(
            f"{where}: damaged, or not a torch file ({error}); fetch it again"
        ) from error


# What zipfile, pickle and the stand-ins raise on bytes that make no sense.
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


class _Refused(Exception):
    """Why the file is not read; the caller adds its name."""


# A pickle can set the attributes of what it has made, so what is checked once must be
# immutable afterwards: tuples without a __dict__.
class _StorageType(NamedTuple):
    """Stands for torch.FloatStorage and its like, and for torch.uint16."""

    dtype: np.dtype


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A view of a storage; all in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Function(NamedTuple):
    """Stands for one of torch's functions."""

    call: Callable[..., Any]

    def __call__(self, *args):
        return self.call(*args)


class _Module:
    """Stands for any TorchScript class: its attributes, and nothing that runs."""

    state: Any = None

    def __setstate__(self, state):
        self.state = state


def _read_zip(data: mmap.mmap) -> Any:
    # zipfile asks of a file what a mmap has, but its types do not know
    with zipfile.ZipFile(cast(IO[bytes], data)) as archive:
        records = {info.filename: info for info in archive.infolist()}
        pickles = [n for n in records if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Refused(
                "a zip file, but not one of torch's: it holds"
                f" {len(pickles)} */data.pkl instead of 1"
            )
        folder = pickles[0].removesuffix("data.pkl")
        order = records.get(f"{folder}byteorder")
        if order is not None and bytes(_record(data, order)) != b"little":
            raise _Refused("written on a big-endian machine, which is not read here")

    def storage(key: str) -> memoryview:
        info = records.get(f"{folder}data/{key}")
        if info is None:
            raise _Refused(f"storage {key!r} is not in the file")
        return _record(data, info)

    pickled = io.BytesIO(_record(data, records[pickles[0]]))
    return _resolve(_unpickle(pickled), storage)


def _record(data: mmap.mmap, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of a stored record, where they lie in the file."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise _Refused(f"record {info.filename} is compressed; torch writes none so")
    header = data[info.header_offset : info.header_offset + 30]
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise _Refused(f"record {info.filename} is damaged; fetch the file again")
    names = int.from_bytes(header[26:28], "little")
    extra = int.from_bytes(header[28:30], "little")
    start = info.header_offset + 30 + names + extra
    if start + info.file_size > len(data):
        raise _Refused(f"record {info.filename} is cut off; fetch the file again")
    return memoryview(data)[start : start + info.file_size]


def _read_legacy(data: mmap.mmap) -> Any:
    """Pickles of magic, protocol, system, object, storage keys; then the storages."""
    try:
        magic = _unpickle(data)
    except _Refused:
        magic = None
    if magic != _LEGACY_MAGIC:
        raise _Refused("neither a zip archive nor a stream of torch.save's")
    _unpickle(data)
    system = _expect(dict, _unpickle(data))
    if not system.get("little_endian", True):
        raise _Refused("written on a big-endian machine, which is not read here")
    found: dict[str, _Storage] = {}
    root = _unpickle(data, found)
    keys = _expect(list, _unpickle(data))
    spans, at = {}, data.tell()
    for key in keys:
        if key not in found:
            raise _Refused(f"storage {key!r} belongs to no tensor")
        size = found[key].size * found[key].dtype.itemsize
        if int.from_bytes(data[at : at + 8], "little") != found[key].size:
            raise _Refused(f"storage {key!r} is damaged; fetch the file again")
        spans[key] = (at + 8, at + 8 + size)
        at += 8 + size

    def storage(key: str) -> memoryview:
        if key not in spans or spans[key][1] > len(data):
            raise _Refused(f"storage {key!r} is cut off; fetch the file again")
        return memoryview(data)[slice(*spans[key])]

    return _resolve(root, storage)


def _unpickle(file, found: dict[str, _Storage] | None = None) -> Any:
    """The next pickle of the stream, looked through before it is run."""
    start = file.tell()
    _look_through(file)
    end = file.tell()
    file.seek(start)
    return _Unpickler(io.BytesIO(file.read(end - start)), found).load()


def _look_through(file) -> None:
    """Raises _Refused naming all that the pickle asks for and should not."""
    names, opcodes = set(), set()
    try:
        for count, (opcode, arg, _position) in enumerate(pickletools.genops(file)):
            if opcode.name not in _OPCODES:
                opcodes.add(opcode.name)
            elif opcode.name == "GLOBAL":
                module, _, name = str(arg).partition(" ")
                if _stand_in(module, name) is None:
                    names.add(f"{module}.{name}")
            elif opcode.name == "LONG_BINPUT" and int(str(arg)) > count:
                opcodes.add(f"LONG_BINPUT {arg}")  # would reserve that much memory
    except (ValueError, UnicodeDecodeError) as error:
        if not names:
            raise _Refused(f"its pickle is damaged ({error})") from error
    if names:
        raise _Refused(
            f"its pickle asks for {', '.join(sorted(names))}, which weights do not"
            " need and which could run anything; none of it was run. Save the"
            " state dict alone, or as .safetensors, where you trust the file"
        )
    if opcodes:
        raise _Refused(
            f"its pickle uses {', '.join(sorted(opcodes))}, which torch.save does not"
            " write by default; save it again with its defaults"
        )


def _stand_in(module: str, name: str) -> Any:
    """What we put in a name's place; None for a name that is refused."""
    if module == "torch" and name in _DTYPES:
        return _StorageType(np.dtype(_DTYPES[name]))
    if module == "torch" and name in _UNTYPED:
        return _StorageType(np.dtype(_UNTYPED[name]))
    if (module, name) == ("torch.storage", "UntypedStorage"):
        return _StorageType(np.dtype(np.uint8))
    if module == "__torch__" or module.startswith("__torch__."):
        return type("Module", (_Module,), {})  # its own: it could be written to
    return _STAND_INS.get(f"{module}.{name}")


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, found: dict[str, _Storage] | None):
        super().__init__(file)
        self.found = {} if found is None else found

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _stand_in(module, name)
        if stand_in is None:
            raise _Refused(f"its pickle asks for {module}.{name}")
        return stand_in

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise _Refused(f"its pickle refers to {pid!r:.80}, which is no storage")
        kind, key, size = _expect(_StorageType, pid[1]), _expect(str, pid[2]), pid[4]
        if len(pid) > 5 and pid[5] is not None:
            raise _Refused("storages that are views of others are not read here")
        storage = _Storage(key, kind.dtype, _expect(int, size))
        if self.found.setdefault(key, storage) != storage:
            raise _Refused(f"storage {key!r} is described in two ways")
        return storage


def _rebuild_tensor(storage, offset, shape, strides, *rest) -> _Tensor:
    """torch._utils._rebuild_tensor{,_v2}; gradients and hooks are no weights."""
    del rest
    sizes = [*_expect(tuple, shape), *_expect(tuple, strides), offset]
    if len(shape) != len(strides) or any(_expect(int, n) < 0 for n in sizes):
        raise _Refused(f"a tensor of shape {shape!r:.80}, strides {strides!r:.80}")
    return _Tensor(_expect(_Storage, storage), offset, shape, strides)


def _rebuild_tensor_v3(storage, offset, shape, strides, grad, hooks, dtype, *rest):
    """Of a dtype without a storage class: the storage counts in bytes."""
    dtype, raw = _expect(_StorageType, dtype).dtype, _expect(_Storage, storage)
    typed = _Storage(raw.key, dtype, raw.size // dtype.itemsize)
    return _rebuild_tensor(typed, offset, shape, strides)


def _first(value, *rest):
    """torch._utils._rebuild_parameter: the tensor; build_intlist: the list."""
    del rest
    return value


_STAND_INS = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _Function(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v3": _Function(_rebuild_tensor_v3),
    "torch._utils._rebuild_parameter": _Function(_first),
    "torch._utils._rebuild_parameter_with_state": _Function(_first),
    **{
        f"torch.jit._pickle.{name}": _Function(_first)
        for name in (
            "build_boollist",
            "build_doublelist",
            "build_intlist",
            "build_tensorlist",
            "restore_type_tag",
        )
    },
}


def _expect(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _Refused(f"its pickle has {value!r:.80} in the place of {kind.__name__}")
    return value


def _resolve(root: Any, storage) -> Any:
    """The tree with an array for each tensor; shared parts are resolved once."""
    done: dict[int, Any] = {}

    def walk(x):
        if id(x) not in done:
            done[id(x)] = None  # a container that holds itself
            done[id(x)] = convert(x)
        return done[id(x)]

    def convert(x):
        if isinstance(x, _Tensor):
            return _view(x, storage)
        if isinstance(x, _Module):
            return {name: walk(t) for name, t in _module_tensors(x)}
        if isinstance(x, dict):
            return {key: walk(value) for key, value in dict.items(x)}
        if isinstance(x, list | tuple):
            return type(x)(walk(value) for value in x)
        return x

    return walk(root)


def _module_tensors(module: _Module) -> list[tuple[str, _Tensor]]:
    """A module's tensors and its submodules', by the names of torch's state_dict."""
    out, pending, seen = [], [("", module)], 0
    while pending:
        prefix, module = pending.pop()
        attributes = _expect(dict, module.state or {})
        seen += 1 + len(attributes)
        if seen > _MAX_ATTRIBUTES:
            raise _Refused(f"a module of more than {_MAX_ATTRIBUTES} attributes")
        for name, value in attributes.items():
            if isinstance(value, _Module):
                pending.append((f"{prefix}{name}.", value))
            elif isinstance(value, _Tensor):
                out.append((f"{prefix}{name}", value))
    return out


def _view(tensor: _Tensor, storage) -> np.ndarray:
    """The tensor's elements where they lie in the file."""
    s = tensor.storage
    count = math.prod(tensor.shape)
    reach = sum((n - 1) * m for n, m in zip(tensor.shape, tensor.strides, strict=True))
    last = tensor.offset + reach if count else 0
    if count > s.size or last >= max(s.size, 1):
        raise _Refused(
            f"a tensor of shape {tensor.shape} and strides {tensor.strides} at"
            f" {tensor.offset} does not lie in its storage of {s.size} elements"
        )
    raw = storage(s.key)
    if len(raw) < s.size * s.dtype.itemsize:
        raise _Refused(
            f"storage {s.key!r} has {len(raw)} bytes, not {s.size} x"
            f" {s.dtype.itemsize}; fetch the file again"
        )
    flat = np.frombuffer(raw, s.dtype, s.size) if s.size else np.zeros(0, s.dtype)
    strides = tuple(n * s.dtype.itemsize for n in tensor.strides)
    return np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.shape, strides, writeable=False
    )
