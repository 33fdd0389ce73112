"""Each stage's product, which the next stage reads, compared with its digest.

<stage>/params and <stage>/meta.json                  when it is done
<stage>/theta_1           patch's trained tower, if it is not the last checkpoint
<stage>/head.npz          patch's trained head, interpolated like its tower
"""

import contextlib
import dataclasses
import datetime
import hashlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rsclip_jax.interpolate import interpolate
from rsclip_jax.io.commit import git_commit
from rsclip_jax.io.files import write_npz
from rsclip_jax.io.store_errors import raise_if_unanswered
from rsclip_jax.records.meta import StageMeta, read_meta, write_meta
from rsclip_jax.train import processes
from rsclip_jax.train.stores import is_whole, readable, save_tree, steps_in

PyTree = Any
_AFTERMATH = 0.3  # seconds


def has_product(stage_dir: Path) -> bool:
    """Whether the stage is done."""
    return is_whole(stage_dir / "params")


def save_product(stage_dir: Path, params: PyTree, meta: StageMeta) -> None:
    """Writes <stage>/meta.json, then <stage>/params; never overwrites a product."""
    if has_product(stage_dir):
        raise FileExistsError(f"{stage_dir}/params exists and is not overwritten")
    meta = made_now(dataclasses.replace(meta, digest=params_digest(params)))
    if processes.is_first():
        write_meta(stage_dir, meta)
    save_tree(stage_dir / "params", params)


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

    Raises FileNotFoundError naming the folder and the stage to run, and ValueError
    naming the folder if the params are damaged or differ from the digest in the meta.
    """
    if not has_product(stage_dir):
        raise FileNotFoundError(
            f"{stage_dir}/params does not exist: stage {stage_dir.name!r} of"
            f" {stage_dir.parent} has not finished; run it first"
        )
    meta, folder = load_meta(stage_dir), stage_dir / "params"
    params = read_whole(folder)
    if not meta.digest:
        text = f"warning: {stage_dir}/meta.json has no digest: {folder} is unverified"
        print(text, file=sys.stderr, flush=True)
    elif (found := params_digest(params)) != meta.digest:
        raise ValueError(
            f"{folder} has the digest {found}, but {stage_dir}/meta.json says"
            f" {meta.digest}: it was damaged or replaced since; {_way(stage_dir)}"
        )
    return params, meta


def read_whole(folder: Path) -> PyTree:
    """A saved tree as numpy arrays. Raises ValueError naming a damaged folder.

    StoreFailed for an object store that does not answer, which is no damage.
    """
    try:
        return read_tree(folder)
    except Exception as error:  # a damaged file raises many kinds
        raise_if_unanswered(folder, error)
        raise ValueError(
            f"{folder} is damaged ({first_line(error)}); {_way(folder.parent)}"
        ) from error


def _way(stage_dir: Path) -> str:
    return f"restore {stage_dir} from a copy, or remove it and run its stage again"


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its text, shortened."""
    text = str(error).strip().splitlines() or [""]
    line = f"{type(error).__name__}: {text[0]}"
    return line if len(line) < 200 else line[:200] + "..."


def save_trained(stage_dir: Path, params: PyTree) -> None:
    """Writes <stage>/theta_1: trained params that no checkpoint holds."""
    save_tree(stage_dir / "theta_1", params, replace=True)


def load_trained(stage_dir: Path) -> PyTree:
    """theta_1 of patch as numpy arrays: save_trained's, or else the last checkpoint's.

    Raises FileNotFoundError if there is neither.
    """
    if is_whole(stage_dir / "theta_1"):
        return read_whole(stage_dir / "theta_1")
    folder = last_checkpoint(stage_dir)
    if folder is None:
        raise FileNotFoundError(f"{stage_dir}/checkpoints holds no checkpoint")
    return read_whole(folder / "params")


def save_head(
    stage_dir: Path,
    head: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    classnames: Sequence[str],
) -> str:
    """Writes <stage>/head.npz: an interpolated head [d, k] and its ends, text first.

    Returns the digest of all that is in it, for the meta's head, as "content".
    """
    arrays = {"head": head, "head_0": ends[0], "head_1": ends[1]}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    arrays["classnames"] = np.array(classnames)
    if processes.is_first():
        write_npz(stage_dir / "head.npz", **arrays)
    return params_digest(arrays)


def load_head(
    stage_dir: Path, alpha: float | None = None
) -> dict[str, np.ndarray] | None:
    """{class name: its column [d]} of save_head's head; None if there is none.

    alpha: interpolates the ends at this alpha instead. Raises ValueError naming a file
    that is damaged, or not the one that the meta's head describes.
    """
    path, told = stage_dir / "head.npz", load_meta(stage_dir).head
    if told is None:
        return None
    stored = _read_head(path)
    found = {"digest": params_digest(stored["head"]), "content": params_digest(stored)}
    for name, digest in found.items():
        if told.get(name, digest) != digest:
            raise ValueError(
                f"{path} differs from its digest in {stage_dir}/meta.json: it was"
                f" damaged or replaced since; {_way(stage_dir)}"
            )
    head = stored["head"]
    if alpha is not None:
        head = interpolate(stored["head_0"], stored["head_1"], alpha)
    return dict(zip(stored["classnames"].tolist(), head.T, strict=True))


def _read_head(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            names = ("head", "head_0", "head_1", "classnames")
            return {name: stored[name] for name in names}
    except Exception as error:  # a damaged file raises many kinds
        raise_if_unanswered(path, error)
        raise ValueError(
            f"{path} cannot be read ({first_line(error)}); {_way(path.parent)}"
        ) from error


def last_checkpoint(stage_dir: Path) -> Path | None:
    """The folder of a stage's last checkpoint; None without one."""
    folder = stage_dir / "checkpoints"
    steps = steps_in(folder)
    return folder / str(steps[-1]) if steps else None


def read_tree(folder: Path) -> PyTree:
    """A saved tree as numpy arrays."""
    # The handler directly: a Checkpointer would look for checkpoint metadata, which a
    # step's items lack.
    with (
        readable(folder) as here,
        contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler,
        one_error(),
    ):
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
            handler.metadata(here).tree,
        )
        restored = ocp.args.PyTreeRestore(restore_args=as_numpy)
        return handler.restore(here, args=restored)


@contextlib.contextmanager
def one_error() -> Iterator[None]:
    """Within it, an error of Orbax is the one that it raises, or raised in a thread.

    Reads and writes that end after the first error find Orbax's event loop closed, and
    each would print a trace from a thread of TensorStore.
    """
    hook = sys.unraisablehook

    def drop_closed_loops(unraisable) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = drop_closed_loops
    try:
        yield
    except Exception:
        warnings.filterwarnings("ignore", "coroutine .* was never awaited")
        time.sleep(_AFTERMATH)
        raise
    finally:
        sys.unraisablehook = hook


def load_meta(stage_dir: Path) -> StageMeta:
    return read_meta(stage_dir)


def params_digest(params: PyTree) -> str:
    """Digest of a tree's names, dtypes and values, which identifies the weights."""
    digest = hashlib.sha256()
    _hash_leaves(digest, params)
    return digest.hexdigest()[:16]


def make_digest_of_part(params: dict, name: str) -> Callable[[PyTree], str]:
    """A function: part -> params_digest({**params, name: part}).

    The leaves before the part, in the order of keys, are hashed once for all parts.
    """
    begun = hashlib.sha256()
    _hash_leaves(begun, {key: tree for key, tree in params.items() if key < name})
    after = {key: tree for key, tree in params.items() if key > name}

    def digest_of(part: PyTree) -> str:
        digest = begun.copy()
        _hash_leaves(digest, {name: part})
        _hash_leaves(digest, after)
        return digest.hexdigest()[:16]

    return digest_of


def _hash_leaves(digest: "hashlib._Hash", tree: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
