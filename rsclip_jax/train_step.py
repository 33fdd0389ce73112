"""One training step for every stage, pure: state, frozen weights, batch."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

PyTree = Any
Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
LossFn = Callable[[PyTree, PyTree, Batch], tuple[jax.Array, Metrics]]


@flax.struct.dataclass
class TrainState:
    """What a step changes; frozen weights are not in it and are never saved with it."""

    step: jax.Array
    params: PyTree
    opt_state: PyTree


def make_state(params: PyTree, tx: optax.GradientTransformation) -> TrainState:
    """Step 0 of these params."""
    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=tx.init(params)
    )


def train_step(
    state: TrainState,
    frozen: PyTree,
    batch: Batch,
    *,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:
    """One gradient step; metrics: loss, grad_norm, loss_fn's own.

    The batch that loss_fn sees also holds "step", the number of steps before this one.
    grad_norm is over all params, before clipping, those included that tx leaves as
    they are.
    """
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    batch = {**batch, "step": state.step}
    (loss, metrics), grads = grad_fn(state.params, frozen, batch)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
    return TrainState(state.step + 1, params, opt_state), metrics
