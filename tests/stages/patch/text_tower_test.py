"""FLYP with the text tower: both towers train, are mixed, and measure together."""

import dataclasses

import jax
import numpy as np
import pytest

import rsclip_jax
from configs import export
from rsclip_jax import api
from rsclip_jax.interpolate import interpolate
from rsclip_jax.main import run_stages
from rsclip_jax.models.clip import init_clip, put_towers, tower_params
from rsclip_jax.models.variants import Variant
from rsclip_jax.records.budget import ORIGINAL
from rsclip_jax.records.results import read_results
from rsclip_jax.stages.patch.settings import settings_of
from rsclip_jax.stages.patch.stage import check_patch
from rsclip_jax.stages.patch.sweep import Sweep
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import save_clip
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config

TINY = Variant("tiny", 16, 32, 8, 32, 2, 2, 16, 1, 1, "gelu")
SAME = np.testing.assert_array_equal


def config_of(**settings):
    config = tiny_config(stages=("patch",))
    given = {"steps": 8, "lr": 3e-3, "batch_size": 32, "warmup": 0, "bootstraps": 5}
    given |= {"loss": "flyp", "train_text": True, **settings}
    with config.unlocked():
        config.patch.update_from_flattened_dict(given)
    return config


def make_params(seed: int = 3) -> dict:
    return jax.device_get(init_clip(TINY, jax.random.key(seed)))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "clip"
    save_clip(folder, TINY, make_params())
    return folder


def patch(workdir, start, **settings):
    config = config_of(**settings)
    with config.unlocked():
        config.update(init=str(start), variant="")
    run_tiny(workdir, config)
    return workdir


@pytest.fixture(scope="module")
def made(start, tmp_path_factory):
    return patch(tmp_path_factory.mktemp("flyp"), start, alpha=0.5)


def test_the_ends_and_the_product_are_bit_for_bit(made, start):
    before, model = rsclip_jax.load(start), rsclip_jax.load(made)
    theta_0 = tower_params(before.params, with_text=True)
    theta_1 = checkpoint.load_trained(made / "patch")
    assert jax.tree.structure(theta_0) == jax.tree.structure(theta_1)
    for tower in ("visual", "text"):
        moved = jax.tree.map(np.array_equal, model.params[tower], before.params[tower])
        assert not all(jax.tree.leaves(moved))
    want = put_towers(before.params, interpolate(theta_0, theta_1, 0.5))
    jax.tree.map(SAME, model.params, want)
    assert rsclip_jax.load(made, alpha=0.0).digest == before.digest
    jax.tree.map(
        SAME,
        rsclip_jax.load(made, alpha=1.0).params,
        put_towers(before.params, theta_1),
    )
    assert rsclip_jax.load(made, alpha=0.5).digest == model.digest
    assert model.params["logit_scale"] == before.params["logit_scale"]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_each_alpha_is_measured_as_its_model_is(made, alpha):
    """On the task and the supported set: the digest is that of the loaded model."""
    model = rsclip_jax.load(made, alpha=alpha)
    rows = [
        r
        for r in read_results(made / "results.jsonl")
        if (r.stage, r.task, r.alpha) == ("patch", "zero_shot", alpha)
        if r.metric == "accuracy"
    ]
    assert {r.dataset for r in rows} == {"miniature", "miniature_natural"}
    with few_scenes():
        run = make_run(made, config_of())
        for row in rows:
            assert row.checkpoint == model.digest
            source = run.open(f"{row.dataset}:{row.split}")
            records = [source[i] for i in range(len(source))]
            z = model.encode_image([r["rgb"] for r in records])
            dataset = source.dataset
            head = model.zero_shot(dataset.classnames, dataset.templates)
            right = (z @ head).argmax(axis=1) == [r["label"] for r in records]
            assert right.mean() == pytest.approx(row.value)


def test_heads_are_those_of_the_text_tower_at_each_alpha(tmp_path):
    """One text tower for all alphas would give another head, and is not what is."""
    params, moved, first = (make_params(seed) for seed in (3, 4, 5))
    clip = api.Model(TINY, params, {}, "a")
    ends = [tower_params(p, with_text=True) for p in (params, moved)]
    with few_scenes():
        run = make_run(tmp_path, config_of())
        source = run.open("miniature:val")
        original = tower_params(first, with_text=True)
        sweep = Sweep(run, settings_of(run), clip, *ends, original=original)
        measured = sweep.measure(source, [ORIGINAL, 0.0, 0.25, 1.0])
        records = [source[i]["rgb"] for i in range(len(source))]
    for head, z, towers in zip(
        measured.heads,
        measured.z,
        (original, ends[0], interpolate(*ends, 0.25), ends[1]),
        strict=True,
    ):
        model = dataclasses.replace(clip, params=put_towers(params, towers))
        dataset = source.dataset
        SAME(head, model.zero_shot(dataset.classnames, dataset.templates))
        np.testing.assert_allclose(z, model.encode_image(records), atol=1e-5)
    assert sweep.digest(0.25) == checkpoint.params_digest(
        put_towers(params, interpolate(*ends, 0.25))
    )


def test_the_card_says_that_both_towers_were_trained(made, tmp_path):
    config = export.get_config()
    config.update(init=str(made), progress=False)
    run_stages(config.lock(), tmp_path / "w")
    card = (tmp_path / "w" / "export" / "README.md").read_text()
    assert "both towers were fine-tuned" in card
    assert rsclip_jax.load(tmp_path / "w/export/clip").digest == (
        rsclip_jax.load(made).digest
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"tasks": "sequential"}, {"tasks": "parallel", "merge": "sum"}, {"ema": 0.5}],
)
def test_several_tasks_and_ema_hold_both_towers(start, tmp_path, settings):
    """Slow: three whole runs."""
    if "tasks" in settings:
        settings = {
            **settings,
            "train": ("miniature:train", "miniature_natural:train"),
            "val": ("miniature:val", "miniature_natural:val"),
            "test": ("miniature:test", "miniature_natural:test"),
            "supported_val": (),
            "supported_test": (),
            "alphas": (0.0, 1.0),
        }
    workdir = patch(tmp_path / "w", start, alpha=1.0, **settings)
    before, model = rsclip_jax.load(start), rsclip_jax.load(workdir)
    for tower in ("visual", "text"):
        same = jax.tree.map(np.array_equal, model.params[tower], before.params[tower])
        assert not all(jax.tree.leaves(same))
    assert jax.tree.structure(model.params) == jax.tree.structure(before.params)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "labels"}, "patch.loss = 'labels': set it to 'flyp'"),
        ({"recipe": "lora"}, "patch.recipe = 'lora': set it to 'full'"),
        ({"per_block": True}, "patch.per_block = True: set it to False"),
        ({"layer_decay": 0.7}, r"patch.layer_decay = 0\.7: set it to 1\.0"),
        ({"head": "trained"}, "'trained' trains a head"),
        ({"trainable": (("blocks.*", True),)}, "no rule covers"),
    ],
)
def test_what_does_not_go_with_it_is_refused(start, tmp_path, settings, words):
    config = config_of(**settings)
    with config.unlocked():
        config.update(init=str(start), variant="")
    with few_scenes(), pytest.raises(ValueError, match=words):
        check_patch(make_run(tmp_path, config))
