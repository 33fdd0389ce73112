"""How long the devices have waited for data: no step at work while a batch is drawn."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax


class InputWait:
    """Seconds of drawing in which no step was at work.

    A thread waits for each step's result, because an array does not say when it became
    ready. Before the first step, drawing is all waiting. The thread ends with close().
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begun = 0  # steps
        self._finished = (0, 0.0)  # steps, and the time at which the last one ended
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._watch, name="input_wait", daemon=True
        )
        self._thread.start()

    def begin(self, result: Any) -> None:
        """Notes a step that the device has begun, by an array that it returns."""
        self._begun += 1
        self._results.put(result)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Times the drawing of a batch within."""
        start = time.perf_counter()
        try:
            yield
        finally:
            finished, ended = self._finished
            if finished == self._begun:  # else a step is still at work
                self.seconds += time.perf_counter() - max(start, ended)

    def close(self) -> None:
        """Ends the thread once the steps that were begun have ended."""
        self._results.put(None)

    def _watch(self) -> None:
        number = 0
        while (result := self._results.get()) is not None:
            # an error of the step is raised where the loop reads its metrics
            with contextlib.suppress(Exception):
                jax.block_until_ready(result)
            del result
            number += 1
            self._finished = (number, time.perf_counter())
