"""Changed copies of a file, and what a reader makes of them: a ValueError, or values.

Everything follows from a seed. A copy is no larger than its file and a few bytes.
"""

import dataclasses
import itertools
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Copies of each format in a plain run, and in one of the slow tests: a minute or two.
COUNTS = (200, pytest.param(5000, marks=pytest.mark.slow))
SECONDS, MEGABYTES = 2.0, 500  # for one file
LETTERS = 2000  # of a message
# Numbers at the edges of what a field holds, and none.
_EDGES = (0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


@dataclasses.dataclass
class Outcome:
    """What a reader made of the copies of a file."""

    refused: int = 0
    read: int = 0
    seconds: float = 0.0  # the longest
    megabytes: float = 0.0  # that the process grew by

    @property
    def files(self) -> int:
        return self.refused + self.read

    def __str__(self) -> str:
        return (
            f"{self.files:,} files: {self.refused:,} refused, {self.read:,} read, at"
            f" most {1000 * self.seconds:.0f} ms, {self.megabytes:.0f} MB"
        )


def changed(
    whole: bytes, seed: int, harmless: Callable[[bytes], bool]
) -> Iterator[bytes]:
    """Copies with one to three changes, each of a random kind at a random place.

    harmless: whether a copy may be made. What decoders of others are known to take
    without a look, such as a length of gigabytes, is left out.
    """
    rng = np.random.default_rng(seed)
    while True:
        data = bytearray(whole)
        for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
            kind = _CHANGES[int(rng.integers(len(_CHANGES)))]
            kind(data, int(rng.integers(len(data) or 1)), rng)
        if harmless(bytes(data)):
            yield bytes(data)


def _flip(data: bytearray, at: int, rng: np.random.Generator) -> None:
    if data:
        data[at] ^= 1 << int(rng.integers(8))


def _set(data: bytearray, at: int, rng: np.random.Generator) -> None:
    if data:
        data[at] = int(rng.choice([0, 0x2D, 0x39, 0x7F, 0x80, 0xFF, rng.integers(256)]))


def _number(data: bytearray, at: int, rng: np.random.Generator) -> None:
    """A field of one to eight bytes becomes a number at its edge, or near a length."""
    size, edges = int(rng.choice([1, 2, 4, 8])), (*_EDGES, len(data), len(data) + 1)
    value = edges[int(rng.integers(len(edges)))] % 2 ** (8 * size)
    order = "little" if rng.integers(2) else "big"
    data[at : at + size] = value.to_bytes(size, order)


def _digits(data: bytearray, at: int, rng: np.random.Generator) -> None:
    """Digits in text become others."""
    text = (b"9" * 20, b"-1", b"0", b"1e9", b"nan", b"null", b"[]")
    data[at : at + 1] = text[int(rng.integers(len(text)))]


def _remove(data: bytearray, at: int, rng: np.random.Generator) -> None:
    del data[at : at + int(rng.integers(1, 40))]


def _repeat(data: bytearray, at: int, rng: np.random.Generator) -> None:
    data[at:at] = data[at : at + int(rng.integers(1, 40))]


def _move(data: bytearray, at: int, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(data) or 1))
    part = data[start : start + int(rng.integers(1, 40))]
    data[at : at + len(part)] = part


def _cut(data: bytearray, at: int, rng: np.random.Generator) -> None:
    del data[at:]


_CHANGES = (
    *(_flip, _flip, _set, _set, _number, _number, _digits),
    *(_remove, _repeat, _move, _cut),
)


def check_changed(
    form: str,
    path: Path,
    whole: bytes,
    read: Callable[[Path], Any],
    check: Callable[[Any, bytes], None],
    count: int,
    *,
    seed: int = 0,
    harmless: Callable[[bytes], bool] = lambda data: True,
) -> None:
    """Reads `count` changed copies of a file, each written to path; prints the outcome.

    read: the whole reading, whatever it gives. check: raises AssertionError unless
    what it gave is right, given the copy's bytes. A copy that is refused must be so by
    a ValueError that names the file, or a FileNotFoundError where it names another
    that is not there. Raises AssertionError with the copy's number.
    """
    outcome, before = Outcome(), _megabytes()
    copies = itertools.islice(changed(whole, seed, harmless), count)
    for number, data in enumerate(copies):
        path.write_bytes(data)
        start = time.process_time()
        try:
            found = read(path)
        except (ValueError, FileNotFoundError) as error:
            outcome.refused += 1
            _check_named(str(error), path, number)
        except BaseException as error:
            raise AssertionError(f"copy {number} of seed {seed}: {error!r}") from error
        else:
            outcome.read += 1
            check(found, data)
        outcome.seconds = max(outcome.seconds, time.process_time() - start)
        outcome.megabytes = _megabytes() - before
        assert outcome.seconds < SECONDS, (number, outcome)
        assert outcome.megabytes < MEGABYTES, (number, outcome)
    print(f"\n{form}: {outcome}")
    assert outcome.refused
    assert outcome.read


def _check_named(message: str, path: Path, number: int) -> None:
    assert path.name in message, (number, message)
    assert len(message) < LETTERS, (number, message[:LETTERS])


def _megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def check_arrays(
    whole: bytes, arrays: dict[str, np.ndarray], most: int = 0
) -> Callable[[dict[str, np.ndarray], bytes], None]:
    """A check of arrays whose bytes lie in a file as they are.

    Where only these are changed, the arrays have the changed bytes and all else is as
    it was. No array has more bytes than the file, or than `most` if it is given. Arrays
    whose bytes are not there exactly once count as all else.
    """
    places = {
        name: whole.index(raw)
        for name, array in arrays.items()
        if len(raw := array.tobytes()) > 3 and whole.count(raw) == 1
    }
    assert places
    outside = np.ones(len(whole), bool)
    for name, at in places.items():
        outside[at : at + arrays[name].nbytes] = False
    rest = np.frombuffer(whole, np.uint8)[outside]

    def check(found: dict[str, np.ndarray], data: bytes) -> None:
        for array in found.values():
            assert array.nbytes <= (most or len(data))
        given = np.frombuffer(data, np.uint8)
        if len(data) != len(whole) or (given[outside] != rest).any():
            return
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            at, size = places.get(name), array.nbytes
            assert at is None or found[name].tobytes() == data[at : at + size]

    return check
