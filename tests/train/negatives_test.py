"""The contrastive loss over a mesh in two forms: the plain loss, less memory."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from rsclip_jax import losses
from rsclip_jax.losses import clip_loss
from rsclip_jax.train import sharding

ROWS, DIM, T = 16, 6, np.float32(9.0)
GROUPS = {"none": None, "some equal": (np.arange(ROWS) % 5).astype(np.int32)}
MASKS = {
    "none": None,
    "some": np.arange(ROWS) % 3 > 0,
    "one": np.arange(ROWS) == 4,
    "no row": np.zeros(ROWS, bool),
}
AXIS_TYPES = (jax.sharding.AxisType.Auto,) * 2


def mesh_of(data: int, fsdp: int = 1) -> Mesh:
    devices = np.array(jax.devices()[: data * fsdp]).reshape(data, fsdp)
    return Mesh(devices, sharding.AXES, axis_types=AXIS_TYPES)


def draw_pairs(rows=ROWS, dim=DIM):
    z = np.random.default_rng(0).normal(size=(2, rows, dim)).astype(np.float32)
    return tuple(z / np.linalg.norm(z, axis=-1, keepdims=True))


def measure(loss, groups, mask):
    """The loss and its gradient by images, texts and temperature."""
    groups, mask = (x if x is None else jnp.asarray(x) for x in (groups, mask))

    def fn(zimg, ztxt, t):
        return 3 * loss(zimg, ztxt, t, groups, mask)  # 3: the gradient comes from above

    found = jax.jit(jax.value_and_grad(fn, argnums=(0, 1, 2)))(*draw_pairs(), T)
    return jax.device_get(found)


def compare(mesh, negatives, groups, mask):
    want = measure(clip_loss, groups, mask)
    got = measure(sharding.make_clip_loss(mesh, negatives), groups, mask)
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
    return want


@pytest.mark.parametrize("negatives", sharding.NEGATIVES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (4, 1), (4, 2), (1, 8)], ids=str)
def test_on_any_mesh_it_is_the_plain_loss(negatives, shape):
    groups, mask = GROUPS["some equal"], MASKS["some"]
    value, grads = compare(mesh_of(*shape), negatives, groups, mask)
    assert value > 1
    assert all(np.abs(x).max() > 1e-2 for x in grads)


@pytest.mark.parametrize(("groups", "mask"), list(itertools.product(GROUPS, MASKS)))
def test_the_ring_with_every_group_and_mask(groups, mask):
    compare(mesh_of(4), "ring", GROUPS[groups], MASKS[mask])


def test_the_comparison_finds_a_ring_that_stops_early(monkeypatch):
    around = losses._around

    def once(axis_name, visit, own, guest):
        monkeypatch.setattr(jax.lax, "scan", lambda f, x, _, length: f(x, None))
        try:
            return around(axis_name, visit, own, guest)
        finally:
            monkeypatch.undo()

    # each device's texts meet its own images alone, and go home with a neighbour
    monkeypatch.setattr(losses, "_around", once)
    groups, mask = GROUPS["some equal"], None
    got = measure(sharding.make_clip_loss(mesh_of(4), "ring"), groups, mask)
    monkeypatch.undo()
    want = measure(clip_loss, groups, mask)
    assert abs(got[0] - want[0]) > 0.1


def temporary(negatives: str, devices: int) -> int:
    """Bytes of a device's temporary memory at 64 pairs a device, with the gradient."""
    mesh = mesh_of(devices)
    loss = sharding.make_clip_loss(mesh, negatives)
    rows = 64 * devices
    like = jax.ShapeDtypeStruct(
        (rows, 64), jnp.float32, sharding=sharding.batch_sharding(mesh)
    )
    groups = jax.ShapeDtypeStruct(
        (rows,), jnp.int32, sharding=sharding.batch_sharding(mesh)
    )
    grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    compiled = grad.lower(like, like, jnp.float32(9), groups).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_the_rings_memory_does_not_grow_with_the_devices():
    assert temporary("all_gather", 8) > 2 * temporary("all_gather", 2)
    assert temporary("ring", 8) < 1.1 * temporary("ring", 2)
    assert temporary("ring", 8) < temporary("all_gather", 8)
