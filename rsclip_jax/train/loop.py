"""The one training loop: next batch, step, log, save. Knows no stage, loss or model."""

import contextlib
import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from rsclip_jax.train import memory, optim, sharding, stopping
from rsclip_jax.train.curve import Curve, NameRecords, NonFiniteError
from rsclip_jax.train.feed import Feed
from rsclip_jax.train.input_wait import InputWait
from rsclip_jax.train.resume import Begun, Saves
from rsclip_jax.train.settings import TrainSettings
from rsclip_jax.train_step import LossFn, Metrics, TrainState, train_step

PyTree = Any
StepFn = Callable[..., tuple[TrainState, Metrics]]


def make_step(
    state: TrainState,
    frozen: PyTree,
    *,
    mesh: Mesh,
    loss_fn: LossFn,
    skip: bool = False,
    **bound: Any,
) -> Callable:
    """train_step jitted: state donated, frozen weights an argument, batch sharded.

    skip: see skip_nonfinite. bound: train_step's other keywords.
    """
    state_sharding = sharding.param_shardings(state, mesh)
    whole = sharding.gathering(loss_fn, mesh)
    step: StepFn = partial(train_step, loss_fn=whole, **bound)
    return jax.jit(
        skip_nonfinite(step) if skip else step,
        in_shardings=(
            state_sharding,
            sharding.param_shardings(frozen, mesh),
            sharding.batch_sharding(mesh),
        ),
        out_shardings=(state_sharding, sharding.replicated(mesh)),
        donate_argnums=0,
    )


def make_training_step(
    state: TrainState,
    frozen: PyTree,
    *,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    settings: TrainSettings,
    mesh: Mesh,
) -> Callable:
    """make_step as the settings say; arrays or ShapeDtypeStructs."""
    return make_step(
        state,
        frozen,
        mesh=mesh,
        loss_fn=loss_fn,
        tx=tx,
        accumulate=settings.accumulate,
        grad_dtype=settings.grad_dtype,
        skip=settings.on_nonfinite == "skip",
    )


def skip_nonfinite(step: StepFn) -> StepFn:
    """A step that only counts where its loss or gradient is not finite.

    Params and optimizer state then stay as they were, and metrics["skipped"] is 1.
    """

    def step_or_skip(state, frozen, batch):
        after, metrics = step(state, frozen, batch)
        good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        kept = jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            (after.params, after.opt_state),
            (state.params, state.opt_state),
        )
        return TrainState(after.step, *kept), {**metrics, "skipped": 1.0 - good}

    return step_or_skip


def train(
    params: PyTree,
    frozen: PyTree,
    batches: Any,
    *,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    settings: TrainSettings,
    mesh: Mesh,
    folder: Path,
    meta: dict,
    progress: bool = True,
    name_records: NameRecords | None = None,
    alive: Callable[[int], None] = lambda step: None,
) -> PyTree:
    """Trains from params, or from the last checkpoint in folder, to settings.steps.

    Writes folder/metrics.jsonl and folder/checkpoints; meta is stored with each state.
    Returns the final parameters, or the EMA parameters if tx keeps them.

    name_records: turns a batch's "records" into ids, see Curve. alive: called with each
    step as it begins, its batch at hand.

    Raises FloatingPointError for a loss or gradient that is not finite, as
    settings.on_nonfinite says (the last good checkpoint stays), Interrupted on SIGINT
    or SIGTERM after saving, OSError if a checkpoint cannot be written, and ValueError
    for a checkpoint whose meta["sources"] differ.
    """
    # its own arrays, because the step donates its state and the caller's outlive it
    state = sharding.make_placed_state(params, tx, mesh)
    placed = sharding.put_params(frozen, mesh)
    step_fn = make_training_step(
        state, placed, loss_fn=loss_fn, tx=tx, settings=settings, mesh=mesh
    )
    keep = {"keep": settings.keep, "keep_best": settings.keep_best}
    with (
        Saves(folder / "checkpoints", **keep) as saves,
        contextlib.closing(InputWait()) as wait,
    ):
        begun = saves.restore(state, meta) or Begun(state, None)
        curve = Curve(
            folder,
            settings,
            int(begun.state.step),
            skipped=begun.skipped,
            name_records=name_records,
        )
        training = _Training(
            begun.state,
            feed=Feed(batches, mesh, begun.position, wait=wait),
            wait=wait,
            curve=curve,
            saves=saves,
            meta=meta,
            advance=lambda state, batch: step_fn(state, placed, batch),
        )
        del state, begun
        try:
            state = training.run(settings, progress=progress, alive=alive)
        except NonFiniteError as error:
            raise FloatingPointError(
                f"{error}; {_kept(saves)}. {_advice(error.step, params, frozen)}"
            ) from error
    return optim.averaged(state.params, state.opt_state)


class _Training:
    """The parts of a training, and its state."""

    def __init__(
        self,
        state: TrainState,
        *,
        feed: Feed,
        wait: InputWait,
        curve: Curve,
        saves: Saves,
        meta: Mapping[str, Any],
        advance: StepFn,
    ):
        self.state, self.feed, self.curve, self.wait = state, feed, curve, wait
        self.saves, self.meta, self.advance = saves, meta, advance

    def run(
        self, settings: TrainSettings, *, progress: bool, alive: Callable[[int], None]
    ) -> TrainState:
        """Advances to the last step; saves when due and on a signal."""
        name, steps = self.curve.path.parent.name, settings.steps
        start = int(self.state.step)
        bar = tqdm(
            total=steps,
            initial=start,
            desc=name,
            unit="step",
            disable=not progress,
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
        with bar, stopping.after_step() as stop:
            for step in range(start + 1, steps + 1):
                with memory.during(f"step {step} of {steps}", "training"):
                    self._step(step, alive, is_last=step == steps)
                    if step == start + 1:  # so that a lack of memory names this step
                        jax.block_until_ready(self.state)
                if math.isfinite(self.curve.loss):  # nan until the first is read
                    bar.set_postfix(loss=f"{self.curve.loss:.4f}", refresh=False)
                bar.update()
                stopped = stop.reached()
                if stopped or step % settings.checkpoint_every == 0 or step == steps:
                    self._save()
                if stopped:
                    self.saves.wait()
                    where = f"at step {step} of {steps} of {name}"
                    text = stopping.describe(where, "the state is saved")
                    raise stopping.Interrupted(stop.signum, text)
            return self.state

    def _step(self, step: int, alive: Callable[[int], None], *, is_last: bool) -> None:
        batch = next(self.feed)
        alive(step)  # before it waits for other processes, so that these show as behind
        records = self.feed.records
        self.state, metrics = self.advance(self.state, batch)
        self.wait.begin(metrics["loss"])
        if not is_last:
            self.feed.prepare()  # while the device works
        self.curve.add(step, metrics, records, waited=self.wait.seconds)
        self.saves.check()

    def _save(self) -> None:
        self.curve.read()  # a state that is not finite is not saved
        self.saves.save(
            self.state,
            self.feed.position,
            self.meta,
            loss=self.curve.mean_loss(),
            skipped=self.curve.skipped,
        )


def _kept(saves: Saves) -> str:
    if saves.latest is None:
        return "no checkpoint was saved yet"
    return f"the last good checkpoint, step {saves.latest}, is kept in {saves.folder}"


def _advice(step: int, params: PyTree, frozen: PyTree) -> str:
    """What to do about a loss that is not finite."""
    for what, tree in (("trained", params), ("frozen", frozen)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not np.isfinite(np.asarray(leaf, np.float32)).all():
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                return (
                    f"The {what} weights that training starts from are not finite"
                    f" ({name}): start from other weights"
                )
    return (
        "Lower the learning rate or check these records, and train in another folder;"
        " or leave such steps out with on_nonfinite = 'skip'"
    )
