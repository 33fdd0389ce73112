"""A plan: what each stage will need and take, from its compiled programs alone."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from rsclip_jax.data.pipeline.batches import eval_batches
from rsclip_jax.data.sources.wrappers import Subset
from rsclip_jax.stages.shared import plan_table, training
from rsclip_jax.stages.shared.job import Job, Needs, Pass
from rsclip_jax.stages.shared.passes import tree_bytes
from rsclip_jax.stages.shared.plan_progress import Progress
from rsclip_jax.stages.shared.plan_table import Figures, Place
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.stages.shared.stage import Stage
from rsclip_jax.train import memory, processes, tpu
from rsclip_jax.train.feed import RECORDS
from rsclip_jax.train.program import (
    Memory,
    Program,
    device_bytes_of,
    largest_batch,
    make_encoding_program,
    make_training_program,
    memory_of,
    smaller_batch,
    time_program,
)
from rsclip_jax.train.settings import make_tx

SECONDS = 5.0  # to time one program
Encoders = dict[tuple[Hashable, ...], Figures]


def plan_stages(run: Run, stages: Sequence[Stage]) -> None:
    """Prints the plan of each stage; writes nothing.

    Raises ValueError for settings with which a stage would not start, and for several
    processes, whose times would differ.
    """
    if processes.count() > 1:
        raise ValueError(
            f"config.plan = True in {processes.count()} processes: start it in one; its"
            " numbers are those of one device, and config.plan_topologies names slices"
        )
    for stage in stages:
        stage.check(run)
    places = list(find_places(run))
    if not places:
        why = "" if tpu.has_compiler() else ", which need libtpu (launch/README.md)"
        raise ValueError(
            "config.plan_here = False leaves nothing to plan for:"
            f" config.plan_topologies = {tuple(run.config.plan_topologies)}{why}"
        )
    planned = {
        stage.name: _Planned.of(run, stage, places)
        for stage in stages
        if stage.needs_of is not None
    }
    progress = Progress(run.config.progress)
    progress.begin(count_programs(planned.values(), places))
    seconds = [0.0] * len(places)
    encoders: Encoders = {}
    for stage in stages:
        if stage.name not in planned:
            run.log(f"\n{stage.name}: not planned")
            continue
        run.log(f"\n{stage.name}")
        one = planned[stage.name]
        for line in _plan_stage(run, one, places, seconds, encoders, progress):
            run.log(line)
    run.log("")
    for line in plan_table.describe_end(places, seconds):
        run.log(line)
    if run.config.plan_topologies and not tpu.has_compiler():
        run.log(
            f"{', '.join(run.config.plan_topologies)}: not predicted, because libtpu is"
            " not installed (launch/README.md)"
        )


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A stage to plan: what it needs on the mesh of each place.

    shapes: those of a batch of each pass; None for a pass without images.
    """

    name: str
    at: Sequence[Needs]
    shapes: Sequence[dict[str, jax.ShapeDtypeStruct] | None]

    @classmethod
    def of(cls, run: Run, stage: Stage, places: Sequence[Place]) -> "_Planned":
        assert stage.needs_of is not None
        at = [stage.needs_of(dataclasses.replace(run, mesh=p.mesh)) for p in places]
        shapes = [
            image_shapes(run, stage.name, one) if one.images else None
            for one in at[0].passes
        ]
        return cls(stage.name, at, shapes)

    def encoders(self) -> Iterator[tuple[int, tuple[Hashable, ...]]]:
        """(number of a pass with images, what its program depends on)."""
        for i, one in enumerate(self.at[0].passes):
            if (shapes := self.shapes[i]) is not None:
                yield i, (one.model, shapes[one.key])


def count_programs(
    planned: Iterable[_Planned], places: Sequence[Place]
) -> list[tuple[Place, int]]:
    """How many programs will be compiled at each place; equal encoders count once."""
    planned = list(planned)
    trainings = sum(len(one.at[0].jobs) for one in planned)
    encoders = {key for one in planned for _, key in one.encoders()}
    return [(place, trainings + len(encoders)) for place in places]


def _plan_stage(
    run: Run,
    planned: _Planned,
    places: Sequence[Place],
    seconds: list[float],
    encoders: Encoders,
    progress: Progress,
) -> Iterator[str]:
    """The lines of one stage; adds its time at each place to `seconds`.

    encoders: those of earlier stages, which are not measured again.
    """
    needs = planned.at[0]
    for i, job in enumerate(needs.jobs):
        settings, examples = job.settings, batch_shapes(run, job)
        found = []
        for k, place in enumerate(places):
            with progress.program(f"{planned.name}: training step", place):
                program = job_program(planned.at[k].jobs[i], examples, place)
                found.append(measure(program, place, settings.batch_size))
            seconds[k] += settings.steps * (found[-1].seconds_of(settings.batch_size))
        yield from plan_table.describe_job(job, places, found)
    size = run.config.eval_batch_size
    for i, encoder in planned.encoders():
        one, examples, found = needs.passes[i], planned.shapes[i] or {}, []
        for k, place in enumerate(places):
            key = place.name, *encoder
            if key not in encoders:
                with progress.program(f"{planned.name}: encoder of {one.name}", place):
                    program = pass_program(planned.at[k].passes[i], examples, place)
                    encoders[key] = measure(program, place, size)
            found.append(encoders[key])
            seconds[k] += found[-1].seconds_of(one.images)
        yield from plan_table.describe_pass(one, size, places, found)
    yield from plan_table.describe_disk(disk_of(run, needs))
    if needs.left_out:
        yield f"  left out: {', '.join(needs.left_out)}"


# Places and programs


def find_places(run: Run) -> Iterator[Place]:
    """The devices at hand, and the topologies if libtpu is installed."""
    asked, devices = int(run.config.plan_memory_gb * 2**30), run.mesh.devices.flat
    kind = f"{run.mesh.size} x {devices[0].device_kind}"
    if run.config.plan_here:
        yield Place(kind, run.mesh, asked or device_limit(run))
    for topology in run.config.plan_topologies if tpu.has_compiler() else ():
        with training.named("config.plan_topologies, config.mesh: "):
            mesh = tpu.make_topology_mesh(topology, tuple(run.config.mesh))
        yield Place(topology, mesh, asked or tpu.limit_of(topology), topology)


def device_limit(run: Run) -> int | None:
    """Bytes of one device at hand; CPU devices share the machine's."""
    stats = jax.local_devices()[0].memory_stats() or {}
    host = memory.host_bytes() if jax.default_backend() == "cpu" else None
    return stats.get("bytes_limit") or (host and host // run.mesh.size)


def job_program(
    job: Job, examples: dict[str, jax.ShapeDtypeStruct], place: Place
) -> Program:
    """The training step of a job at a place."""
    with training.named(job.setting):
        tx = make_tx(job.settings, job.params, job.tower)
    return make_training_program(
        job.params,
        job.frozen,
        examples,
        loss_fn=job.loss_fn,
        tx=tx,
        settings=job.settings,
        mesh=place.mesh,
    )


def pass_program(
    one: Pass, examples: dict[str, jax.ShapeDtypeStruct], place: Place
) -> Program:
    """The encoder of a pass at a place."""
    return make_encoding_program(one.encode, one.params, examples, place.mesh)


def measure(program: Program, place: Place, size: int) -> Figures:
    """The figures of a program at a place, at this batch size."""
    if size % program.unit:
        return Figures(problem=f"batch {size} is no multiple of {program.unit}")
    fixed = tuple(device_bytes_of(x, place.mesh) for x in program.fixed)
    try:
        compiled = program.compile(size)
    except Exception as error:
        if not memory.is_shortage(error):
            raise
        return Figures(fixed, problem=f"too large: {memory.measure(error)}")
    needed = memory_of(compiled)
    if place.topology or not program.has_state:
        about = guess_batch(program, place, size, needed)
        if place.topology:
            took = tpu.predict_seconds(compiled.as_text(), place.topology)
            return Figures(fixed, needed, about, False, took, size)
        took = time_program(program, compiled, size, SECONDS)
        return Figures(fixed, needed, about, False, took, size)
    return _measure_here(program, place, {size: compiled}, fixed)


def _measure_here(
    program: Program, place: Place, compiled: dict[int, Any], fixed: tuple[int, ...]
) -> Figures:
    """A training step on the devices at hand. compiled: for the one batch size."""
    ((size, whole),) = compiled.items()
    small = smaller_batch(program, size)
    compiled = {small: program.compile(small), size: whole}
    known = {key: memory_of(x) for key, x in compiled.items()}
    largest, is_sure = None, False
    if place.limit:
        largest, is_sure = largest_batch(program, place.limit, known)
    seconds, timed = _time(program, place, compiled, known)
    return Figures(fixed, known[size], largest, is_sure, seconds, timed)


def _time(
    program: Program, place: Place, compiled: dict, known: dict[int, Memory]
) -> tuple[float | None, int]:
    """(seconds of a call, its examples): of the given batch if that takes not too long.

    compiled, known: of another batch and of the given one.
    """
    seconds, timed = None, 0
    for size in compiled:
        expected = seconds * size / timed if seconds else 0
        if expected * 3 > SECONDS or known[size].total > (place.limit or 2**62):
            break
        seconds, timed = time_program(program, compiled[size], size, SECONDS), size
    return seconds, timed


def guess_batch(
    program: Program, place: Place, size: int, needed: Memory
) -> int | None:
    """The largest batch if all memory but that of fixed arguments grows with it."""
    if place.limit is None:
        return None
    fixed = sum(device_bytes_of(x, place.mesh) for x in program.fixed)
    each = (needed.total - fixed) / size
    return max(0, int((place.limit - fixed) / each) // program.unit * program.unit)


# Data and disk


@contextlib.contextmanager
def reading(run: Run) -> Iterator[Run]:
    """The run with another workdir, for lists of records that cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        yield dataclasses.replace(run, workdir=Path(folder))


def batch_shapes(run: Run, job: Job) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a training batch, from one example that is read."""
    settings = dataclasses.replace(job.settings, batch_size=1)
    with reading(run) as aside:
        batches = training.make_batches(aside, job.stage, settings, job.data)
        batch = {k: v for k, v in next(batches).items() if k != RECORDS}
    return {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items()}


def image_shapes(run: Run, stage: str, one: Pass) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of images, from one image that is read."""
    source = next(source for source, _ in one.counts if len(source))
    with reading(run) as aside:
        options = aside.read_options(stage, 1)
        sizes = {one.key: one.size}
        image = next(eval_batches(Subset(source, [0]), sizes=sizes, options=options))
        found = image[one.key]
    shape = (*found.shape[:-1], one.bands)  # bands are matched by name
    return {one.key: jax.ShapeDtypeStruct(shape, found.dtype)}


def disk_of(run: Run, needs: Needs) -> dict[str, int]:
    """Bytes of what a stage writes, by what it is."""
    files: dict[str, int] = {}
    for job in needs.jobs:
        kept = job.settings.keep + job.settings.keep_best
        kept = min(kept, -(-job.settings.steps // job.settings.checkpoint_every))
        name = f"{kept} checkpoint(s)"
        state = checkpoint_bytes(job)
        files[name] = files.get(name, 0) + kept * state
    if needs.product is not None:
        files["product"] = tree_bytes(needs.product)
    return {**files, **needs.files}


def checkpoint_bytes(job: Job) -> int:
    """Bytes of params and optimizer state."""
    tx = make_tx(job.settings, job.params, job.tower)
    return tree_bytes((job.params, jax.eval_shape(tx.init, job.params)))
