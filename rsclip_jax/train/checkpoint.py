"""Orbax checkpoints for resume, and each stage's product, which the next stage reads.

<stage>/checkpoints/<step>/{params,train,data,meta}   while it trains
<stage>/params and <stage>/meta.json                  when it is done
<stage>/theta_1           patch's trained tower, if it is not the last checkpoint
<stage>/head.npz          patch's trained head, interpolated like its tower
"""

import contextlib
import dataclasses
import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from rsclip_jax.interpolate import interpolate
from rsclip_jax.io.commit import git_commit
from rsclip_jax.io.files import read_json, write_npz
from rsclip_jax.records.meta import StageMeta, read_meta, write_meta
from rsclip_jax.train import processes, sharding
from rsclip_jax.train_step import TrainState

PyTree = Any


def make_manager(folder: Path, keep: int = 2) -> ocp.CheckpointManager:
    """A manager of <stage>/checkpoints that keeps the newest `keep` steps."""
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.LatestN(keep),
        cleanup_tmp_directories=True,  # left by a kill during a save
        enable_async_checkpointing=False,  # a step's state is donated to the next
    )
    return ocp.CheckpointManager(folder.resolve(), options=options)


def save_state(
    manager: ocp.CheckpointManager, state: TrainState, batches: Any, meta: dict
) -> None:
    """Writes params, optimizer state, data position and meta, once per step."""
    step = int(state.step)
    if step in manager.all_steps():
        return  # Orbax would silently return False
    items = ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        train=ocp.args.StandardSave({"opt_state": state.opt_state}),
        data=grain.checkpoint.CheckpointSave(batches),
        meta=ocp.args.JsonSave({**meta, "step": step}),
    )
    manager.save(step, args=items)
    manager.wait_until_finished()


def restore_state(
    manager: ocp.CheckpointManager, state: TrainState, batches: Any, meta: dict
) -> TrainState:
    """The state of the latest step, with state's shardings; batches resume there too.

    Raises ValueError naming the sources in meta (theta_0, a teacher, the data) that
    differ from the checkpoint's.
    """
    step = manager.latest_step()
    args = ocp.args.Composite(meta=ocp.args.JsonRestore())
    then, now = manager.restore(step, args=args)["meta"]["sources"], meta["sources"]
    if then != now:
        raise ValueError(
            f"{manager.directory}: the sources of step {step} differ from this run's:"
            f"\n  {_differing(then, now)}\nchoose another --workdir, or remove that"
            " folder to restart the stage"
        )

    def like(tree):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
        )

    items = ocp.args.Composite(
        params=ocp.args.StandardRestore(like(state.params)),
        train=ocp.args.StandardRestore({"opt_state": like(state.opt_state)}),
        data=grain.checkpoint.CheckpointRestore(batches),
    )
    found = manager.restore(step, args=items)
    number = jax.device_put(np.int32(step), state.step.sharding)
    return TrainState(number, found["params"], found["train"]["opt_state"])


def _differing(then: dict, now: dict) -> str:
    """A line for each value that differs: "theta_0 digest: '1a' then, '2b' now"."""
    keys = sorted({(name, key) for x in (then, now) for name in x for key in x[name]})
    return "\n  ".join(
        f"{name} {key}: {a!r} then, {b!r} now"
        for name, key in keys
        if (a := then.get(name, {}).get(key)) != (b := now.get(name, {}).get(key))
    )


def has_product(stage_dir: Path) -> bool:
    """Whether the stage is done: Orbax renames the folder to params last."""
    return (stage_dir / "params").is_dir()


def save_product(stage_dir: Path, params: PyTree, meta: StageMeta) -> None:
    """Writes <stage>/meta.json, then <stage>/params; never overwrites a product."""
    if has_product(stage_dir):
        raise FileExistsError(f"{stage_dir}/params exists and is not overwritten")
    meta = made_now(dataclasses.replace(meta, digest=params_digest(params)))
    if processes.is_first():
        write_meta(stage_dir, meta)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((stage_dir / "params").resolve(), _savable(params))


def made_now(meta: StageMeta) -> StageMeta:
    """The meta with the time, the devices and the commit of the finished stage."""
    now = datetime.datetime.now(datetime.UTC)
    return dataclasses.replace(
        meta,
        git_commit=git_commit(),
        finished=f"{now:%Y-%m-%d %H:%M} UTC",
        devices=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    )


def load_product(stage_dir: Path) -> tuple[PyTree, StageMeta]:
    """(params as numpy arrays, meta) of a finished stage.

    Raises FileNotFoundError naming the folder and the stage to run.
    """
    if not has_product(stage_dir):
        raise FileNotFoundError(
            f"{stage_dir}/params does not exist: stage {stage_dir.name!r} of"
            f" {stage_dir.parent} has not finished; run it first"
        )
    return _restore_numpy(stage_dir / "params"), load_meta(stage_dir)


def save_trained(stage_dir: Path, params: PyTree) -> None:
    """Writes <stage>/theta_1: trained params that no checkpoint holds."""
    with ocp.StandardCheckpointer() as checkpointer:
        path = (stage_dir / "theta_1").resolve()
        checkpointer.save(path, _savable(params), force=True)


def _savable(params: PyTree) -> PyTree:
    """In numpy with several processes: Orbax refuses arrays of one process's devices.

    Of equal numpy arrays it saves process 0's.
    """
    if processes.count() == 1:
        return params
    return jax.tree.map(np.asarray, sharding.on_host(params))


def load_trained(stage_dir: Path) -> PyTree:
    """theta_1 of patch as numpy arrays: save_trained's, or else the last checkpoint's.

    Raises FileNotFoundError if there is neither.
    """
    if (stage_dir / "theta_1").is_dir():
        return _restore_numpy(stage_dir / "theta_1")
    folder = last_checkpoint(stage_dir)
    if folder is None:
        raise FileNotFoundError(f"{stage_dir}/checkpoints holds no checkpoint")
    return _restore_numpy(folder / "params")


def save_head(
    stage_dir: Path,
    head: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    classnames: Sequence[str],
) -> None:
    """Writes <stage>/head.npz: an interpolated head [d, k] and its ends, text first."""
    write_npz(
        stage_dir / "head.npz",
        head=head,
        head_0=ends[0],
        head_1=ends[1],
        classnames=np.array(classnames),
    )


def load_head(
    stage_dir: Path, alpha: float | None = None
) -> dict[str, np.ndarray] | None:
    """{class name: its column [d]} of save_head's head; None if there is none.

    alpha: interpolates the ends at this alpha instead.
    """
    path = stage_dir / "head.npz"
    if not path.exists():
        return None
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        head = stored["head"]
        if alpha is not None:
            head = interpolate(stored["head_0"], stored["head_1"], alpha)
        return dict(zip(stored["classnames"].tolist(), head.T, strict=True))


def last_checkpoint(stage_dir: Path) -> Path | None:
    """The folder of a stage's last checkpoint; None without one."""
    folders = (stage_dir / "checkpoints").glob("*")
    steps = {int(p.name): p for p in folders if p.name.isdigit()}
    return steps[max(steps)] if steps else None


def begun_sources(stage_dir: Path) -> dict:
    """The sources in the meta of a stage's last checkpoint; {} without one."""
    folder = last_checkpoint(stage_dir)
    if folder is None:
        return {}
    return read_json(folder / "meta" / "metadata")["sources"]


def _restore_numpy(folder: Path) -> PyTree:
    # The handler directly: a Checkpointer would look for checkpoint metadata, which a
    # step's items lack.
    folder = folder.resolve()
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
            handler.metadata(folder).tree,
        )
        restored = ocp.args.PyTreeRestore(restore_args=as_numpy)
        return handler.restore(folder, args=restored)


def load_meta(stage_dir: Path) -> StageMeta:
    return read_meta(stage_dir)


def params_digest(params: PyTree) -> str:
    """Digest of a tree's names, dtypes and values, which identifies the weights."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
