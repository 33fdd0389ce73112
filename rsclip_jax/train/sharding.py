"""The mesh, the sharding of each leaf, and losses that communicate across devices."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rsclip_jax.losses import ring_clip_loss, sharded_clip_loss
from rsclip_jax.train_step import LossFn, Objective, TrainState, make_state

PyTree = Any
AXES = ("data", "fsdp")
NEGATIVES = ("all_gather", "ring")


def make_mesh(
    shape: tuple[int, int] = (-1, 1), devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A ("data", "fsdp") mesh over all devices; one entry may be -1 (the rest).

    devices: others than this job's. Raises ValueError if the shape does not use every
    device.
    """
    count = jax.device_count() if devices is None else len(devices)
    sizes = list(shape)
    if len(sizes) == 2 and sizes.count(-1) == 1:
        other = sizes[1 - sizes.index(-1)]
        if other > 0:
            sizes[sizes.index(-1)] = count // other
    if len(sizes) != 2 or min(sizes) < 1 or sizes[0] * sizes[1] != count:
        devices_here = "the one device" if count == 1 else f"{count} devices"
        raise ValueError(
            f"mesh = {tuple(shape)} does not cover {devices_here} as (data, fsdp);"
            " (-1, 1) always does"
        )
    # Explicit axes, jax's default, do not work with Linen's concatenations.
    auto = (jax.sharding.AxisType.Auto,) * 2
    if devices is None and jax.process_count() > 1:
        # Process i's devices hold the i-th block of a batch's rows. jax.make_mesh may
        # order devices by their wiring, which mixes the processes.
        ordered = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
        return Mesh(np.reshape(ordered, sizes), AXES, axis_types=auto)
    return jax.make_mesh(tuple(sizes), AXES, axis_types=auto, devices=devices)


def make_local_mesh() -> Mesh:
    """A mesh of this process's devices, for work that each process does separately."""
    devices = np.asarray(jax.local_devices())[:, None]
    return Mesh(devices, AXES, axis_types=(jax.sharding.AxisType.Auto,) * 2)


def connect(mesh: Mesh) -> None:
    """Lets the devices of several processes meet, in all groups that the mesh has.

    On CPUs a group that meets first gets 30 seconds from gloo, and the programs that
    would be first may take one process longer to compile than another.
    """
    if jax.process_count() == 1:
        return

    def meet(x):
        return sum(jax.lax.psum(x, axes) for axes in (AXES, *AXES))

    sharded = jax.shard_map(
        meet, mesh=mesh, in_specs=P(AXES), out_specs=P(AXES), check_vma=False
    )
    ones = np.ones(mesh.size, np.float32)
    jax.block_until_ready(jax.jit(sharded)(_put(ones, batch_sharding(mesh))))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Shards the leading dimension over both axes."""
    return NamedSharding(mesh, P(AXES))


def param_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """Shards each leaf's largest divisible dimension over fsdp, if it has one."""
    size = mesh.shape["fsdp"]

    def shard(leaf):
        dims = [i for i, n in enumerate(np.shape(leaf)) if n % size == 0 and n >= size]
        if size == 1 or not dims:
            return replicated(mesh)
        largest = max(dims, key=lambda i: np.shape(leaf)[i])
        return NamedSharding(mesh, P(*[None] * largest, "fsdp"))

    return jax.tree.map(shard, tree)


def gathering(loss_fn: LossFn, mesh: Mesh) -> LossFn:
    """loss_fn of params and frozen weights that each device gathers before their use.

    Where it may choose, XLA's partitioner splits activations as the weights are split
    and sends those between devices, again and again, instead of the weights once.
    """
    if mesh.shape["fsdp"] == 1:
        return loss_fn

    def whole(params, frozen):
        return jax.lax.with_sharding_constraint((params, frozen), replicated(mesh))

    if isinstance(loss_fn, Objective):
        return loss_fn.through(whole)

    def of_whole(params, frozen, batch):
        params, frozen = whole(params, frozen)
        return loss_fn(params, frozen, batch)

    return of_whole


def make_on(mesh: Mesh | None, make: Callable[..., PyTree], *args: jax.Array) -> PyTree:
    """make(*args), compiled; where a mesh splits it, each device makes its part alone.

    Elsewhere one device makes it, by a program that compiles several times faster.
    """
    if mesh is None or mesh.shape["fsdp"] == 1:
        return jax.jit(make)(*args)
    shardings = param_shardings(jax.eval_shape(make, *args), mesh)
    return jax.jit(make, out_shardings=shardings)(*args)


def put_params(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a tree on the mesh's devices by param_shardings.

    A host's array, memory-mapped or not, goes to each device as that device's part
    alone: none holds the whole first. Every process needs the same arrays, which may
    hold NaN.
    """
    return jax.tree.map(_put, tree, param_shardings(tree, mesh))


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array):
        if leaf.sharding == sharding:
            return leaf
        if jax.process_count() == 1 or not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)  # from device to device
    array = np.asarray(leaf)
    return jax.make_array_from_callback(
        array.shape, sharding, lambda index: array[index]
    )


def make_placed_state(
    params: PyTree, tx: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """The state at step 0 of these params on the mesh; its arrays are its own."""
    placed = put_params(params, mesh)

    def make(params):
        return make_state(jax.tree.map(jnp.copy, params), tx)

    shardings = param_shardings(jax.eval_shape(make, placed), mesh)
    return jax.jit(make, out_shardings=shardings)(placed)


def replicate(array: jax.Array, mesh: Any) -> jax.Array:
    """An array of the mesh, so that every process can read all of it."""
    return _make_replicate(mesh)(array)


@lru_cache
def _make_replicate(mesh: Any) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))


def on_host(tree: PyTree) -> PyTree:
    """The tree, in numpy where its arrays are spread over several processes.

    All processes must call it.
    """

    def read(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if leaf.is_fully_replicated:
            return np.asarray(leaf)
        assert isinstance(leaf.sharding, NamedSharding)
        return np.asarray(replicate(leaf, leaf.sharding.mesh))

    return jax.tree.map(read, tree)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Turns this process's part of a batch into arrays of the global batch."""
    sharding = batch_sharding(mesh)
    return {
        k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()
    }


def check_batch_size(batch_size: int, mesh: Mesh, setting: str, parts: int = 1) -> None:
    """Raises ValueError naming the setting if devices cannot share the batch evenly.

    parts: the equal parts in which each device takes its share (train_step's
    accumulate).
    """
    shares = mesh.size * parts
    if batch_size < 1 or batch_size % shares:
        parted = f", in {parts} parts each: use a multiple of {shares}"
        raise ValueError(
            f"{setting} = {batch_size} is not a positive multiple of the {mesh.size}"
            f" devices that share it{parted if parts > 1 else ''}"
        )


def make_clip_loss(
    mesh: Mesh, negatives: str = "all_gather"
) -> Callable[..., jax.Array]:
    """clip_loss(zimg, ztxt, t, groups, mask) over a batch sharded across the mesh.

    negatives: "all_gather" copies all embeddings to each device; "ring" passes them
    around, in memory that does not grow with the number of devices.
    """
    ways = {"all_gather": sharded_clip_loss, "ring": ring_clip_loss}
    rows = P(AXES)
    sharded = jax.shard_map(
        partial(ways[negatives], axis_name=AXES),
        mesh=mesh,
        in_specs=(rows, rows, P(), rows, rows),
        out_specs=P(),
    )

    def loss(zimg, ztxt, t, groups, mask=None):
        return sharded(zimg, ztxt, t, groups, mask)

    return loss
