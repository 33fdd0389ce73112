"""How a run computes: what config.precision and its siblings resolve to and record."""

import dataclasses
import types

import numpy as np
import pytest

import rsclip_jax
from rsclip_jax import api
from rsclip_jax.data.datasets import open_source
from rsclip_jax.models.compute import Compute
from rsclip_jax.stages.align.teacher import identity
from rsclip_jax.stages.pretrain import check_pretrain
from rsclip_jax.stages.shared.training import check_computing, train_settings
from tests.helpers.runs import make_run, tiny_config


def run_with(folder, platform="cpu", **settings):
    """A run whose mesh says that it is of this platform."""
    config = tiny_config()
    config.update(settings)
    run = make_run(folder, config)
    if platform == "cpu":
        return run
    device = types.SimpleNamespace(platform=platform)
    mesh = types.SimpleNamespace(devices=np.array([[device]]), size=1)
    return dataclasses.replace(run, mesh=mesh)


@pytest.mark.parametrize(
    ("platform", "precision", "dtype"),
    [
        ("cpu", "", "float32"),
        ("gpu", "", "bfloat16"),
        ("tpu", "", "bfloat16"),
        ("gpu", "float32", "float32"),
        ("cpu", "bfloat16", "bfloat16"),
    ],
)
def test_the_precision_is_bfloat16_where_it_is_fast(
    tmp_path, platform, precision, dtype
):
    compute = run_with(tmp_path, platform, precision=precision).compute
    assert compute.dtype == dtype
    assert compute.layout == ("tiles" if platform == "tpu" else "rows")


def test_the_settings_are_those_of_the_models(tmp_path):
    run = run_with(tmp_path, remat="block", scan_layers=True, attention="xla")
    assert run.compute == Compute("float32", "block", True, "xla")
    clip = run.bound(api.Model(None, {}, {}, "a"))
    assert clip.compute == run.compute
    assert clip.mesh is run.mesh


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "float16"}, "config.precision = 'float16': use one of float32"),
        ({"remat": "all"}, "config.remat = 'all': use one of none, dots, block"),
        ({"attention": "cudnn"}, "config.attention = 'cudnn' needs bfloat16 on a GPU"),
    ],
)
def test_what_cannot_be_is_refused_before_a_stage(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        check_pretrain(run_with(tmp_path, **settings))


def test_bfloat16_gradients_are_of_a_bfloat16_training(tmp_path):
    config = tiny_config()
    with config.unlocked():
        config.patch.grad_dtype = "bfloat16"
    run = make_run(tmp_path, config)
    settings = train_settings(config.patch, "patch")
    with pytest.raises(ValueError, match=r"config.patch.grad_dtype = 'bfloat16' .*"):
        check_computing(run, "patch", settings)
    config.precision = "bfloat16"
    check_computing(make_run(tmp_path, config), "patch", settings)


def test_a_batch_is_shared_by_devices_and_parts(tmp_path):
    config = tiny_config()
    config.patch.accumulate = 3
    settings = train_settings(config.patch, "patch")
    with pytest.raises(ValueError, match=r"3 parts.*\(config.patch.accumulate = 3\)"):
        check_computing(make_run(tmp_path, config), "patch", settings)
    config.patch.accumulate = 0
    with pytest.raises(ValueError, match=r"config.patch.accumulate = 0 is below 1"):
        train_settings(config.patch, "patch")
    config.patch.update(accumulate=1, negatives="all")
    with pytest.raises(ValueError, match=r"config.patch.negatives = 'all': use one of"):
        train_settings(config.patch, "patch")


def test_a_finished_stage_says_how_it_computed(tiny_run):
    for stage in ("pretrain", "patch", "align", "evaluate"):
        meta = rsclip_jax.records.meta.read_meta(tiny_run / stage)
        assert meta.precision == "float32", stage


def test_features_of_another_precision_are_another_teachers(tiny_run):
    clip = api.load(tiny_run)
    wide, narrow = (identity(clip, Compute(d)) for d in ("float32", "bfloat16"))
    assert "precision" not in wide  # as caches of earlier versions say
    assert narrow == {**wide, "precision": "bfloat16"}


def test_zero_shot_in_bfloat16_is_that_of_float32(tiny_run):
    source = open_source("miniature", "", "test")
    records = [source[i] for i in range(200)]
    labels, rgb = ([r[key] for r in records] for key in ("label", "rgb"))
    found = []
    for precision in ("float32", "bfloat16"):
        model = api.load(tiny_run, precision=precision)
        dataset = source.dataset
        head = model.zero_shot(dataset.classnames, dataset.templates)
        found.append((model.encode_image(rgb) @ head).argmax(axis=1) == labels)
    right = [int(np.sum(one)) for one in found]
    assert abs(right[0] - right[1]) <= 1  # of 200: 0.5 points


def test_a_loaded_model_computes_in_the_precision_asked_for(tiny_run):
    wide, narrow = (api.load(tiny_run, precision=p) for p in ("float32", "bfloat16"))
    rgb = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    a, b = (model.encode_image(rgb, block=2) for model in (wide, narrow))
    assert b.dtype == np.float32
    assert 0 < np.abs(a - b).max() < 0.05
    with pytest.raises(ValueError, match="precision = 'half': use one of float32"):
        api.load(tiny_run, precision="half")
