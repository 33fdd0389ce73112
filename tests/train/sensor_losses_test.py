"""Losses of the examples that have a sensor: numpy on those rows alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsclip_jax import losses
from rsclip_jax.train import objectives, sharding

B, T = 16, 7.0
MASKS = {
    "some": np.random.default_rng(1).random(B) < 0.6,
    "one": np.arange(B) == 5,
    "all": np.ones(B, bool),
}


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


HEAD, LABEL = draw(2, 5, 3), np.random.default_rng(3).integers(0, 3, B)
HOT = np.eye(3, dtype=np.int32)[LABEL] | np.eye(3, dtype=np.int32)[LABEL[::-1]]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def logp(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(term, task, s, t, rows) -> float:
    """A term of student and teacher features [b, d], in float64, on some rows."""
    s, t = s[rows].astype(float), t[rows].astype(float)
    zs, zt, n = unit(s), unit(t), len(s)
    logits, taught = zs @ HEAD, zt @ HEAD
    if term == "mse":
        return np.mean((s - t) ** 2)
    if term == "cosine":
        return np.mean(1 - np.sum(zs * zt, axis=1))
    if term == "smooth_l1":
        d = np.abs(s - t)
        return np.mean(np.where(d < 1, d**2 / 2, d - 0.5))
    if term == "relational":
        return np.mean((zs @ zs.T - zt @ zt.T) ** 2)
    if term == "info_nce":
        both = T * zs @ zt.T
        return -(np.trace(logp(both)) + np.trace(logp(both.T))) / (2 * n)
    if term == "sigmoid":
        sign = 2 * np.eye(n) - 1
        return np.sum(np.log1p(np.exp(-sign * (T * zs @ zt.T - 10)))) / n
    if term == "labels" and task == "single":
        return -np.mean(logp(logits)[np.arange(n), LABEL[rows]])
    if term == "labels":
        return np.mean(np.log1p(np.exp(logits)) - HOT[rows] * logits)
    if task == "single":
        p = np.exp(logp(taught))
        return np.mean(np.sum(p * (np.log(p) - logp(logits)), axis=1))
    p, q = sigmoid(taught), sigmoid(logits)
    return np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


def batch_of(mask, task="single"):
    """x: what the teacher sees; s1, s2: what two students see, s1 where mask is."""
    label = LABEL if task == "single" else HOT
    parts = {"x": draw(4, B, 4), "s1": draw(5, B, 4), "s2": draw(6, B, 4)}
    batch = {key: jnp.array(x) for key, x in parts.items()}
    return {**batch, "label": jnp.array(label), "has_s1": jnp.array(mask)}


PARAMS = {"s1": {"w": draw(7, 4, 5)}, "s2": {"w": draw(8, 4, 5)}}
FROZEN = {"teacher": {"w": draw(9, 4, 5)}, "head": HEAD}


def make_loss(terms, task="single", contrastive=losses.clip_loss):
    return objectives.make_align_loss(
        {key: lambda p, batch, key=key: batch[key] @ p["w"] for key in ("s1", "s2")},
        lambda p, batch: batch["x"] @ p["w"],
        terms=terms,
        task=task,
        t=T,
        contrastive=contrastive,
    )


@pytest.fixture
def params():
    return jax.tree.map(jnp.array, PARAMS)


@pytest.fixture
def frozen():
    return jax.tree.map(jnp.array, FROZEN)


@pytest.mark.parametrize("task", ["single", "multi"])
@pytest.mark.parametrize("which", MASKS)
def test_each_term_is_of_the_rows_that_have_the_sensor(params, frozen, which, task):
    mask = MASKS[which]
    terms = dict.fromkeys(objectives.ALIGN_TERMS, 0.5)
    batch = batch_of(mask, task)
    total, metrics = jax.jit(make_loss(terms, task))(params, frozen, batch)
    teacher = np.asarray(batch["x"]) @ FROZEN["teacher"]["w"]
    sums = []
    for key, rows in (("s1", mask), ("s2", np.ones(B, bool))):
        student = np.asarray(batch[key]) @ PARAMS[key]["w"]
        want = {t: by_hand(t, task, student, teacher, rows) for t in terms}
        for term, value in want.items():
            got = float(metrics[f"{key}/{term}"])
            assert got == pytest.approx(value, rel=2e-4, abs=1e-6), term
        sums.append(0.5 * sum(want.values()))
    assert float(total) == pytest.approx(np.mean(sums), rel=1e-4)
    assert float(metrics["s1/present"]) == pytest.approx(mask.mean())
    assert "s2/present" not in metrics
    if which == "some":  # the comparison can tell
        student = np.asarray(batch["s1"]) @ PARAMS["s1"]["w"]
        for term in terms:
            every = by_hand(term, task, student, teacher, np.ones(B, bool))
            assert abs(every - float(metrics[f"s1/{term}"])) > 1e-4, term


def test_what_stands_for_a_missing_sensor_changes_nothing(params, frozen):
    mask, terms = MASKS["some"], dict.fromkeys(objectives.ALIGN_TERMS, 1.0)
    grad = jax.jit(
        jax.grad(make_loss(terms), argnums=(0, 2), has_aux=True, allow_int=True)
    )
    batch = batch_of(mask)
    other = {**batch, "s1": jnp.where(mask[:, None], batch["s1"], 0.0)}
    (to_params, to_batch), _ = grad(params, frozen, batch)
    (again, _), _ = grad(params, frozen, other)
    jax.tree.map(np.testing.assert_array_equal, to_params, again)
    reached = np.abs(to_batch["s1"]).max(axis=1) > 0
    np.testing.assert_array_equal(reached, mask)


def test_a_sensor_that_a_batch_has_nothing_of_learns_nothing(params, frozen):
    terms = dict.fromkeys(objectives.ALIGN_TERMS, 1.0)
    fn = jax.jit(jax.value_and_grad(make_loss(terms), has_aux=True))
    (total, metrics), grads = fn(params, frozen, batch_of(np.zeros(B, bool)))
    assert {float(metrics[f"s1/{term}"]) for term in terms} == {0.0}
    np.testing.assert_array_equal(grads["s1"]["w"], 0)
    assert np.abs(grads["s2"]["w"]).max() > 0
    assert float(total) == pytest.approx(sum(metrics[f"s2/{t}"] for t in terms) / 2)


@pytest.mark.parametrize("which", [*MASKS, "none"])
def test_over_a_mesh_it_is_the_same(mesh, params, frozen, which):
    mask = MASKS.get(which, np.zeros(B, bool))
    over = make_loss({"info_nce": 1.0}, contrastive=sharding.make_clip_loss(mesh))
    batch = batch_of(mask)
    want = jax.value_and_grad(make_loss({"info_nce": 1.0}), has_aux=True)
    got = jax.jit(jax.value_and_grad(over, has_aux=True))
    (a, _), wanted = want(params, frozen, batch)
    (b, _), found = got(params, frozen, sharding.put_batch(batch, mesh))
    assert float(a) == pytest.approx(float(b), rel=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), wanted, found
    )
