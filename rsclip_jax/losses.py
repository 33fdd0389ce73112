"""Pure losses, a scalar mean over the batch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    Array = jax.Array
else:
    Array = jax.Array | np.ndarray  # numpy arrays are welcome, and become jax's
Scalar = Float[jax.Array, ""]


def normalize(x: Float[Array, "*b d"]) -> Float[jax.Array, "*b d"]:
    """Scales the last axis to unit length; a zero vector stays zero."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


# Which examples count: a loss with a mask is that of the examples where it is True, and
# 0 where there are none.
Mask = Bool[Array, "b"] | None


def masked_mean(values: Array, mask: Array | None) -> jax.Array:
    """Mean of values [b] or [b, d] over the rows that count."""
    if mask is None:
        return jnp.mean(values)
    rows = jnp.expand_dims(mask, tuple(range(1, values.ndim)))
    count = jnp.sum(mask) * (values.size // len(values))
    return jnp.sum(jnp.where(rows, values, 0.0)) / jnp.maximum(count, 1)


def clip_loss(
    zimg: Float[Array, "b d"],
    ztxt: Float[Array, "b d"],
    t: Float[Array, ""] | float,
    groups: Int[Array, "b"] | None = None,
    mask: Mask = None,
) -> Scalar:
    """Symmetric contrastive loss over a batch of pairs (Radford et al. 2021).

    zimg, ztxt have unit norm, t = exp(logit_scale). Pairs of equal `groups` (the same
    caption, say) are each other's positives and share the target, as in UniCL (Yang et
    al. 2022); without groups each pair is its own. Pairs that the mask leaves out are
    no queries and no negatives.
    """
    logits = t * zimg @ ztxt.T
    same = _same_group(groups, groups, len(zimg))
    rows = _soft_xent(logits, same, mask)
    columns = _soft_xent(logits.T, same, mask)
    return (masked_mean(rows, mask) + masked_mean(columns, mask)) / 2


def sharded_clip_loss(
    zimg: Float[Array, "m d"],
    ztxt: Float[Array, "m d"],
    t: Float[Array, ""] | float,
    groups: Int[Array, "m"] | None = None,
    mask: Bool[Array, "m"] | None = None,
    *,
    axis_name: str | tuple[str, ...],
) -> Scalar:
    """clip_loss from inside shard_map: each device holds m rows of the global batch.

    Every device compares its rows with the gathered other side, so the logits in its
    memory are [m, b], not [b, b].
    """

    def gather(x):
        return jax.lax.all_gather(x, axis_name, tiled=True)

    all_zimg, all_ztxt = gather(zimg), gather(ztxt)
    if groups is None:
        m = len(zimg)
        local = jax.lax.axis_index(axis_name) * m + jnp.arange(m)
        everyone = jnp.arange(len(all_zimg))
    else:
        local, everyone = groups, gather(groups)
    same = _same_group(local, everyone, len(zimg))
    counted = None if mask is None else gather(mask)
    rows = _soft_xent(t * zimg @ all_ztxt.T, same, counted)
    columns = _soft_xent(t * ztxt @ all_zimg.T, same, counted)
    if mask is None:
        both = (jnp.mean(rows) + jnp.mean(columns)) / 2
        return jax.lax.pmean(both, axis_name)
    both = jnp.sum(jnp.where(mask, rows + columns, 0.0)) / 2
    both, count = jax.lax.psum((both, jnp.sum(mask)), axis_name)
    return both / jnp.maximum(count, 1)


def _same_group(rows, columns, m: int) -> jax.Array:
    if rows is None:
        return jnp.eye(m)
    return (rows[:, None] == columns[None, :]).astype(jnp.float32)


def _soft_xent(logits: jax.Array, weights: jax.Array, counted=None) -> jax.Array:
    """Cross-entropy [m] against normalised weights [m, b], of the columns counted."""
    if counted is not None:
        # -inf would make nan of it where nothing is left
        logits = jnp.where(counted[None, :], logits, -1e30)
        weights = jnp.where(counted[None, :], weights, 0.0)
    targets = weights / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1)
    return -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def mse_alignment(
    fstudent: Float[Array, "b d"], fteacher: Float[Array, "b d"], mask: Mask = None
) -> Scalar:
    """Mean squared error over all elements of un-normalised features."""
    return masked_mean((fstudent - jax.lax.stop_gradient(fteacher)) ** 2, mask)


def cosine_alignment(
    fstudent: Float[Array, "b d"], fteacher: Float[Array, "b d"], mask: Mask = None
) -> Scalar:
    """Mean of 1 - cosine similarity."""
    zteacher = normalize(jax.lax.stop_gradient(fteacher))
    return masked_mean(1 - jnp.sum(normalize(fstudent) * zteacher, axis=-1), mask)


def smooth_l1_alignment(
    fstudent: Float[Array, "b d"],
    fteacher: Float[Array, "b d"],
    mask: Mask = None,
    beta: float = 1.0,
) -> Scalar:
    """Mean over all elements: squared / (2 beta) below beta, linear above (Huber)."""
    apart = jnp.abs(fstudent - jax.lax.stop_gradient(fteacher))
    huber = jnp.where(apart < beta, apart**2 / (2 * beta), apart - beta / 2)
    return masked_mean(huber, mask)


def relational_alignment(
    fstudent: Float[Array, "b d"], fteacher: Float[Array, "b e"], mask: Mask = None
) -> Scalar:
    """Mean squared error between the batches' cosine-similarity matrices [b, b].

    What is like what, and not where it lies: widths may differ (similarity-preserving
    distillation, Tung & Mori 2019, with unit-norm rows).
    """
    zstudent = normalize(fstudent)
    zteacher = normalize(jax.lax.stop_gradient(fteacher))
    apart = (zstudent @ zstudent.T - zteacher @ zteacher.T) ** 2
    if mask is None:
        return jnp.mean(apart)
    pairs = jnp.outer(mask, mask)
    return jnp.sum(jnp.where(pairs, apart, 0.0)) / jnp.maximum(jnp.sum(pairs), 1)


def sigmoid_contrastive(
    zimg: Float[Array, "b d"],
    ztxt: Float[Array, "b d"],
    t: Float[Array, ""] | float,
    bias: Float[Array, ""] | float = -10.0,
    mask: Mask = None,
) -> Scalar:
    """SigLIP's loss: each of the b * b pairs on its own, summed, over b.

    A pair is right where its rows are the same (Zhai et al. 2023).
    """
    logits = t * zimg @ ztxt.T + bias
    sign = 2 * jnp.eye(len(zimg)) - 1
    each = jax.nn.softplus(-sign * logits)
    if mask is None:
        return jnp.sum(each) / len(zimg)
    kept = jnp.where(jnp.outer(mask, mask), each, 0.0)
    return jnp.sum(kept) / jnp.maximum(jnp.sum(mask), 1)


def softmax_kl(
    logits: Float[Array, "b k"],
    teacher_logits: Float[Array, "b k"],
    mask: Mask = None,
) -> Scalar:
    """KL(teacher || student) between distributions over classes; 0 where they agree."""
    target = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits), axis=-1)
    logp = jax.nn.log_softmax(logits, axis=-1)
    return masked_mean(jnp.sum(jnp.exp(target) * (target - logp), axis=-1), mask)


def sigmoid_kl(
    logits: Float[Array, "b k"],
    teacher_logits: Float[Array, "b k"],
    mask: Mask = None,
) -> Scalar:
    """KL between a Bernoulli distribution a class, mean over examples and classes."""
    teacher = jax.lax.stop_gradient(teacher_logits)
    prob = jax.nn.sigmoid(teacher)
    present = jax.nn.log_sigmoid(teacher) - jax.nn.log_sigmoid(logits)
    absent = jax.nn.log_sigmoid(-teacher) - jax.nn.log_sigmoid(-logits)
    return masked_mean(prob * present + (1 - prob) * absent, mask)


def asymmetric_bce(
    logits: Float[Array, "b k"],
    targets: Float[Array, "b k"] | Int[Array, "b k"],
    mask: Mask = None,
    weights: Float[Array, "k"] | None = None,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> Scalar:
    """Sigmoid BCE whose easy examples count less, negatives more so than positives.

    Ridnik et al. 2021 (ASL): probabilities below `margin` are no negatives at all.
    gammas and margin 0 give sigmoid_bce. weights: of the classes.
    """
    y = targets.astype(logits.dtype)
    prob = jax.nn.sigmoid(logits)
    shifted = jnp.maximum(prob - margin, 0.0)
    # 1 - shifted is no less than a margin; without one it can be too small for a log
    absent = jnp.log1p(-shifted) if margin else -jax.nn.softplus(logits)
    positive = y * _power(1 - prob, gamma_positive) * jax.nn.log_sigmoid(logits)
    negative = (1 - y) * _power(shifted, gamma_negative) * absent
    return -masked_mean((positive + negative) * _row(weights), mask)


def _power(x: jax.Array, gamma: float) -> jax.Array | float:
    return x**gamma if gamma else 1.0  # whose gradient at 0 would be nan


def sigmoid_bce(
    logits: Float[Array, "b k"],
    targets: Float[Array, "b k"] | Int[Array, "b k"],
    mask: Mask = None,
    weights: Float[Array, "k"] | None = None,
) -> Scalar:
    """Binary cross-entropy with logits, mean over examples and classes.

    weights: of the classes.
    """
    targets = targets.astype(logits.dtype)
    # -y log s - (1 - y) log(1 - s)
    each = jax.nn.softplus(logits) - targets * logits
    return masked_mean(each * _row(weights), mask)


def _row(weights: Array | None) -> Array | float:
    return 1.0 if weights is None else weights[None]


def softmax_xent(
    logits: Float[Array, "b k"],
    labels: Int[Array, "b"] | Float[Array, "b k"],
    mask: Mask = None,
    weights: Float[Array, "b"] | None = None,
) -> Scalar:
    """Cross-entropy against class ids [b] or a distribution [b, k] (a teacher's).

    weights: of the examples, whose sum is not divided by.
    """
    logp = jax.nn.log_softmax(logits, axis=-1)
    if labels.ndim == 1:
        each = jnp.take_along_axis(logp, labels[:, None], axis=-1)[:, 0]
    else:
        each = jnp.sum(jax.lax.stop_gradient(labels) * logp, axis=-1)
    return -masked_mean(each if weights is None else each * weights, mask)


def class_balanced_weights(
    counts: Int[np.ndarray, "k"], beta: float
) -> Float[np.ndarray, "k"]:
    """A weight (1 - beta) / (1 - beta^n) a class of n examples; their mean is 1.

    Cui et al. 2019: beta 0 weighs all alike, beta near 1 by 1 / n. A class without
    examples has 1 and does not count in the mean.
    """
    held = counts > 0
    each = (1 - beta) / (1 - beta ** np.maximum(counts, 1))
    return np.where(held, each / each[held].mean(), 1.0).astype(np.float32)


def smooth_labels(labels: Array, classes: int, smoothing: float, task: str) -> Array:
    """Targets [b, k] with that share of an example's (or a yes and no's) mass evened.

    Of task "single" ids [b] become 1 - smoothing + smoothing / k and smoothing / k
    (Szegedy et al. 2016); of "multi" each class is a choice of two: 1 - smoothing / 2
    and smoothing / 2.
    """
    if task == "multi":
        return labels * (1 - smoothing) + smoothing / 2
    return jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def joint_loss(
    logits: Float[Array, "b k"],
    labels: Int[Array, "b"] | Int[Array, "b k"],
    owner: Int[Array, "k"],
    task: str,
) -> Scalar:
    """label_loss of each example over the classes of its own task, mean over the batch.

    Of task "single" labels are places among all k, and the classes of the same owner
    count; of "multi" they are [b, k], those of others -1.
    """
    if task == "single":
        own = owner[labels][:, None] == owner[None]
        return softmax_xent(jnp.where(own, logits, -jnp.inf), labels)
    own = labels >= 0
    each = jax.nn.softplus(logits) - labels * logits
    sums = jnp.sum(jnp.where(own, each, 0.0), axis=-1)
    return jnp.mean(sums / jnp.sum(own, axis=-1))


def label_loss(
    logits: Array,
    labels: Array,
    task: str,
    mask: Mask = None,
    *,
    smoothing: float = 0.0,
    class_weights: Array | None = None,
    asymmetric: Mapping[str, float] | None = None,
) -> Array:
    """Softmax cross-entropy for task "single", sigmoid BCE for task "multi".

    smoothing: see smooth_labels. class_weights [k]: of task "single" an example has
    that of its class. asymmetric: in place of BCE asymmetric_bce, with these options.
    """
    if task not in ("single", "multi"):
        raise ValueError(f"task {task!r} has no labels; 'single' or 'multi' has")
    if asymmetric is not None and task == "single":
        raise ValueError("an asymmetric loss needs several labels an image")
    targets = labels
    if smoothing:
        targets = smooth_labels(labels, logits.shape[-1], smoothing, task)
    if asymmetric is not None:
        return asymmetric_bce(logits, targets, mask, class_weights, **asymmetric)
    if task == "multi":
        return sigmoid_bce(logits, targets, mask, class_weights)
    weights = None if class_weights is None else jnp.asarray(class_weights)[labels]
    return softmax_xent(logits, targets, mask, weights)
