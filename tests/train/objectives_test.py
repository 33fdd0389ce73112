"""Each stage's loss_fn against the losses it is made of, and against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsclip_jax import losses
from rsclip_jax.train import objectives
from tests.helpers.by_hand import clip_loss_by_hand, draw, log_softmax_by_hand, unit


def linear(params, batch):
    return batch["x"] @ params["w"]


def features(params, batch) -> np.ndarray:
    return np.asarray(batch["x"], np.float64) @ np.asarray(params["w"], np.float64)


@pytest.fixture
def toy():
    """(params, frozen, batch): un-normalised features of 5 wide, 3 classes."""
    params = {"w": jnp.array(draw(0, 4, 5))}
    frozen = {
        "teacher": {"w": jnp.array(draw(1, 4, 5))},
        "head": jnp.array(draw(2, 5, 3)),
    }
    batch = {"x": jnp.array(draw(3, 6, 4)), "label": jnp.array([0, 1, 2, 2, 1, 0])}
    return params, frozen, batch


def xent_by_hand(logits, target) -> float:
    logp = np.stack([log_softmax_by_hand(row) for row in logits])
    return -float((target * logp).sum(axis=1).mean())


def test_patch_loss_sees_unit_features_through_the_head(toy):
    params, frozen, batch = toy
    logits = unit(features(params, batch)) @ np.asarray(frozen["head"])
    want = xent_by_hand(logits, np.eye(3)[np.asarray(batch["label"])])
    loss, metrics = objectives.make_patch_loss(linear, "single")(params, frozen, batch)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    assert metrics == {}
    hot = np.random.default_rng(0).integers(0, 2, (6, 3))
    want = np.mean(np.log1p(np.exp(logits)) - hot * logits)
    batch = {**batch, "label": jnp.array(hot)}
    loss, _ = objectives.make_patch_loss(linear, "multi")(params, frozen, batch)
    np.testing.assert_allclose(loss, want, rtol=1e-5)


def test_a_bias_is_part_of_every_logit(toy):
    """SigLIP's: each class by itself, also for single labels."""
    params, frozen, batch = toy
    frozen = {**frozen, "bias": jnp.float32(-1.5)}
    logits = unit(features(params, batch)) @ np.asarray(frozen["head"]) - 1.5
    hot = np.eye(3)[np.asarray(batch["label"])]
    want = np.mean(np.log1p(np.exp(logits)) - hot * logits)
    loss_fn = objectives.make_patch_loss(linear, "multi", one_hot=True)
    np.testing.assert_allclose(loss_fn(params, frozen, batch)[0], want, rtol=1e-5)
    plain = objectives.make_patch_loss(linear, "multi")
    hot = {**batch, "label": jnp.array(hot, jnp.int32)}
    same = plain(params, frozen, hot)[0]
    np.testing.assert_allclose(same, want, rtol=1e-5)
    joint = objectives.make_joint_loss(linear, "multi")
    owned = {**frozen, "owner": jnp.zeros(3, jnp.int32)}
    without = {k: v for k, v in owned.items() if k != "bias"}
    assert joint(params, owned, hot)[0] != joint(params, without, hot)[0]


def align(toy, terms, task="single", **options):
    loss_fn = objectives.make_align_loss(
        linear, linear, terms=terms, task=task, **options
    )
    return loss_fn(*toy)


def align_by_hand(toy):
    """(mse, logits, teacher's probabilities)."""
    params, frozen, batch = toy
    student, teacher = features(params, batch), features(frozen["teacher"], batch)
    head = np.asarray(frozen["head"], np.float64)
    logits = unit(student) @ head
    prob = np.exp([log_softmax_by_hand(row) for row in unit(teacher) @ head])
    return np.mean((student - teacher) ** 2), logits, prob


def test_align_loss_of_features_needs_no_head(toy):
    params, frozen, batch = toy
    bare = params, {"teacher": frozen["teacher"]}, {"x": batch["x"]}
    loss, metrics = align(bare, {"mse": 1.0}, task="none")
    np.testing.assert_allclose(loss, align_by_hand(toy)[0], rtol=1e-5)
    assert metrics.keys() == {"mse"}


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_align_loss_adds_the_weighted_labels(toy, weight):
    mse, logits, _ = align_by_hand(toy)
    want = xent_by_hand(logits, np.eye(3)[np.asarray(toy[2]["label"])])
    loss, metrics = align(toy, {"mse": 1.0, "labels": weight})
    np.testing.assert_allclose(metrics["mse"], mse, rtol=1e-5)
    np.testing.assert_allclose(metrics["labels"], want, rtol=1e-5)
    np.testing.assert_allclose(loss, mse + weight * want, rtol=1e-5)


def test_soft_labels_are_the_teachers_and_read_no_label(toy):
    params, frozen, batch = toy
    _, logits, prob = align_by_hand(toy)
    entropy = -np.mean(np.sum(prob * np.log(prob), axis=1))
    unlabelled = params, frozen, {**batch, "label": jnp.full(6, -1)}
    loss, _ = align(unlabelled, {"soft_labels": 1.0})
    np.testing.assert_allclose(loss, xent_by_hand(logits, prob) - entropy, rtol=1e-4)


@pytest.mark.parametrize("task", ["single", "multi"])
def test_no_term_is_left_of_a_student_that_is_the_teacher(toy, task):
    _, frozen, batch = toy
    equal = frozen["teacher"], frozen, batch
    for term in ("mse", "cosine", "smooth_l1", "relational", "soft_labels"):
        np.testing.assert_allclose(align(equal, {term: 1.0}, task)[0], 0, atol=1e-6)


def test_contrastive_terms_by_their_own_losses(toy):
    params, frozen, batch = toy
    student = unit(features(params, batch))
    teacher = unit(features(frozen["teacher"], batch))
    want = clip_loss_by_hand(student, teacher, 7.0)
    loss, _ = align(toy, {"info_nce": 1.0}, t=7.0)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    given, _ = align(
        toy, {"info_nce": 1.0}, t=7.0, contrastive=lambda *a: 3 * losses.clip_loss(*a)
    )
    np.testing.assert_allclose(given, 3 * loss, rtol=1e-6)
    loss, _ = align(toy, {"sigmoid": 1.0}, t=7.0)
    pair = losses.sigmoid_contrastive(
        jnp.array(student, jnp.float32), jnp.array(teacher, jnp.float32), 7.0
    )
    np.testing.assert_allclose(loss, pair, rtol=1e-5)


def test_a_weight_may_lie_on_a_line_over_training(toy):
    params, frozen, batch = toy
    mse = align_by_hand(toy)[0]
    for step, weight in ((0, 1.0), (5, 0.5), (10, 0.0)):
        at = params, frozen, {**batch, "step": jnp.int32(step)}
        loss, _ = align(at, {"mse": (1.0, 0.0)}, steps=11)
        np.testing.assert_allclose(loss, weight * mse, rtol=1e-5, atol=1e-7)


def test_a_term_that_is_not_known_is_refused(toy):
    with pytest.raises(ValueError, match=r"terms \['l2'\] are unknown; use \('mse'"):
        align(toy, {"l2": 1.0})


@pytest.mark.parametrize("term", objectives.ALIGN_TERMS)
def test_align_loss_sends_no_gradient_to_the_teacher(toy, term):
    params, frozen, batch = toy

    def loss(p, f):
        return align((p, f, batch), {term: 1.0})[0]

    to_student, to_frozen = jax.grad(loss, argnums=(0, 1))(params, frozen)
    assert np.abs(to_student["w"]).max() > 0
    np.testing.assert_array_equal(to_frozen["teacher"]["w"], 0)


def contrastive(logit_scale, scale=1.0, fn=losses.clip_loss):
    params = {
        "image": jnp.array(draw(0, 4, 5)),
        "text": scale * jnp.array(draw(1, 3, 5)),
        "logit_scale": jnp.float32(logit_scale),
    }
    batch = {
        "x": jnp.array(draw(2, 6, 4)),
        "text": jnp.array(draw(3, 6, 3)),
        "group": jnp.array([0, 1, 2, 0, 3, 4]),
    }
    loss_fn = objectives.make_contrastive_loss(
        lambda p, b: b["x"] @ p["image"], lambda p, b: b["text"] @ p["text"], fn
    )
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, metrics), grads = value_and_grad(params, {}, batch)
    zimg = unit(np.asarray(batch["x"] @ params["image"], np.float64))
    ztxt = unit(np.asarray(batch["text"] @ params["text"], np.float64))
    t = min(np.exp(logit_scale), 100)
    want = clip_loss_by_hand(zimg, ztxt, t, [0, 1, 2, 0, 3, 4])
    return loss, metrics, grads, want


@pytest.mark.parametrize(
    ("logit_scale", "t"), [(0.0, 1), (np.log(14.0), 14), (np.log(500.0), 100)]
)
def test_contrastive_loss_bounds_the_scale_at_100(logit_scale, t):
    loss, metrics, grads, want = contrastive(logit_scale)
    np.testing.assert_allclose(loss, want, rtol=1e-4)
    np.testing.assert_allclose(metrics["logit_scale_exp"], t, rtol=1e-5)
    assert (grads["logit_scale"] == 0) == (t == 100)


def test_contrastive_loss_normalises_and_calls_what_it_was_given():
    loss, *_ = contrastive(1.0)
    np.testing.assert_allclose(contrastive(1.0, scale=7.0)[0], loss, rtol=1e-5)
    given, *_ = contrastive(1.0, fn=lambda *a: 3 * losses.clip_loss(*a))
    np.testing.assert_allclose(given, 3 * loss, rtol=1e-6)


def prompt_loss(toy, prompts, step: int, seed: int = 0) -> float:
    params, _, batch = toy
    loss_fn = objectives.make_prompt_loss(linear, losses.clip_loss, seed)
    frozen = {"prompts": jnp.array(prompts), "t": jnp.float32(5.0)}
    return float(loss_fn(params, frozen, {**batch, "step": jnp.int32(step)})[0])


def test_prompt_loss_equals_a_loop_over_pairs_of_a_class(toy):
    params, _, batch = toy
    prompts, labels = unit(draw(7, 3, 1, 5)), np.asarray(batch["label"])
    zimg = unit(features(params, batch))
    want = clip_loss_by_hand(zimg, prompts[labels, 0], 5.0, labels)
    np.testing.assert_allclose(prompt_loss(toy, prompts, 0), want, rtol=1e-5)


def test_a_text_tower_in_training_makes_the_prompts_itself(toy):
    """The same loss as of its embeddings, and a gradient into its params."""
    params, _, batch = toy
    ids = np.random.default_rng(0).integers(0, 7, (3, 2, 4))
    tables = draw(5, 7, 5)

    def encode_text(params, ids):
        return params["table"][ids].mean(axis=1)

    made = unit(tables[ids].mean(axis=2))
    want = prompt_loss(toy, made, step=3)
    fn = objectives.make_prompt_loss(linear, losses.clip_loss, 0, encode_text)
    both = {**params, "table": jnp.array(tables)}
    frozen = {"prompts": jnp.array(ids), "t": jnp.float32(5.0)}
    given = {**batch, "step": jnp.int32(3)}

    def loss(p):
        return fn(p, frozen, given)[0]

    np.testing.assert_allclose(loss(both), want, rtol=1e-5)
    grads = jax.grad(loss)(both)
    step = 1e-2
    for i, j in ((0, 1), (4, 2)):
        moved = [
            {**both, "table": both["table"].at[i, j].add(s)} for s in (step, -step)
        ]
        slope = (loss(moved[0]) - loss(moved[1])) / (2 * step)
        np.testing.assert_allclose(grads["table"][i, j], slope, atol=2e-3)


def test_prompts_are_drawn_by_step_and_seed_from_all_templates(toy):
    one, prompts = unit(draw(7, 3, 1, 5)), unit(draw(8, 3, 6, 5))
    found = [prompt_loss(toy, prompts, step) for step in range(4)]
    assert len(set(found)) == 4
    assert found[2] == prompt_loss(toy, prompts, 2)
    assert found[2] != prompt_loss(toy, prompts, 2, seed=1)
    twice = np.concatenate([one, one], axis=1)
    np.testing.assert_allclose(
        prompt_loss(toy, twice, 3), prompt_loss(toy, one, 0), rtol=1e-6
    )


def sizes_of_constants(fn, *args):
    """Sizes of the arrays that are constants of a traced function."""
    return [np.size(x) for x in jax.make_jaxpr(fn)(*args).consts]


@pytest.mark.parametrize("task", ["single", "multi"])
def test_class_weights_are_an_argument_and_no_constant_of_the_program(task):
    """The value is that of weights that are closed over, which are a constant."""
    rng = np.random.default_rng(0)
    d, k = 5, 7
    params = {"w": rng.normal(size=(3, d)).astype(np.float32)}
    weights = rng.uniform(0.5, 2, k).astype(np.float32)
    frozen = {"head": rng.normal(size=(d, k)).astype(np.float32)}
    label = rng.integers(0, k, 4) if task == "single" else rng.integers(0, 2, (4, k))
    batch = {"x": rng.normal(size=(4, 3)).astype(np.float32), "label": label}

    def encode(params, batch):
        return batch["x"] @ params["w"]

    loss_fn = objectives.make_patch_loss(encode, task, smoothing=0.1)
    weighted = {**frozen, "class_weights": weights}
    assert k not in sizes_of_constants(loss_fn, params, weighted, batch)
    found = loss_fn(params, weighted, batch)[0]
    logits = losses.normalize(encode(params, batch)) @ frozen["head"]
    want = losses.label_loss(
        logits, jnp.asarray(label), task, smoothing=0.1, class_weights=weights
    )
    np.testing.assert_allclose(found, want, rtol=1e-6)
    assert abs(float(found - loss_fn(params, frozen, batch)[0])) > 1e-3

    def with_closure(params, frozen, batch):
        return loss_fn(params, {**frozen, "class_weights": weights}, batch)

    assert k in sizes_of_constants(with_closure, params, frozen, batch)
