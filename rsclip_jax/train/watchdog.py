"""Ends a job of several processes that makes no progress, and says who holds it up.

Each process writes <workdir>/processes/<i>.json while it runs: who it is, what it does
and how far it is. Where a process is lost, or what is watched does not advance for too
long, every process writes the stacks of its threads to <i>.stacks.txt beside it, names
the process that is missing or behind, and exits: collectives, and Orbax's barriers, may
wait long for a lost peer.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rsclip_jax.io.files import read_json, write_json, write_text
from rsclip_jax.io.paths import is_remote
from rsclip_jax.train import processes

EXIT_CODE = 75  # a temporary failure: the same command continues
_PERIOD = 5.0  # seconds between two heartbeats, at most
_SLOW_PERIOD = 30.0  # on an object store
# Periods without a heartbeat after which a process counts as missing; fewer if its host
# is this one and has no such process. A thread that does not let Python run is silent.
_SILENT, _GONE = 12, 2
# The connections of a killed process close before the process is gone, which takes
# longer the more memory it had.
_TEARDOWN = 10.0  # seconds


@dataclasses.dataclass(frozen=True)
class Beat:
    """The content of <i>.json.

    what, step: what the process does and how far it is; changed, written: the time of
    the last progress and of this file, in seconds since 1970. watched: whether a lack
    of progress ends the job. leaving: whether the process ends because of another one,
    so that it is not itself the one to name.
    """

    process: int
    pid: int
    host: str
    what: str = "start"
    step: int = 0
    changed: float = 0.0
    written: float = 0.0
    watched: bool = False
    leaving: bool = False

    def __str__(self) -> str:
        when = f"{datetime.datetime.fromtimestamp(self.changed):%H:%M:%S}"
        return (
            f"process {self.process} (host {self.host}, pid {self.pid}): {self.what},"
            f" step {self.step} at {when}"
        )

    def is_gone(self) -> bool:
        """Whether its host is this one and the process does not exist."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's
            return False
        # killed, but not yet noticed by the process that started it
        try:
            return b") Z " in Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:  # not Linux, or gone by now, which the next look finds
            return False


class Watchdog:
    """The heartbeat of this process, and its watch over all of them.

    folder: of the heartbeats. seconds: without progress, after which the job ends.
    reword: changes the message about it, see watching.
    """

    def __init__(
        self, folder: Path, seconds: float, reword: Callable[[str], str] = str
    ):
        self.folder, self.seconds, self._reword = folder, seconds, reword
        self.period = min(_PERIOD, seconds / 10)
        if is_remote(folder):
            self.period = _SLOW_PERIOD
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._beat = Beat(processes.index(), os.getpid(), socket.gethostname())
        self._since = time.monotonic()
        self._seen: dict[int, tuple[float, float]] = {}  # written, when first seen
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        # faulthandler writes to a file descriptor, also while Python cannot run
        self._stacks = tempfile.TemporaryFile("w+")  # noqa: SIM115

    def beat(self, step: int) -> None:
        """Notes progress: call it just before what waits for other processes."""
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

    def leave(self) -> None:
        """Tells the others that this process ends because of another one."""
        with self._lock:
            self._beat = dataclasses.replace(self._beat, leaving=True)
        self._write()

    def start(self) -> None:
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch and removes the heartbeat."""
        self._ended.set()
        self._thread.join(10 * self.period)
        faulthandler.cancel_dump_traceback_later()
        with contextlib.suppress(Exception):  # it does no harm where it is
            self._path(self._beat.process).unlink(missing_ok=True)

    def _path(self, process: int) -> Path:
        return self.folder / f"{process}.json"

    def _write(self) -> None:
        with self._lock:
            self._beat = dataclasses.replace(self._beat, written=time.time())
            beat = self._beat
        # such as a full disk, which others report, or a store that is away for a while
        with contextlib.suppress(Exception):
            write_json(self._path(beat.process), dataclasses.asdict(beat))

    def _run(self) -> None:
        while not self._ended.wait(self.period):
            self._write()
            with self._lock:
                idle, watched = time.monotonic() - self._since, self._beat.watched
            beats, missing = self._look()
            if missing:
                self._end(f"missing: {join(missing)}")
            if watched and idle > self.seconds:
                why = self._reword(
                    f"no progress for {idle / 60:.3g} minutes"
                    f" (minutes = {self.seconds / 60:.3g})"
                )
                self._end(f"{why}: {describe(beats)}")
            # ends the process even where a thread that hangs does not let Python run
            left = max(self.seconds - idle, 0) if watched else self.seconds
            faulthandler.dump_traceback_later(
                left + 20 * self.period, exit=True, file=sys.stderr
            )

    def _look(self) -> tuple[list[Beat], list[Beat]]:
        """All heartbeats, and those of missing processes; none if they are unreadable.

        This thread must outlive any error: without it the process would be ended.
        """
        try:
            beats = read_beats(self.folder)
            return beats, [beat for beat in beats if self._is_missing(beat)]
        except Exception:  # object stores raise kinds of their own
            self._seen.clear()  # nobody was seen, so nobody was silent
            return [], []

    def _is_missing(self, beat: Beat) -> bool:
        """Whether a process is silent for too long, by the clock of this one."""
        if beat.leaving:
            return False
        now = time.monotonic()
        written, since = self._seen.get(beat.process, (0.0, 0.0))
        if beat.written != written:
            self._seen[beat.process] = beat.written, now
            return False
        periods = _GONE if beat.is_gone() else _SILENT
        return now - since > periods * self.period

    def _end(self, why: str) -> None:
        """Writes the stacks, says why, and ends this process."""
        self.leave()
        path = self.folder / f"{self._beat.process}.stacks.txt"
        faulthandler.dump_traceback(self._stacks, all_threads=True)
        self._stacks.seek(0)
        with contextlib.suppress(Exception):
            write_text(path, self._stacks.read())
        print(
            f"error: {processes.name_self()}{why}; the stacks of this process are in"
            f" {path}. The same command continues from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(2 * self.period)  # the others are to find the same, not to lose this
        os._exit(EXIT_CODE)


def join(beats: Sequence[Beat]) -> str:
    return "; ".join(map(str, beats))


def describe(beats: Sequence[Beat]) -> str:
    """Who is behind, by the heartbeats."""
    if not beats:
        return "the heartbeats cannot be read"
    behind = find_behind(beats)
    if not behind:
        return f"all are equally far: {join(beats)}"
    ahead = [beat for beat in beats if beat not in behind]
    return f"behind: {join(behind)}; ahead: {join(ahead)}"


def read_beats(folder: Path) -> list[Beat]:
    """The heartbeats of a folder, by process; damaged files are left out."""
    found = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Beat(**read_json(path)))
    return sorted(found, key=lambda beat: beat.process)


def find_behind(beats: Sequence[Beat]) -> list[Beat]:
    """Those with the fewest steps; if they do different things, the first to stop."""
    if len({beat.what for beat in beats}) > 1:
        return [min(beats, key=lambda beat: beat.changed)]
    least = min(beat.step for beat in beats)
    behind = [beat for beat in beats if beat.step == least]
    return behind if len(behind) < len(beats) else []


# The watchdog of this process, which loops at any depth tell of their progress.
_current: Watchdog | None = None


@contextlib.contextmanager
def watching(
    workdir: Path, minutes: float, reword: Callable[[str], str] = str
) -> Iterator[None]:
    """Watches this process within the block; does nothing for one process alone.

    minutes: without progress, after which the job ends; 0 does not watch. reword: for
    the message that names minutes, which no caller can catch. Raises ValueError for
    minutes below 0.
    """
    global _current
    if not minutes >= 0:
        raise ValueError(f"minutes = {minutes}: use 0, which does not watch, or more")
    if processes.count() == 1 or not minutes:
        yield
        return
    _current = Watchdog(workdir / "processes", 60 * minutes, reword)
    _current.start()
    yield  # after an error all stays as it is: the process ends, others may ask for it
    _current.stop()
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
    """After an error of communication: which processes are missing; "" if none is.

    Those of other hosts are known by their silence only, which this does not wait for.
    If one is missing, this process tells the others that it ends because of that one.
    """
    until, folder = time.monotonic() + _TEARDOWN, workdir / "processes"
    try:
        beats = read_beats(folder)
        while not (gone := _find_gone(folder, beats)):
            if len(beats) < 2 or time.monotonic() > until:
                break
            time.sleep(0.1)
            beats = read_beats(folder)
    except Exception:  # the error of communication is the one to tell
        return ""
    if gone and _current:
        _current.leave()
    return f"missing: {join(gone)}" if gone else ""


def _find_gone(folder: Path, beats: Sequence[Beat]) -> list[Beat]:
    """Those of these processes that are gone, but did not leave for another one."""
    gone = {beat.process for beat in beats if beat.is_gone()}
    # read again: a process may have said that it leaves, and left, since they were read
    last = read_beats(folder) if gone else []
    return [beat for beat in last if beat.process in gone and not beat.leaving]
