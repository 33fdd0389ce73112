"""The one training loop: next batch, step, log, save. Knows no stage, loss or model."""

import contextlib
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from rsclip_jax.io.files import write_text
from rsclip_jax.train import checkpoint, memory, optim, sharding
from rsclip_jax.train.settings import TrainSettings
from rsclip_jax.train_step import LossFn, Metrics, TrainState, make_state, train_step

PyTree = Any


class Interrupted(Exception):
    """A signal stopped training after its state was saved; code is the exit status."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.code = 128 + signum


def make_step(
    state: TrainState, frozen: PyTree, *, mesh: Mesh, **bound: Any
) -> Callable:
    """train_step jitted: state donated, frozen weights an argument, batch sharded.

    bound: train_step's keywords.
    """
    state_sharding = sharding.param_shardings(state, mesh)
    return jax.jit(
        partial(train_step, **bound),
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
    )


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
) -> PyTree:
    """Trains from params, or from the last checkpoint in folder, to settings.steps.

    Writes folder/metrics.jsonl and folder/checkpoints; meta is stored with each state.
    Returns the final parameters, or the EMA parameters if tx keeps them.

    Raises FloatingPointError at the first step whose loss or gradient is not finite
    (the last good checkpoint stays), Interrupted on SIGINT or SIGTERM after saving, and
    ValueError for a checkpoint whose meta["sources"] differ.
    """
    # A copy: the step donates its state, and the caller's arrays must outlive it.
    params = jax.tree.map(lambda x: x.copy(), params)
    state = sharding.put_params(make_state(params, tx), mesh)
    frozen = sharding.put_params(frozen, mesh)
    step_fn = make_training_step(
        state, frozen, loss_fn=loss_fn, tx=tx, settings=settings, mesh=mesh
    )
    with checkpoint.make_manager(folder / "checkpoints") as manager:
        if manager.latest_step() is not None:
            state = checkpoint.restore_state(manager, state, batches, meta)
        curve = folder / "metrics.jsonl"

        def advance(state: TrainState) -> tuple[TrainState, Metrics]:
            return step_fn(state, frozen, sharding.put_batch(next(batches), mesh))

        state = _run_steps(
            state,
            settings,
            advance=advance,
            save=lambda state: checkpoint.save_state(manager, state, batches, meta),
            log=_Log(curve, settings, int(state.step), manager),
            progress=progress,
        )
    return optim.averaged(state.params, state.opt_state)


def _run_steps(
    state: TrainState,
    settings: TrainSettings,
    *,
    advance: Callable[[TrainState], tuple[TrainState, Metrics]],
    save: Callable[[TrainState], None],
    log: "_Log",
    progress: bool,
) -> TrainState:
    """Advances to the last step; logs each step, saves when due and on a signal."""
    name, start, steps = log.path.parent.name, int(state.step), settings.steps
    bar = tqdm(
        total=steps,
        initial=start,
        desc=name,
        unit="step",
        disable=not progress,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
    with bar, _signals() as stop:
        for step in range(start + 1, steps + 1):
            with memory.during(f"step {step} of {steps}", "training"):
                state, metrics = advance(state)
                # Reading the previous step's metrics keeps the host one step ahead.
                bar.set_postfix(loss=log.check(), refresh=False)
                if step == start + 1:  # so that a lack of memory names this step
                    jax.block_until_ready(metrics)
            log.add(step, metrics)
            bar.update()
            if stop or step % settings.checkpoint_every == 0 or step == steps:
                log.check()
                save(state)
            if stop:
                raise Interrupted(
                    stop[0],
                    f"stopped at step {step} of {steps} of {name}; the state is saved:"
                    " run the same command again to continue",
                )
    return state


class _Log:
    """The training curve on disk, one step behind the device."""

    def __init__(self, path: Path, settings: TrainSettings, start: int, manager: Any):
        self.path, self.settings, self.loss = path, settings, math.nan
        self.schedule = settings.schedule
        self.manager = manager  # knows the last good checkpoint
        self.pending: tuple[int, dict] | None = None
        self.last = (start, time.perf_counter())
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        # Steps after the checkpoint that training resumes from run again.
        kept = [x for x in lines if x.endswith("}") and json.loads(x)["step"] <= start]
        if jax.process_index() == 0:
            write_text(path, "".join(f"{x}\n" for x in kept))

    def add(self, step: int, metrics: dict) -> None:
        self.pending = (step, metrics)

    def check(self) -> str:
        """Reads the pending step; returns its loss as text."""
        if self.pending is None:
            return "..."
        (step, metrics), self.pending = self.pending, None
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        self.loss = values["loss"]
        if not math.isfinite(self.loss) or not math.isfinite(values["grad_norm"]):
            raise FloatingPointError(
                f"{self.path.parent.name}: loss {self.loss}, grad_norm"
                f" {values['grad_norm']} at step {step}; {self._kept()}. Lower the"
                " learning rate or check the data, and train in another folder"
            )
        if step % self.settings.log_every == 0:
            self._write(step, values)
        return f"{self.loss:.4f}"

    def _kept(self) -> str:
        step = self.manager.latest_step()
        if step is None:
            return "no checkpoint was saved yet"
        folder = self.manager.directory
        return f"the last good checkpoint, step {step}, is kept in {folder}"

    def _write(self, step: int, values: dict) -> None:
        last_step, last_time = self.last
        now = time.perf_counter()
        self.last = (step, now)
        seconds = max(now - last_time, 1e-9)
        rate = (step - last_step) * self.settings.batch_size / seconds
        line = {"step": step, **values, "lr": float(self.schedule(step - 1))}
        line["examples_per_second"] = round(rate, 1)
        if jax.process_index() == 0:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Yields a list that collects SIGINT and SIGTERM; a second one acts immediately."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may set handlers
        return

    def handler(signum, frame):
        del frame
        caught.append(signum)
        signal.signal(signum, previous[signum])
        text = "\nstopping after this step; press again to stop now without saving ..."
        print(text, file=sys.stderr, flush=True)

    previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        for signum in previous:
            signal.signal(signum, handler)
        yield caught
    finally:
        for signum, old in previous.items():
            signal.signal(signum, old)
