"""Stopping by SIGTERM, SIGINT or a preemption notice: at once, or after a step.

One process handles the signals itself. With several processes, jax.distributed catches
SIGTERM and lets all of them agree on the point at which they stop.
"""

import contextlib
import functools
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Every process counts the same points, as jax's agreement requires.
_points = itertools.count(1)
# Signals whose Interrupted may have been lost: Python drops what is raised within a
# destructor or a callback of the garbage collector. The next stop point acts on them.
_raised: list[int] = []


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; code is the exit status.

    A KeyboardInterrupt, so that no "except Exception" takes it for an error.
    """

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.code = 128 + signum


class Stop:
    """Whether to stop, and the signal that asked for it."""

    def __init__(self) -> None:
        self.caught: list[int] = []

    @property
    def signum(self) -> int:
        return next(iter([*self.caught, *_raised]), signal.SIGTERM)

    def reached(self) -> bool:
        """Whether to stop after this step. All processes call it at every step."""
        if jax.process_count() > 1:
            return _all_reached()
        return bool(self.caught or _raised)


def stop_point(where: str) -> None:
    """Raises Interrupted if all processes have agreed to stop here.

    For loops outside training; all processes call it equally often. In one process the
    signal has raised Interrupted already, see at_once, unless that was lost.
    """
    if jax.process_count() > 1:
        if _all_reached():
            raise Interrupted(signal.SIGTERM, describe(where))
    elif _raised:
        raise Interrupted(_raised[0], describe(where))


def _all_reached() -> bool:
    return multihost_utils.reached_preemption_sync_point(next(_points))


def describe(where: str, saved: str = "") -> str:
    saved = saved or "finished stages and checkpoints are kept"
    return f"stopped {where}; {saved}: run the same command again to continue"


@contextlib.contextmanager
def after_step() -> Iterator[Stop]:
    """Yields a Stop that notes SIGINT and SIGTERM; a second signal acts immediately."""
    stop = Stop()

    def handle(signum: int, previous: Any) -> None:
        stop.caught.append(signum)
        signal.signal(signum, previous)
        text = "\nstopping after this step; press again to stop now without saving ..."
        print(text, file=sys.stderr, flush=True)
        _tell_others(signum)

    with _handling(handle):
        yield stop


@contextlib.contextmanager
def at_once(where: str) -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted within the block.

    where: for the message, see describe. With several processes, all stop at the next
    stop_point or training step.
    """

    def handle(signum: int, previous: Any) -> None:
        if jax.process_count() > 1:
            signal.signal(signum, previous)  # a second one acts immediately
            _tell_others(signum)
            return
        _raised.append(signum)
        raise Interrupted(signum, describe(where))

    try:
        with _handling(handle):
            yield
        if _raised:
            raise Interrupted(_raised[0], describe(where))
    finally:
        _raised.clear()


def _tell_others(signum: int) -> None:
    """Turns SIGINT into the SIGTERM that jax.distributed tells all processes of."""
    if signum == signal.SIGINT and jax.process_count() > 1:
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _handling(handle: Callable[[int, Any], None]) -> Iterator[None]:
    """Calls handle(signum, previous handler) for signals within the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    # With several processes SIGTERM is jax.distributed's: it must not be taken from it.
    several = jax.process_count() > 1
    previous = {s: signal.getsignal(s) for s in _SIGNALS[: 1 if several else 2]}
    try:
        for signum, old in previous.items():
            signal.signal(signum, functools.partial(_call, handle, old))
        yield
    finally:
        for signum, old in previous.items():
            signal.signal(signum, old)


def _call(handle: Callable, previous: Any, signum: int, frame: Any) -> None:
    del frame
    handle(signum, previous)
