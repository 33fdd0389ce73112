"""Accumulated steps: the whole batch's loss, metrics and gradient, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rsclip_jax.losses import clip_loss
from rsclip_jax.stages.patch import recipes
from rsclip_jax.train import loop, lora, objectives, sharding
from rsclip_jax.train.settings import TrainSettings
from rsclip_jax.train_step import Objective, make_state, split_batch, train_step

ROWS, DIM, CLASSES = 16, 6, 4


def draw(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) / 2).astype(np.float32)


def encode(params, batch):
    hidden = jnp.tanh(
        batch["rgb"] @ params["w1"]["kernel"] + params["w1"]["bias"][None]
    )
    return hidden @ params["w2"]["kernel"]


def see(key):
    return lambda params, batch: encode(params, {"rgb": batch[key]})


def make_tower(seed=0):
    return {
        "w1": {"kernel": draw(seed, 5, 8), "bias": draw(seed + 1, 8)},
        "w2": {"kernel": draw(seed + 2, 8, DIM)},
    }


def make_batch(task="single"):
    rng = np.random.default_rng(7)
    labels = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    hot = rng.integers(0, 2, (ROWS, CLASSES)).astype(np.int32)
    owned = np.where((np.arange(ROWS) % 2)[:, None] == [0, 0, 1, 1], hot, -1)
    return {
        "rgb": draw(10, ROWS, 5),
        "s1": draw(11, ROWS, 5),
        "s2": draw(12, ROWS, 5),
        "text": draw(13, ROWS, 5),
        "label": {"single": labels, "multi": hot, "joint": owned}[task],
        "group": (np.arange(ROWS) % 7).astype(np.int32),
        # uneven over any equal parts, and one part of eight without a True
        "has_s1": np.arange(ROWS) % 8 > 2,
        "has_s2": np.arange(ROWS) % 5 > 1,
    }


FROZEN = {
    "head": draw(20, DIM, CLASSES),
    "owner": np.array([0, 0, 1, 1], np.int32),
    "teacher": make_tower(30),
    "theta_0": make_tower(40),
    "class_weights": np.array([0.5, 1, 2, 0.5], np.float32),
    "prompts": draw(50, CLASSES, 3, DIM),
    "t": np.float32(9.0),
}
TOWER = make_tower()
HEAD = {"head": draw(21, DIM, CLASSES)}


S1 = see("s1")


def align(*terms, students=S1, task="single"):
    weights = dict.fromkeys(terms, 0.7)
    weights[terms[0]] = (0.2, 1.0)
    return objectives.make_align_loss(
        students, encode, terms=weights, task=task, steps=9
    )


def patch(task="single", **options):
    return objectives.make_patch_loss(encode, task, **options)


ADAPTERS = lora.add_lora(TOWER, r".*kernel", 2, jax.random.key(0))
ADAPTERS = jax.tree.map(lambda x: np.asarray(x) + 0.1, ADAPTERS)
SENSORS = {"s1": see("s1"), "s2": see("s2")}
PAIR = {"s1": make_tower(60), "s2": make_tower(70)}
CLIP = {"visual": TOWER, "text": make_tower(80), "logit_scale": np.float32(1.5)}
PRETRAIN = objectives.make_contrastive_loss(
    lambda p, b: encode(p["visual"], b),
    lambda p, b: encode(p["text"], {"rgb": b["text"]}),
    clip_loss,
)
# name: (objective, params, task of the batch's labels, separable)
CASES = {
    "pretrain": (PRETRAIN, CLIP, "single", False),
    "labels": (patch(smoothing=0.1), TOWER, "single", True),
    "several labels": (patch("multi"), TOWER, "multi", True),
    "asymmetric": (
        patch("multi", asymmetric={"gamma_negative": 2.0, "margin": 0.05}),
        TOWER,
        "multi",
        True,
    ),
    "flyp": (objectives.make_prompt_loss(encode, clip_loss, 3), TOWER, "single", False),
    "joint": (objectives.make_joint_loss(encode, "single"), TOWER, "single", True),
    "joint, several labels": (
        objectives.make_joint_loss(encode, "multi"),
        TOWER,
        "joint",
        True,
    ),
    "lora": (recipes.through_lora(patch(), 0.5), ADAPTERS, "single", True),
    "lp_ft's head": (recipes.through_head(patch()), HEAD, "single", True),
    "trained head": (recipes.with_head(patch()), {**TOWER, **HEAD}, "single", True),
    "align, by example": (
        align("mse", "cosine", "smooth_l1", "labels", "soft_labels"),
        TOWER,
        "single",
        True,
    ),
    "align, every term": (
        align(*objectives.ALIGN_TERMS, task="multi"),
        TOWER,
        "multi",
        False,
    ),
    "several sensors": (
        align(*objectives.ALIGN_TERMS, students=SENSORS),
        PAIR,
        "single",
        False,
    ),
    "several sensors, by example": (
        align("mse", "labels", students=SENSORS),
        PAIR,
        "single",
        False,
    ),
}


def step(objective, params, task="single", accumulate=1):
    """(gradient, metrics) of a step: with SGD at rate 1 the params move by it."""
    tx = optax.sgd(1.0)
    state = make_state(jax.tree.map(jnp.asarray, params), tx)
    after, metrics = jax.jit(
        lambda *args: train_step(*args, loss_fn=objective, tx=tx, accumulate=accumulate)
    )(state, FROZEN, make_batch(task))
    moved = jax.tree.map(lambda a, b: a - b, state.params, after.params)
    return jax.device_get((moved, metrics))


def off_by(a, b) -> float:
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_accumulated_equals_the_large_batch(name):
    objective, params, task, separable = CASES[name]
    assert objective.separable is separable
    want, wanted = step(objective, params, task)
    assert off_by(want, jax.tree.map(jnp.zeros_like, want)) > 1e-2
    got, metrics = step(objective, params, task, accumulate=4)
    assert off_by(got, want) < 1e-6
    assert metrics.keys() == wanted.keys()
    assert off_by(metrics, wanted) < 2e-6 * max(1, *map(abs, wanted.values()))


def test_the_mean_over_parts_is_another_gradient_where_examples_are_compared():
    for name in ("pretrain", "several sensors, by example"):
        objective, params, task, _ = CASES[name]
        naive = Objective(objective.encode, objective.compare, separable=True)
        want, _ = step(objective, params, task)
        got, _ = step(naive, params, task, 4)
        assert off_by(got, want) > 1e-3, name


def test_parts_interleave_so_that_devices_keep_their_rows(mesh):
    parts, shared = split_batch({"x": jnp.arange(8), "step": jnp.array(3)}, 4)
    np.testing.assert_array_equal(parts["x"], [[0, 4], [1, 5], [2, 6], [3, 7]])
    assert shared == {"step": 3}
    batch = sharding.put_batch({"x": draw(0, 32, 3)}, mesh)
    split = jax.jit(lambda b: split_batch(b, 4)[0])
    compiled = split.lower(batch).compile().as_text()
    for moved in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
        assert moved not in compiled


def test_a_loss_in_one_part_cannot_be_accumulated():
    def loss_fn(params, frozen, batch):
        return jnp.mean(encode(params, batch)), {}

    with pytest.raises(ValueError, match="accumulate = 2 needs a loss_fn in two parts"):
        step(loss_fn, TOWER, accumulate=2)


def test_a_batch_must_divide():
    with pytest.raises(ValueError, match=r"accumulate = 3 does not divide .* of 16"):
        step(PRETRAIN, CLIP, accumulate=3)
    mesh = sharding.make_mesh((8, 1))
    sharding.check_batch_size(32, mesh, "batch_size", parts=4)
    with pytest.raises(
        ValueError, match=r"= 24 is not .* 8 devices .* in 2 parts.* of 16"
    ):
        sharding.check_batch_size(24, mesh, "batch_size", parts=2)
    with pytest.raises(ValueError, match="accumulate = 0 is below 1"):
        TrainSettings(8, 1, 0.1, accumulate=0)


def deep():
    """(objectives of labels and of pairs, params): 64 tokens an example, 4 layers."""
    params = {f"w{i}": draw(i, 16, 16) for i in range(4)}
    params |= {"out": draw(99, 16, DIM), "logit_scale": np.float32(1.0)}

    def see(params, batch):
        x = jnp.broadcast_to(batch["rgb"][:, :1, None], (len(batch["rgb"]), 64, 16))
        for i in range(4):
            x = jnp.tanh(x @ params[f"w{i}"])
        return x.mean(axis=1) @ params["out"]

    labels = objectives.make_patch_loss(see, "single")
    pairs = objectives.make_contrastive_loss(see, see, clip_loss)
    return (labels, pairs), params


@pytest.mark.parametrize("which", [0, 1], ids=["by parts", "by cached features"])
def test_memory_falls_with_the_number_of_parts(mesh, which):
    found, params = deep()
    tx = optax.sgd(0.1)
    state = sharding.put_params(make_state(params, tx), mesh)
    frozen = {"head": FROZEN["head"]}
    rows = 512
    batch = {
        "rgb": draw(1, rows, 5),
        "label": np.zeros(rows, np.int32),
        "group": np.zeros(rows, np.int32),
    }
    batch = sharding.put_batch(batch, mesh)

    def temporary(parts: int) -> int:
        step_fn = loop.make_step(
            state, frozen, mesh=mesh, loss_fn=found[which], tx=tx, accumulate=parts
        )
        memory = step_fn.lower(state, frozen, batch).compile().memory_analysis()
        return memory.temp_size_in_bytes

    one, eight = temporary(1), temporary(8)
    assert eight < 0.6 * one, (eight, one)
