"""Reads the pickle in a torch file without torch and without running foreign code.

A pickle is a program, so it is read twice. The first pass only inspects it and refuses
any name or instruction that weights do not need; the second runs it with our stand-ins
for the remaining names. No class of torch or of the file is ever imported.
"""

import collections
import io
import pickle
import pickletools
from collections.abc import Callable, Collection, Iterator
from typing import Any, ClassVar, NamedTuple

import ml_dtypes
import numpy as np

from rsclip_jax.io.texts import first_of, shown

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
# These have no storage class: the file has bytes and a separate dtype.
_UNTYPED = {"uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64}
# The instructions that torch writes at its default protocol, 2.
_OPCODES = frozenset(
    """PROTO STOP MARK GLOBAL REDUCE NEWOBJ BUILD BINPERSID BINPUT LONG_BINPUT BINGET
    LONG_BINGET TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST EMPTY_DICT APPEND
    APPENDS SETITEM SETITEMS BINUNICODE BININT BININT1 BININT2 LONG1 BINFLOAT NONE
    NEWTRUE NEWFALSE""".split()
)


_BY_CODE = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
# Instructions whose argument is lines of text.
_LINES = {"GLOBAL": 2, "INST": 2, "PERSID": 1, "STRING": 1}
_MAX_DIMENSIONS = 64  # numpy's
_SCALARS = (str, int, float, type(None))


class Refused(Exception):
    """The reason why a file is not read; the caller adds its name."""


def brief(value: Any) -> str:
    """A value of a pickle for a message.

    A container is shown by its kind and length: a few bytes of a pickle can nest one so
    that its repr is larger than memory.
    """
    if isinstance(value, _SCALARS):
        return shown(value, 80)
    flat = type(value) in (tuple, list) and len(value) < 10
    if flat and all(isinstance(x, _SCALARS) for x in value):
        return shown(value)
    count = f" of {len(value)}" if isinstance(value, Collection) else ""
    return f"a {type(value).__name__}{count}"


# A pickle can set attributes of objects that it made, so checked values are immutable:
# tuples without a __dict__.
class _StorageType(NamedTuple):
    """Stands for storage classes such as torch.FloatStorage, and for torch.uint16."""

    dtype: np.dtype


class Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A view of a storage; offset, shape and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Function(NamedTuple):
    """Stands for one of torch's functions."""

    call: Callable[..., Any]

    def __call__(self, *args):
        return self.call(*args)


class Module:
    """Stands for any TorchScript class: attributes without code."""

    state: Any = None

    def __setstate__(self, state):
        self.state = state


def unpickle(file, found: dict[str, Storage] | None = None) -> Any:
    """Inspects the next pickle of the stream, then runs it."""
    start = file.tell()
    _inspect(file)
    end = file.tell()
    file.seek(start)
    return _Unpickler(io.BytesIO(file.read(end - start)), found).load()


def _inspect(file) -> None:
    """Raises Refused naming everything that the pickle uses and should not."""
    names, opcodes = set(), set()
    try:
        for count, (opcode, arg) in enumerate(_instructions(file)):
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
            raise Refused(f"its pickle is damaged ({error})") from error
    if names:
        raise Refused(
            f"its pickle uses {first_of(sorted(names))}, which weights do not"
            " need and which could run any code; nothing was run. If you trust the"
            " file, save only its state dict, or save it as .safetensors"
        )
    if opcodes:
        raise Refused(
            f"its pickle uses {first_of(sorted(opcodes))}, which torch.save does not"
            " write by default; save it again with its defaults"
        )


def _instructions(file) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """The instructions of the next pickle, each with its argument.

    As pickletools.genops, which takes a backslash in a name as an escape, with a
    warning where it is none; what runs a pickle does not.
    """
    while True:
        code = file.read(1)
        if code not in _BY_CODE:
            raise ValueError(f"{code!r} is no instruction" if code else "cut short")
        opcode, arg = _BY_CODE[code], None
        if opcode.name in _LINES:
            lines = [file.readline() for _ in range(_LINES[opcode.name])]
            arg = " ".join(line.decode().removesuffix("\n") for line in lines)
        elif opcode.arg is not None:
            arg = opcode.arg.reader(file)
        yield opcode, arg
        if opcode.name == "STOP":
            return


def _stand_in(module: str, name: str) -> Any:
    """The stand-in for a name; None for a name that is refused."""
    if module == "torch" and name in _DTYPES:
        return _StorageType(np.dtype(_DTYPES[name]))
    if module == "torch" and name in _UNTYPED:
        return _StorageType(np.dtype(_UNTYPED[name]))
    if (module, name) == ("torch.storage", "UntypedStorage"):
        return _StorageType(np.dtype(np.uint8))
    if module == "__torch__" or module.startswith("__torch__."):
        return type("Module", (Module,), {})  # a new class: the pickle may modify it
    return _STAND_INS.get(f"{module}.{name}")


# The one written in Python: in C a key is hashed before anything can look at it.
_Base: Any = pickle._Unpickler


class _Unpickler(_Base):
    def __init__(self, file, found: dict[str, Storage] | None):
        super().__init__(file)
        self.found = {} if found is None else found

    def load_setitem(self) -> None:
        _check_key(self.stack[-2])
        super().load_setitem()

    def load_setitems(self) -> None:
        for key in self.stack[::2]:  # what lies above the mark
            _check_key(key)
        super().load_setitems()

    dispatch: ClassVar = {
        **_Base.dispatch,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _stand_in(module, name)
        if stand_in is None:
            raise Refused(f"its pickle uses {module}.{name}")
        return stand_in

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise Refused(f"its pickle refers to {brief(pid)}, which is not a storage")
        kind, key, size = expect(_StorageType, pid[1]), expect(str, pid[2]), pid[4]
        if len(pid) > 5 and pid[5] is not None:
            raise Refused("storages that are views of others are not supported")
        storage = Storage(key, kind.dtype, expect(int, size))
        if self.found.setdefault(key, storage) != storage:
            raise Refused(f"storage {brief(key)} is described in two ways")
        return storage


def _check_key(key: Any) -> None:
    """Raises Refused for a key whose hash could take forever: tuples in tuples."""
    parts = key if type(key) is tuple else (key,)
    if not all(isinstance(part, _SCALARS) for part in parts):
        raise Refused(f"its pickle has {brief(key)} as the key of a dict")


def _ordered_dict(pairs=()) -> collections.OrderedDict:
    """An OrderedDict; Python 2 gave it its pairs at once."""
    for pair in expect(list | tuple, pairs):
        _check_key(expect(list | tuple, pair)[0])
    return collections.OrderedDict(pairs)


def _rebuild_tensor(storage, offset, shape, strides, *rest) -> Tensor:
    """torch._utils._rebuild_tensor{,_v2}, without gradients and hooks."""
    del rest
    sizes = [*expect(tuple, shape), *expect(tuple, strides), offset]
    fits = len(shape) == len(strides) <= _MAX_DIMENSIONS
    if not fits or any(expect(int, n) < 0 for n in sizes):
        raise Refused(f"a tensor of shape {brief(shape)}, strides {brief(strides)}")
    return Tensor(expect(Storage, storage), offset, shape, strides)


def _rebuild_tensor_v3(storage, offset, shape, strides, grad, hooks, dtype, *rest):
    """For a dtype without a storage class: the storage counts bytes."""
    dtype, raw = expect(_StorageType, dtype).dtype, expect(Storage, storage)
    typed = Storage(raw.key, dtype, raw.size // dtype.itemsize)
    return _rebuild_tensor(typed, offset, shape, strides)


def _first(value, *rest):
    """The tensor of torch._utils._rebuild_parameter, the list of build_intlist."""
    del rest
    return value


_STAND_INS = {
    "collections.OrderedDict": _Function(_ordered_dict),
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


def expect(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Refused(f"its pickle has {brief(value)} instead of {kind.__name__}")
    return value
