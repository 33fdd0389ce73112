"""The lock of a workdir: one job at a time writes there.

<workdir>/lock.json names the holder. On a local file system an OS lock on that file
decides, which a killed process frees at once. Object stores, and file systems without
such locks, have a heartbeat instead: the holder changes the file every BEAT seconds,
and a holder that has not changed it for STALE seconds, by the clock of the one who
waits, counts as dead.
"""

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from rsclip_jax.io.files import naming, read_json, write_json
from rsclip_jax.io.paths import is_remote

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = "lock.json"
BEAT = 30.0
STALE = 180.0
_SETTLE = 1.0  # two that take a free lock at the same moment read it again after this
# What flock raises where it is held, and where the file system has no such locks.
_HELD = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


class WorkdirHeld(Exception):
    """Another run holds the workdir."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """The content of lock.json; "?" where a damaged file does not say.

    since: UTC. processes: their number in the job. token, beat: of the heartbeat.
    """

    pid: int | str = "?"
    host: str = "?"
    since: str = "?"
    command: str = "?"
    processes: int = 1
    token: str = ""
    beat: int = 0

    def __str__(self) -> str:
        job = f", {self.processes} processes" if self.processes != 1 else ""
        return f"pid {self.pid} on {self.host} since {self.since}{job}"


@dataclasses.dataclass(frozen=True)
class Pace:
    """The seconds of a heartbeat; settle is the pause before a new lock counts."""

    beat: float = BEAT
    stale: float = STALE
    settle: float = _SETTLE


@contextlib.contextmanager
def hold(
    workdir: Path,
    *,
    processes: int = 1,
    log: Callable[[str], None] = print,
    pace: Pace = Pace(),
) -> Iterator[None]:
    """Holds a workdir for one job; creates it, and removes it again if it stays empty.

    Args:
        processes: the number of processes of the job, one of which holds the workdir
            for all.
        log: receives a line if an earlier run has left its lock.

    Raises WorkdirHeld, which names the holder, before anything is written; OSError if
    the workdir cannot be written.
    """
    me = Holder(
        os.getpid(),
        socket.gethostname(),
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC",
        shlex.join(sys.argv),
        processes,
        uuid.uuid4().hex,
    )
    path = workdir / NAME
    is_new = not workdir.exists()
    with naming(path):
        workdir.mkdir(parents=True, exist_ok=True)
        file = None if is_remote(workdir) else _lock_file(path, me, log)
    try:
        if file is not None:
            yield
        else:
            with _heartbeat(path, me, log, pace):
                yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)  # before it is free, so never another's
            os.close(file)
        if is_new and not is_remote(workdir):
            with contextlib.suppress(OSError):
                workdir.rmdir()


def read_holder(path: Path) -> Holder | None:
    """The holder that lock.json names; None without the file or with an empty one."""
    try:
        values = read_json(path)
    except FileNotFoundError:
        return None
    except ValueError:  # damaged: the lock itself does not depend on the content
        return Holder() if path.read_bytes().strip() else None
    names = {field.name for field in dataclasses.fields(Holder)}
    if not isinstance(values, dict):
        return Holder()
    return Holder(**{key: value for key, value in values.items() if key in names})


def _refuse(path: Path, holder: Holder | None, way: str) -> WorkdirHeld:
    return WorkdirHeld(
        f"{path.parent} is in use by another run: {holder or Holder()}"
        f" ({(holder or Holder()).command}); {way}, or choose another --workdir"
    )


def _lock_file(path: Path, me: Holder, log: Callable[[str], None]) -> int | None:
    """The open, locked lock.json; None if this file system has no locks."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _flock(file):
                os.close(file)
                return None
        except OSError as error:
            os.close(file)
            if error.errno not in _HELD:
                raise
            holder = _wait_for_name(path)
            way = "wait for it, or stop it there"
            raise _refuse(path, holder, way) from None
        if _is_same_file(file, path):
            break
        os.close(file)  # its holder has just removed it
    if (earlier := read_holder(path)) is not None:
        log(_left(path, earlier))
    os.ftruncate(file, 0)
    os.write(file, (json.dumps(dataclasses.asdict(me), indent=1) + "\n").encode())
    return file


def _flock(file: int) -> bool:
    """Takes the OS lock; whether there is one. Raises OSError where it is held."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _is_same_file(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _wait_for_name(path: Path) -> Holder | None:
    """The holder, which writes its name just after it has the lock."""
    for _ in range(20):
        if (holder := read_holder(path)) is not None:
            return holder
        time.sleep(0.05)
    return None


def _left(path: Path, earlier: Holder) -> str:
    return f"{path}: the run that left it ({earlier}) has ended; this one goes on"


@contextlib.contextmanager
def _heartbeat(
    path: Path, me: Holder, log: Callable[[str], None], pace: Pace
) -> Iterator[None]:
    """Holds lock.json by changing it again and again."""
    earlier = read_holder(path)
    if earlier is not None:
        _wait_until_stale(path, earlier, log, pace)
        log(_left(path, earlier))
    _write(path, me)
    time.sleep(pace.settle)
    if (now := read_holder(path)) is None or now.token != me.token:
        raise _refuse(path, now, "it started at the same moment")
    stop = threading.Event()
    thread = threading.Thread(
        target=_beat, args=(path, me, stop, pace.beat), name="lock", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if (now := read_holder(path)) is not None and now.token == me.token:
            path.unlink(missing_ok=True)


def _wait_until_stale(
    path: Path, earlier: Holder, log: Callable[[str], None], pace: Pace
) -> None:
    """Returns once the holder is dead; raises WorkdirHeld if it shows a sign of life.

    No clocks are compared: what counts is whether the file changes while this waits.
    """
    if earlier.host == socket.gethostname() and not _is_alive(earlier.pid):
        return
    log(
        f"{path} names a run ({earlier}): waiting up to {pace.stale:.0f} s for a sign"
        " of life ..."
    )
    end = time.monotonic() + pace.stale
    while time.monotonic() < end:
        time.sleep(min(pace.beat / 6, max(end - time.monotonic(), 0.0)))
        now = read_holder(path)
        if now is None:
            return
        if now != earlier:
            raise _refuse(path, now, "wait for it, or stop it there")


def _is_alive(pid: int | str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _write(path: Path, holder: Holder) -> None:
    values = dataclasses.asdict(holder)
    if is_remote(path):
        write_json(path, values, sort_keys=False)
        return
    temporary = path.with_name(f"{path.name}.{holder.token}")  # two may write at once
    write_json(temporary, values, sort_keys=False)
    temporary.replace(path)


def _beat(path: Path, me: Holder, stop: threading.Event, every: float) -> None:
    """Changes the file until stop; ends the process if another run has taken over.

    That happens to a run that stood still for longer than STALE, such as on a suspended
    machine: its next write would damage the other's workdir.
    """
    beat = 0
    while not stop.wait(every):
        beat += 1
        # the store does not answer, by an error of its own package: the next time
        with contextlib.suppress(Exception):
            now = read_holder(path)
            if now is not None and now.token != me.token:
                text = f"error: {path} was taken over by another run, {now}; stopped"
                print(f"{text} without saving", file=sys.stderr, flush=True)
                os._exit(1)
            _write(path, dataclasses.replace(me, beat=beat))
