"""Stage patch on several tasks: what it makes, from what, and within which budget."""

import json

import jax
import numpy as np
import pytest

from configs import common
from rsclip_jax import api
from rsclip_jax.interpolate import block_prefix, interpolate
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.records.budget import Budget
from rsclip_jax.stages.patch.settings import settings_of
from rsclip_jax.stages.patch.stage import check_patch
from rsclip_jax.stages.patch.tasks import draw_labels, fine_tune_tasks, merge
from rsclip_jax.train import checkpoint, resume
from rsclip_jax.weights import save_clip
from tests.helpers.marks import slow
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config

TWO = {
    "train": ("miniature:train", "miniature_aerial:train"),
    "val": ("miniature:val", "miniature_aerial:val"),
    "test": ("miniature:test", "miniature_aerial:test"),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP of random weights, read from a file."""
    variant = get_variant("mini")
    params = jax.device_get(init_clip(variant, jax.random.key(3)))
    folder = tmp_path_factory.mktemp("clip") / "clip"
    save_clip(folder, variant, params)
    return api.load(folder)


def patch_config(clip, **settings):
    config = tiny_config(stages=("patch",))
    with config.unlocked():
        config.init, config.variant = clip.source["path"], ""
        config.patch.update(
            steps=2, bootstraps=10, supported_val=("miniature_natural:val",)
        )
        config.patch.supported_test = ("miniature_natural:test",)
        config.patch.update(settings)
    return config


def load_meta(workdir):
    return json.loads((workdir / "patch" / "meta.json").read_text())


def by_alpha(records, dataset, **wanted):
    return {
        r.alpha: r.value
        for r in records
        if r.dataset == dataset
        and all(getattr(r, k) == v for k, v in wanted.items())
        and r.metric in ("accuracy", "mAP_macro")
    }


def assert_same(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def mean_of(*trees):
    return jax.tree.map(lambda *x: sum(x) / len(x), *trees)


# Parallel


@pytest.fixture(scope="module")
def parallel(clip, tmp_path_factory):
    """(workdir, config, records) of a parallel run with a budget that binds."""
    workdir = tmp_path_factory.mktemp("parallel") / "run"
    config = patch_config(clip, **TWO, tasks="parallel", max_supported_drop=0.0)
    return workdir, config, run_tiny(workdir, config)


@pytest.mark.slow
def test_in_parallel_alpha_mixes_towards_the_mean_of_models_trained_alone(
    clip, parallel
):
    workdir, config, _ = parallel
    thetas = [
        checkpoint.load_trained(workdir / "patch" / "tasks" / name)
        for name in ("miniature", "miniature_aerial")
    ]
    meta, theta_1 = load_meta(workdir), checkpoint.load_trained(workdir / "patch")
    assert_same(theta_1, mean_of(*thetas), atol=1e-7)
    assert meta["sources"]["theta_1"]["digest"] == checkpoint.params_digest(theta_1)
    alone = meta["sources"]["theta_1 of miniature:train"]["digest"]
    assert alone == checkpoint.params_digest(thetas[0])
    product, _ = checkpoint.load_product(workdir / "patch")
    want = interpolate(clip.params["visual"], theta_1, meta["alpha"])
    assert_same(product["visual"], want, rtol=0)
    assert_same(product["text"], clip.params["text"], rtol=0)
    # each alone from theta_0, as stage patch would have trained it
    run = make_run(workdir.parent / "alone", config)
    with few_scenes():
        alone, _ = fine_tune_tasks(
            run, settings_of(run), clip, [run.open("miniature_aerial:train")]
        )
    assert_same(alone, thetas[1], rtol=0)


@pytest.mark.slow
def test_the_choice_is_the_best_mean_within_the_budget(parallel):
    workdir, _, records = parallel
    first, second = (by_alpha(records, n, split="val") for n in TWO_NAMES)
    kept = by_alpha(records, "miniature_natural", split="val")
    allowed = [a for a in kept if kept[a] >= kept[0.0] - 1e-9]
    best = max(allowed, key=lambda a: (first[a] + second[a], -a))
    assert set(kept) == {0.0, 0.5, 1.0}
    assert load_meta(workdir)["alpha"] == best
    for name in (*TWO_NAMES, "miniature_natural"):
        assert {0.0, best, 1.0} == set(by_alpha(records, name, split="test"))


TWO_NAMES = ("miniature", "miniature_aerial")


@pytest.mark.slow
def test_the_ends_of_a_parallel_sweep_are_bit_equal(clip, parallel):
    workdir, _, records = parallel
    digests = {r.alpha: r.checkpoint for r in records}
    assert digests[0.0] == clip.digests["clip"]
    theta_1 = checkpoint.load_trained(workdir / "patch")
    whole = {**clip.params, "visual": theta_1}
    assert digests[1.0] == checkpoint.params_digest(whole)
    assert api.load(workdir, alpha=1.0).digests["clip"] == digests[1.0]


@pytest.mark.slow
def test_a_restart_trains_nothing_again_and_gives_the_same(parallel):
    workdir, config, records = parallel
    meta = load_meta(workdir)
    curves = sorted((workdir / "patch" / "tasks").glob("*/metrics.jsonl"))
    before = [path.read_text() for path in curves]  # with the rate of each step
    assert len(before) == 2
    (workdir / "patch" / "params").rename(workdir / "set_aside")
    try:
        assert run_tiny(workdir, config) == records
    finally:
        (workdir / "set_aside").rename(workdir / "moved")
    assert [path.read_text() for path in curves] == before
    assert load_meta(workdir)["digest"] == meta["digest"]


@pytest.mark.slow
def test_the_order_of_parallel_tasks_changes_nothing(clip, parallel, tmp_path):
    workdir, config, _ = parallel
    run = make_run(tmp_path, config)
    with few_scenes():
        train = [run.open(spec) for spec in reversed(TWO["train"])]
        theta_1, _ = fine_tune_tasks(run, settings_of(run), clip, train)
    assert_same(theta_1, checkpoint.load_trained(workdir / "patch"), atol=1e-6)


@pytest.mark.slow
def test_sum_and_fisher_merge_as_they_say(clip, tmp_path):
    theta_0 = clip.params["visual"]
    thetas = [
        jax.tree.map(lambda x, k=k: x * np.float32(k), theta_0) for k in (1.1, 1.3)
    ]
    merged = {}
    for how in ("sum", "fisher"):
        config = patch_config(clip, **TWO, tasks="parallel", merge=how)
        config.patch.fisher_examples = 6
        run = make_run(tmp_path, config)
        with few_scenes():
            train = [run.open(spec) for spec in TWO["train"]]
            merged[how] = merge(run, settings_of(run), clip, train, thetas)
    want = jax.tree.map(lambda x: x * np.float32(1.4), theta_0)
    assert_same(merged["sum"], want, atol=1e-6)
    shares = jax.tree.map(
        lambda m, x: (m - 1.1 * x)[np.abs(x) > 1e-3] / x[np.abs(x) > 1e-3] / 0.2,
        jax.device_get(merged["fisher"]),
        theta_0,
    )
    flat = np.concatenate([x.ravel() for x in jax.tree.leaves(shares)])
    assert -1e-3 < flat.min() < 0.2
    assert 0.8 < flat.max() < 1 + 1e-3


def test_drawn_labels_are_distributed_as_the_model_has_them():
    rng = np.random.default_rng(0)
    logits = np.log(np.tile([0.7, 0.2, 0.1], (20_000, 1)))
    found = np.bincount(draw_labels(logits, "single", rng), minlength=3) / 20_000
    np.testing.assert_allclose(found, [0.7, 0.2, 0.1], atol=0.015)
    odds = np.tile(np.log([9.0, 1.0, 0.25]), (20_000, 1))
    found = draw_labels(odds, "multi", rng).mean(axis=0)
    np.testing.assert_allclose(found, [0.9, 0.5, 0.2], atol=0.015)


# One after the other, with an alpha a block


@pytest.mark.slow
def test_in_turn_each_round_starts_from_the_choice_before(clip, tmp_path):
    settings = {"max_supported_drop": 0.05, "per_block": True, "lr": 2e-3}
    config = patch_config(clip, **TWO, tasks="sequential", **settings)
    config.patch.update(steps=4, block_evaluations=12)
    records = run_tiny(tmp_path / "run", config)
    meta, theta = load_meta(tmp_path / "run"), clip.params["visual"]
    assert meta["alpha"] is None
    assert meta["steps"] == 8
    natural = "miniature_natural"
    for i, (one, name) in enumerate(zip(meta["rounds"], TWO_NAMES, strict=True)):
        folder = tmp_path / "run" / "patch" / "tasks" / name
        params = {**clip.params, "visual": theta}
        begun = resume.begun_sources(folder)["theta_0"]["digest"]
        assert begun == checkpoint.params_digest(params)
        theta_1 = checkpoint.load_trained(folder)
        blocks = block_prefix(theta, one["alpha_blocks"])
        of_round = [r for r in records if r.round == i + 1]
        theta = interpolate(theta, theta_1, blocks)
        # on validation data: within the budget of the original, no worse than one alpha
        single = [by_alpha(of_round, n, split="val") for n in TWO_NAMES[: i + 1]]
        kept = by_alpha(of_round, natural, split="val")
        original = kept[0.0] if i == 0 else original
        budget = Budget(0.05 * (i + 1) / 2)  # half of it is left to the second
        assert budget.allows([original], [kept[None]])
        assert np.mean([s[None] for s in single]) >= max(
            np.mean([s[a] for s in single])
            for a in (0.0, 0.5, 1.0)
            if a == 0 or budget.allows([original], [kept[a]])
        )
    product, _ = checkpoint.load_product(tmp_path / "run" / "patch")
    assert_same(product["visual"], theta, rtol=0)
    tests = [r for r in records if r.split == "test"]
    assert {(r.step, r.checkpoint) for r in tests} == {
        (0, clip.digests["clip"]),
        (8, meta["digest"]),
    }
    assert not any(r.alpha for r in tests)
    with pytest.raises(ValueError, match="several tasks in turn"):
        api.load(tmp_path / "run", alpha=0.5)
    assert len(list((tmp_path / "run" / "patch").glob("alpha_curve_*.png"))) == 2


# Jointly


@pytest.mark.parametrize("kind", ["single", slow("multi")])
def test_joint_training_lowers_the_loss_of_both(clip, tmp_path, kind):
    train = TWO["train"] if kind == "single" else ("miniature_multi:train",) * 2
    config = patch_config(clip, **TWO, tasks="joint")
    config.patch.update(steps=16, lr=1e-3, batch_size=32)
    run = make_run(tmp_path, config)
    with few_scenes():
        theta_1, _ = fine_tune_tasks(
            run, settings_of(run), clip, [run.open(spec) for spec in train]
        )
    lines = (tmp_path / "patch" / "metrics.jsonl").read_text().splitlines()
    curve = [json.loads(line)["loss"] for line in lines]
    assert np.mean(curve[-3:]) < 0.95 * np.mean(curve[:3])
    assert_same(theta_1, checkpoint.load_trained(tmp_path / "patch"), rtol=0)


# Settings


@pytest.mark.slow
def test_one_task_in_a_tuple_is_the_task_bit_for_bit(clip, tmp_path):
    found = []
    for several in (False, True):
        one = {k: v[:1] if several else v[0] for k, v in TWO.items()}
        one |= {"supported_val": (), "supported_test": ()}
        workdir = tmp_path / str(several)
        records = run_tiny(workdir, patch_config(clip, **one, tasks="parallel"))
        lines = (workdir / "patch" / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        found.append((records, load_meta(workdir)["digest"], losses))
        assert (workdir / "patch" / "checkpoints").is_dir()
    assert found[0] == found[1]


MIXED = {"train": ("miniature:train", "miniature_multi:train")}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({**TWO, "tasks": "both"}, r"patch\.tasks = 'both'.* joint, sequential"),
        ({**TWO, "tasks": "parallel", "merge": "max"}, r"patch\.merge = 'max'"),
        ({**TWO, "merge": "sum"}, r"patch\.merge = 'sum'.*'parallel', not 'joint'"),
        ({**TWO, "val": TWO["val"][0]}, r"names 2 task\(s\), but config\.patch\.val 1"),
        ({**TWO, "test": ()}, r"config\.patch\.test is empty"),
        ({**TWO, "train": TWO["train"][:1] * 2}, "names a dataset twice"),
        ({**TWO, **MIXED}, r"'joint' trains with one loss.*miniature_multi: multi"),
        ({**TWO, "weights": (1.0,)}, r"config\.patch\.weights = \(1\.0,\) has 1"),
        ({**TWO, "tasks": "parallel", "weights": (1.0, 2.0)}, r"patch\.weights = \(1"),
        ({**TWO, "fisher_examples": 0}, r"fisher_examples = 0"),
        ({"per_block": True, "alpha": 0.4}, r"config\.patch\.alpha = 0\.4"),
        ({"block_evaluations": 0}, r"block_evaluations = 0"),
    ],
)
def test_tasks_that_do_not_go_together_are_refused_by_name(tmp_path, settings, told):
    config = tiny_config(stages=("patch",))
    with config.unlocked():
        config.patch.update(settings)
    run = make_run(tmp_path, config)
    with few_scenes(), pytest.raises(ValueError, match=told):
        check_patch(run)


def test_several_tasks_can_be_given_in_place_of_one_and_back():
    c = common.patch(train="a:train").lock()
    c.train = ("a:train", "b:train")
    assert c.train == ("a:train", "b:train")
    c.train = "b:train"
    assert c.train == "b:train"
