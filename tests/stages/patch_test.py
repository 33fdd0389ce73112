"""Stage patch: the choice of alpha, the sweep's exactness, a theta_0 left alone."""

import functools
import json

import jax
import numpy as np
import pytest

from rsclip_jax import api
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.stages.patch import (
    Sweep,
    check_alphas,
    choose_alpha,
    describe_choice,
    fine_tune,
)
from tests.runs import few_scenes, make_run, tiny_config

TASK = {0.0: 0.2, 0.5: 0.6, 1.0: 0.8}
KEPT = {0.0: 0.50, 0.5: 0.46, 1.0: 0.30}


@pytest.mark.parametrize(
    ("budget", "alpha"), [(0.0, 0.0), (0.03, 0.0), (0.04, 0.5), (0.05, 0.5), (0.2, 1.0)]
)
def test_the_best_task_value_within_the_budget_wins(budget, alpha):
    assert choose_alpha(TASK, [KEPT], max_supported_drop=budget) == alpha


def test_the_budget_is_on_the_mean_over_supported_sets():
    gains = {a: 1 - v for a, v in KEPT.items()}  # what one loses the other wins
    assert choose_alpha(TASK, [KEPT, gains], max_supported_drop=0.0) == 1.0


def test_without_supported_sets_the_task_decides():
    assert choose_alpha(TASK, [], max_supported_drop=0.0) == 1.0


def test_of_equal_task_values_the_one_that_changes_less_wins():
    flat = dict.fromkeys(TASK, 0.5)
    assert choose_alpha(flat, [KEPT], max_supported_drop=1.0) == 0.0


def test_a_sweep_without_alpha_0_cannot_be_judged():
    with pytest.raises(ValueError, match="alpha 0"):
        choose_alpha({1.0: 0.5}, [{1.0: 0.5}], max_supported_drop=0.1)


@pytest.mark.parametrize(
    "alphas", [(0.0, 0.5), (0.5, 1.0), (0.0, 0.5, 0.5, 1.0), (0.0, 1.0, 1.5), ()]
)
def test_bad_alphas_are_refused_by_name(alphas):
    with pytest.raises(ValueError, match=r"config\.patch\.alphas"):
        check_alphas(alphas)


def test_the_choice_is_told_in_numbers():
    text = describe_choice(0.5, [TASK, KEPT], 0.05)
    for part in ("alpha 0.5", "0.200 -> 0.600", "alpha 1: 0.800", "0.040 of 0.050"):
        assert part in text


@functools.cache
def tiny_clip():
    variant = get_variant("mini")
    params = jax.device_get(init_clip(variant, jax.random.key(3)))
    return api.Model(variant, params, {}, {"clip": "a"}, {"clip": 0})


def test_the_ends_of_the_sweep_are_the_two_models_bit_for_bit(tmp_path):
    run, clip = make_run(tmp_path, tiny_config()), tiny_clip()
    theta_0 = clip.params["visual"]
    theta_1 = jax.tree.map(lambda x: x * np.float32(1.1), theta_0)
    sweep = Sweep(run, clip, theta_0, theta_1)
    with few_scenes():
        source = run.open("miniature:val")
        encoders = {
            str(a): functools.partial(sweep._encode_batch, np.float32(a))
            for a in (0.0, 0.5, 1.0)
        }
        for i, theta in enumerate((theta_0, theta_1)):
            encoders[f"end {i}"] = functools.partial(
                lambda p, b: api.encode_rgb(p, b["rgb"], variant=clip.variant), theta
            )
        z, _, _ = run.encode(
            "patch", source, encoders, {"rgb": clip.variant.image_size}
        )
    # one program mixes, the other does not: equal to the last bit but for fusion
    np.testing.assert_allclose(z["0.0"], z["end 0"], atol=2e-7)
    np.testing.assert_allclose(z["1.0"], z["end 1"], atol=2e-7)
    assert np.abs(z["0.5"] - z["end 0"]).max() > 1e-3


def test_every_record_is_decoded_once_for_all_alphas(tmp_path):
    run, clip = make_run(tmp_path, tiny_config()), tiny_clip()
    theta_0 = clip.params["visual"]
    with few_scenes():
        source = run.open("miniature:val")
        read = []

        class Counting:
            dataset, split, ids = source.dataset, source.split, source.ids

            def __len__(self):
                return len(source)

            def __getitem__(self, index):
                read.append(index)
                return source[index]

        curves = Sweep(run, clip, theta_0, theta_0).report([Counting()], (0.0, 0.5, 1))
    assert sorted(read) == list(range(len(source)))
    assert len(set(curves[0].values())) == 1  # one model, however it is mixed


@pytest.mark.parametrize("name", ["miniature", "miniature_multi"])
def test_fine_tuning_lowers_the_loss_and_leaves_theta_0_alone(tmp_path, name):
    config = tiny_config()
    with config.unlocked():
        config.patch.update(steps=25, lr=1e-3, batch_size=32, train=f"{name}:train")
    run, clip = make_run(tmp_path, config), tiny_clip()
    before = jax.tree.map(np.copy, clip.params)
    with few_scenes():
        theta_1 = fine_tune(run, clip, run.open(config.patch.train))
    jax.tree.map(np.testing.assert_array_equal, before, clip.params)
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), theta_1, clip.params["visual"]
    )
    assert min(jax.tree.leaves(moved)) > 0  # the whole tower is trained
    curve = [
        json.loads(x)["loss"]
        for x in (tmp_path / "patch" / "metrics.jsonl").read_text().splitlines()
    ]
    assert np.mean(curve[-5:]) < 0.9 * np.mean(curve[:3])


def test_frozen_leaves_are_chosen_by_name(tmp_path):
    config = tiny_config()
    with config.unlocked():
        config.patch.trainable = (("blocks_.*", True), (".*", False))
    run, clip = make_run(tmp_path, config), tiny_clip()
    with few_scenes():
        theta_1 = fine_tune(run, clip, run.open("miniature:train"))
    before = clip.params["visual"]
    for name in ("patch_embed", "proj", "ln_post", "ln_pre"):
        jax.tree.map(np.testing.assert_array_equal, before[name], theta_1[name])
    kernel = ("blocks_0", "mlp", "c_fc", "kernel")
    a, b = (functools.reduce(lambda t, k: t[k], kernel, t) for t in (before, theta_1))
    assert np.abs(a - b).max() > 0
