"""Where arrays lie on eight devices, and the contrastive loss across them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rsclip_jax.losses import clip_loss, normalize
from rsclip_jax.train import sharding

SHAPES = [(8, 1), (4, 2), (2, 4)]


@pytest.mark.parametrize(
    ("shape", "want"),
    [
        ((-1, 1), (8, 1)),
        ((-1, 2), (4, 2)),
        ((2, -1), (2, 4)),
        ((4, 2), (4, 2)),
        ((1, 8), (1, 8)),
    ],
)
def test_mesh_shapes(shape, want):
    mesh = sharding.make_mesh(shape)
    assert mesh.axis_names == ("data", "fsdp")
    assert tuple(mesh.shape.values()) == want
    assert set(mesh.devices.flat) == set(jax.devices())
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,) * 2


@pytest.mark.parametrize(
    "shape", [(3, -1), (4, 1), (4, 4), (-1, -1), (0, -1), (-2, -4), (8,), (8, 1, 1)]
)
def test_a_mesh_that_leaves_devices_out_is_refused(shape):
    said = rf"^mesh = {re.escape(str(shape))} does not cover 8 devices"
    with pytest.raises(ValueError, match=said):
        sharding.make_mesh(shape)
    with pytest.raises(ValueError, match="does not cover the one device"):
        sharding.make_mesh((2, 1), jax.devices()[:1])


@pytest.mark.parametrize(
    ("shape", "want"),
    [
        ((6, 4), P("fsdp")),
        ((4, 6), P(None, "fsdp")),
        ((3, 3, 2, 8), P(None, None, None, "fsdp")),
        ((9, 4), P(None, "fsdp")),  # 9 is larger, but does not divide
        ((4, 4), P("fsdp")),
        ((3, 5), P()),
        ((0, 3), P()),
        ((1,), P()),
        ((), P()),
    ],
)
def test_the_largest_dim_that_divides_lies_on_fsdp(shape, want):
    mesh = sharding.make_mesh((4, 2))
    got = sharding.param_shardings({"w": np.zeros(shape)}, mesh)["w"]
    assert got.is_equivalent_to(jax.NamedSharding(mesh, want), len(shape))
    assert got.spec == want


def test_without_fsdp_params_are_replicated(mesh):
    tree = {"a": np.zeros((8, 16)), "b": {"c": np.zeros(8)}}
    specs = jax.tree.map(lambda s: s.spec, sharding.param_shardings(tree, mesh))
    assert specs == {"a": P(), "b": {"c": P()}}


def test_put_params_splits_over_fsdp_and_repeats_over_data():
    mesh = sharding.make_mesh((2, 4))
    w = np.arange(24, dtype=np.float32).reshape(3, 8)
    got = sharding.put_params({"w": w}, mesh)["w"]
    np.testing.assert_array_equal(got, w)
    at = {s.device: np.asarray(s.data) for s in got.addressable_shards}
    for row in mesh.devices:
        for i, device in enumerate(row):
            np.testing.assert_array_equal(at[device], w[:, 2 * i : 2 * i + 2])


@pytest.mark.parametrize("shape", SHAPES)
def test_put_batch_gives_each_device_its_rows(shape):
    mesh = sharding.make_mesh(shape)
    batch = {
        "rgb": np.arange(16 * 3, dtype=np.uint8).reshape(16, 3),
        "label": np.arange(16, dtype=np.int32),
    }
    got = sharding.put_batch(batch, mesh)
    assert got.keys() == batch.keys()
    for name, array in batch.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)
        at = {s.device: np.asarray(s.data) for s in got[name].addressable_shards}
        for i, device in enumerate(mesh.devices.flat):
            np.testing.assert_array_equal(at[device], array[2 * i : 2 * i + 2])


@pytest.mark.parametrize("size", [-8, 0, 1, 7, 12])
def test_a_batch_that_cannot_be_shared_is_refused(mesh, size):
    said = f"config.align.batch_size = {size} is not a positive multiple of the 8 dev"
    with pytest.raises(ValueError, match=said):
        sharding.check_batch_size(size, mesh, "config.align.batch_size")


@pytest.mark.parametrize("size", [8, 64])
def test_a_batch_that_can_be_shared_passes(mesh, size):
    sharding.check_batch_size(size, mesh, "batch_size")


B, T = 16, 14.3
GROUPS = {
    "distinct": np.arange(B, dtype=np.int32),
    # every group has members on several devices
    "shared": (np.arange(B) % 5).astype(np.int32),
}


def pairs():
    rng = np.random.default_rng(0)
    zimg, noise = rng.normal(size=(2, B, 12)).astype(np.float32)
    ztxt = 0.7 * zimg + noise
    return tuple(np.array(normalize(jnp.array(x))) for x in (zimg, ztxt))


def value_and_grads(loss, zimg, ztxt, groups):
    fn = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    return jax.device_get(fn(zimg, ztxt, jnp.float32(T), groups))


def off_by(a, b) -> float:
    return max(
        np.abs(x - y).max()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def on_mesh(mesh, loss, groups):
    zimg, ztxt = pairs()
    batch = sharding.put_batch({"i": zimg, "t": ztxt, "g": groups}, mesh)
    return value_and_grads(loss, batch["i"], batch["t"], batch["g"])


def on_one_device(groups):
    return value_and_grads(clip_loss, *pairs(), groups)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_clip_loss_over_a_mesh_equals_the_plain_one(shape, groups):
    mesh = sharding.make_mesh(shape)
    got = on_mesh(mesh, sharding.make_clip_loss(mesh), GROUPS[groups])
    want = on_one_device(GROUPS[groups])
    assert min(np.abs(g).max() for g in want[1]) > 1e-3  # there is much to compare
    assert off_by(got, want) <= 1e-6


def test_clip_loss_over_a_mesh_needs_no_groups(mesh):
    zimg, ztxt = pairs()
    got = sharding.make_clip_loss(mesh)(zimg, ztxt, T, None)
    want = clip_loss(jnp.array(zimg), jnp.array(ztxt), T)
    np.testing.assert_allclose(got, want, atol=1e-6)


def planted(mesh, fault):
    """make_clip_loss with a known mistake."""
    rows = P(sharding.AXES)

    def loss(zimg, ztxt, t, groups):
        if fault == "no gather at all":
            local = clip_loss(zimg, ztxt, t, groups)
        else:  # the other side is gathered, its gradient is not sent back
            everyone = jax.lax.all_gather((zimg, ztxt, groups), sharding.AXES)
            flat = [x.reshape(-1, *x.shape[2:]) for x in everyone]
            rest = [jax.lax.stop_gradient(x) for x in flat[:2]]
            same = (groups[:, None] == flat[2][None]).astype(jnp.float32)
            target = same / same.sum(1, keepdims=True)
            sides = [t * zimg @ rest[1].T, t * ztxt @ rest[0].T]
            local = -sum(
                (target * jax.nn.log_softmax(x)).sum(1).mean() / 2 for x in sides
            )
        return jax.lax.pmean(local, sharding.AXES)

    return jax.shard_map(
        loss, mesh=mesh, in_specs=(rows, rows, P(), rows), out_specs=P()
    )


@pytest.mark.parametrize("groups", GROUPS)
def test_the_comparison_catches_a_missing_gather(mesh, groups):
    got = on_mesh(mesh, planted(mesh, "no gather at all"), GROUPS[groups])
    want = on_one_device(GROUPS[groups])
    assert abs(got[0] - want[0]) > 0.1


@pytest.mark.parametrize("groups", GROUPS)
def test_the_comparison_catches_a_gradient_not_sent_back(mesh, groups):
    got = on_mesh(mesh, planted(mesh, "one-way gather"), GROUPS[groups])
    want = on_one_device(GROUPS[groups])
    assert abs(got[0] - want[0]) <= 1e-6  # the value alone would not show it
    assert off_by(got[1], want[1]) > 1e-3


def test_no_device_holds_all_the_logits(mesh):
    def shapes(loss):
        jaxpr = jax.make_jaxpr(loss)(*pairs(), T, GROUPS["distinct"])
        return set(re.findall(r"f32\[(\d+,\d+)\]", str(jaxpr)))

    assert "2,16" in shapes(sharding.make_clip_loss(mesh))
    assert "16,16" not in shapes(sharding.make_clip_loss(mesh))
    assert "16,16" in shapes(clip_loss)
