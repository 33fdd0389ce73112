"""One step of each stage on 1, 2, 4 and 8 devices: loss, gradients and embeddings.

Compared is what numbers depend on. A key's bias in attention is not: softmax is the
same whatever is added to all scores of a query, so its exact gradient is zero, and what
is left of it is rounding, which differs between numbers of devices. AdamW divides it by
its own size, so that biases of keys drift apart by up to the learning rate a step.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.evals.search import nearest
from rsclip_jax.models.clip import image_features, init_clip, text_features
from rsclip_jax.models.inference import encode_rgb
from rsclip_jax.models.sensor import init_sensor, sensor_features, vit_spec
from rsclip_jax.models.variants import Variant
from rsclip_jax.train import loop, objectives, sharding
from rsclip_jax.train_step import make_state
from tests.helpers.marks import slow

TOY = Variant("toy", 16, 32, 8, 32, 1, 2, 16, 1, 1, "gelu", 8, vocab_size=64)
SIZES = {"image_size": 16, "patch_size": 4, "width": 32, "layers": 1, "heads": 2}
SPEC = vit_spec(get_sensor("s1_grd"), **SIZES, out_dim=16)
SHAPES = [(2, 1), (1, 2), (4, 1), (2, 2), (1, 4), (8, 1), (4, 2), (1, 8)]
ROWS = 16
STAGES = ("patch", "align", "pretrain")
# Every stage, and few devices, rows alone, weights alone and both split.
QUICK = [
    ("pretrain", (2, 1)),
    ("patch", (8, 1)),
    ("pretrain", (4, 2)),
    ("align", (1, 8)),
]


def slow_ones() -> list:
    pairs = [(stage, shape) for stage in STAGES for shape in SHAPES]
    return [slow(*pair) for pair in pairs if pair not in QUICK]


def mesh_of(data: int, fsdp: int) -> Mesh:
    devices = np.array(jax.devices()[: data * fsdp]).reshape(data, fsdp)
    auto = (jax.sharding.AxisType.Auto,) * 2
    return Mesh(devices, sharding.AXES, axis_types=auto)


def make_batch():
    rng = np.random.default_rng(0)
    return {
        "rgb": rng.integers(0, 256, (ROWS, 32, 32, 3), np.uint8),
        "s1": rng.normal(-15, 5, (ROWS, 16, 16, 2)).astype(np.float32),
        "text": rng.integers(1, 64, (ROWS, 8)).astype(np.int32),
        "label": rng.integers(0, 4, ROWS).astype(np.int32),
        "group": (np.arange(ROWS) % 7).astype(np.int32),
    }


CLIP = jax.device_get(init_clip(TOY, jax.random.key(0)))
STUDENT = jax.device_get(init_sensor(SPEC, jax.random.key(1)))
HEAD = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)


def see(params, batch):
    return image_features(params, batch["rgb"], TOY)


def job(stage: str, mesh: Mesh):
    """(objective, params, frozen)."""
    if stage == "patch":
        return objectives.make_patch_loss(see, "single"), CLIP["visual"], {"head": HEAD}
    contrastive = sharding.make_clip_loss(mesh, "ring")
    if stage == "align":
        objective = objectives.make_align_loss(
            lambda p, batch: sensor_features(p, batch["s1"], SPEC),
            see,
            terms={"mse": 1.0, "labels": 0.1, "info_nce": 0.1},
            task="single",
            contrastive=contrastive,
        )
        return objective, STUDENT, {"teacher": CLIP["visual"], "head": HEAD}
    objective = objectives.make_contrastive_loss(
        lambda p, batch: see(p["visual"], batch),
        lambda p, batch: text_features(p["text"], batch["text"], TOY),
        contrastive,
    )
    return objective, CLIP, {}


# Its state is the last gradient.
KEEP = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda grads, state, params: (jax.tree.map(jnp.negative, grads), grads),
)


def step(stage: str, shape: tuple[int, int], accumulate: int = 1):
    """(metrics, the gradient) of a step that moves the params by it."""
    mesh = mesh_of(*shape)
    objective, params, frozen = job(stage, mesh)
    state = sharding.make_placed_state(params, KEEP, mesh)
    placed = sharding.put_params(frozen, mesh)
    step_fn = loop.make_step(
        state, placed, mesh=mesh, loss_fn=objective, tx=KEEP, accumulate=accumulate
    )
    after, metrics = step_fn(state, placed, sharding.put_batch(make_batch(), mesh))
    moved = jax.tree.map(lambda a, b: a - np.asarray(b), params, after.params)
    metrics, grads = jax.device_get((metrics, after.opt_state))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), moved, grads)
    return metrics, grads


@pytest.fixture(scope="module")
def alone():
    """{stage: step on one device}."""
    return {stage: step(stage, (1, 1)) for stage in STAGES}


def off_by(got, want) -> float:
    """The largest difference of a leaf, relative to the leaf's largest value."""
    worst = 0.0
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    )
    for (path, a), b in pairs:
        if "in_proj" in str(path) and "bias" in str(path):
            third = len(a) // 3
            a, b = (np.delete(x, np.s_[third : 2 * third]) for x in (a, b))
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


@pytest.mark.parametrize(("stage", "shape"), QUICK + slow_ones(), ids=str)
def test_a_step_is_the_same_on_any_mesh(alone, stage, shape):
    want, wanted = alone[stage]
    got, grads = step(stage, shape)
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)
    assert want["grad_norm"] > 0.1
    assert off_by(grads, wanted) < 1e-5


@pytest.mark.slow
def test_an_accumulated_step_is_the_same_on_a_mesh(alone):
    got, grads = step("pretrain", (4, 2), accumulate=2)
    np.testing.assert_allclose(got["loss"], alone["pretrain"][0]["loss"], rtol=1e-5)
    assert off_by(grads, alone["pretrain"][1]) < 1e-5


def test_a_keys_bias_has_no_gradient_but_rounding(alone):
    _, grads = alone["patch"]
    bias = grads["blocks_0"]["attn"]["in_proj"]["bias"].reshape(3, -1)
    query, key, value = np.abs(bias).max(axis=1)
    assert key < 1e-4 * min(query, value)


@pytest.mark.parametrize("shape", [(2, 1), (4, 2), (1, 8)], ids=str)
def test_embeddings_and_what_they_find_are_the_same_on_any_mesh(shape):
    rgb = make_batch()["rgb"]
    want = np.asarray(encode_rgb(CLIP["visual"], rgb, variant=TOY))
    mesh = mesh_of(*shape)
    placed = sharding.put_params(CLIP["visual"], mesh)
    on_mesh = sharding.put_batch({"rgb": rgb}, mesh)["rgb"]
    got = np.asarray(encode_rgb(placed, on_mesh, variant=TOY))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    scores, rows = nearest(got[:4], got, 3, mesh=mesh)
    wanted, indices = nearest(want[:4], want, 3, mesh=mesh_of(1, 1))
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)
    np.testing.assert_array_equal(rows, indices)


def test_split_params_are_gathered_and_activations_stay_where_they_are():
    mesh = mesh_of(1, 8)
    objective, params, frozen = job("align", mesh)
    args = make_state(params, KEEP), frozen
    step_fn = loop.make_step(*args, mesh=mesh, loss_fn=objective, tx=KEEP)
    text = step_fn.lower(*args, make_batch()).compile().as_text()
    assert "all-gather" in text
    assert "all-to-all" not in text
