"""Mixtures on the devices: the product's bits, one program, made once for a group."""

import functools

import jax
import numpy as np
import pytest

from rsclip_jax import api
from rsclip_jax.interpolate import block_names, interpolate
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.records.budget import ORIGINAL
from rsclip_jax.stages.patch import mixtures
from rsclip_jax.stages.patch.mixtures import Mixtures
from rsclip_jax.stages.patch.settings import settings_of
from rsclip_jax.stages.patch.sweep import Sweep
from rsclip_jax.train import checkpoint
from rsclip_jax.train.sharding import make_mesh
from tests.helpers.runs import few_scenes, make_run, tiny_config


@functools.cache
def tiny_params():
    return jax.device_get(init_clip("mini", jax.random.key(3)))


@pytest.fixture
def ends():
    """(params, theta_1, a tower before theta_0)."""
    params = jax.tree.map(np.copy, tiny_params())
    theta_1, original = (
        jax.tree.map(lambda x, k=k: x * np.float32(k), params["visual"])
        for k in (1.3, 2)
    )
    return params, theta_1, original


def assert_same_bits(got, want):
    def compare(x, y):
        np.testing.assert_array_equal(*(np.asarray(a).view(np.uint32) for a in (x, y)))

    jax.tree.map(compare, got, want)


@pytest.mark.parametrize("shape", [(8, 1), (2, 4)])
def test_the_devices_hold_what_the_host_computes_bit_for_bit(ends, shape):
    params, theta_1, original = ends
    theta_0 = params["visual"]
    theta_0["proj"]["kernel"][0, 0] = -0.0  # which no sum gives
    theta_1["proj"]["kernel"][0, :2] = np.inf  # times 0 it is nan
    made = Mixtures(params, theta_0, theta_1, make_mesh(shape), original)
    blocks = dict.fromkeys(block_names(theta_0), 0.3)
    mixed = {**blocks, "stem": 0.0, "projection": 1.0}
    sizes = []
    for alpha in (0.1, 0.35, 0.7, blocks, mixed):
        assert_same_bits(made.on_devices(alpha), made.on_host(alpha))
        sizes.append((mixtures._scale._cache_size(), mixtures._add._cache_size()))
    assert len(set(sizes)) == 1  # no alpha compiles another program
    assert_same_bits(made.on_devices(0.35), interpolate(theta_0, theta_1, 0.35))
    for alpha, want in ((0, theta_0), (1.0, theta_1), (ORIGINAL, original)):
        assert_same_bits(made.on_devices(alpha), want)


def test_a_digest_is_that_of_the_whole_clip_and_is_computed_once(
    ends, mesh, monkeypatch
):
    params, theta_1, original = ends
    theta_0, hashed = params["visual"], []
    hash_leaves = checkpoint._hash_leaves

    def counted(digest, tree):
        hashed.extend(tree)
        hash_leaves(digest, tree)

    monkeypatch.setattr(checkpoint, "_hash_leaves", counted)
    made = Mixtures(params, theta_0, theta_1, mesh, original)
    blocks = dict.fromkeys(block_names(theta_0), 0.3)
    alphas = (0, 0.0, 0.4, 1, 1.0, ORIGINAL, blocks, dict(reversed(blocks.items())))
    found = [made.digest(alpha) for alpha in (*alphas, *alphas)]
    assert hashed.count("text") == 1
    assert hashed.count("visual") == 5
    for alpha, digest in zip(alphas, found, strict=False):
        whole = {**params, "visual": made.on_host(alpha)}
        assert digest == checkpoint.params_digest(whole)


def test_a_sweep_mixes_once_for_a_group_of_batches(tmp_path, monkeypatch):
    config = tiny_config()
    config.eval_batch_size = 8  # 5 batches of 40 records
    run = make_run(tmp_path, config)
    clip = api.Model(get_variant("mini"), tiny_params(), {}, "a")
    theta_0 = clip.params["visual"]
    theta_1 = jax.tree.map(lambda x: x * np.float32(1.1), theta_0)
    mixed, scale = [], mixtures._scale

    def counted(theta, shares):
        mixed.append(float(shares[0]))
        return scale(theta, shares)

    monkeypatch.setattr(mixtures, "_scale", counted)
    sweep = Sweep(run, settings_of(run), clip, theta_0, theta_1)
    with few_scenes():
        source = run.open("miniature:val")
        sweep.measure(source, (0.0, 0.25, 0.5, 1.0))
    assert len(source) == 40
    np.testing.assert_allclose(mixed, [0.75, 0.25, 0.5, 0.5])
