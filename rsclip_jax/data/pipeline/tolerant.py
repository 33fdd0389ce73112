"""A source that replaces its unreadable records."""

import itertools
import math
import sys
import threading
from collections.abc import Collection, Iterator

import numpy as np

from rsclip_jax.data.bad_records import SkippedList, suggest_skip
from rsclip_jax.data.types import READING, ReadOptions, Record, Source, check_held


class Tolerant:
    """A source whose unreadable records are replaced, with on_error "skip".

    The stand-in is a readable record from anywhere in the source, with "mask" False:
    evaluation leaves it out, training uses it as one more example. Unreadable records
    are counted, listed in options.skipped and not read again. A warning names the first
    record of each error; one error may affect many records, such as a file's tiles.

    Args:
      source: the records.
      options: on_error "raise" raises the error of an unreadable record instead.
      keys: the sensors to read; all by default.
      optional: those that a record may lack; one that lacks another is unreadable.
    """

    def __init__(
        self,
        source: Source,
        options: ReadOptions = READING,
        keys: Collection[str] = (),
        optional: Collection[str] = (),
    ):
        self.source, self.options = source, options
        self.keys = tuple(keys) or tuple(source.dataset.sensors)
        self._needed = [key for key in self.keys if key not in optional]
        self._skipped = SkippedList(options.skipped) if options.skipped else None
        self._bad: set[int] = set()
        self._errors: set[str] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        if self.options.on_error != "skip":
            with suggest_skip():
                return {**self._read(index), "mask": True}
        for i in itertools.chain([index], _stand_ins(index, len(self))):
            if i in self._bad:  # a gap is read once, not at each visit
                continue
            try:
                return {**self._read(i), "mask": i == index}
            except (ValueError, OSError) as error:
                self._note(i, error)
        raise ValueError(f"no record of {self.source.spec} is readable")

    def _read(self, index: int) -> Record:
        try:
            record = self.source.read(index, self.keys)
            check_held(record, self._needed)
            return record
        except StopIteration as error:
            # grain takes it for the end of the data, and would stop without an error
            record_id = self.source.ids[index]
            raise RuntimeError(f"{record_id}: StopIteration in its reader") from error

    def _note(self, index: int, error: Exception) -> None:
        record_id, words = self.source.ids[index], str(error)
        with self._lock:
            if index in self._bad:
                return
            self._bad.add(index)
            count, is_known = len(self._bad), words in self._errors
            self._errors.add(words)
        if self._skipped:
            self._skipped.add(str(self.source.spec), record_id, words)
        if not is_known:
            message = f"skipped {record_id} ({count} of {len(self)} so far): {words}"
            print(f"warning: {message}", file=sys.stderr, flush=True)


def _stand_ins(index: int, count: int) -> Iterator[int]:
    """Yields all of `count` indices, each once, in an order that depends only on index.

    The order is random: else one neighbour would stand in for a whole run of bad
    records.
    """
    rng = np.random.default_rng(index)
    start, step = int(rng.integers(count)), int(rng.integers(1, count + 1))
    while math.gcd(step, count) > 1:
        step += 1
    return ((start + k * step) % count for k in range(count))
