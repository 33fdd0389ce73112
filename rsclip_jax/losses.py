"""Pure losses: each returns a scalar, the mean over the batch.

Every loss takes a mask [b] of bool, True for examples that count. The mean is over
those, and 0 where there are none. No gradient flows into a teacher's argument.
"""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    Array = jax.Array
else:
    Array = jax.Array | np.ndarray  # numpy arrays are accepted, and become jax's
Scalar = Float[jax.Array, ""]


def dot(a: Float[Array, "m d"], b: Float[Array, "d n"]) -> Float[jax.Array, "m n"]:
    """a @ b in full float32, which TPUs and GPUs otherwise shorten to bfloat16 or TF32.

    >>> dot(jnp.ones((1, 2)), jnp.ones((2, 1))).tolist()
    [[2.0]]
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def normalize(x: Float[Array, "*b d"]) -> Float[jax.Array, "*b d"]:
    """Scales the last axis to unit length; a zero vector stays zero.

    >>> [round(float(x), 4) for x in normalize(jnp.array([3.0, 4.0]))]
    [0.6, 0.8]
    """
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


# True for the examples that count.
Mask = Bool[Array, "b"] | None


def masked_mean(values: Array, mask: Array | None) -> jax.Array:
    """Mean of values [b, ...] over the examples that count, 0 where there are none.

    >>> float(masked_mean(jnp.array([1.0, 3.0, 9.0]), jnp.array([True, True, False])))
    2.0
    """
    if mask is None:
        return jnp.mean(values)
    counted = jnp.expand_dims(mask, tuple(range(1, values.ndim)))
    count = jnp.sum(mask) * (values.size // len(values))
    return jnp.sum(jnp.where(counted, values, 0.0)) / jnp.maximum(count, 1)


def clip_loss(
    zimg: Float[Array, "b d"],
    ztxt: Float[Array, "b d"],
    t: Float[Array, ""] | float,
    groups: Int[Array, "b"] | None = None,
    mask: Mask = None,
) -> Scalar:
    """Symmetric contrastive loss over a batch of pairs (Radford et al. 2021).

    Args:
      zimg: image embeddings of unit norm; zimg[i] and ztxt[i] are a pair.
      ztxt: text (or another sensor's) embeddings of unit norm.
      t: exp(logit_scale), which multiplies the cosines.
      groups: pairs of an equal number, such as those of the same caption, are each
        other's positives and share the target, as in UniCL (Yang et al. 2022); without
        groups, each pair's only positive is itself.
      mask: False for pairs that are neither queries nor negatives.

    Returns:
      The mean of both directions' cross-entropies, each averaged over the pairs.

    >>> z = jnp.eye(2)
    >>> round(float(clip_loss(z, z, t=np.log(3.0))), 4)  # each finds its pair at 3/4
    0.2877
    """
    logits = dot(t * zimg, ztxt.T)
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
    """clip_loss inside shard_map, where each device holds m pairs of the global batch.

    Each device compares its pairs with the gathered other side, so its memory holds
    logits [m, b] and not [b, b].

    Args:
      zimg, ztxt, groups, mask: the device's part of clip_loss's arguments.
      t: as for clip_loss.
      axis_name: the mesh axes that the batch is split over.

    Returns:
      clip_loss of the global batch, equal on all devices.

    >>> import functools
    >>> from jax.sharding import Mesh, PartitionSpec as P
    >>> loss = functools.partial(sharded_clip_loss, t=np.log(3.0), axis_name="data")
    >>> mesh = Mesh(jax.devices()[:2], ("data",))
    >>> sharded = jax.shard_map(loss, mesh=mesh, in_specs=P("data"), out_specs=P())
    >>> round(float(jax.jit(sharded)(jnp.eye(2), jnp.eye(2))), 4)
    0.2877
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
    rows = _soft_xent(dot(t * zimg, all_ztxt.T), same, counted)
    columns = _soft_xent(dot(t * ztxt, all_zimg.T), same, counted)
    if mask is None:
        both = (jnp.mean(rows) + jnp.mean(columns)) / 2
        return jax.lax.pmean(both, axis_name)
    both = jnp.sum(jnp.where(mask, rows + columns, 0.0)) / 2
    both, count = jax.lax.psum((both, jnp.sum(mask)), axis_name)
    return both / jnp.maximum(count, 1)


def ring_clip_loss(
    zimg: Float[Array, "m d"],
    ztxt: Float[Array, "m d"],
    t: Float[Array, ""] | float,
    groups: Int[Array, "m"] | None = None,
    mask: Bool[Array, "m"] | None = None,
    *,
    axis_name: str | tuple[str, ...],
) -> Scalar:
    """sharded_clip_loss with logits [m, m] at a time, whatever the number of devices.

    The texts travel around the ring of devices; each device keeps a running logsumexp
    of its images, and each text that of itself. The backward pass goes around again
    and computes the logits anew, so that it keeps no more than the forward pass (as in
    ring attention, Liu et al. 2023, arXiv 2310.01889).

    Args, returns: as for sharded_clip_loss.

    >>> import functools
    >>> from jax.sharding import Mesh, PartitionSpec as P
    >>> loss = functools.partial(ring_clip_loss, t=np.log(3.0), axis_name="data")
    >>> mesh = Mesh(jax.devices()[:2], ("data",))
    >>> ring = jax.shard_map(loss, mesh=mesh, in_specs=P("data"), out_specs=P())
    >>> round(float(jax.jit(ring)(jnp.eye(2), jnp.eye(2))), 4)
    0.2877
    """
    m = len(zimg)
    if groups is None:
        groups = jax.lax.axis_index(axis_name) * m + jnp.arange(m)
    # a float, so that what differentiates the loss finds a gradient of zeros
    counted = jnp.ones_like(zimg[:, 0]) if mask is None else mask.astype(zimg.dtype)
    scale = jnp.asarray(t, zimg.dtype)
    return _ring_loss(axis_name, zimg, ztxt, scale, groups, counted)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring_loss(axis_name, zimg, ztxt, t, groups, counted):
    return _ring_forward(axis_name, zimg, ztxt, t, groups, counted)[0]


def _ring_forward(axis_name, zimg, ztxt, t, groups, counted):
    rows, columns = _ring_sums(axis_name, zimg, ztxt, t, groups, counted)
    count = jnp.maximum(jax.lax.psum(jnp.sum(counted), axis_name), 1)
    both = jnp.sum(counted * (_xent_of(rows) + _xent_of(columns))) / 2
    loss = jax.lax.psum(both, axis_name) / count
    kept = zimg, ztxt, t, groups, counted, _ends_of(rows), _ends_of(columns), count
    return loss, kept


def _ring_sums(axis_name, zimg, ztxt, t, groups, counted):
    """(the sums over all texts of each image, over all images of each text)."""
    image = zimg, groups, counted

    def visit(rows, text):
        ztxt, its_groups, its_counted, columns = text
        logits, same, pair = _ring_block(image, (ztxt, its_groups, its_counted), t)
        rows = _add_to(rows, logits, same, pair)
        columns = _add_to(columns, logits.T, same.T, pair.T)
        return rows, (ztxt, its_groups, its_counted, columns)

    start = jnp.full_like(counted, -1e30) * jnp.ones_like(zimg[:, 0])
    empty = start, counted * 0, counted * 0, counted * 0
    text = ztxt, groups, counted, empty
    rows, (*_, columns) = _around(axis_name, visit, empty, text)
    return rows, columns


def _around(axis_name, visit, own, guest):
    """visit(own, guest) -> (own, guest) for each device's guest, which then is home."""
    count = jax.lax.axis_size(axis_name)
    ring = [(i, (i + 1) % count) for i in range(count)]

    def step(both, _):
        own, guest = visit(*both)
        return (own, jax.lax.ppermute(guest, axis_name, ring)), None

    (own, guest), _ = jax.lax.scan(step, (own, guest), None, length=count)
    return own, guest


def _ring_block(image, text, t):
    """(logits, 1 for positives, 1 for pairs that both count), each [m, m]."""
    (zimg, groups, counted), (ztxt, its_groups, its_counted) = image, text
    pair = counted[:, None] * its_counted[None]
    same = pair * (groups[:, None] == its_groups[None])
    return dot(t * zimg, ztxt.T), same, pair


def _add_to(sums, logits, same, pair):
    """Adds a block of columns to each row's (max, sum of exp, of positives, count)."""
    highest, total, positives, count = sums
    shown = jnp.where(pair > 0, logits, -1e30)
    new = jnp.maximum(highest, shown.max(axis=1))
    total = total * jnp.exp(highest - new)
    total += jnp.sum(pair * jnp.exp(shown - new[:, None]), axis=1)
    positives += jnp.sum(same * logits, axis=1)
    return new, total, positives, count + same.sum(axis=1)


def _xent_of(sums) -> jax.Array:
    """Cross-entropy [m] against equal weights of the positives."""
    highest, total, positives, count = sums
    logsumexp = highest + jnp.log(jnp.maximum(total, 1e-37))
    return jnp.where(count > 0, logsumexp - positives / jnp.maximum(count, 1), 0.0)


def _ends_of(sums) -> tuple[jax.Array, jax.Array]:
    """(logsumexp, number of positives) [m]."""
    highest, total, _, count = sums
    return highest + jnp.log(jnp.maximum(total, 1e-37)), count


def _ring_backward(axis_name, kept, g):
    zimg, ztxt, t, groups, counted, (row_lse, row_count), columns, count = kept
    image = zimg, groups, counted

    def slope(logits, same, pair, lse, positives):
        """d(cross-entropy of a row) / d(its logits), where the row has positives."""
        weights = same / jnp.maximum(positives, 1)[:, None]
        prob = pair * jnp.exp(jnp.where(pair > 0, logits - lse[:, None], -1e30))
        return (prob - weights) * (positives > 0)[:, None]

    def visit(own, text):
        dimage, dt = own
        ztxt, its_groups, its_counted, (lse, positives), dtext = text
        logits, same, pair = _ring_block(image, (ztxt, its_groups, its_counted), t)
        both = slope(logits, same, pair, row_lse, row_count)
        both += slope(logits.T, same.T, pair.T, lse, positives).T
        both *= g / (2 * count)
        dt += jnp.sum(both * dot(zimg, ztxt.T))
        dtext += t * dot(both.T, zimg)
        text = ztxt, its_groups, its_counted, (lse, positives), dtext
        return (dimage + t * dot(both, ztxt), dt), text

    own = jnp.zeros_like(zimg) + 0 * zimg, 0 * jnp.sum(counted)
    text = ztxt, groups, counted, columns, jnp.zeros_like(ztxt) + 0 * ztxt
    (dimage, dt), (*_, dtext) = _around(axis_name, visit, own, text)
    none = np.zeros(groups.shape, jax.dtypes.float0)
    return dimage, dtext, jax.lax.psum(dt, axis_name), none, 0 * counted


_ring_loss.defvjp(_ring_forward, _ring_backward)


def _same_group(rows, columns, m: int) -> jax.Array:
    if rows is None:
        return jnp.eye(m)
    return (rows[:, None] == columns[None, :]).astype(jnp.float32)


def _soft_xent(logits: jax.Array, weights: jax.Array, counted=None) -> jax.Array:
    """Cross-entropy [m] against normalised weights [m, b], over the counted columns."""
    if counted is not None:
        # -inf would give nan where no column counts
        logits = jnp.where(counted[None, :], logits, -1e30)
        weights = jnp.where(counted[None, :], weights, 0.0)
    targets = weights / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1)
    return -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def mse_alignment(
    fstudent: Float[Array, "b d"], fteacher: Float[Array, "b d"], mask: Mask = None
) -> Scalar:
    """Mean squared error over all elements of features before normalisation.

    >>> float(mse_alignment(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]])))
    2.0
    """
    return masked_mean((fstudent - jax.lax.stop_gradient(fteacher)) ** 2, mask)


def cosine_alignment(
    fstudent: Float[Array, "b d"], fteacher: Float[Array, "b d"], mask: Mask = None
) -> Scalar:
    """Mean of 1 - cosine similarity, which is blind to the features' lengths.

    >>> float(cosine_alignment(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 3.0]])))
    1.0
    """
    zteacher = normalize(jax.lax.stop_gradient(fteacher))
    return masked_mean(1 - jnp.sum(normalize(fstudent) * zteacher, axis=-1), mask)


def smooth_l1_alignment(
    fstudent: Float[Array, "b d"],
    fteacher: Float[Array, "b d"],
    mask: Mask = None,
    beta: float = 1.0,
) -> Scalar:
    """Smooth L1 (Huber 1964): quadratic for differences below beta, linear above.

    An element's loss is diff^2 / (2 beta) or |diff| - beta / 2; the mean is over all
    elements.

    >>> student, teacher = jnp.array([[0.5, 3.0]]), jnp.zeros((1, 2))
    >>> float(smooth_l1_alignment(student, teacher))  # (0.125 + 2.5) / 2
    1.3125
    """
    apart = jnp.abs(fstudent - jax.lax.stop_gradient(fteacher))
    huber = jnp.where(apart < beta, apart**2 / (2 * beta), apart - beta / 2)
    return masked_mean(huber, mask)


def relational_alignment(
    fstudent: Float[Array, "b d"], fteacher: Float[Array, "b e"], mask: Mask = None
) -> Scalar:
    """Mean squared error between the batches' cosine-similarity matrices [b, b].

    It compares which examples resemble each other and not where their features lie, so
    the widths d and e may differ (similarity-preserving distillation, Tung & Mori 2019,
    with features of unit norm).

    >>> relations = relational_alignment(jnp.eye(2), jnp.ones((2, 3)))
    >>> round(float(relations), 4)  # cosines 0 and 1, in two of four pairs
    0.5
    """
    zstudent = normalize(fstudent)
    zteacher = normalize(jax.lax.stop_gradient(fteacher))
    apart = (dot(zstudent, zstudent.T) - dot(zteacher, zteacher.T)) ** 2
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
    """SigLIP's sigmoid loss over all b * b image-text pairs (Zhai et al. 2023).

    Args:
      zimg: image embeddings of unit norm; only zimg[i] and ztxt[i] are a pair.
      ztxt: text embeddings of unit norm.
      t: exp(logit_scale), which multiplies the cosines.
      bias: added to every logit; below zero since most pairs do not match.
      mask: False for examples that are in no pair.

    Returns:
      The sum of the b * b binary cross-entropies over b.

    >>> z = jnp.eye(2)  # of four pairs two have logit 2, two -2: both right
    >>> round(float(sigmoid_contrastive(z, z, t=4.0, bias=-2.0)), 4)
    0.2539
    """
    logits = dot(t * zimg, ztxt.T) + bias
    sign = 2 * jnp.eye(len(zimg)) - 1
    each = jax.nn.softplus(-sign * logits)
    if mask is None:
        return jnp.sum(each) / len(zimg)
    kept = jnp.where(jnp.outer(mask, mask), each, 0.0)
    return jnp.sum(kept) / jnp.maximum(jnp.sum(mask), 1)


def softmax_kl(
    logits: Float[Array, "b k"], teacher_logits: Float[Array, "b k"], mask: Mask = None
) -> Scalar:
    """KL(teacher || student) between softmax distributions over k classes.

    >>> teacher, student = jnp.array([[0.0, jnp.log(3.0)]]), jnp.zeros((1, 2))
    >>> round(float(softmax_kl(student, teacher)), 4)  # log 2 - entropy of (1/4, 3/4)
    0.1308
    """
    target = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits), axis=-1)
    logp = jax.nn.log_softmax(logits, axis=-1)
    return masked_mean(jnp.sum(jnp.exp(target) * (target - logp), axis=-1), mask)


def sigmoid_kl(
    logits: Float[Array, "b k"], teacher_logits: Float[Array, "b k"], mask: Mask = None
) -> Scalar:
    """KL(teacher || student) between one Bernoulli distribution per class.

    The mean is over examples and classes.

    >>> teacher, student = jnp.array([[jnp.log(3.0)]]), jnp.zeros((1, 1))
    >>> round(float(sigmoid_kl(student, teacher)), 4)  # log 2 - entropy of (1/4, 3/4)
    0.1308
    """
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
    """Sigmoid BCE that counts easy negatives less (ASL, Ridnik et al. 2021).

    Args:
      logits: one for each class.
      targets: 1 where the class is present, 0 where it is not, or probabilities.
      mask: examples where it is False do not count.
      weights: one for each class, by which its loss is multiplied.
      gamma_positive: how strongly confident positives are discounted; 0 is not.
      gamma_negative: the same for negatives.
      margin: negatives with a probability below it have no loss.

    Returns:
      The mean over examples and classes; sigmoid_bce where gammas and margin are 0.

    >>> easy, hard = jnp.array([[-4.0]]), jnp.array([[4.0]])
    >>> absent = jnp.zeros((1, 1), jnp.int32)
    >>> float(asymmetric_bce(easy, absent))  # its probability 0.018 is below the margin
    0.0
    >>> round(float(asymmetric_bce(hard, absent)), 2)  # -0.932^4 log(1 - 0.932)
    2.03
    """
    y = targets.astype(logits.dtype)
    prob = jax.nn.sigmoid(logits)
    shifted = jnp.maximum(prob - margin, 0.0)
    # with a margin, 1 - shifted is at least that; without, it can underflow in a log
    absent = jnp.log1p(-shifted) if margin else -jax.nn.softplus(logits)
    positive = y * _power(1 - prob, gamma_positive) * jax.nn.log_sigmoid(logits)
    negative = (1 - y) * _power(shifted, gamma_negative) * absent
    return -masked_mean((positive + negative) * _per_class(weights), mask)


def _power(x: jax.Array, gamma: float) -> jax.Array | float:
    return x**gamma if gamma else 1.0  # the gradient of x**0 at x = 0 is nan


def sigmoid_bce(
    logits: Float[Array, "b k"],
    targets: Float[Array, "b k"] | Int[Array, "b k"],
    mask: Mask = None,
    weights: Float[Array, "k"] | None = None,
) -> Scalar:
    """Binary cross-entropy with logits, the mean over examples and classes.

    Args:
      logits: one for each class.
      targets: 1 where the class is present, 0 where it is not, or probabilities.
      mask: examples where it is False do not count.
      weights: one for each class, by which its loss is multiplied.

    >>> logits, targets = jnp.array([[0.0, jnp.log(3.0)]]), jnp.array([[1, 0]])
    >>> round(float(sigmoid_bce(logits, targets)), 4)  # (log 2 + log 4) / 2
    1.0397
    """
    targets = targets.astype(logits.dtype)
    # -y log s - (1 - y) log(1 - s)
    each = jax.nn.softplus(logits) - targets * logits
    return masked_mean(each * _per_class(weights), mask)


def _per_class(weights: Array | None) -> Array | float:
    return 1.0 if weights is None else weights[None]


def softmax_xent(
    logits: Float[Array, "b k"],
    labels: Int[Array, "b"] | Float[Array, "b k"],
    mask: Mask = None,
    weights: Float[Array, "b"] | None = None,
) -> Scalar:
    """Cross-entropy of a softmax, the mean over examples.

    Args:
      logits: one for each class.
      labels: class ids [b], or distributions over classes [b, k], such as a teacher's.
      mask: examples where it is False do not count.
      weights: one for each example, by which its loss is multiplied; the mean still
        divides by the number of examples.

    >>> logits = jnp.array([[0.0, jnp.log(3.0)]])
    >>> round(float(softmax_xent(logits, jnp.array([1]))), 4)  # -log(3/4)
    0.2877
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
    """Class weights by the effective number of examples (Cui et al. 2019).

    Args:
      counts: the number n of examples of each class.
      beta: 0 weighs all classes alike; near 1 weighs them by 1 / n.

    Returns:
      (1 - beta) / (1 - beta^n) for each class, scaled to a mean of 1. A class without
      examples has weight 1 and does not count in that mean.

    >>> print(class_balanced_weights(np.array([1, 3, 0]), beta=0.999).round(2))
    [1.5 0.5 1. ]
    """
    held = counts > 0
    each = (1 - beta) / (1 - beta ** np.maximum(counts, 1))
    return np.where(held, each / each[held].mean(), 1.0).astype(np.float32)


def smooth_labels(labels: Array, classes: int, smoothing: float, task: str) -> Array:
    """Label smoothing (Szegedy et al. 2016).

    Args:
      labels: class ids [b] for task "single", multi-hot [b, k] for "multi".
      classes: k.
      smoothing: the share of each target that is spread evenly, 0 to 1.
      task: "single" spreads it over the k classes; "multi" over a class's presence and
        absence, so that targets become 1 - smoothing / 2 and smoothing / 2.

    Returns:
      Targets [b, k].

    >>> print(smooth_labels(jnp.array([1]), 2, smoothing=0.25, task="single"))
    [[0.125 0.875]]
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
    """label_loss over several datasets, each example against its own dataset's classes.

    Args:
      logits: over the k classes of all datasets.
      labels: for task "single" indices among all k; for "multi" [b, k] of 0 and 1, and
        -1 for classes of other datasets.
      owner: the dataset's index of each class.
      task: "single" or "multi".

    Returns:
      The mean over the batch.

    >>> owner, labels = jnp.array([0, 0, 1, 1, 1]), jnp.array([0, 4])
    >>> loss = joint_loss(jnp.zeros((2, 5)), labels, owner, "single")
    >>> round(float(loss), 4)  # chance among two and among three: (log 2 + log 3) / 2
    0.8959
    """
    if task == "single":
        same = owner[labels][:, None] == owner[None]
        return softmax_xent(jnp.where(same, logits, -jnp.inf), labels)
    same = labels >= 0
    each = jax.nn.softplus(logits) - labels * logits
    sums = jnp.sum(jnp.where(same, each, 0.0), axis=-1)
    return jnp.mean(sums / jnp.sum(same, axis=-1))


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

    Args:
      logits: [b, k].
      labels: class ids [b] for task "single", multi-hot [b, k] for "multi".
      task: "single" (one label per image) or "multi" (any number).
      mask: examples where it is False do not count.
      smoothing: as in smooth_labels.
      class_weights: [k]; with task "single" an example has the weight of its class.
      asymmetric: options of asymmetric_bce, which then replaces BCE.

    Returns:
      The mean over the batch.

    Raises:
      ValueError: for another task, and for asymmetric with task "single".

    >>> loss = label_loss(jnp.zeros((1, 4)), jnp.array([2]), "single")
    >>> round(float(loss), 4)  # log 4
    1.3863
    """
    if task not in ("single", "multi"):
        raise ValueError(f"task is {task!r}; only 'single' and 'multi' have labels")
    if asymmetric is not None and task == "single":
        raise ValueError(
            f"asymmetric = {dict(asymmetric)} needs several labels per image (task"
            " 'multi'), got task 'single': leave it out"
        )
    targets = labels
    if smoothing:
        targets = smooth_labels(labels, logits.shape[-1], smoothing, task)
    if asymmetric is not None:
        return asymmetric_bce(logits, targets, mask, class_weights, **asymmetric)
    if task == "multi":
        return sigmoid_bce(logits, targets, mask, class_weights)
    weights = None if class_weights is None else jnp.asarray(class_weights)[labels]
    return softmax_xent(logits, targets, mask, weights)
