"""Ends a job of several processes that makes no progress, and says who holds it up.

Each process writes <workdir>/processes/<i>.json while it runs: who it is, what it does
and how far it is. Where something is watched and does not advance for too long, every
process writes the stacks of its threads to <i>.stacks.txt beside it, names the process
that is missing or behind, and exits: a collective with a lost peer may wait for ever.
"""

import contextlib
import dataclasses
import datetime
import faulthandler
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from rsclip_jax.io.files import read_json, write_json, write_text
from rsclip_jax.train import processes

EXIT_CODE = 75  # a temporary failure: the same command continues
_PERIOD = 10.0  # seconds between two heartbeats, at most
_ABSENT = 4  # periods without a heartbeat after which a process counts as missing


@dataclasses.dataclass(frozen=True)
class Beat:
    """The content of <i>.json.

    what, step: what the process does and how far it is; changed, written: the time of
    the last progress and of this file, in seconds since 1970. watched: whether a lack
    of progress ends the job.
    """

    process: int
    pid: int
    host: str
    what: str = "start"
    step: int = 0
    changed: float = 0.0
    written: float = 0.0
    watched: bool = False

    def __str__(self) -> str:
        when = f"{datetime.datetime.fromtimestamp(self.changed):%H:%M:%S}"
        return (
            f"process {self.process} (host {self.host}, pid {self.pid}): {self.what},"
            f" step {self.step} at {when}"
        )

    def is_missing(self, period: float) -> bool:
        """Whether the process has ended, or has stopped to write its file."""
        if self.host == socket.gethostname():
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
            except OSError:
                return False
        return time.time() - self.written > _ABSENT * period


class Watchdog:
    """The heartbeat of this process, and its watch over all of them.

    folder: of the heartbeats. seconds: without progress, after which the job ends.
    """

    def __init__(self, folder: Path, seconds: float):
        self.folder, self.seconds = folder, seconds
        self.period = min(_PERIOD, seconds / 10)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._beat = Beat(processes.index(), os.getpid(), socket.gethostname())
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        # faulthandler writes to a file descriptor, also while Python cannot run
        self._stacks = tempfile.TemporaryFile("w+")  # noqa: SIM115

    def beat(self, step: int) -> None:
        """Notes progress."""
        with self._lock:
            self._since = time.monotonic()
            self._beat = dataclasses.replace(self._beat, step=step, changed=time.time())

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Watches the block: it must beat, or end, within the seconds."""
        before = self._beat
        self._set(what, watched=True)
        try:
            yield
        finally:
            self._set(before.what, watched=before.watched)

    def _set(self, what: str, *, watched: bool) -> None:
        with self._lock:
            self._since = time.monotonic()
            now = time.time()
            self._beat = dataclasses.replace(
                self._beat, what=what, step=0, changed=now, watched=watched
            )

    def start(self) -> None:
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch and removes the heartbeat."""
        self._ended.set()
        self._thread.join(10 * self.period)
        faulthandler.cancel_dump_traceback_later()
        self._path(self._beat.process).unlink(missing_ok=True)

    def _path(self, process: int) -> Path:
        return self.folder / f"{process}.json"

    def _write(self) -> None:
        with self._lock:
            self._beat = dataclasses.replace(self._beat, written=time.time())
            beat = self._beat
        with contextlib.suppress(OSError):  # such as a full disk, which others report
            write_json(self._path(beat.process), dataclasses.asdict(beat))

    def _run(self) -> None:
        while not self._ended.wait(self.period):
            self._write()
            with self._lock:
                idle, watched = time.monotonic() - self._since, self._beat.watched
            if watched and idle > self.seconds:
                self._end(idle)
            # ends the process even where a thread that hangs does not let Python run
            left = max(self.seconds - idle, 0) if watched else self.seconds
            faulthandler.dump_traceback_later(
                left + 10 * self.period, exit=True, file=sys.stderr
            )

    def _end(self, idle: float) -> None:
        """Writes the stacks, says who holds up the job, and ends this process."""
        self._write()
        time.sleep(2 * self.period)  # so that all have written how far they are
        path = self.folder / f"{self._beat.process}.stacks.txt"
        faulthandler.dump_traceback(self._stacks, all_threads=True)
        self._stacks.seek(0)
        with contextlib.suppress(OSError):
            write_text(path, self._stacks.read())
        print(
            f"error: {processes.name_self()}no progress for {idle / 60:.3g} minutes"
            f" (watchdog_minutes = {self.seconds / 60:.3g}):"
            f" {self.describe()}; the stacks of this process are in {path}. The same"
            " command continues from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(4 * self.period)  # the others see a lost peer once this one is gone
        os._exit(EXIT_CODE)

    def describe(self) -> str:
        """Who is missing, or behind the others, by the heartbeats."""
        beats = read_beats(self.folder)
        missing = [b for b in beats if b.is_missing(self.period)]
        if missing:
            return f"missing: {'; '.join(map(str, missing))}"
        absent = sorted(set(range(processes.count())) - {b.process for b in beats})
        if absent:
            return f"no heartbeat of process(es) {', '.join(map(str, absent))}"
        behind = find_behind(beats)
        if not behind:
            return f"all are equally far: {'; '.join(map(str, beats))}"
        return f"behind: {'; '.join(map(str, behind))}"


def read_beats(folder: Path) -> list[Beat]:
    """The heartbeats of a folder, by process; damaged files are left out."""
    found = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Beat(**read_json(path)))
    return sorted(found, key=lambda beat: beat.process)


def find_behind(beats: list[Beat]) -> list[Beat]:
    """Those with the fewest steps; if they do different things, the first to stop."""
    if len({beat.what for beat in beats}) > 1:
        return [min(beats, key=lambda beat: beat.changed)]
    least = min(beat.step for beat in beats)
    behind = [beat for beat in beats if beat.step == least]
    return behind if len(behind) < len(beats) else []


# The watchdog of this process, which loops at any depth tell of their progress.
_current: Watchdog | None = None


@contextlib.contextmanager
def watching(workdir: Path, minutes: float) -> Iterator[None]:
    """Watches this process within the block; does nothing for one process alone.

    minutes: without progress, after which the job ends; 0 does not watch.
    """
    global _current
    if processes.count() == 1 or not minutes:
        yield
        return
    _current = Watchdog(workdir / "processes", 60 * minutes)
    _current.start()
    try:
        yield
        _current.stop()  # after an error the file stays: others may ask for this one
    finally:
        _current = None


def beat(step: int) -> None:
    """Notes progress within `during`, if this process is watched."""
    if _current:
        _current.beat(step)


@contextlib.contextmanager
def during(what: str) -> Iterator[None]:
    """A part of the work that beats; see Watchdog.during."""
    with _current.during(what) if _current else contextlib.nullcontext():
        yield


def describe_peers(workdir: Path) -> str:
    """After an error of communication: which processes are missing; "" if none is."""
    beats = read_beats(workdir / "processes")
    missing = [b for b in beats if b.is_missing(_PERIOD)]
    return f"missing: {'; '.join(map(str, missing))}" if missing else ""
