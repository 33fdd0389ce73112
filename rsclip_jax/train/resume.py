"""A training's checkpoints: saved asynchronously, and the newest whole one restored.

<stage>/checkpoints/<step>/{params,train,data,meta}: params; the optimizer's state; the
data position, as JSON; meta, as JSON, with digests of all four.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from rsclip_jax.io.files import is_full, move_tree, read_json
from rsclip_jax.io.store_errors import raise_if_unanswered
from rsclip_jax.io.texts import first_of
from rsclip_jax.train import checkpoint, processes, sharding
from rsclip_jax.train.feed import Position
from rsclip_jax.train.stores import make_manager, steps_in
from rsclip_jax.train_step import TrainState

PyTree = Any
_ITEMS = ("params", "train", "data", "meta")
_LARGE = 2**26  # bytes from which threads pay


@dataclasses.dataclass(frozen=True)
class Begun:
    """A restored training; skipped: steps left out so far, see Curve."""

    state: TrainState
    position: Position | None
    skipped: int = 0


class Saves:
    """The checkpoints of one training, in one folder.

    A folder that holds a damaged newest checkpoint is put right when it is opened: see
    use_newest_whole.

    Args:
        folder: <stage>/checkpoints.
        keep: the number of newest checkpoints that are kept.
        keep_best: the number of those with the lowest loss that are kept beside them.
    """

    def __init__(self, folder: Path, *, keep: int = 2, keep_best: int = 0):
        self.folder = folder.resolve()
        _collect_no_metrics()
        self._stored = use_newest_whole(self.folder)
        self._bytes, self._is_unchecked = 0, False  # of the last save
        steps = steps_in(self.folder)
        losses = {step: _loss_of(self.folder / str(step)) for step in steps}
        self._policy = NewestAndBest(keep, keep_best, losses)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            cleanup_tmp_directories=True,  # left by a kill during a save
        )
        self._manager = make_manager(self.folder, options)
        self._quiet = contextlib.ExitStack()

    def __enter__(self) -> "Saves":
        self._quiet.enter_context(checkpoint.one_error())
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            with self._quiet:
                if error is not None:
                    raise error
                self.wait()
        finally:
            self.close()

    def close(self) -> None:
        """Ends the threads that save."""
        with contextlib.suppress(Exception):  # told by wait, or another is on its way
            self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def save(
        self,
        state: TrainState,
        position: Position,
        meta: Mapping[str, Any],
        *,
        loss: float = math.nan,
        skipped: int = 0,
    ) -> None:
        """Saves a state, once per step: copies it to the host and returns.

        meta: JSON values; "sources" decides whether a training may continue. loss: by
        which it is compared with other checkpoints; the mean since the last one.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return  # Orbax would silently return False
        train = {"opt_state": state.opt_state}
        whole = sharding.on_host((state.params, train))
        params_here, train_here = jax.device_get(whole)
        told = {"loss": loss if math.isfinite(loss) else None, "skipped": skipped}
        values = _as_json({**meta, "step": step, **told})
        saved = Stored(step, params_here, train_here, position, values)
        values = {**values, "digests": _digests(saved)}
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            train=ocp.args.StandardSave(train),
            data=ocp.args.JsonSave(dict(position)),
            meta=ocp.args.JsonSave(values),
        )
        self._policy.losses[step] = loss
        self._bytes = sum(x.nbytes for x in jax.tree.leaves((params_here, train_here)))
        with self._plainly():
            self._manager.save(step, args=items)
        self._is_unchecked = True

    def check(self) -> None:
        """Raises OSError if a save that went on in the background has failed."""
        if self._is_unchecked and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits for the last save; raises OSError if it failed."""
        self._is_unchecked = False
        with self._plainly():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds
            cause = checkpoint.first_line(error)
            if is_full(error):
                cause = f"the disk is full, and it takes {self._bytes / 1e6:,.0f} MB"
            kept = ", ".join(map(str, steps_in(self.folder)))
            raise OSError(
                f"{self.folder}: a checkpoint could not be written ({cause}); kept"
                f" there: step {kept or 'none'}"
            ) from error

    def restore(self, state: TrainState, meta: Mapping[str, Any]) -> Begun | None:
        """The newest checkpoint with state's shardings; None if there is none.

        Raises ValueError naming the sources in meta (theta_0, a teacher, the data) that
        differ from the checkpoint's, and parameters that only one of both has.
        """
        stored, self._stored = self._stored, None  # it is large
        if stored is None:
            return None
        now = _as_json(meta["sources"])
        self._check_sources(stored.step, stored.meta["sources"], now)
        try:
            params = _place(stored.params, state.params)
            train = _place(stored.train, {"opt_state": state.opt_state})
        except ValueError as error:
            raise ValueError(
                f"{self.folder}/{stored.step} does not fit this run: {error}; choose"
                " another --workdir, or remove that folder to restart the stage"
            ) from error
        number = jax.device_put(np.int32(stored.step), state.step.sharding)
        restored = TrainState(number, params, train["opt_state"])
        return Begun(restored, stored.position, stored.meta.get("skipped", 0))

    def _check_sources(self, step: int, then: dict, now: dict) -> None:
        # older checkpoints were all trained in float32, and do not say so
        unsaid = {"compute": {"precision": "float32"}} if "compute" in now else {}
        then = {**unsaid, **then}
        if then != now:
            raise ValueError(
                f"{self.folder}: the sources of step {step} differ from this run's:"
                f"\n  {_differing(then, now)}\nchoose another --workdir, or remove that"
                " folder to restart the stage"
            )


def _collect_no_metrics() -> None:
    """Turns off a log line of Orbax that costs memory at each save.

    Orbax asks TensorStore for its metrics several times a save, and TensorStore (0.1.78
    to 0.1.86) keeps what it returns for ever, some 9 KiB a call.
    """
    tensorstore.experimental_collect_matching_metrics = lambda *_, **__: []


@dataclasses.dataclass
class NewestAndBest:
    """Orbax's preservation policy: the newest, and those with the lowest loss.

    Orbax's own BestN takes a NaN for the best, and its metrics are another item.

    losses: step -> loss, nan if it is not known, which is worse than any number.
    """

    keep: int
    keep_best: int
    losses: dict[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context) -> list[bool]:
        del context
        steps = [info.step for info in checkpoints]
        known = [s for s in steps if not math.isnan(self.losses.get(s, math.nan))]
        best = sorted(known, key=lambda step: self.losses[step])[: self.keep_best]
        kept = {*steps[-self.keep :], *best}
        return [step in kept for step in steps]


# Which checkpoints are whole


@dataclasses.dataclass(frozen=True)
class Stored:
    """A checkpoint as read from disk, its trees as numpy arrays in plain containers."""

    step: int
    params: PyTree
    train: PyTree
    position: Position
    meta: Mapping[str, Any]


def use_newest_whole(folder: Path) -> Stored | None:
    """Reads the newest whole checkpoint; None if there is no checkpoint at all.

    Damaged newer ones are moved to <stage>/damaged/<step>, with one line on stderr. Of
    several processes, the first decides and all read. Raises ValueError listing what
    was tried if no checkpoint is whole.
    """
    found: list[Stored] = []
    step = processes.first_decides(lambda: _choose(folder, found))
    if step is None:
        return None
    with processes.together():
        return found[0] if found else read_checkpoint(folder / str(step))


def _choose(folder: Path, found: list[Stored]) -> int | None:
    """The step of the newest whole checkpoint, which is appended to found."""
    problems: dict[int, str] = {}
    for step in reversed(steps_in(folder)):
        try:
            found.append(read_checkpoint(folder / str(step)))
        except ValueError as error:
            problems[step] = str(error)
            continue
        if problems:
            _move_aside(folder, problems, step)
        return step
    if not problems:
        return None
    raise ValueError(
        f"{folder} holds no checkpoint that can be used; tried:\n  "
        + first_of(_lines(problems), "\n  ")
        + "\nrestore one from a copy, or remove that folder to start the stage's"
        " training over"
    )


def _lines(problems: Mapping[int, str]) -> list[str]:
    return [f"step {step}: {problem}" for step, problem in problems.items()]


def _move_aside(folder: Path, problems: Mapping[int, str], used: int) -> None:
    aside = folder.parent / "damaged"
    for step in problems:
        move_tree(folder / str(step), aside / str(step))
    print(
        f"warning: {folder}: {first_of(_lines(problems), '; ')}; moved to {aside}, and"
        f" training continues from step {used}, the newest whole one",
        file=sys.stderr,
        flush=True,
    )


def read_checkpoint(folder: Path) -> Stored:
    """Reads a checkpoint and compares it with its digests; ValueError for any damage.

    StoreFailed for an object store that does not answer, which is no damage.
    One of a version that kept no digests only has to be readable; a warning says so.
    """
    if lost := [name for name in _ITEMS if not (folder / name).is_dir()]:
        raise ValueError(f"{', '.join(lost)} is missing")
    try:
        meta, position = read_meta_item(folder), read_position(folder)
        params, train = (checkpoint.read_tree(folder / x) for x in ("params", "train"))
        step, kept = meta["step"], meta.pop("digests", None)
    except Exception as error:  # a damaged file raises many kinds
        raise_if_unanswered(folder, error)
        raise ValueError(checkpoint.first_line(error)) from error
    if step != int(folder.name):
        raise ValueError(f"its meta is that of step {step}")
    stored = Stored(step, params, train, position, meta)
    if kept is None:
        text = f"warning: {folder} has no digests, so it is used unverified"
        print(text, file=sys.stderr, flush=True)
    elif differing := [x for x, now in _digests(stored).items() if now != kept.get(x)]:
        raise ValueError(f"{', '.join(differing)} differs from its digest")
    return stored


def _digests(stored: Stored) -> dict[str, str]:
    return {
        "params": tree_digest(stored.params),
        "train": tree_digest(stored.train),
        "data": _json_digest(stored.position),
        "meta": _json_digest(stored.meta),
    }


def _place(stored: PyTree, like: PyTree) -> PyTree:
    """A stored tree in another's containers, on its devices, matched by name."""
    found = {_name(path): leaf for path, leaf in _leaves(stored)}
    wanted = {_name(path): leaf for path, leaf in _leaves(like)}
    kinds = [{k: (np.shape(x), x.dtype) for k, x in y.items()} for y in (found, wanted)]
    names = found.keys() | wanted.keys()
    differing = sorted(x for x in names if kinds[0].get(x) != kinds[1].get(x))
    if differing:
        shown = ", ".join(differing[:4]) + (", ..." if len(differing) > 4 else "")
        raise ValueError(f"{len(differing)} of {len(names)} arrays differ ({shown})")

    def put(path: Sequence[Any], leaf: jax.Array) -> jax.Array:
        array = np.asarray(found[_name(path)])
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: array[index]
        )

    return jax.tree_util.tree_map_with_path(put, like)


def _leaves(tree: PyTree) -> Sequence[tuple[Sequence[Any], Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _name(path: Sequence[Any]) -> str:
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def begun_sources(stage_dir: Path) -> dict:
    """The sources in the meta of a stage's last whole checkpoint; {} without one."""
    folder = stage_dir / "checkpoints"
    for step in reversed(steps_in(folder)):
        try:
            meta = read_meta_item(folder / str(step))
        except (ValueError, OSError):
            continue  # training says so, and goes on from an older one
        return meta["sources"]
    return {}


def read_meta_item(folder: Path) -> dict[str, Any]:
    """The item meta of a checkpoint."""
    return read_json(folder / "meta" / "metadata")


def read_position(folder: Path) -> Position:
    """The item data of a checkpoint: the data position.

    Versions that saved it with grain wrote a file for each process, all alike.
    """
    written = folder / "data" / "metadata"
    old = sorted((folder / "data").glob("process_*-of-*.json"))
    return read_json(written if written.exists() or not old else old[0])


def _loss_of(folder: Path) -> float:
    """The loss in a checkpoint's meta; nan if it cannot be read."""
    try:
        return float(read_meta_item(folder)["loss"])
    except (ValueError, OSError, KeyError, TypeError):
        return math.nan


# Digests


def tree_digest(tree: PyTree) -> str:
    """Digest of a tree's values, by the CRC-32 of each leaf: fast, against accidents.

    It is that of the same values in any containers, on the device or in numpy.
    """
    leaves = _leaves(tree)
    if sum(leaf.nbytes for _, leaf in leaves) < _LARGE:
        lines = [_leaf_line(path, leaf) for path, leaf in leaves]
    else:
        with ThreadPoolExecutor(4) as pool:  # zlib releases Python's lock
            lines = list(pool.map(lambda item: _leaf_line(*item), leaves))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def _leaf_line(path: Sequence[Any], leaf: Any) -> str:
    array = np.ascontiguousarray(leaf)
    value = zlib.crc32(array.reshape(-1).view(np.uint8).data)
    return f"{_name(path)} {array.dtype} {np.shape(leaf)} {value:08x}"


def _json_digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_json(value: Any) -> Any:
    """The value as it is read back from a file."""
    return json.loads(json.dumps(value))


def _differing(then: dict, now: dict) -> str:
    """A line for each value that differs: "theta_0 digest: '1a' then, '2b' now"."""
    keys = sorted({(name, key) for x in (then, now) for name in x for key in x[name]})
    return "\n  ".join(
        f"{name} {key}: {a!r} then, {b!r} now"
        for name, key in keys
        if (a := then.get(name, {}).get(key)) != (b := now.get(name, {}).get(key))
    )
