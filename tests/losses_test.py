"""Losses against loops in numpy, scikit-learn and hand-computed values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from rsclip_jax import losses
from tests.helpers.by_hand import clip_loss_by_hand, draw, log_softmax_by_hand, unit
from tests.helpers.doc_examples import run_examples


@pytest.mark.parametrize("groups", [None, [0, 1, 2, 0, 3, 1, 0]])
@pytest.mark.parametrize("t", [1.0, 14.3, 100.0])
def test_clip_loss_equals_a_loop_over_pairs(groups, t):
    zimg, ztxt = unit(draw(0, 7, 5)), unit(draw(1, 7, 5))
    ids = None if groups is None else jnp.array(groups)
    got = losses.clip_loss(jnp.array(zimg), jnp.array(ztxt), t, ids)
    want = clip_loss_by_hand(zimg, ztxt, t, groups)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_clip_loss_by_hand():
    # logits [[log 3, 0], [0, log 3]]: each row gives its match 3/4
    z = jnp.eye(2)
    np.testing.assert_allclose(
        losses.clip_loss(z, z, np.log(3.0)), -np.log(3 / 4), rtol=1e-6
    )


def test_clip_loss_groups_change_the_value():
    z = jnp.eye(4)
    alone = losses.clip_loss(z, z, 10.0)
    distinct = losses.clip_loss(z, z, 10.0, jnp.array([5, 3, 9, 1]))
    shared = losses.clip_loss(z, z, 10.0, jnp.array([0, 0, 1, 1]))
    np.testing.assert_allclose(alone, distinct, rtol=1e-6)
    # half of each row's target lies on an orthogonal embedding, 10 below its own
    np.testing.assert_allclose(shared, alone + 5, rtol=1e-5)


def test_clip_loss_bounds():
    zimg, ztxt = jnp.array(unit(draw(2, 8, 6))), jnp.array(unit(draw(3, 8, 6)))
    np.testing.assert_allclose(losses.clip_loss(zimg, ztxt, 0.0), np.log(8), rtol=1e-6)
    for t in (1.0, 10.0, 100.0):
        loss = float(losses.clip_loss(zimg, ztxt, t))
        assert 0 < loss <= np.log(8) + 2 * t
    assert float(losses.clip_loss(jnp.eye(8), jnp.eye(8), 100.0)) < 1e-6
    # the worst case: opposite to its own match and equal to the other's
    pair = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(losses.clip_loss(pair, -pair, 100.0), 200, rtol=1e-6)


def test_clip_loss_is_symmetric_and_blind_to_order():
    zimg, ztxt = jnp.array(unit(draw(4, 6, 5))), jnp.array(unit(draw(5, 6, 5)))
    want = losses.clip_loss(zimg, ztxt, 20.0)
    np.testing.assert_allclose(losses.clip_loss(ztxt, zimg, 20.0), want, rtol=1e-6)
    order = np.random.default_rng(0).permutation(6)
    got = losses.clip_loss(zimg[order], ztxt[order], 20.0)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert abs(losses.clip_loss(zimg[order], ztxt, 20.0) - want) > 0.1


def test_softmax_xent_equals_scikit_learn():
    logits, labels = draw(0, 9, 4), np.array([0, 1, 2, 3, 0, 1, 2, 3, 3])
    prob = np.exp([log_softmax_by_hand(row) for row in logits])
    want = sklearn.metrics.log_loss(labels, prob)
    got = losses.softmax_xent(jnp.array(logits), jnp.array(labels))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    one_hot = jnp.array(np.eye(4, dtype=np.float32)[labels])
    np.testing.assert_allclose(
        losses.softmax_xent(jnp.array(logits), one_hot), want, rtol=1e-5
    )


def test_softmax_xent_of_a_distribution_by_hand():
    # log-probabilities log(1/4), log(3/4) under the target (1/2, 1/2)
    logits, target = jnp.array([[0.0, np.log(3.0)]]), jnp.array([[0.5, 0.5]])
    want = -(np.log(1 / 4) + np.log(3 / 4)) / 2
    np.testing.assert_allclose(losses.softmax_xent(logits, target), want, rtol=1e-6)


def test_sigmoid_bce_equals_scikit_learn():
    logits = draw(1, 12, 3)
    targets = np.random.default_rng(0).integers(0, 2, (12, 3))
    prob = 1 / (1 + np.exp(-logits.astype(np.float64)))
    columns = [
        sklearn.metrics.log_loss(targets[:, c], prob[:, c], labels=[0, 1])
        for c in range(3)
    ]
    got = losses.sigmoid_bce(jnp.array(logits), jnp.array(targets))
    np.testing.assert_allclose(got, np.mean(columns), rtol=1e-5)


def test_sigmoid_bce_by_hand():
    # sigmoid(log 3) = 3/4
    logits, targets = jnp.array([[0.0, np.log(3.0)]]), jnp.array([[1, 0]])
    want = (np.log(2) - np.log(1 / 4)) / 2
    np.testing.assert_allclose(losses.sigmoid_bce(logits, targets), want, rtol=1e-6)
    soft = jnp.array([[0.25, 0.5]])
    want = (np.log(2) - 0.5 * np.log(3 / 4) - 0.5 * np.log(1 / 4)) / 2
    np.testing.assert_allclose(losses.sigmoid_bce(logits, soft), want, rtol=1e-6)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_extreme_logits_stay_finite(size):
    logits = jnp.array([[size, -size], [-size, size]], jnp.float32)
    wrong = jnp.array([[0, 1], [1, 0]])
    cases = (
        (losses.sigmoid_bce, wrong, size),
        (losses.softmax_xent, wrong.argmax(1), 2 * size),
        (losses.softmax_xent, wrong.astype(jnp.float32), 2 * size),
    )
    for loss, target, want in cases:
        value, grad = jax.value_and_grad(loss)(logits, target)
        np.testing.assert_allclose(value, want, rtol=1e-6)
        assert np.isfinite(grad).all()
        value, grad = jax.value_and_grad(loss)(-logits, target)
        np.testing.assert_allclose(value, 0, atol=1e-6)
        assert np.isfinite(grad).all()


def test_mse_alignment_by_hand():
    student = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    teacher = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    want = (0 + 4 + 9 + 16) / 4
    np.testing.assert_allclose(losses.mse_alignment(student, teacher), want)


def test_cosine_alignment_by_hand():
    student = jnp.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [-1.0, 0.0]])
    teacher = jnp.array([[5.0, 0.0], [1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    want = (0 + 1 + (1 - np.sqrt(0.5)) + 2) / 4
    got = losses.cosine_alignment(student, teacher)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_normalize_keeps_a_zero_vector():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(losses.normalize(x), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.mse_alignment, losses.cosine_alignment])
def test_no_gradient_flows_into_the_teacher(loss):
    student, teacher = jnp.array(draw(0, 4, 3)), jnp.array(draw(1, 4, 3))
    to_student, to_teacher = jax.grad(loss, argnums=(0, 1))(student, teacher)
    assert np.abs(to_student).min() > 0
    np.testing.assert_array_equal(to_teacher, 0)


def test_no_gradient_flows_into_a_target_distribution():
    logits, target = jnp.array(draw(0, 4, 3)), jax.nn.softmax(jnp.array(draw(1, 4, 3)))
    to_logits, to_target = jax.grad(losses.softmax_xent, argnums=(0, 1))(logits, target)
    assert np.abs(to_logits).max() > 0
    np.testing.assert_array_equal(to_target, 0)


def test_label_loss_is_chosen_by_task():
    logits = jnp.array(draw(0, 4, 3))
    ids, hot = jnp.array([0, 2, 1, 1]), jnp.array([[0, 1, 1]] * 4)
    np.testing.assert_array_equal(
        losses.label_loss(logits, ids, "single"), losses.softmax_xent(logits, ids)
    )
    np.testing.assert_array_equal(
        losses.label_loss(logits, hot, "multi"), losses.sigmoid_bce(logits, hot)
    )
    with pytest.raises(ValueError, match="task is 'none'; only 'single' and"):
        losses.label_loss(logits, ids, "none")


# Distillation


def test_smooth_l1_by_hand():
    student = jnp.array([[0.5, 3.0], [-2.0, 0.0]])
    teacher = jnp.zeros((2, 2))
    want = (0.125 + 2.5 + 1.5 + 0) / 4
    np.testing.assert_allclose(losses.smooth_l1_alignment(student, teacher), want)
    want = (0.25 / 4 + 2 + (4 / 4) + 0) / 4  # beta 2: 3 is above, the others below
    got = losses.smooth_l1_alignment(student, teacher, beta=2.0)
    np.testing.assert_allclose(got, want)


def test_relational_alignment_by_loops_and_across_widths():
    student, teacher = draw(0, 5, 3), draw(1, 5, 7)
    total = 0.0
    for i in range(5):
        for j in range(5):
            a = unit(student)[i] @ unit(student)[j]
            total += (a - unit(teacher)[i] @ unit(teacher)[j]) ** 2
    got = losses.relational_alignment(jnp.array(student), jnp.array(teacher))
    np.testing.assert_allclose(got, total / 25, rtol=1e-5)


def test_relational_alignment_is_blind_to_a_rotation():
    student = draw(0, 6, 4)
    turned, _ = np.linalg.qr(draw(1, 4, 4))
    got = losses.relational_alignment(jnp.array(student), jnp.array(student @ turned))
    np.testing.assert_allclose(got, 0, atol=1e-10)


def test_sigmoid_contrastive_equals_a_loop_over_pairs():
    zimg, ztxt = unit(draw(0, 5, 4)), unit(draw(1, 5, 4))
    total = 0.0
    for i in range(5):
        for j in range(5):
            logit = 7.0 * float(zimg[i] @ ztxt[j]) - 3.0
            total += np.log1p(np.exp(-logit if i == j else logit))
    got = losses.sigmoid_contrastive(jnp.array(zimg), jnp.array(ztxt), 7.0, -3.0)
    np.testing.assert_allclose(got, total / 5, rtol=1e-5)


def test_kl_by_numpy_and_of_equals():
    student, teacher = draw(0, 6, 4), draw(1, 6, 4)
    p = np.exp([log_softmax_by_hand(row) for row in teacher])
    q = np.exp([log_softmax_by_hand(row) for row in student])
    want = np.mean(np.sum(p * np.log(p / q), axis=1))
    got = losses.softmax_kl(jnp.array(student), jnp.array(teacher))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    p, q = (1 / (1 + np.exp(-x.astype(np.float64))) for x in (teacher, student))
    want = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    got = losses.sigmoid_kl(jnp.array(student), jnp.array(teacher))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for kl in (losses.softmax_kl, losses.sigmoid_kl):
        for size in (1.0, 100.0):
            same = jnp.array(size * teacher)
            value, grad = jax.value_and_grad(kl)(same, same)
            np.testing.assert_allclose(value, 0, atol=1e-6)
            np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_softmax_kl_has_the_gradient_of_cross_entropy():
    student, teacher = jnp.array(draw(0, 6, 4)), jnp.array(draw(1, 6, 4))
    target = jax.nn.softmax(teacher)
    np.testing.assert_allclose(
        jax.grad(losses.softmax_kl)(student, teacher),
        jax.grad(losses.softmax_xent)(student, target),
        atol=1e-6,
    )


def test_class_balanced_weights_by_hand():
    # (1 - b) / (1 - b^n) at b = 1/2: 1, 2/3 and 4/7 for 1, 2 and 3 examples
    raw = np.array([1, 2 / 3, 4 / 7])
    got = losses.class_balanced_weights(np.array([1, 2, 3]), 0.5)
    np.testing.assert_allclose(got, raw / raw.mean(), rtol=1e-6)
    with_none = losses.class_balanced_weights(np.array([1, 0, 2, 3]), 0.5)
    np.testing.assert_allclose(with_none, [got[0], 1, got[1], got[2]], rtol=1e-6)


def test_class_balanced_weights_go_from_alike_to_inverse_counts():
    counts = np.array([10, 1000, 40])
    np.testing.assert_array_equal(losses.class_balanced_weights(counts, 0.0), 1)
    inverse = (1 / counts) / (1 / counts).mean()
    nearly = losses.class_balanced_weights(counts, 1 - 1e-7)
    np.testing.assert_allclose(nearly, inverse, rtol=1e-3)


def test_smoothed_labels_by_hand():
    ids, hot = jnp.array([2, 0]), jnp.array([[1, 0], [0, 0]], jnp.uint8)
    single = losses.smooth_labels(ids, 4, 0.2, "single")
    want = [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]
    np.testing.assert_allclose(single, want, rtol=1e-6)
    multi = losses.smooth_labels(hot, 2, 0.2, "multi")
    np.testing.assert_allclose(multi, [[0.9, 0.1], [0.1, 0.1]], rtol=1e-6)


def test_label_loss_of_one_label_smoothed_and_weighted_by_numpy():
    logits, ids = draw(0, 4, 3), np.array([0, 2, 1, 1])
    weights = np.array([0.5, 2.0, 0.25], np.float32)
    total = 0.0
    for row, label in zip(logits, ids, strict=True):
        logp = log_softmax_by_hand(row)
        nll = -(0.9 * logp[label] + 0.1 * logp.mean())
        total += weights[label] * nll / 4
    got = losses.label_loss(
        jnp.array(logits),
        jnp.array(ids),
        "single",
        smoothing=0.1,
        class_weights=weights,
    )
    np.testing.assert_allclose(got, total, rtol=1e-5)


def test_label_loss_of_several_labels_smoothed_and_weighted_by_numpy():
    logits, hot = draw(0, 4, 3), np.random.default_rng(1).integers(0, 2, (4, 3))
    weights = np.array([0.5, 2.0, 0.25], np.float32)
    prob, y = 1 / (1 + np.exp(-logits)), hot * 0.9 + 0.05
    each = -(y * np.log(prob) + (1 - y) * np.log(1 - prob)) * weights
    given = (jnp.array(logits), jnp.array(hot), "multi")
    options = {"smoothing": 0.1, "class_weights": weights}
    got = losses.label_loss(*given, **options)
    np.testing.assert_allclose(got, each.mean(), rtol=1e-5)
    # an asymmetric loss without its asymmetry is the same
    none = {"gamma_positive": 0.0, "gamma_negative": 0.0, "margin": 0.0}
    same = losses.label_loss(*given, asymmetric=none, **options)
    np.testing.assert_allclose(same, got, rtol=1e-5)
    other = losses.label_loss(*given, asymmetric={}, **options)
    want = losses.asymmetric_bce(
        jnp.array(logits), jnp.array(y, jnp.float32), weights=jnp.array(weights)
    )
    np.testing.assert_allclose(other, want, rtol=1e-6)
    assert other < 0.9 * got


def test_an_asymmetric_loss_of_one_label_is_refused():
    with pytest.raises(ValueError, match=r"asymmetric .* several labels .* 'single'"):
        losses.label_loss(jnp.eye(3), jnp.arange(3), "single", asymmetric={})


def test_asymmetric_bce_by_numpy():
    logits = 3 * draw(0, 8, 5)
    hot = np.random.default_rng(0).integers(0, 2, (8, 5))
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    shifted = np.maximum(p - 0.1, 0)
    want = -np.mean(
        hot * (1 - p) ** 1.5 * np.log(p)
        + (1 - hot) * shifted**3.0 * np.log(1 - shifted)
    )
    got = losses.asymmetric_bce(
        jnp.array(logits),
        jnp.array(hot),
        gamma_positive=1.5,
        gamma_negative=3.0,
        margin=0.1,
    )
    np.testing.assert_allclose(got, want, rtol=1e-4)
    plain = losses.asymmetric_bce(
        jnp.array(logits), jnp.array(hot), gamma_negative=0.0, margin=0.0
    )
    bce = losses.sigmoid_bce(jnp.array(logits), jnp.array(hot))
    np.testing.assert_allclose(plain, bce, rtol=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_asymmetric_bce_and_its_gradient_stay_finite(margin):
    logits = jnp.array([[1e4, -1e4, 0.0]], jnp.float32)
    for hot in ([[0, 1, 0]], [[1, 0, 1]]):
        value, grad = jax.value_and_grad(losses.asymmetric_bce)(
            logits, jnp.array(hot), margin=margin
        )
        assert np.isfinite(value)
        assert np.isfinite(grad).all()


@pytest.mark.parametrize(
    "loss",
    [
        losses.smooth_l1_alignment,
        losses.relational_alignment,
        losses.softmax_kl,
        losses.sigmoid_kl,
    ],
)
def test_no_gradient_flows_into_what_is_distilled(loss):
    student, teacher = jnp.array(draw(0, 4, 3)), jnp.array(draw(1, 4, 3))
    to_student, to_teacher = jax.grad(loss, argnums=(0, 1))(student, teacher)
    assert np.abs(to_student).min() > 0
    np.testing.assert_array_equal(to_teacher, 0)


# Several tasks


def joint_reference(logits, labels, sizes):
    """Each example's cross-entropy, or mean BCE, over a slice of its own logits."""
    starts, values = np.cumsum([0, *sizes]), []
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        if np.ndim(label) == 0:
            i = int(np.searchsorted(starts, label, side="right")) - 1
            own = row[starts[i] : starts[i + 1]]
            shifted = own - own.max()
            place = label - starts[i]
            values.append(np.log(np.exp(shifted).sum()) - shifted[place])
        else:
            (i,) = [i for i, s in enumerate(starts[:-1]) if label[s] >= 0]
            own, y = row[starts[i] : starts[i + 1]], label[starts[i] : starts[i + 1]]
            prob = 1 / (1 + np.exp(-own))
            values.append(-np.mean(y * np.log(prob) + (1 - y) * np.log(1 - prob)))
    return np.mean(values)


def joint_labels(task, sizes, rng):
    """Eight labels, task after task in turn."""
    starts = np.cumsum([0, *sizes])
    if task == "single":
        picks = [
            starts[i % len(sizes)] + rng.integers(sizes[i % len(sizes)])
            for i in range(8)
        ]
        return np.array(picks, np.int32)
    labels = np.full((8, starts[-1]), -1, np.int32)
    for i in range(8):
        k = i % len(sizes)
        labels[i, starts[k] : starts[k + 1]] = rng.integers(2, size=sizes[k])
    return labels


@pytest.mark.parametrize("task", ["single", "multi"])
def test_a_joint_loss_sees_the_classes_of_each_examples_own_task(task):
    rng, sizes = np.random.default_rng(5), (3, 5, 2)
    logits = (4 * rng.normal(size=(8, 10))).astype(np.float32)
    labels = joint_labels(task, sizes, rng)
    owner = np.repeat(np.arange(3, dtype=np.int32), sizes)
    found = losses.joint_loss(logits, labels, owner, task)
    np.testing.assert_allclose(found, joint_reference(logits, labels, sizes), rtol=1e-5)
    grads = jax.grad(lambda x: losses.joint_loss(x, labels, owner, task))(logits)
    whose = labels if task == "single" else labels.argmax(axis=-1)
    others = owner[whose][:, None] != owner[None]
    assert np.isfinite(grads).all()
    np.testing.assert_array_equal(np.asarray(grads)[others], 0)
    assert np.abs(np.asarray(grads)[~others]).min() > 0


@pytest.mark.parametrize("task", ["single", "multi"])
def test_a_joint_loss_of_one_task_is_the_tasks_loss(task):
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(8, 4)).astype(np.float32)
    labels = joint_labels(task, (4,), rng)
    found = losses.joint_loss(logits, labels, np.zeros(4, np.int32), task)
    want = losses.label_loss(logits, labels, task)
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_every_public_function_has_an_example_that_runs():
    assert run_examples(losses) >= 18
