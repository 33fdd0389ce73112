"""Programs compiled for a TPU that is not there, by libtpu's ahead-of-time compiler."""

import collections
import importlib.util
import math
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from jax.experimental import topologies
from jax.sharding import Mesh

from rsclip_jax.train import sharding


class Chip(NamedTuple):
    """Clock in Hz and peak in bfloat16 FLOP/s of the matrix units, GiB of memory."""

    clock: float
    peak: float
    gib: float


# v5e: 4 matrix units of 128 x 128 at 1.5 GHz; v6e: 4 of 256 x 256 at 1.75 GHz; v5p: 8
# of 128 x 128 at 1.75 GHz. The memory is what the compiler says is available, of v5p
# what its page says that it has.
CHIPS = {
    "v5e": Chip(1.5e9, 197e12, 15.75),
    "v6e": Chip(1.75e9, 918e12, 31.25),
    "v5p": Chip(1.75e9, 459e12, 95.0),
}


def has_compiler() -> bool:
    """Whether libtpu is installed."""
    return importlib.util.find_spec("libtpu") is not None


def make_topology_mesh(topology: str, shape: tuple[int, int]) -> Mesh:
    """A ("data", "fsdp") mesh over the chips of a topology, such as "v5e:2x2".

    shape: as for make_mesh. Raises ValueError for a topology that is not known.
    """
    chip, _, sizes = topology.partition(":")
    if chip not in CHIPS or not re.fullmatch(r"\d+(x\d+)+", sizes):
        raise ValueError(
            f"topology {topology!r} is not known: give a chip, one of"
            f" {', '.join(CHIPS)}, and the chips along each axis, as in 'v5e:2x2'"
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no server to ask
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no chip is taken
    count = math.prod(map(int, sizes.split("x")))
    one = {"chips_per_host_bounds": (1, 1, 1)} if count == 1 else {}
    found = topologies.get_topology_desc(
        platform="tpu", topology_name=topology, **one
    ).devices
    return sharding.make_mesh(shape, found)


def predict_seconds(text: str, topology: str) -> float:
    """Seconds of a compiled program's text at the chip's clock.

    The sum of the compiler's estimated cycles. It has none for exchanges between chips,
    for copies to and from the chip's inner memory, and for custom calls.
    """
    total = sum(cycles for cycles, _ in costs(text))
    return total / chip_of(topology).clock


def costs(text: str) -> Iterator[tuple[int, str]]:
    """(cycles in all, instruction) of a compiled program's text, where it has cycles.

    An instruction in a loop counts as often as it runs.
    """
    for times, line in instructions(text):
        if found := re.search(r'estimated_cycles":"?(\d+)', line):
            yield times * int(found[1]), line


def instructions(text: str) -> Iterator[tuple[int, str]]:
    """(how often it runs, instruction) of the entry computation and what it calls."""
    bodies: dict[str, list[str]] = collections.defaultdict(list)
    name = entry = ""
    for line in text.split("\n"):
        head = re.match(r"(ENTRY )?%?([\w.\-]+)", line)
        if line.startswith(("%", "ENTRY")) and line.rstrip().endswith("{") and head:
            name = head[2]
            entry = name if head[1] else entry
        elif name and " = " in line:
            bodies[name].append(line)

    def visit(computation: str, times: int) -> Iterator[tuple[int, str]]:
        for line in bodies[computation]:
            yield times, line
            op = opcode_of(line)
            if op == "while":
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                body = re.search(r"body=%?([\w.\-]+)", line)
                if body:
                    yield from visit(body[1], times * int(trips[1] if trips else 1))
            elif op in ("call", "async-start", "conditional"):
                called = r"(?:to_apply|calls|called_computation)=%?([\w.\-]+)"
                for inner in re.findall(called, line):
                    yield from visit(inner, times)

    return visit(entry, 1)


def opcode_of(line: str) -> str:
    """The operation of an instruction, such as "fusion"."""
    found = re.search(r"(?:^|[\s)}\]])([a-z][a-z\-0-9]*)\(", line.split(" = ", 1)[1])
    return found[1] if found else ""


def limit_of(topology: str) -> int:
    """Bytes of a chip's memory that a program may use."""
    return int(chip_of(topology).gib * 2**30)


def chip_of(topology: str) -> Chip:
    """The chip of a topology, such as "v5e:2x2"."""
    return CHIPS[topology.partition(":")[0]]
