"""A plan as text: one column a place, one row a quantity."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax

from rsclip_jax.stages.shared.job import Job, Pass
from rsclip_jax.train import optim
from rsclip_jax.train.memory import describe
from rsclip_jax.train.program import Memory, device_bytes_of
from rsclip_jax.train.settings import EVERYTHING, make_tx

Rows = list[tuple[str, list[str]]]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a program would run: devices at hand, or those of a topology.

    limit: bytes of one device; None if unknown. topology: "" for devices at hand.
    """

    name: str
    mesh: jax.sharding.Mesh
    limit: int | None
    topology: str = ""


@dataclasses.dataclass(frozen=True)
class Figures:
    """One program at one place; bytes are those of one device.

    fixed: bytes of each fixed argument. largest: the largest batch that fits, and
    is_sure whether it was compiled; None if unknown. seconds: of one call with `timed`
    examples. problem: why there is no program.
    """

    fixed: tuple[int, ...] = ()
    memory: Memory | None = None
    largest: int | None = None
    is_sure: bool = False
    seconds: float | None = None
    timed: int = 0
    problem: str = ""

    def seconds_of(self, examples: int) -> float:
        """Seconds for this many examples; nan if the time of a call is unknown."""
        if not self.seconds:
            return float("nan")
        return examples * self.seconds / self.timed


def describe_job(
    job: Job, places: Sequence[Place], found: Sequence[Figures]
) -> Iterator[str]:
    """A training: its size, then its table."""
    s = job.settings
    trained = optim.count_trained(s.trainable, job.params)
    frozen = optim.count_trained(EVERYTHING, (job.params, job.frozen)) - trained
    yield (
        f"  training: {s.steps:,} steps of {s.batch_size:,} examples; {trained:,}"
        f" parameters are trained, {frozen:,} frozen"
    )
    state = jax.eval_shape(make_tx(s, job.params, job.tower).init, job.params)
    mean = optim.averaged({}, state)

    def on_device(tree) -> list[str]:
        return [describe(device_bytes_of(tree, place.mesh)) for place in places]

    rows: Rows = [
        ("batch on a device", [f"{s.batch_size // p.mesh.size:,}" for p in places]),
        ("parameters", on_device(job.params)),
        ("optimizer", on_device(state if not mean else state.inner)),
    ]
    if mean:
        rows.append(("moving average", on_device(mean)))
    rows.append(("frozen weights", on_device(job.frozen)))
    rows += _of_memory(places, found)
    rows += _of_time(found, s.batch_size, s.steps * s.batch_size, "a step")
    yield from format_table(places, rows, found)


def describe_pass(
    one: Pass, size: int, places: Sequence[Place], found: Sequence[Figures]
) -> Iterator[str]:
    """An evaluation's encoder: how many images, then its table."""
    yield f"  encoding {one.name}: {one.images:,} images in batches of {size:,}"
    params = [describe(device_bytes_of(one.params, place.mesh)) for place in places]
    rows: Rows = [("parameters", params), *_of_memory(places, found)]
    rows += _of_time(found, size, one.images, "a batch")
    yield from format_table(places, rows, found)


def describe_disk(files: Mapping[str, int]) -> Iterator[str]:
    """What is written, and how large it is."""
    if files:
        parts = ", ".join(f"{name} {describe(size)}" for name, size in files.items())
        yield f"  disk: {describe(sum(files.values()))}: {parts}"


def describe_end(places: Sequence[Place], seconds: Sequence[float]) -> Iterator[str]:
    """The time of all stages, and what the numbers mean."""
    whole = ", ".join(
        f"{place.name} {describe_time(x)}"
        for place, x in zip(places, seconds, strict=True)
    )
    yield f"to the end of all stages: {whole}"
    yield (
        "Bytes are those of one device; 'temporary' holds activations, gradients and"
        " workspace. Speed is that of the programs, without reading data: measured on"
        " random arrays here."
    )
    if any(place.topology for place in places):
        yield (
            "On a topology it is predicted from the compiler's cycles, without"
            " exchanges between chips and copies between a chip's memories."
        )


def _of_memory(places: Sequence[Place], found: Sequence[Figures]) -> Rows:
    def row(value: Callable[[Memory], int]) -> list[str]:
        return [describe(value(x.memory)) if x.memory else "-" for x in found]

    limits = [describe(place.limit) if place.limit else "unknown" for place in places]
    largest = []
    for x in found:
        about = "" if x.is_sure else "about "
        largest.append("-" if x.largest is None else f"{about}{x.largest:,}")
    return [
        ("temporary", row(lambda m: m.temporary)),
        ("together, with the batch", row(lambda m: m.total)),
        ("memory of a device", limits),
        ("largest batch that fits", largest),
    ]


def _of_time(found: Sequence[Figures], size: int, examples: int, unit: str) -> Rows:
    def row(text: Callable[[Figures], str]) -> list[str]:
        return [text(x) if x.seconds else "-" for x in found]

    def how(x: Figures) -> str:
        seconds = x.seconds_of(size)
        text = f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
        return text if x.timed == size else f"{text} (from {x.timed:,} examples)"

    return [
        (unit, row(how)),
        ("examples a second", row(lambda x: f"{1 / x.seconds_of(1):,.0f}")),
        ("in all", row(lambda x: describe_time(x.seconds_of(examples)))),
    ]


def format_table(
    places: Sequence[Place], rows: Rows, found: Sequence[Figures]
) -> Iterator[str]:
    """The rows in columns; then the problem of each place that has one."""
    names = [f"{p.name}, {'predicted' if p.topology else 'measured'}" for p in places]
    table = [("", names), *rows]
    first = max(len(name) for name, _ in table)
    widths = [max(len(cells[i]) for _, cells in table) for i in range(len(places))]
    for name, cells in table:
        line = "  ".join(x.rjust(w) for x, w in zip(cells, widths, strict=True))
        yield f"    {name:{first}}  {line}"
    for place, x in zip(places, found, strict=True):
        if x.problem:
            yield f"    {place.name}: {x.problem}"


def describe_time(seconds: float) -> str:
    """Seconds as text.

    >>> describe_time(59), describe_time(600), describe_time(9000)
    ('59 s', '10 min', '2.5 h')
    """
    if seconds != seconds:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
