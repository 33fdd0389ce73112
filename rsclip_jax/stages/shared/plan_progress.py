"""What a plan is doing: a line on stderr for each program, before it is compiled."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence

from rsclip_jax.stages.shared.plan_table import Place, describe_time


@dataclasses.dataclass
class Progress:
    """Counts the programs of a plan; prints nothing unless `shown`."""

    shown: bool
    total: int = 0
    number: int = 0

    def begin(self, counts: Sequence[tuple[Place, int]]) -> None:
        """Says how many programs there are. counts: at each place."""
        self.total = sum(count for _, count in counts)
        parts = []
        for place, count in counts:
            each = "a minute to three each" if place.topology else "also timed"
            parts.append(f"{count} for {place.name} ({each})")
        self._print(f"plan: compiling {self.total} programs, {', '.join(parts)} ...\n")

    @contextlib.contextmanager
    def program(self, what: str, place: Place) -> Iterator[None]:
        """Says which program is being compiled, and then how long it took."""
        self.number += 1
        self._print(f"  [{self.number} of {self.total}] {what} for {place.name} ... ")
        started, took = time.perf_counter(), "failed"
        try:
            yield
            took = describe_time(time.perf_counter() - started)
        finally:
            self._print(f"{took}\n")

    def _print(self, text: str) -> None:
        if self.shown:
            sys.stdout.flush()
            print(text, end="", file=sys.stderr, flush=True)
