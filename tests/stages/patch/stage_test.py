"""Stage patch: the choice of alpha, the sweep's exactness, a theta_0 left alone."""

import functools
import json

import jax
import numpy as np
import pytest

from configs import common
from rsclip_jax import api
from rsclip_jax.data.sources.wrappers import Wrapper
from rsclip_jax.interpolate import block_names
from rsclip_jax.models import inference
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.records.budget import Budget
from rsclip_jax.stages.patch.choice import check_choice, describe_choice
from rsclip_jax.stages.patch.fine_tune import fine_tune
from rsclip_jax.stages.patch.settings import PatchSettings, settings_of
from rsclip_jax.stages.patch.sweep import Sweep
from rsclip_jax.weights import save_clip
from tests.helpers.marks import slow
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config

TASK = {0.0: 0.2, 0.5: 0.6, 1.0: 0.8}
KEPT = {0.0: 0.50, 0.5: 0.46, 1.0: 0.30}


@pytest.mark.parametrize(
    "alphas", [(0.0, 0.5), (0.5, 1.0), (0.0, 0.5, 0.5, 1.0), (0.0, 1.0, 1.5), ()]
)
def test_bad_alphas_are_refused_by_name(alphas):
    with pytest.raises(ValueError, match=r"config\.patch\.alphas"):
        check_choice(PatchSettings.of(common.patch(alphas=alphas)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 1.2),
        ("max_supported_drop", -0.1),
        ("min_supported_retained", 1.5),
        ("bootstraps", 0),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused_by_name(name, value):
    check_choice(PatchSettings.of(common.patch(alpha=0.4)))
    with pytest.raises(ValueError, match=rf"config\.patch\.{name} = {value}"):
        check_choice(PatchSettings.of(common.patch(**{name: value})))


def test_the_choice_is_told_in_numbers():
    told = describe_choice(
        0.5, [TASK, KEPT], Budget(0.05), (0.0, 0.5), ["cifar10"], chosen=True
    )
    for part in (
        "alpha 0.5 chosen",
        "95 % of bootstrap samples choose 0 to 0.5",
        "0.200 -> 0.600",
        "alpha 1: 0.800",
        "cifar10: 0.500 -> 0.460 (0.450 allowed; alpha 1: 0.300)",
    ):
        assert part in told
    given = describe_choice(
        1.0, [TASK, KEPT], Budget(), (0.0, 0.5), ["cifar10"], chosen=False
    )
    assert "alpha 1 given as config.patch.alpha" in given


@functools.cache
def tiny_clip():
    variant = get_variant("mini")
    params = jax.device_get(init_clip(variant, jax.random.key(3)))
    return api.Model(variant, params, {}, "a")


def test_the_sweep_measures_the_models_that_it_makes_bit_for_bit(tmp_path):
    run, clip = make_run(tmp_path, tiny_config()), tiny_clip()
    theta_0 = clip.params["visual"]
    theta_1 = jax.tree.map(lambda x: x * np.float32(1.1), theta_0)
    sweep = Sweep(run, settings_of(run), clip, theta_0, theta_1)
    with few_scenes():
        source = run.open("miniature:val")
        by_block = dict.fromkeys(block_names(theta_0), 0.3) | {"stem": 0.7}
        alphas = {"0": 0.0, "0.4": 0.4, "1": 1.0, "by block": by_block}
        encoders = {name: sweep.encoder(alpha) for name, alpha in alphas.items()}
        products = {name: sweep.mixture(alpha) for name, alpha in alphas.items()}
        for name, theta in {**products, "0": theta_0, "1": theta_1}.items():
            encoders[f"model {name}"] = functools.partial(
                lambda p, b: inference.encode_rgb(p, b["rgb"], variant=clip.variant),
                theta,
            )
        z, _, _ = run.encode(
            "patch", source, encoders, {"rgb": clip.variant.image_size}
        )
    for name in alphas:
        np.testing.assert_array_equal(z[name], z[f"model {name}"])
    assert np.abs(z["0.4"] - z["0"]).max() > 1e-3
    assert np.abs(z["0.4"] - z["by block"]).max() > 1e-3


def test_every_record_is_decoded_once_for_all_alphas(tmp_path):
    run, clip = make_run(tmp_path, tiny_config()), tiny_clip()
    theta_0 = clip.params["visual"]
    with few_scenes():
        source = run.open("miniature:val")
        read = []

        class Counting(Wrapper):
            def read(self, index, keys):
                read.append(index)
                return super().read(index, keys)

        sweep = Sweep(run, settings_of(run), clip, theta_0, theta_0)
        curves, draws = sweep.report([Counting(source)], (0.0, 0.5, 1))
    assert sorted(read) == list(range(len(source)))
    assert len(set(curves[0].values())) == 1  # one model, however it is mixed
    drawn = draws[0](np.random.default_rng(0))
    assert len(set(drawn.values())) == 1
    assert abs(drawn[0.0] - curves[0][0.0]) < 0.2


@pytest.mark.parametrize("name", ["miniature", slow("miniature_multi")])
def test_fine_tuning_lowers_the_loss_and_leaves_theta_0_alone(tmp_path, name):
    config = tiny_config()
    with config.unlocked():
        config.patch.update(steps=25, lr=1e-3, batch_size=32, train=f"{name}:train")
    run, clip = make_run(tmp_path, config), tiny_clip()
    before = jax.tree.map(np.copy, clip.params)
    with few_scenes():
        theta_1 = fine_tune(run, settings_of(run), clip, [run.open(config.patch.train)])
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
        theta_1 = fine_tune(run, settings_of(run), clip, [run.open("miniature:train")])
    before = clip.params["visual"]
    for name in ("patch_embed", "proj", "ln_post", "ln_pre"):
        jax.tree.map(np.testing.assert_array_equal, before[name], theta_1[name])
    kernel = ("blocks_0", "mlp", "c_fc", "kernel")
    a, b = (functools.reduce(lambda t, k: t[k], kernel, t) for t in (before, theta_1))
    assert np.abs(a - b).max() > 0


@pytest.mark.parametrize("given", [None, 0.3])
def test_the_product_is_the_mixture_that_was_chosen_or_given(tmp_path, given):
    config = tiny_config(stages=("patch",))
    with config.unlocked():
        config.patch.update(
            alphas=(0.0, 0.5, 1.0), alpha=given, bootstraps=20, supported_val=()
        )
        config.patch.supported_test = ()
    save_clip(tmp_path / "clip", tiny_clip().variant, tiny_clip().params)
    with config.unlocked():
        config.init, config.variant = str(tmp_path / "clip"), ""
    records = run_tiny(tmp_path / "run", config)
    meta = json.loads((tmp_path / "run/patch/meta.json").read_text())
    low, high = meta["alpha_ci95"]
    assert 0 <= low <= high <= 1
    swept = {r.alpha for r in records if r.split == "val"}
    assert swept == {0.0, 0.5, 1.0, *([given] if given else [])}
    if given:
        assert meta["alpha"] == given
        assert meta["alpha_chosen_by"] == "config.patch.alpha"
    else:
        of_val = [r for r in records if r.split == "val"]
        values = {r.alpha: r.value for r in of_val if r.metric == "accuracy"}
        assert values[meta["alpha"]] == max(values.values())
        assert meta["alpha_chosen_by"] == "validation"
