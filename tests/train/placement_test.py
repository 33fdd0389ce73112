"""Where params, moments and gradients lie: whole on no device that holds a part."""

import contextlib
import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from jax.experimental.compilation_cache import compilation_cache

from rsclip_jax import api
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.tokenizer import VOCAB_SIZE
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.compute import Compute
from rsclip_jax.models.sensor import init_sensor, vit_spec
from rsclip_jax.models.variants import Variant
from rsclip_jax.train import loop, objectives, sharding
from rsclip_jax.train.optim import make_optimizer, make_schedule

TOY = Variant("toy", 16, 32, 8, 32, 1, 2, 16, 1, 1, "gelu", 24, vocab_size=512)
SIZES = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "heads": 2}
SPEC = vit_spec(get_sensor("s1_grd"), **SIZES, out_dim=16)


@pytest.fixture
def split():
    return sharding.make_mesh((1, 8))


def whole_on_a_device(tree) -> list[str]:
    """The names of leaves with a dimension of 8 or more that a device holds whole."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if any(n % 8 == 0 for n in leaf.shape):
            parts = [shard.data.size for shard in leaf.addressable_shards]
            assert len(parts) == 8
            if max(parts) != leaf.size // 8:
                found.append(jax.tree_util.keystr(path))
    return found


def largest_on_a_device(make) -> int:
    """Elements of the largest part that make() puts on one device."""
    put, from_callback = jax.device_put, jax.make_array_from_callback
    seen = [0]

    def spy_put(x, *args, **kwargs):
        out = put(x, *args, **kwargs)
        for leaf in jax.tree.leaves(out):
            seen[0] = max(seen[0], *(s.data.size for s in leaf.addressable_shards))
        return out

    def spy_callback(shape, where, callback):
        def noted(index):
            part = callback(index)
            seen[0] = max(seen[0], part.size)
            return part

        return from_callback(shape, where, noted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "device_put", spy_put)
        patch.setattr(jax, "make_array_from_callback", spy_callback)
        make()
    return seen[0]


def test_random_params_are_made_in_parts(split):
    made = init_sensor(SPEC, jax.random.key(0), split)
    assert whole_on_a_device(made) == []
    plain = init_sensor(SPEC, jax.random.key(0))
    assert whole_on_a_device(jax.device_put(plain, sharding.replicated(split)))
    for a, b in zip(*map(jax.tree.leaves, (made, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_no_device_draws_the_whole_of_what_it_holds_a_part_of(split):
    def draw(rng):
        return {"table": jax.random.normal(rng, (512, 24))}

    make = partial(sharding.make_on, split, draw)
    text = jax.jit(make).lower(jax.random.key(0)).compile().as_text()
    assert "f32[64,24]" in text
    assert "f32[512,24]" not in text
    assert "all-gather" not in text


def test_params_of_a_file_go_to_the_devices_in_parts(split, tmp_path):
    table = np.random.default_rng(0).normal(size=(512, 24)).astype(np.float32)
    table[3, 3] = np.nan  # a device_put of several processes would refuse it
    safetensors.numpy.save_file({"table": table}, tmp_path / "w.safetensors")
    tree = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    assert largest_on_a_device(lambda: sharding.put_params(tree, split)) == 64 * 24
    mapped = {"table": np.memmap(tmp_path / "raw", np.float32, "w+", shape=(512, 24))}
    mapped["table"][:] = table
    placed = sharding.put_params(mapped, split)
    assert whole_on_a_device(placed) == []
    np.testing.assert_array_equal(placed["table"], table)


def test_a_model_on_a_mesh_is_split_and_encodes_the_same(split):
    variant = dataclasses.replace(TOY, vocab_size=VOCAB_SIZE)  # texts are encoded
    params = jax.device_get(init_clip(variant, jax.random.key(0)))
    plain = api.Model(variant, params, {}, "a")
    spread = api.Model(variant, params, {}, "a", mesh=split)
    rgb = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)

    def encode():
        made["image"] = spread.encode_image(rgb, block=4)
        made["text"] = spread.encode_text(["a", "b c"])

    made: dict[str, np.ndarray] = {}
    largest = max(x.size for x in jax.tree.leaves(params))
    assert largest_on_a_device(encode) == largest // 8
    want = plain.encode_image(rgb, block=4)
    np.testing.assert_allclose(made["image"], want, atol=1e-6)
    np.testing.assert_allclose(made["text"], plain.encode_text(["a", "b c"]), atol=1e-6)


def test_the_state_is_made_in_parts_and_owns_its_arrays(split):
    params = init_clip(TOY, jax.random.key(0), split)
    schedule = make_schedule(0.1, 0, 10)
    tx = make_optimizer(schedule, weight_decay=0.1, clip_norm=1.0, ema=0.9)
    state = sharding.make_placed_state(params, tx, split)
    assert whole_on_a_device(state) == []
    assert len(jax.tree.leaves(state.opt_state)) > 3 * len(jax.tree.leaves(params))
    jax.tree.map(lambda x: x.delete(), state)
    assert not any(x.is_deleted() for x in jax.tree.leaves(params))


NARROW = Compute("bfloat16")


def encode_narrowly(params, batch):
    hidden = NARROW.cast(NARROW.dot(batch["x"], params["a"]["kernel"]))
    return NARROW.dot(jnp.tanh(hidden), params["b"]["kernel"])


@contextlib.contextmanager
def compiled_anew():
    """Without the compilation cache, whose programs show no passes."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


def reduced(mesh, folder, grad_dtype) -> set[str]:
    """What the devices add up in a step, as the partitioner leaves it.

    XLA's CPU compiler widens bfloat16 afterwards; others send it as it is.
    """
    tx = optax.sgd(0.1)
    ones = {"a": {"kernel": np.ones((24, 32))}, "b": {"kernel": np.ones((32, 16))}}
    params = jax.tree.map(np.float32, ones)
    state = sharding.make_placed_state(params, tx, mesh)
    frozen = {"head": np.ones((16, 4), np.float32)}
    rows = {"x": np.ones((64, 24), np.float32), "label": np.zeros(64, np.int32)}
    step_fn = loop.make_step(
        state,
        frozen,
        mesh=mesh,
        loss_fn=objectives.make_patch_loss(encode_narrowly, "single"),
        tx=tx,
        grad_dtype=grad_dtype,
    )
    lowered = step_fn.lower(state, frozen, sharding.put_batch(rows, mesh))
    options = {"xla_dump_to": str(folder), "xla_dump_hlo_pass_re": "spmd.*"}
    with compiled_anew():
        lowered.compile(compiler_options=options)
    (after,) = folder.glob("*after_spmd-partitioning*")
    return set(re.findall(r"= (\w+\[[\d,]+\])\S* all-reduce\(", after.read_text()))


def test_gradients_are_added_up_in_the_format_asked_for(mesh, tmp_path):
    shapes = ("[24,32]", "[32,16]")
    for dtype, short in (("float32", "f32"), ("bfloat16", "bf16")):
        folder = tmp_path / dtype
        assert reduced(mesh, folder, dtype) == {short + shape for shape in shapes}
