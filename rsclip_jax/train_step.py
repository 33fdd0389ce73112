"""One training step for every stage, pure: state, frozen weights, batch."""

import dataclasses
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
GRAD_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss_fn (params, frozen, batch) -> (loss, metrics) in two parts.

    Only in two parts can a step accumulate a loss that compares the examples of a batch
    with each other.

    encode: (params, frozen, batch) -> features, a tree of arrays [b, ...] in which each
      row depends on the same row of the batch alone.
    compare: (params, frozen, features, batch) -> (loss, metrics).
    separable: the loss and the metrics are means over examples, each of which counts
      alike, so that the mean over equal parts of a batch is that of the batch.
    """

    encode: Callable[[PyTree, PyTree, Batch], PyTree]
    compare: Callable[[PyTree, PyTree, PyTree, Batch], tuple[jax.Array, Metrics]]
    separable: bool

    def __call__(
        self, params: PyTree, frozen: PyTree, batch: Batch
    ) -> tuple[jax.Array, Metrics]:
        features = self.encode(params, frozen, batch)
        return self.compare(params, frozen, features, batch)

    def through(
        self, view: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
    ) -> "Objective":
        """The same objective of other trees: view(params, frozen) gives this one's."""

        def encode(params, frozen, batch):
            return self.encode(*view(params, frozen), batch)

        def compare(params, frozen, features, batch):
            return self.compare(*view(params, frozen), features, batch)

        return Objective(encode, compare, self.separable)


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
    accumulate: int = 1,
    grad_dtype: str = "float32",
) -> tuple[TrainState, Metrics]:
    """One gradient step. Jit it with the keywords bound.

    Args:
      state: the params and optimizer state before the step.
      frozen: weights that loss_fn needs and that are not trained.
      batch: {key: array [b, ...]}; loss_fn also finds "step" in it, the number of steps
        before this one.
      loss_fn: (params, frozen, batch) -> (loss, metrics), the loss a scalar.
      tx: the optimizer.
      accumulate: the number of equal parts in which the batch passes through the
        encoders, one after the other; loss and gradient stay those of the whole batch
        up to rounding. Above 1 it needs an Objective as loss_fn.
      grad_dtype: "bfloat16" differentiates with respect to kernels in bfloat16, which
        halves what devices send each other; their gradients are rounded to it before
        the devices' parts are added. For encoders that compute in bfloat16.

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
    with_step = {**batch, "step": state.step}
    seen = _kernels_as(state.params, grad_dtype)
    (loss, metrics), grads = _value_and_grad(
        loss_fn, seen, frozen, with_step, accumulate
    )
    grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, state.params)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
    return TrainState(state.step + 1, params, opt_state), metrics


def _kernels_as(params: PyTree, dtype: str) -> PyTree:
    """The params with each leaf called "kernel" in this dtype.

    The rest is small, or, as embeddings are, a sum over many rows that bfloat16 would
    not hold.
    """
    if dtype not in GRAD_DTYPES:
        raise ValueError(f"grad_dtype = {dtype!r}: use one of {', '.join(GRAD_DTYPES)}")
    if dtype == "float32":
        return params

    def cast(path, leaf):
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return leaf.astype(dtype) if name == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(cast, params)


def _value_and_grad(loss_fn, params, frozen, batch, accumulate: int):
    """((loss, metrics), gradient) of the whole batch."""
    if accumulate == 1:
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        return grad_fn(params, frozen, batch)
    if not isinstance(loss_fn, Objective):
        raise ValueError(
            f"accumulate = {accumulate} needs a loss_fn in two parts, an Objective, but"
            f" got {loss_fn!r}: use accumulate = 1"
        )
    way = _by_parts if loss_fn.separable else _by_cached_features
    return way(loss_fn, params, frozen, batch, accumulate)


def split_batch(batch: Batch, count: int) -> tuple[Batch, Batch]:
    """(arrays [count, b / count, ...] of the parts, what all parts share).

    Part j holds the rows j, j + count, ...: the rows that a device holds of a part are
    among those that it holds of the batch, so that splitting moves none. Arrays without
    rows, such as "step", are shared. Raises ValueError if count does not divide b.

    >>> parts, shared = split_batch({"x": jnp.arange(4), "step": jnp.array(7)}, 2)
    >>> parts["x"].tolist(), int(shared["step"])
    ([[0, 2], [1, 3]], 7)
    """
    shared = {k: x for k, x in batch.items() if not jnp.ndim(x)}
    rows = {k: x for k, x in batch.items() if jnp.ndim(x)}

    def split(x):
        if len(x) % count:
            raise ValueError(
                f"accumulate = {count} does not divide the batch of {len(x)} examples"
            )
        return jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0)

    return {k: split(x) for k, x in rows.items()}, shared


def _join_parts(parts: PyTree) -> PyTree:
    """The inverse of split_batch for arrays [count, b / count, ...]."""
    return jax.tree.map(
        lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), parts
    )


def _by_parts(objective: Objective, params, frozen, batch, count: int):
    """The mean over parts, for a separable objective."""
    parts, shared = split_batch(batch, count)
    grad_fn = jax.value_and_grad(objective, has_aux=True)

    def add(total, part):
        found = grad_fn(params, frozen, {**part, **shared})
        return _add(total, found), None

    like = jax.eval_shape(
        lambda part: grad_fn(params, frozen, {**part, **shared}),
        jax.tree.map(lambda x: x[0], parts),
    )
    total, _ = jax.lax.scan(add, _zeros(like), parts)
    return jax.tree.map(lambda x: x / count, total)


def _by_cached_features(objective: Objective, params, frozen, batch, count: int):
    """The whole batch's loss, from features that were encoded part by part.

    GradCache (Gao et al. 2021, arXiv 2101.06983): encode all parts without a gradient,
    differentiate the loss by the features, and then encode each part again to carry its
    features' gradient to the params.
    """
    parts, shared = split_batch(batch, count)

    def encode(params, part):
        return objective.encode(params, frozen, {**part, **shared})

    _, cached = jax.lax.scan(lambda _, part: (None, encode(params, part)), None, parts)

    def compare(params, cached):
        return objective.compare(params, frozen, _join_parts(cached), batch)

    (loss, metrics), (direct, by_features) = jax.value_and_grad(
        compare, argnums=(0, 1), has_aux=True
    )(params, cached)

    def add(total, args):
        part, cotangent = args
        _, back = jax.vjp(lambda p: encode(p, part), params)
        return _add(total, back(cotangent)[0]), None

    grads, _ = jax.lax.scan(add, _zeros(params), (parts, by_features))
    return (loss, metrics), _add(grads, direct)


def _zeros(tree: PyTree) -> PyTree:
    """Zeros to add to, in float32 also for a bfloat16 tree."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)


def _add(total: PyTree, more: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), total, more)
