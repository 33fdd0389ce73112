"""Several processes as one job: their start, who writes, and what all agree on.

JAX's multi-controller runtime: every process runs the same code on the devices of its
host, and all devices form one mesh. Process 0 is the first: it alone decides by what it
reads in the workdir, writes files and prints. A function here that communicates must be
called by all processes, in the same order.
"""

import contextlib
import functools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

# A process that is silent for so long counts as dead, and JAX ends the others.
HEARTBEAT_SECONDS = 100
# What starts several processes says how many in these variables of the environment.
_LAUNCHERS = {
    "SLURM_NTASKS": "Slurm",
    "SLURM_STEP_NUM_TASKS": "Slurm",
    "OMPI_COMM_WORLD_SIZE": "Open MPI",
    "PMI_SIZE": "MPI",
}
_WAYS = (
    "start all of them with srun or mpirun, or give each --coordinator=HOST:PORT"
    " --processes=N --process=I"
)
_LAST_WORDS = 2.0  # seconds
_ROUND = 5.0  # seconds between two rounds of first_waits
_CHUNK = 2**26  # bytes of each process that are gathered at a time


class PeerError(ValueError):
    """An error of another process, which ends this one too."""


# Start


def initialize(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Joins the processes of one job; call it before the first access to a device.

    With all three arguments, the job is as they say. With processes = 1 alone, and
    where JAX detects no cluster (Slurm, Open MPI, Kubernetes, Cloud TPU), this process
    is the whole job.

    Args:
        coordinator: "HOST:PORT" of process 0, on which it listens.
        processes: the number of processes.
        process: the number of this process, from 0.

    Raises ValueError for arguments that do not fit each other, and where a launcher
    started several processes that this one cannot join.
    """
    _check_arguments(coordinator, processes, process)
    if coordinator:
        _connect(
            coordinator_address=coordinator,
            num_processes=processes,
            process_id=process,
            cluster_detection_method="deactivate",
        )
    elif processes != 1 and _told() != 1:
        _detect()
    if _told() > 1 and jax.process_count() == 1:
        told = ", ".join(f"{name} = {os.environ[name]}" for name in _told_by())
        raise ValueError(
            f"{told}, but this process runs alone, and each of the {_told()} would"
            f" write the same workdir: {_WAYS}; to run alone in such a shell, unset"
            f" {' and '.join(_told_by())}"
        )


def _check_arguments(coordinator: str, processes: int, process: int) -> None:
    given = bool(coordinator), processes > 0, process >= 0
    if all(given):
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"--coordinator={coordinator} is not HOST:PORT")
        if process >= processes:
            raise ValueError(
                f"--process={process} must be below --processes={processes}: processes"
                " are numbered from 0"
            )
    elif any(given) and given != (False, True, False):
        raise ValueError(
            "give --coordinator, --processes and --process together; found"
            f" --coordinator={coordinator} --processes={processes} --process={process}"
        )
    elif processes > 1:
        raise ValueError(
            f"--processes={processes} needs --coordinator=HOST:PORT and --process=I"
        )


def _told_by() -> list[str]:
    """The variables of a launcher that started several processes."""
    values = {name: os.environ.get(name, "") for name in _LAUNCHERS}
    return [name for name, x in values.items() if x.isdigit() and int(x) > 1]


def _told() -> int:
    """How many processes the launcher started; 0 where there is no launcher."""
    values = [os.environ.get(name, "") for name in _LAUNCHERS]
    return max((int(x) for x in values if x.isdigit()), default=0)


def _detect() -> None:
    """Joins the job that JAX detects, if it detects one."""
    try:
        _connect()
    except ValueError as error:
        if "coordinator_address" not in str(error):
            raise
    except RuntimeError as error:  # such as a pod that is not part of a Job
        raise ValueError(
            f"the processes of this job did not find each other ({error}): {_WAYS}; or"
            " give --processes=1 to run alone"
        ) from error


def _connect(**job: Any) -> None:
    jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **job)


# Who


def count() -> int:
    """The number of processes."""
    return jax.process_count()


def index() -> int:
    """The number of this process, from 0."""
    return jax.process_index()


def is_first() -> bool:
    """Whether this process writes, draws and prints."""
    return jax.process_index() == 0


def name_self() -> str:
    """ "process 1 of 4 (host, pid 17): ", for messages; "" for one process."""
    if count() == 1:
        return ""
    where = f"{socket.gethostname()}, pid {os.getpid()}"
    return f"process {index()} of {count()} ({where}): "


def leave(code: int) -> None:
    """Ends this process with an exit status, also while others wait for it.

    A usual exit of one of several processes would wait for the others, which may wait
    for this one.
    """
    if count() == 1:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():  # the others lose their coordinator with it: they may say why first
        time.sleep(_LAST_WORDS)
    os._exit(code)


# What all agree on


def wait_for_all(name: str) -> None:
    """Returns once every process has called it with this name."""
    if count() > 1:
        multihost_utils.sync_global_devices(name)


def from_first(value: Any) -> Any:
    """Process 0's value on all processes, as JSON returns it.

    The other processes' values are ignored.
    """
    text = json.dumps(value) if is_first() else ""
    if count() > 1:
        text = _broadcast(text.encode()).decode()
    return json.loads(text)


def first_decides(decide: Callable[[], Any]) -> Any:
    """decide() of process 0, on all processes, as JSON returns it.

    Only process 0 calls it. Its error is raised there, and as PeerError on the others.
    """
    if count() == 1:
        return json.loads(json.dumps(decide()))
    found: Any = None
    own: Exception | None = None
    if is_first():
        try:
            found = {"value": decide()}
        except Exception as error:
            own, found = error, {"error": str(error)}
    found = from_first(found)
    if own is not None:
        raise own
    if "error" in found:
        raise PeerError(f"process 0: {found['error']}")
    return found["value"]


def first_waits(decide: Callable[[], Any]) -> Any:
    """As first_decides, for a decision that can take minutes.

    The others hear every few seconds that it goes on: before the devices are connected
    (sharding.connect), a collective of CPUs gives up after 30 s.
    """
    if count() == 1:
        return first_decides(decide)
    ended: list[Callable[[], Any]] = []

    def work() -> None:
        try:
            value = decide()
        except Exception as error:
            ended.append(functools.partial(_raise, error))
        else:
            ended.append(lambda: value)

    thread = threading.Thread(target=work, daemon=True)
    if is_first():
        thread.start()
    while not from_first(bool(ended)):
        if is_first():
            thread.join(_ROUND)
    return first_decides(lambda: ended[0]())


def _raise(error: Exception) -> None:
    raise error


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Ends all processes where one of them raises ValueError or OSError within.

    Nothing within may communicate. The others raise PeerError, which names it.
    """
    own: Exception | None = None
    try:
        yield
    except (ValueError, OSError) as error:
        if count() == 1:
            raise
        own = error
    texts = gather_texts(str(own) if own else "") if count() > 1 else []
    if own:
        raise own
    for i, text in enumerate(texts):
        if text:
            raise PeerError(f"process {i}: {text}")


def check_same(facts: Mapping[str, Any], what: str) -> None:
    """Raises ValueError naming each fact that differs between processes.

    facts: {name: JSON value}. A number that differs by process would be used as each
    has it, without an error. what: what they describe, for the message.
    """
    if count() == 1:
        return
    found = [json.loads(x) for x in gather_texts(json.dumps(dict(facts)))]
    lines = [
        f"{name}: {found[0].get(name)!r} on process 0, {other.get(name)!r} on"
        f" process {i}"
        for i, other in enumerate(found)
        for name in sorted({*found[0], *other})
        if found[0].get(name) != other.get(name)
    ]
    if lines:
        text = "\n  ".join(lines)
        raise ValueError(
            f"the processes of this job differ in {what}:\n  {text}\nstart all of them"
            " with the same command, code and data"
        )


# Rows


def gather_texts(text: str) -> list[str]:
    """The text of each process, in order."""
    return [data.decode() for data in _gather(text.encode())]


def gather_rows(rows: np.ndarray) -> list[np.ndarray]:
    """The rows [n, ...] of each process, in order; n may differ, bits stay as they are.

    Raises ValueError for rows of another dtype or shape than process 0's.
    """
    rows = np.ascontiguousarray(rows)
    if count() == 1:
        return [rows]
    kind = f"{rows.dtype.str} {rows.shape[1:]}"
    kinds = gather_texts(kind)
    if len(set(kinds)) > 1:
        raise ValueError(f"the rows of the processes have different types: {kinds}")
    parts = _gather(rows.tobytes())
    return [np.frombuffer(x, rows.dtype).reshape(-1, *rows.shape[1:]) for x in parts]


def _gather(data: bytes) -> list[bytes]:
    """The bytes of each process; of any length, by chunks of it."""
    if count() == 1:
        return [data]
    sizes = multihost_utils.process_allgather(np.array(_halves(len(data)), np.int32))
    lengths = [int(high) << 30 | int(low) for high, low in sizes]
    parts: list[list[bytes]] = [[] for _ in lengths]
    for start in range(0, max(lengths), _CHUNK):
        # a few sizes only, since each is a program to compile
        size = min(_CHUNK, _rounded(max(lengths) - start))
        chunk = np.zeros(size, np.uint8)
        own = np.frombuffer(data[start : start + size], np.uint8)
        chunk[: len(own)] = own
        for part, row in zip(
            parts, multihost_utils.process_allgather(chunk), strict=True
        ):
            part.append(row.tobytes())
    return [
        b"".join(part)[:length] for part, length in zip(parts, lengths, strict=True)
    ]


def _broadcast(data: bytes) -> bytes:
    """Process 0's bytes; as uint8, since of an int64 the low 32 bits would arrive."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(_rounded(size), np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8) if is_first() else 0
    return multihost_utils.broadcast_one_to_all(padded)[:size].tobytes()


def _halves(number: int) -> tuple[int, int]:
    return number >> 30, number & (2**30 - 1)


def _rounded(size: int) -> int:
    """The next power of two, at least 1024."""
    return max(1024, 1 << max(size - 1, 0).bit_length())
