"""What a jitted program needs and takes, from the shapes of its arguments alone."""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rsclip_jax.train import sharding
from rsclip_jax.train.loop import make_training_step
from rsclip_jax.train.settings import TrainSettings
from rsclip_jax.train_step import LossFn, make_state

PyTree = Any
_STEPS = 5  # that are timed, after one that is not
# Shares by which a prediction of the largest batch is lowered before it is compiled:
# XLA's plans are no smooth curve, and a prediction can be a little too large each time.
_MARGINS = (0.0, 0.0, 0.02)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device while a program runs.

    arguments: state, frozen weights and batch. temporary: activations, gradients,
    workspace, and results that do not take an argument's place.
    """

    arguments: int
    temporary: int

    @property
    def total(self) -> int:
        return self.arguments + self.temporary


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function whose last argument is a batch {key: array [b, ...]}.

    fixed: ShapeDtypeStructs of the other arguments. examples: of a batch of any size.
    unit: a batch is a multiple of it. has_state: whether the function returns (its
    first argument anew, something), as train_step does.
    """

    function: Any  # what jax.jit returns
    fixed: tuple[PyTree, ...]
    examples: dict[str, jax.ShapeDtypeStruct]
    unit: int
    has_state: bool = False

    def arguments(self, batch_size: int) -> tuple[PyTree, ...]:
        """The ShapeDtypeStructs of all arguments."""
        return (*self.fixed, self.batch(batch_size))

    def batch(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The ShapeDtypeStructs of a batch."""
        return {
            key: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype)
            for key, x in self.examples.items()
        }

    def compile(self, batch_size: int) -> Any:
        """The program for this batch size; raises RESOURCE_EXHAUSTED as XLA does."""
        with warnings.catch_warnings():
            # JAX keeps programs for a topology in its cache, but cannot read them back.
            text = "Error reading persistent compilation cache"
            warnings.filterwarnings("ignore", message=text)
            return self.function.lower(*self.arguments(batch_size)).compile()

    def memory(self, batch_size: int) -> Memory:
        return memory_of(self.compile(batch_size))


def make_training_program(
    params: PyTree,
    frozen: PyTree,
    examples: dict[str, jax.ShapeDtypeStruct],
    *,
    loss_fn: LossFn,
    tx,
    settings: TrainSettings,
    mesh: Mesh,
) -> Program:
    """The step of loop.train for arrays of these shapes."""
    state = jax.eval_shape(lambda p: make_state(p, tx), params)
    step = make_training_step(
        state, frozen, loss_fn=loss_fn, tx=tx, settings=settings, mesh=mesh
    )
    unit = mesh.size * settings.accumulate
    return Program(step, (state, frozen), examples, unit, has_state=True)


def make_encoding_program(
    encode: Callable,
    params: PyTree,
    examples: dict[str, jax.ShapeDtypeStruct],
    mesh: Mesh,
) -> Program:
    """encode(params, batch) -> embeddings, sharded as an evaluation's is."""
    function = jax.jit(
        encode,
        in_shardings=(
            sharding.param_shardings(params, mesh),
            sharding.batch_sharding(mesh),
        ),
    )
    return Program(function, (params,), examples, mesh.size)


def memory_of(compiled: Any) -> Memory:
    """The compiled program's own account of one device's memory."""
    found = compiled.memory_analysis()
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    temporary = found.temp_size_in_bytes + found.generated_code_size_in_bytes
    return Memory(found.argument_size_in_bytes, temporary + max(0, new))


def device_bytes_of(tree: PyTree, mesh: Mesh) -> int:
    """Bytes of a tree's leaves on one device, placed as params are."""
    placed = sharding.param_shardings(tree, mesh)
    sizes = jax.tree.map(
        lambda x, where: math.prod(where.shard_shape(x.shape)) * x.dtype.itemsize,
        tree,
        placed,
    )
    return sum(jax.tree.leaves(sizes))


def smaller_batch(program: Program, batch_size: int) -> int:
    """Another batch size that shows what an example adds: a quarter, if it can be."""
    quarter = batch_size // 4 // program.unit * program.unit
    return quarter or (program.unit if batch_size > program.unit else 2 * batch_size)


def largest_batch(
    program: Program, limit: int, known: dict[int, Memory]
) -> tuple[int, bool]:
    """(the largest batch whose program fits the bytes `limit`, whether it is compiled).

    known: the memory at two batch sizes, from whose difference the batch is predicted;
    it is then compiled, and predicted again, with a margin, while it does not fit. 0 if
    no batch fits.
    """
    known = dict(known)
    for margin in _MARGINS:
        predicted = predict_batch(program, limit, known)
        batch_size = int(predicted * (1 - margin)) // program.unit * program.unit
        if not batch_size:
            return 0, True
        if batch_size not in known:
            known[batch_size] = program.memory(batch_size)
        if known[batch_size].total <= limit:
            return batch_size, True
    return max((b for b in known if known[b].total <= limit), default=0), False


def predict_batch(program: Program, limit: int, known: dict[int, Memory]) -> int:
    """The largest batch on a curve through known sizes.

    A line through two sizes; a parabola through three where one fits and another does
    not, because a loss that compares all examples grows with their square.
    """
    fit = sorted(b for b in known if known[b].total <= limit)
    not_fit = sorted(known.keys() - fit)
    nearest = [*fit[-2:], *not_fit[:1]] if fit and not_fit else sorted(known)[-2:]
    if not fit:
        nearest = not_fit[:2]
    used = [known[b].total - limit for b in nearest]
    curve = np.polynomial.Polynomial.fit(nearest, used, len(nearest) - 1)
    if known[nearest[-1]].total <= known[nearest[0]].total:
        return max(fit, default=0)  # the batch does not matter, as for a tiny model
    low, high = (fit[-1], not_fit[0]) if fit and not_fit else (0, math.inf)
    roots = [float(np.real(x)) for x in curve.roots() if abs(np.imag(x)) < 1e-9]
    found = max((x for x in roots if low <= x <= high), default=low)
    return int(found + 1e-6) // program.unit * program.unit


def time_program(
    program: Program, compiled: Any, batch_size: int, seconds: float
) -> float:
    """Seconds of one call on random arrays: the median of a few in about `seconds`."""
    arguments = random_arrays(compiled, program.arguments(batch_size))
    times: list[float] = []
    started = time.perf_counter()
    for i in range(_STEPS + 1):
        begun = time.perf_counter()
        out = jax.block_until_ready(compiled(*arguments))
        took = time.perf_counter() - begun
        if program.has_state:
            arguments = (out[0], *arguments[1:])
        if i or took > seconds:  # the first call also moves memory
            times.append(took)
        if time.perf_counter() - started + took > seconds:
            break
    return float(np.median(times or [took]))


def random_arrays(compiled: Any, shapes: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
    """Arrays of these shapes where the compiled program takes them."""
    rng = np.random.default_rng(0)
    small = np.abs(rng.standard_normal(2**16, np.float32)) * 0.02
    where, _ = compiled.input_shardings

    def make(shape: jax.ShapeDtypeStruct, place) -> jax.Array:
        if np.issubdtype(shape.dtype, np.floating):
            values = np.resize(small, shape.shape).astype(shape.dtype)
        else:  # labels and tokens of few classes, marks, and dark pixels
            values = np.resize(rng.integers(0, 2, 2**16), shape.shape)
            values = values.astype(shape.dtype)
        return jax.device_put(values, place)

    return jax.tree.map(make, shapes, where)
