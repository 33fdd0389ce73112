"""Errors of too little memory: what ran, how much was asked for, how much there is."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator

import jax

_NUMBER = r"([\d.]+)\s*([KMGTP]?)i?(?:B|bytes)?\b"
# Of XLA for CPU, GPU and TPU, when it compiles and when it runs, and of numpy.
_ASKED = (
    rf"allocat(?:e|ing) (?:request for )?{_NUMBER}",
    rf"reserve {_NUMBER}",
    rf"required for [^(]*\({_NUMBER}\)",
    rf"Used {_NUMBER} of",
)
_HELD = (rf"available [^(]*\({_NUMBER}\)", rf"Used \S+ of {_NUMBER}")
_FREE = (rf"There are {_NUMBER} free",)
_GIB = 2.0**30


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that the memory of a device or of the host is too small."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        return "RESOURCE_EXHAUSTED" in str(error)
    return isinstance(error, MemoryError)


@dataclasses.dataclass(frozen=True)
class Shortage:
    """What is known of a lack of memory, in bytes; None if it is unknown.

    asked: for what did not fit; held: what there is; free: what was not in use.
    on_host: whether the memory is the host's. text: the error's first line.
    """

    asked: int | None
    held: int | None
    free: int | None
    on_host: bool
    text: str = ""

    def __str__(self) -> str:
        where = f"a device ({jax.devices()[0].device_kind})"
        where = "this machine" if self.on_host else where
        told = f"out of memory ({self.text})" if self.text else "out of memory"
        asked = f"{describe(self.asked)} asked for" if self.asked else told
        held = f"{where} has {describe(self.held)}" if self.held else ""
        free = f"{describe(self.free)} were free" if self.free is not None else ""
        return ", ".join(x for x in (asked, held, free) if x)


class OutOfMemory(MemoryError):
    """Too little memory for some work: "training" or "encoding"."""

    def __init__(self, message: str, work: str, shortage: Shortage):
        super().__init__(message)
        self.work, self.shortage = work, shortage


@contextlib.contextmanager
def during(what: str, work: str) -> Iterator[None]:
    """Raises an error of too little memory within as OutOfMemory, naming the work."""
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if not is_shortage(error):
            raise
        shortage = measure(error)
        raise OutOfMemory(f"{what}: {shortage}", work, shortage) from error


def measure(error: BaseException) -> Shortage:
    """The numbers of an error, and what the device or the host has.

    >>> text = "total memory required for HLO temporaries (24.00G) exceeds available"
    >>> found = measure(MemoryError(text + " HBM (15.75G)."))
    >>> found.asked / 2**30, found.held / 2**30
    (24.0, 15.75)
    """
    if isinstance(error, OutOfMemory):
        return error.shortage
    text = str(error)
    stats: dict[str, int] = {}
    on_host = isinstance(error, MemoryError) or jax.default_backend() == "cpu"
    if not on_host:
        stats = jax.local_devices()[0].memory_stats() or {}
    held, free = _find(_HELD, text), _find(_FREE, text)
    if held is None:
        held = host_bytes() if on_host else stats.get("bytes_limit")
    if free is None and "bytes_in_use" in stats and held is not None:
        free = held - stats["bytes_in_use"]
    first = text.strip().partition("\n")[0]
    return Shortage(_find(_ASKED, text), held, free, on_host, first)


def _find(patterns: tuple[str, ...], text: str) -> int | None:
    for pattern in patterns:
        if found := re.search(pattern, text, re.IGNORECASE):
            unit = 1024 ** " KMGTP".index(found[2].upper() or " ")
            return int(float(found[1].rstrip(".")) * unit)
    return None


def host_bytes() -> int | None:
    """The physical memory of this machine; None if the system does not say it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def describe(count: float) -> str:
    """Bytes as text.

    >>> describe(3 * 2**30), describe(5 * 2**20), describe(12)
    ('3.00 GiB', '5.0 MiB', '12 bytes')
    """
    if count >= 0.1 * _GIB:
        return f"{count / _GIB:,.2f} GiB"
    return f"{count / 2**20:,.1f} MiB" if count >= 2**17 else f"{count:,.0f} bytes"
