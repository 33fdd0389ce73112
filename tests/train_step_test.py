"""The jitted step on a toy: any mesh the same, donated, compiled once, frozen apart."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rsclip_jax import losses
from rsclip_jax import train_step as stepping
from rsclip_jax.train import loop, objectives, sharding
from rsclip_jax.train.optim import make_optimizer, make_schedule
from rsclip_jax.train_step import make_state, train_step
from tests.helpers.doc_examples import run_examples

MESHES = [(8, 1), (4, 2)]


def draw(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) / 4).astype(np.float32)


def make_params():
    return {
        "w1": {"kernel": draw(0, 6, 32), "bias": draw(1, 32)},
        "w2": {"kernel": draw(2, 32, 12)},
        "logit_scale": np.float32(2.0) * np.ones((), np.float32),
    }


def make_frozen():
    return {"teacher": {"kernel": draw(3, 6, 12)}, "head": draw(4, 12, 5)}


def make_batch(seed: int = 5, rows: int = 16):
    rng = np.random.default_rng(seed)
    return {
        "rgb": draw(seed, rows, 6),
        "text": draw(seed + 1, rows, 12),
        "label": rng.integers(0, 5, rows).astype(np.int32),
        "group": (np.arange(rows) % 7).astype(np.int32),
    }


def student(params, batch):
    hidden = batch["rgb"] @ params["w1"]["kernel"] + params["w1"]["bias"][None]
    return jnp.tanh(hidden) @ params["w2"]["kernel"]


def teacher(params, batch):
    return batch["rgb"] @ params["kernel"]


def make_loss(name, mesh=None):
    if name == "align":
        return objectives.make_align_loss(
            student, teacher, task="single", terms={"mse": 1.0, "labels": 0.5}
        )
    over_mesh = sharding.make_clip_loss(mesh) if mesh else losses.clip_loss
    if name == "every term":  # the negatives of info_nce, sigmoid: of the whole batch
        terms = dict.fromkeys(objectives.ALIGN_TERMS, 0.5)
        kind = {"task": "single", "contrastive": over_mesh}
        return objectives.make_align_loss(student, teacher, terms=terms, **kind)
    return objectives.make_contrastive_loss(student, lambda _, b: b["text"], over_mesh)


def make_tx():
    schedule = make_schedule(0.02, warmup=1, steps=100)
    return make_optimizer(schedule, weight_decay=0.1, clip_norm=0.5)


def start(mesh, loss_fn, tx=None):
    """(step_fn, state, frozen) on the mesh."""
    tx = tx or make_tx()
    state = sharding.put_params(make_state(make_params(), tx), mesh)
    frozen = sharding.put_params(make_frozen(), mesh)
    step_fn = loop.make_step(state, frozen, loss_fn=loss_fn, tx=tx, mesh=mesh)
    return step_fn, state, frozen


def run_plain(name, steps):
    tx = make_tx()
    step_fn = jax.jit(partial(train_step, loss_fn=make_loss(name), tx=tx))
    state, curve = make_state(make_params(), tx), []
    for i in range(steps):
        state, metrics = step_fn(state, make_frozen(), make_batch(i))
        curve.append(metrics)
    return jax.device_get((state, curve))


def run_on(mesh, loss_fn, steps):
    step_fn, state, frozen = start(mesh, loss_fn)
    curve = []
    for i in range(steps):
        batch = sharding.put_batch(make_batch(i), mesh)
        state, metrics = step_fn(state, frozen, batch)
        curve.append(metrics)
    return jax.device_get((state, curve))


def off_by(a, b) -> float:
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", ["align", "contrastive", "every term"])
@pytest.mark.parametrize("shape", MESHES)
def test_sharded_equals_unsharded(shape, name):
    mesh = sharding.make_mesh(shape)
    want_state, want_curve = run_plain(name, 3)
    state, curve = run_on(mesh, make_loss(name, mesh), 3)
    assert int(state.step) == 3
    assert off_by(state.params, make_params()) > 1e-2  # it has moved far
    assert off_by(state.params, want_state.params) < 1e-5
    assert off_by(state.opt_state, want_state.opt_state) < 1e-5
    assert off_by(curve, want_curve) < 1e-5


def test_the_comparison_catches_a_loss_of_a_part_of_the_batch(mesh):
    whole = make_loss("align")

    def first_half(params, frozen, batch):
        rows = {k: v[:8] if v.ndim else v for k, v in batch.items()}
        return whole(params, frozen, rows)

    want_state, want_curve = run_plain("align", 3)
    state, curve = run_on(mesh, first_half, 3)
    assert off_by(curve, want_curve) > 1e-3
    assert off_by(state.params, want_state.params) > 1e-3


def test_fsdp_splits_params_and_moments():
    mesh = sharding.make_mesh((4, 2))
    step_fn, state, frozen = start(mesh, make_loss("align"))
    state, _ = step_fn(state, frozen, sharding.put_batch(make_batch(), mesh))
    split = [x for x in jax.tree.leaves(state) if x.shape == (32, 12)]
    assert len(split) == 3  # the kernel and its two moments
    for leaf in split:
        assert {s.data.shape for s in leaf.addressable_shards} == {(16, 12)}


def test_one_step_of_sgd_by_hand():
    x, y = draw(0, 4, 3), draw(1, 4, 2)
    w, offset = draw(2, 3, 2), draw(3, 2)

    def loss_fn(params, frozen, batch):
        miss = batch["x"] @ params["w"] + frozen["b"][None] - batch["y"]
        return jnp.mean(miss**2), {"largest": jnp.abs(miss).max()}

    tx = optax.sgd(0.5)
    state, metrics = train_step(
        make_state({"w": w}, tx),
        {"b": offset},
        {"x": x, "y": y},
        loss_fn=loss_fn,
        tx=tx,
    )
    miss = x @ w + offset - y
    grad = 2 * x.T @ miss / miss.size
    np.testing.assert_allclose(state.params["w"], w - 0.5 * grad, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(miss**2), rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(grad), rtol=1e-5)
    np.testing.assert_allclose(metrics["largest"], np.abs(miss).max(), rtol=1e-5)
    assert int(state.step) == 1


def test_grad_norm_is_taken_before_clipping(mesh):
    _, quiet = run_on(mesh, make_loss("align"), 1)

    def loud(params, frozen, batch):
        loss, metrics = make_loss("align")(params, frozen, batch)
        return 1000 * loss, metrics

    _, clipped = run_on(mesh, loud, 1)
    ratio = clipped[0]["grad_norm"] / quiet[0]["grad_norm"]
    np.testing.assert_allclose(ratio, 1000, rtol=1e-4)


@pytest.mark.parametrize("name", ["align", "contrastive"])
def test_loss_falls_on_a_fixed_batch(mesh, name):
    step_fn, state, frozen = start(mesh, make_loss(name, mesh))
    batch = sharding.put_batch(make_batch(), mesh)
    curve = []
    for _ in range(30):
        state, metrics = step_fn(state, frozen, batch)
        curve.append(float(metrics["loss"]))
    assert curve[-1] < 0.8 * curve[0]


@pytest.mark.parametrize(
    ("name", "own"),
    [("align", {"mse", "labels"}), ("contrastive", {"logit_scale_exp"})],
)
def test_metrics_hold_loss_grad_norm_and_the_losss_own(mesh, name, own):
    _, curve = run_on(mesh, make_loss(name, mesh), 1)
    assert curve[0].keys() == {"loss", "grad_norm"} | own
    for value in curve[0].values():
        assert value.shape == ()
        assert np.isfinite(value)


@pytest.mark.parametrize("shape", MESHES)
def test_no_retrace_on_later_calls(shape):
    traces = []

    def loss_fn(*args):
        traces.append(1)
        return make_loss("align")(*args)

    mesh = sharding.make_mesh(shape)
    step_fn, state, frozen = start(mesh, loss_fn)
    for i in range(3):
        batch = sharding.put_batch(make_batch(i), mesh)
        state, _ = step_fn(state, frozen, batch)
    assert step_fn._cache_size() == 1
    assert len(traces) == 1
    # another shape does retrace: the counts can tell
    step_fn(state, frozen, sharding.put_batch(make_batch(0, rows=24), mesh))
    assert step_fn._cache_size() == len(traces) == 2


@pytest.mark.parametrize("shape", MESHES)
def test_the_state_is_donated_and_nothing_else(shape):
    mesh = sharding.make_mesh(shape)
    step_fn, state, frozen = start(mesh, make_loss("align"))
    batch = sharding.put_batch(make_batch(), mesh)
    new, _ = step_fn(state, frozen, batch)
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
    kept = jax.tree.leaves((new, frozen, batch))
    assert not any(x.is_deleted() for x in kept)


@pytest.mark.parametrize("shape", MESHES)
def test_frozen_weights_are_bit_identical_after(shape):
    mesh = sharding.make_mesh(shape)
    step_fn, state, frozen = start(mesh, make_loss("align"))
    at = [x.unsafe_buffer_pointer() for x in buffers(frozen)]
    for i in range(3):
        batch = sharding.put_batch(make_batch(i), mesh)
        state, _ = step_fn(state, frozen, batch)
    jax.tree.map(np.testing.assert_array_equal, frozen, make_frozen())
    assert at == [x.unsafe_buffer_pointer() for x in buffers(frozen)]


def buffers(tree):
    return [s.data for x in jax.tree.leaves(tree) for s in x.addressable_shards]


def n_bytes(tree) -> int:
    """On one device."""
    return sum(x.addressable_data(0).nbytes for x in jax.tree.leaves(tree))


def lower(mesh, loss_fn):
    """(the step before compilation, its arguments)."""
    step_fn, state, frozen = start(mesh, loss_fn)
    used = {k: make_batch()[k] for k in ("rgb", "label")}
    args = state, frozen, sharding.put_batch(used, mesh)
    return step_fn.lower(*args), args


def constants(lowered) -> list[str]:
    """The constants that are written out, element by element, in the program."""
    return re.findall(r"dense<(?:\"0x|\[).{100}", lowered.as_text())


def test_frozen_weights_are_one_argument_of_the_program(mesh):
    lowered, args = lower(mesh, make_loss("align"))
    assert constants(lowered) == []
    memory = lowered.compile().memory_analysis()
    assert memory.argument_size_in_bytes == n_bytes(args)
    assert memory.alias_size_in_bytes == n_bytes(args[0])  # the state's, and no more


def test_closed_over_weights_would_be_constants(mesh):
    closed = make_frozen()

    def loss_fn(params, _, batch):
        return make_loss("align")(params, closed, batch)

    lowered, _ = lower(mesh, loss_fn)
    assert len(constants(lowered)) == 2  # the teacher's and the head's


def test_every_public_function_has_an_example_that_runs():
    assert run_examples(stepping) == 3
