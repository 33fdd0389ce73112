"""A head that stage patch trains with its tower and mixes like it (WiSE-FT)."""

import jax
import numpy as np
import pytest

import rsclip_jax
from rsclip_jax import api, losses
from rsclip_jax.data.datasets import open_source
from rsclip_jax.interpolate import interpolate
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import Variant
from rsclip_jax.records.outcomes import load_outcome
from rsclip_jax.stages.patch import recipes
from rsclip_jax.stages.patch.fine_tune import fine_tune
from rsclip_jax.stages.patch.settings import settings_of
from rsclip_jax.stages.patch.stage import check_patch
from rsclip_jax.stages.shared.scoring import zero_shot_head
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import save_clip
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config
from tests.helpers.shares import assert_share

TINY = Variant("tiny", 16, 32, 8, 32, 2, 2, 16, 1, 1, "gelu")


@pytest.fixture(scope="module")
def clip() -> api.Model:
    params = jax.device_get(init_clip(TINY, jax.random.key(3)))
    return api.Model(TINY, params, {}, "a")


def head_config(**settings):
    config = tiny_config(stages=("patch",))
    given = {"steps": 12, "lr": 3e-3, "batch_size": 32, "warmup": 0, "bootstraps": 5}
    with config.unlocked():
        config.patch.update_from_flattened_dict(
            {**given, "head": "trained", **settings}
        )
    return config


@pytest.fixture(scope="module")
def made(clip, tmp_path_factory):
    """(the workdir, the results) of a run with a trained head."""
    folder = tmp_path_factory.mktemp("head")
    save_clip(folder / "clip", TINY, clip.params)
    config = head_config(alpha=0.5)
    with config.unlocked():
        config.update(init=str(folder / "clip"), variant="")
    return folder / "run", run_tiny(folder / "run", config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"recipe": "lora", "lora.rank": 4, "lr": 1e-2, "layer_decay": 0.8},
        {"recipe": "lp_ft", "head_steps": 4, "head_lr": 0.1, "ema": 0.5},
        {"recipe": "last_blocks", "last_blocks": 1},
    ],
    ids=lambda settings: settings.get("recipe", "full"),
)
def test_the_head_learns_with_the_tower_by_any_recipe(clip, tmp_path, settings):
    with few_scenes():
        run = make_run(tmp_path, head_config(**settings))
        source = run.open("miniature:train")
        theta_1, head_1 = recipes.split_head(
            jax.device_get(fine_tune(run, settings_of(run), clip, [source]))
        )
        head_0, _ = zero_shot_head(clip, source)
        records = [source[i] for i in range(len(source))]
    assert jax.tree.structure(theta_1) == jax.tree.structure(clip.params["visual"])
    assert not np.array_equal(head_1, head_0)

    def loss(theta, head):
        model = api.Model(TINY, {"visual": theta}, {}, "")
        z = model.encode_image([r["rgb"] for r in records])
        labels = np.array([r["label"] for r in records])
        return float(losses.softmax_xent(z @ head, labels))

    both = loss(theta_1, head_1)
    assert both < 0.97 * loss(clip.params["visual"], head_0)
    # each is a part of it
    assert both < loss(theta_1, head_0)
    assert both < loss(clip.params["visual"], head_1)


def test_the_task_is_read_through_the_mixture_and_others_through_the_text(clip, made):
    workdir, results = made
    with few_scenes():
        test = open_source("miniature", split="test")
        records = [test[i] for i in range(len(test))]
        head_0, _ = zero_shot_head(clip, test)
    theta_1, head_1 = recipes.split_head(checkpoint.load_trained(workdir / "patch"))
    for alpha in (0.0, 0.5, 1.0):
        theta = interpolate(clip.params["visual"], theta_1, alpha)
        head = interpolate(head_0, head_1, alpha)
        z = api.Model(TINY, {"visual": theta}, {}, "").encode_image(
            [r["rgb"] for r in records]
        )
        (record,) = (
            r
            for r in results
            if (r.dataset, r.split, r.metric, r.alpha)
            == ("miniature", "test", "accuracy", alpha)
        )
        assert_share(record.value, z @ head, [r["label"] for r in records])
        assert record.head == checkpoint.params_digest(head)
    others = [r for r in results if r.dataset == "miniature_natural"]
    assert others
    assert not [r for r in others if r.head is not None]


def test_the_gap_is_to_text_and_not_to_a_trained_head(made):
    _, results = made
    gap = [r for r in results if r.task == "modality_gap"]
    assert {(r.dataset, r.split) for r in gap} == {("miniature_natural", "test")}
    assert {r.alpha for r in gap} == {0.0, 0.5}


def test_the_product_has_the_mixed_head_also_at_another_alpha(clip, made):
    workdir, _ = made
    _, head_1 = recipes.split_head(checkpoint.load_trained(workdir / "patch"))
    model = rsclip_jax.load(workdir)
    kept = load_outcome(workdir / "patch/outcomes/after/miniature-test.npz")
    np.testing.assert_array_equal(np.stack([*model.task_head.values()], 1), kept.head)
    assert tuple(model.task_head) == kept.classnames
    meta = checkpoint.load_meta(workdir / "patch")
    digest = checkpoint.params_digest(kept.head)
    assert {**meta.head, "content": ""} == {
        "dataset": "miniature",
        "digest": digest,
        "content": "",
    }
    ends = {a: rsclip_jax.load(workdir, alpha=a).task_head for a in (0.0, 1.0)}
    np.testing.assert_array_equal(np.stack([*ends[1.0].values()], 1), head_1)
    with few_scenes():
        head_0, _ = zero_shot_head(clip, open_source("miniature", split="test"))
    np.testing.assert_array_equal(np.stack([*ends[0.0].values()], 1), head_0)


@pytest.mark.slow
def test_an_alpha_a_block_mixes_the_head_with_the_projection(clip, tmp_path):
    save_clip(tmp_path / "clip", TINY, clip.params)
    config = head_config(per_block=True, block_evaluations=4, max_supported_drop=1.0)
    with config.unlocked():
        config.update(init=str(tmp_path / "clip"), variant="")
    run_tiny(tmp_path / "run", config)
    meta = checkpoint.load_meta(tmp_path / "run" / "patch")
    own = rsclip_jax.load(tmp_path / "run", alpha=meta.alpha_blocks["projection"])
    head = rsclip_jax.load(tmp_path / "run").task_head
    jax.tree.map(np.testing.assert_array_equal, head, own.task_head)


def test_several_tasks_have_no_one_head(tmp_path):
    config = head_config()
    with config.unlocked():
        for name in ("train", "val", "test"):
            both = tuple(f"{s}:{name}" for s in ("miniature", "miniature_aerial"))
            config.patch[name] = both
    run = make_run(tmp_path, config)
    with (
        few_scenes(),
        pytest.raises(ValueError, match="trains the head of one"),
    ):
        check_patch(run)
