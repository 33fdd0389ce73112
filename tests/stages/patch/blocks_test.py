"""An alpha for each block: never worse than the single one, never over the budget."""

import dataclasses

import jax
import numpy as np
import pytest

from rsclip_jax import api
from rsclip_jax.interpolate import block_names, block_prefix, interpolate
from rsclip_jax.io.json_lines import read_json_lines
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.records.budget import Budget
from rsclip_jax.records.results import read_results
from rsclip_jax.stages.patch import blocks
from rsclip_jax.stages.patch.choice import describe_blocks
from rsclip_jax.stages.patch.choose_alpha import choose_alpha
from rsclip_jax.stages.patch.settings import settings_of
from rsclip_jax.stages.patch.sweep import Sweep
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import save_clip
from tests.helpers.marks import slow
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config


@pytest.fixture(scope="module")
def clip():
    variant = get_variant("mini")
    params = jax.device_get(init_clip(variant, jax.random.key(3)))
    return api.Model(variant, params, {}, "a")


@pytest.fixture
def sweep(clip, tmp_path):
    """From one random tower to another, whose blocks help and hurt at random."""
    config = tiny_config()
    with config.unlocked():
        config.patch.update(per_block=True, block_evaluations=24)
    other = init_clip(clip.variant, jax.random.key(4))["visual"]
    run = make_run(tmp_path, config)
    with few_scenes():
        yield Sweep(
            run, settings_of(run), clip, clip.params["visual"], jax.device_get(other)
        )


def sources_of(run):
    return [run.open("miniature:val")], [run.open("miniature_natural:val")]


def choose(sweep, budget):
    """(single alpha, its task value, sources, what choose_blocks gives)."""
    sources = sources_of(sweep.run)
    found, _ = sweep.report([*sources[0], *sources[1]], (0.0, 0.5, 1.0))
    alpha = choose_alpha(found[0], found[1:], budget)
    chosen = blocks.choose_blocks(sweep, alpha, sources, (found[0], found[1:]), budget)
    return alpha, found, chosen


def reported(sweep):
    found = read_results(sweep.run.results)
    return [r for r in found if r.alpha_blocks is not None]


@pytest.mark.parametrize("drop", [slow(0.0), 0.1])
def test_it_is_never_worse_nor_over_the_budget_and_is_reported(sweep, drop):
    budget = Budget(max_drop=drop)
    alpha, (task, kept), (found, mean, values) = choose(sweep, budget)
    assert mean >= task[alpha]
    assert budget.allows([kept[0.0]], values)
    assert set(found) == set(block_names(sweep.theta_0))
    records = reported(sweep)
    measured = [r.value for r in records if r.metric == "accuracy"]
    assert measured == [mean, *values]
    prefix = block_prefix(sweep.theta_0, found)
    visual = interpolate(sweep.theta_0, sweep.theta_1, prefix)
    digest = checkpoint.params_digest({**sweep.clip.params, "visual": visual})
    for r in records:
        assert r.alpha is None
        assert r.alpha_blocks == found
        assert r.checkpoint == digest


@pytest.mark.slow
def test_images_decoded_each_time_or_kept_give_the_same(sweep):
    tasks, supported = sources_of(sweep.run)
    start = dict.fromkeys(block_names(sweep.theta_0), 0.5)
    found = []
    for room in (2.0, 0.0):
        sweep.settings = dataclasses.replace(sweep.settings, block_cache_gb=room)
        values = sweep.run.workdir / "patch" / "block_values.jsonl"
        values.unlink(missing_ok=True)
        found.append(blocks._search(sweep, start, tasks, supported, Budget()))
    assert found[0] == found[1] != start


@pytest.mark.slow
def test_an_interrupted_search_goes_on_where_it_was(sweep, monkeypatch):
    tasks, supported = sources_of(sweep.run)
    start = dict.fromkeys(block_names(sweep.theta_0), 0.5)
    encode, left = blocks.encode_batches, [10]

    def stop_after(batches, encoders, mesh):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return encode(batches, encoders, mesh)

    monkeypatch.setattr(blocks, "encode_batches", stop_after)
    search = [sweep, start, tasks, supported, Budget()]
    with pytest.raises(KeyboardInterrupt):
        blocks._search(*search)
    values = sweep.run.workdir / "patch" / "block_values.jsonl"
    assert len(read_json_lines(values)) == 10
    values.write_text(values.read_text()[:-9])  # the last one cut short
    left[0] = 1000
    found = blocks._search(*search)
    first = 1000 - left[0]
    left[0] = 0  # all that it asks for is known now
    assert blocks._search(*search) == found
    values.unlink()
    left[0] = 1000
    assert blocks._search(*search) == found
    assert 1000 - left[0] == first + 9


def test_what_holds_on_a_part_only_is_dropped(sweep, monkeypatch, capsys):
    budget = Budget(max_drop=0.0)
    sources = sources_of(sweep.run)
    names = block_names(sweep.theta_0)
    bad = {**dict.fromkeys(names, 1.0), "stem": 0.0}
    monkeypatch.setattr(blocks, "_search", lambda *args: bad)
    task, kept = {0.0: 1.0}, {0.0: 1.0}  # which no model reaches
    found, _, _ = blocks.choose_blocks(sweep, 0.0, sources, (task, [kept]), budget)
    assert found == dict.fromkeys(names, 0.0)
    assert "the single alpha is kept" in capsys.readouterr().out
    digest = sweep.digest(0.0)
    assert {r.checkpoint for r in reported(sweep)} == {digest}


def test_a_part_of_a_set_is_spread_over_it(sweep):
    (source,), _ = sources_of(sweep.run)
    part = blocks._Decoded(sweep, source, 4, 10**9)
    assert part.source.ids == [source.ids[i] for i in (0, 13, 26, 39)]
    whole = blocks._Decoded(sweep, source, 0, 10**9)
    curve, _ = sweep.report([source], (0.0, 1.0))
    assert whole.value(0.0) == curve[0][0.0]
    same = dict.fromkeys(block_names(sweep.theta_0), 1.0)
    assert whole.value(same) == pytest.approx(curve[0][1.0])


def test_what_it_gained_is_told_and_also_that_it_gained_nothing():
    curves = [{0.0: 0.2, 0.5: 0.6}, {0.0: 0.5, 0.5: 0.46}]
    each = {"stem": 0.5, "blocks_0": 0.7}
    told = describe_blocks(each, 0.5, curves, [0.634, 0.45], ["cifar10"])
    for part in ("3.4 points", "0.600 -> 0.634", "blocks_0 0.7", "cifar10: 0.460"):
        assert part in told
    told = describe_blocks(
        dict.fromkeys(each, 0.5), 0.5, curves, [0.6, 0.46], ["cifar10"]
    )
    assert "gained nothing over the single alpha 0.5" in told


@pytest.mark.slow
def test_the_product_is_the_mixture_by_block(clip, tmp_path):
    save_clip(tmp_path / "clip", clip.variant, clip.params)
    config = tiny_config(stages=("patch",))
    with config.unlocked():
        config.init, config.variant = str(tmp_path / "clip"), ""
        config.patch.update(steps=4, lr=2e-3, bootstraps=10, per_block=True)
        config.patch.update(block_evaluations=8, supported_val=(), supported_test=())
    records = run_tiny(tmp_path / "run", config)
    product, meta = checkpoint.load_product(tmp_path / "run" / "patch")
    theta_0 = api.load(tmp_path / "clip").params["visual"]
    theta_1 = checkpoint.load_trained(tmp_path / "run" / "patch")
    prefix = block_prefix(theta_0, meta.alpha_blocks)
    jax.tree.map(
        np.testing.assert_array_equal,
        product["visual"],
        interpolate(theta_0, theta_1, prefix),
    )
    of_product = [r for r in records if r.checkpoint == meta.digest]
    assert {r.split for r in of_product if r.alpha is None} == {"val", "test"}
    swept = {r.alpha for r in records if r.split == "val"}
    assert swept == {0.0, 0.5, 1.0, None}  # the whole curve is there
    single = api.load(tmp_path / "run", alpha=meta.alpha).digests["clip"]
    assert single in {r.checkpoint for r in records if r.alpha == meta.alpha}
