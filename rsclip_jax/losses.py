"""Pure losses, a scalar mean over the batch, and builders of each stage's loss_fn."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    Array = jax.Array
else:
    Array = jax.Array | np.ndarray  # numpy arrays are welcome, and become jax's
Scalar = Float[jax.Array, ""]
PyTree = Any
# (params, batch) -> un-normalised features [b, d]
Encode = Callable[[PyTree, dict[str, Any]], jax.Array]


def normalize(x: Float[Array, "*b d"]) -> Float[jax.Array, "*b d"]:
    """Scales the last axis to unit length; a zero vector stays zero."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def clip_loss(
    zimg: Float[Array, "b d"],
    ztxt: Float[Array, "b d"],
    t: Float[Array, ""] | float,
    groups: Int[Array, "b"] | None = None,
) -> Scalar:
    """Symmetric contrastive loss over a batch of pairs (Radford et al. 2021).

    zimg, ztxt have unit norm, t = exp(logit_scale). Pairs of equal `groups` (the same
    caption, say) are each other's positives and share the target, as in UniCL (Yang et
    al. 2022); without groups each pair is its own.
    """
    logits = t * zimg @ ztxt.T
    same = _same_group(groups, groups, len(zimg))
    return (_soft_xent(logits, same) + _soft_xent(logits.T, same)) / 2


def sharded_clip_loss(
    zimg: Float[Array, "m d"],
    ztxt: Float[Array, "m d"],
    t: Float[Array, ""] | float,
    groups: Int[Array, "m"] | None = None,
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
    rows = _soft_xent(t * zimg @ all_ztxt.T, same)
    columns = _soft_xent(t * ztxt @ all_zimg.T, same)
    return jax.lax.pmean((rows + columns) / 2, axis_name)


def _same_group(rows, columns, m: int) -> jax.Array:
    if rows is None:
        return jnp.eye(m)
    return (rows[:, None] == columns[None, :]).astype(jnp.float32)


def _soft_xent(logits: jax.Array, weights: jax.Array) -> jax.Array:
    targets = weights / weights.sum(axis=-1, keepdims=True)
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1))


def mse_alignment(
    fstudent: Float[Array, "b d"], fteacher: Float[Array, "b d"]
) -> Scalar:
    """Mean squared error over all elements of un-normalised features."""
    return jnp.mean((fstudent - jax.lax.stop_gradient(fteacher)) ** 2)


def cosine_alignment(
    fstudent: Float[Array, "b d"], fteacher: Float[Array, "b d"]
) -> Scalar:
    """Mean of 1 - cosine similarity."""
    zteacher = normalize(jax.lax.stop_gradient(fteacher))
    return jnp.mean(1 - jnp.sum(normalize(fstudent) * zteacher, axis=-1))


def smooth_l1_alignment(
    fstudent: Float[Array, "b d"], fteacher: Float[Array, "b d"], beta: float = 1.0
) -> Scalar:
    """Mean over all elements: squared / (2 beta) below beta, linear above (Huber)."""
    apart = jnp.abs(fstudent - jax.lax.stop_gradient(fteacher))
    return jnp.mean(jnp.where(apart < beta, apart**2 / (2 * beta), apart - beta / 2))


def relational_alignment(
    fstudent: Float[Array, "b d"], fteacher: Float[Array, "b e"]
) -> Scalar:
    """Mean squared error between the batches' cosine-similarity matrices [b, b].

    What is like what, and not where it lies: widths may differ (similarity-preserving
    distillation, Tung & Mori 2019, with unit-norm rows).
    """
    zstudent = normalize(fstudent)
    zteacher = normalize(jax.lax.stop_gradient(fteacher))
    return jnp.mean((zstudent @ zstudent.T - zteacher @ zteacher.T) ** 2)


def sigmoid_contrastive(
    zimg: Float[Array, "b d"],
    ztxt: Float[Array, "b d"],
    t: Float[Array, ""] | float,
    bias: Float[Array, ""] | float = -10.0,
) -> Scalar:
    """SigLIP's loss: each of the b * b pairs on its own, summed, over b.

    A pair is right where its rows are the same (Zhai et al. 2023).
    """
    logits = t * zimg @ ztxt.T + bias
    sign = 2 * jnp.eye(len(zimg)) - 1
    return jnp.sum(jax.nn.softplus(-sign * logits)) / len(zimg)


def softmax_kl(
    logits: Float[Array, "b k"], teacher_logits: Float[Array, "b k"]
) -> Scalar:
    """KL(teacher || student) between distributions over classes; 0 where they agree."""
    target = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits), axis=-1)
    logp = jax.nn.log_softmax(logits, axis=-1)
    return jnp.mean(jnp.sum(jnp.exp(target) * (target - logp), axis=-1))


def sigmoid_kl(
    logits: Float[Array, "b k"], teacher_logits: Float[Array, "b k"]
) -> Scalar:
    """KL between a Bernoulli distribution a class, mean over examples and classes."""
    teacher = jax.lax.stop_gradient(teacher_logits)
    prob = jax.nn.sigmoid(teacher)
    present = jax.nn.log_sigmoid(teacher) - jax.nn.log_sigmoid(logits)
    absent = jax.nn.log_sigmoid(-teacher) - jax.nn.log_sigmoid(-logits)
    return jnp.mean(prob * present + (1 - prob) * absent)


def asymmetric_bce(
    logits: Float[Array, "b k"],
    targets: Float[Array, "b k"] | Int[Array, "b k"],
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> Scalar:
    """Sigmoid BCE whose easy examples count less, negatives more so than positives.

    Ridnik et al. 2021 (ASL): probabilities below `margin` are no negatives at all.
    gammas and margin 0 give sigmoid_bce.
    """
    y = targets.astype(logits.dtype)
    prob = jax.nn.sigmoid(logits)
    shifted = jnp.maximum(prob - margin, 0.0)
    # 1 - shifted is no less than a margin; without one it can be too small for a log
    absent = jnp.log1p(-shifted) if margin else -jax.nn.softplus(logits)
    positive = y * _power(1 - prob, gamma_positive) * jax.nn.log_sigmoid(logits)
    negative = (1 - y) * _power(shifted, gamma_negative) * absent
    return -jnp.mean(positive + negative)


def _power(x: jax.Array, gamma: float) -> jax.Array | float:
    return x**gamma if gamma else 1.0  # whose gradient at 0 would be nan


def sigmoid_bce(
    logits: Float[Array, "b k"], targets: Float[Array, "b k"] | Int[Array, "b k"]
) -> Scalar:
    """Binary cross-entropy with logits, mean over examples and classes."""
    targets = targets.astype(logits.dtype)
    return jnp.mean(
        jax.nn.softplus(logits) - targets * logits  # -y log s - (1 - y) log(1 - s)
    )


def softmax_xent(
    logits: Float[Array, "b k"], labels: Int[Array, "b"] | Float[Array, "b k"]
) -> Scalar:
    """Cross-entropy against class ids [b] or a distribution [b, k] (a teacher's)."""
    logp = jax.nn.log_softmax(logits, axis=-1)
    if labels.ndim == 1:
        return -jnp.mean(jnp.take_along_axis(logp, labels[:, None], axis=-1))
    return -jnp.mean(jnp.sum(jax.lax.stop_gradient(labels) * logp, axis=-1))


def make_contrastive_loss(
    encode_image: Encode, encode_text: Encode, contrastive: Callable[..., jax.Array]
):
    """loss_fn of stage pretrain; params hold logit_scale, the batch text and group.

    contrastive(zimg, ztxt, t, groups) is clip_loss or sharding.make_clip_loss's.
    """

    def loss_fn(params, frozen, batch):
        del frozen
        zimg = normalize(encode_image(params, batch))
        ztxt = normalize(encode_text(params, batch))
        # CLIP's bound: a temperature above 100 makes training unstable
        t = jnp.exp(jnp.minimum(params["logit_scale"], jnp.log(100.0)))
        return contrastive(zimg, ztxt, t, batch["group"]), {"logit_scale_exp": t}

    return loss_fn


def make_patch_loss(encode: Encode, task: str):
    """loss_fn of stage patch: labels through frozen["head"] [d, k], scale included."""

    def loss_fn(params, frozen, batch):
        logits = normalize(encode(params, batch)) @ frozen["head"]
        return label_loss(logits, batch["label"], task), {}

    return loss_fn


def make_joint_loss(encode: Encode, task: str):
    """loss_fn of several tasks in one: each example through its own task's classes.

    frozen["head"] [d, k] has the heads of all side by side, frozen["owner"] [k] the
    task of each class; labels are joint_loss's.
    """

    def loss_fn(params, frozen, batch):
        logits = normalize(encode(params, batch)) @ frozen["head"]
        return joint_loss(logits, batch["label"], frozen["owner"], task), {}

    return loss_fn


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


# A term's weight: a number, or (first, last), on a line between them over training.
Weight = float | tuple[float, float]
FEATURE_TERMS = {
    "mse": mse_alignment,
    "cosine": cosine_alignment,
    "smooth_l1": smooth_l1_alignment,
    "relational": relational_alignment,
}
PAIR_TERMS = ("info_nce", "sigmoid")
LABEL_TERMS = ("labels", "soft_labels")
ALIGN_TERMS = (*FEATURE_TERMS, *PAIR_TERMS, *LABEL_TERMS)


def make_align_loss(
    encode_student: Encode,
    encode_teacher: Encode,
    *,
    terms: Mapping[str, Weight],
    task: str = "none",
    steps: int = 1,
    t: float = 10.0,
    contrastive: Callable[..., jax.Array] = clip_loss,
):
    """loss_fn of stage align: the weighted sum of terms, each a name in ALIGN_TERMS.

    Between features and frozen["teacher"]'s: mse, cosine, smooth_l1, relational. With
    the other places of the batch as negatives, at scale t: info_nce (by contrastive, as
    in make_contrastive_loss), sigmoid. Through frozen["head"]: labels (the batch's, of
    the task) and soft_labels (KL to the teacher's own zero-shot distribution; of task
    "multi" a Bernoulli a class), which needs neither label nor caption. Zavras et al.
    2024 have {"mse": 1, "labels": 0.05}. Weights on a line need batch["step"] and
    steps. Raises ValueError for a term that is not known.
    """
    if unknown := set(terms) - set(ALIGN_TERMS):
        raise ValueError(f"terms {sorted(unknown)} are none of {ALIGN_TERMS}")

    def term(name, fstudent, fteacher, frozen, batch):
        if name in FEATURE_TERMS:
            return FEATURE_TERMS[name](fstudent, fteacher)
        zstudent, zteacher = normalize(fstudent), normalize(fteacher)
        if name == "info_nce":
            return contrastive(zstudent, zteacher, t, jnp.arange(len(zstudent)))
        if name == "sigmoid":
            return sigmoid_contrastive(zstudent, zteacher, t)
        logits = zstudent @ frozen["head"]
        if name == "labels":
            return label_loss(logits, batch["label"], task)
        kl = sigmoid_kl if task == "multi" else softmax_kl
        return kl(logits, zteacher @ frozen["head"])

    def loss_fn(params, frozen, batch):
        fstudent = encode_student(params, batch)
        fteacher = jax.lax.stop_gradient(encode_teacher(frozen["teacher"], batch))
        values = {n: term(n, fstudent, fteacher, frozen, batch) for n in terms}
        total = sum(_weight_at(terms[n], batch, steps) * v for n, v in values.items())
        return total, values

    return loss_fn


def _weight_at(weight: Weight, batch: Mapping, steps: int) -> jax.Array | float:
    if not isinstance(weight, tuple):
        return weight
    done = batch["step"] / max(steps - 1, 1)
    return weight[0] + (weight[1] - weight[0]) * done


def label_loss(logits: Array, labels: Array, task: str) -> Array:
    """Softmax cross-entropy for task "single", sigmoid BCE for task "multi"."""
    if task == "single":
        return softmax_xent(logits, labels)
    if task == "multi":
        return sigmoid_bce(logits, labels)
    raise ValueError(f"task {task!r} has no labels; 'single' or 'multi' has")
