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
    """What a step changes. Frozen weights are not in it and never saved with it."""

    step: jax.Array
    params: PyTree
    opt_state: PyTree


def make_state(params: PyTree, tx: optax.GradientTransformation) -> TrainState:
    """The state at step 0 of these params.

    >>> state = make_state({"w": jnp.ones(2)}, optax.sgd(0.1))
    >>> int(state.step)
    0
    """
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
    """One gradient step. Jit it with loss_fn and tx bound.

    Args:
      state: the params and optimizer state before the step.
      frozen: weights that loss_fn needs and that are not trained.
      batch: {key: array [b, ...]}; loss_fn also finds "step" in it, the number of steps
        before this one.
      loss_fn: (params, frozen, batch) -> (loss, metrics), the loss a scalar.
      tx: the optimizer.

    Returns:
      (state after the step, metrics): loss_fn's own metrics, "loss", and "grad_norm",
      the gradient's norm before clipping over all params, also those that tx keeps
      constant.

    >>> def loss_fn(params, frozen, batch):
    ...     return jnp.mean((params["w"] * batch["x"] - frozen["y"]) ** 2), {}
    >>> tx = optax.sgd(0.5)
    >>> state, frozen = make_state({"w": jnp.array(3.0)}, tx), {"y": jnp.array([1.0])}
    >>> batch = {"x": jnp.array([1.0])}
    >>> state, metrics = train_step(state, frozen, batch, loss_fn=loss_fn, tx=tx)
    >>> float(metrics["loss"]), float(metrics["grad_norm"])
    (4.0, 4.0)
    >>> float(state.params["w"]), int(state.step)  # 3 - 0.5 * 4
    (1.0, 1)
    """
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    batch = {**batch, "step": state.step}
    (loss, metrics), grads = grad_fn(state.params, frozen, batch)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
    return TrainState(state.step + 1, params, opt_state), metrics
