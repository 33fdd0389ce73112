"""The choice of alpha: alpha 0 told plainly, classes and datasets that say nothing."""

import functools

import numpy as np
import pytest

from rsclip_jax.records.budget import Budget
from rsclip_jax.stages.patch import choice
from rsclip_jax.stages.patch.settings import settings_of
from rsclip_jax.stages.patch.sweep import Sweep
from rsclip_jax.stages.shared import dataset_checks
from rsclip_jax.stats.draws import Draw
from rsclip_jax.train.checkpoint import load_meta
from tests.helpers.align import teacher
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config


def test_alpha_0_says_that_the_budget_forbids_every_better_alpha():
    task, kept = {0.0: 0.2, 0.5: 0.6, 1.0: 0.8}, {0.0: 0.5, 0.5: 0.3, 1.0: 0.2}
    told = choice.describe_zero([task, kept], Budget(0.05), ["cifar10"])
    assert "the product is the original CLIP, unchanged" in told
    assert "loses more than allowed on cifar10" in told
    assert "config.patch.max_supported_drop" in told


def test_alpha_0_says_that_training_did_not_help():
    told = choice.describe_zero([{0.0: 0.6, 1.0: 0.5}], Budget(0.05), [])
    assert "No alpha improved the task's validation value (0.600)" in told
    assert "config.patch.steps" in told


@pytest.mark.slow
def test_alpha_0_is_told_when_chosen_at_the_end_and_in_meta(tmp_path, capsys):
    config = tiny_config(stages=("pretrain", "patch"))
    with config.unlocked():
        config.pretrain.update(steps=1, test=())
        config.patch.update(steps=1, lr=0.0, bootstraps=5)  # theta_1 is theta_0
    run_tiny(tmp_path / "w", config)
    meta = load_meta(tmp_path / "w" / "patch")
    assert meta.alpha == 0
    assert meta.alpha_note.startswith("alpha 0 was chosen: the product is the original")
    shown = capsys.readouterr().out
    logged, closing = shown.split("all results: ")[0].split("patch: after = ")
    assert f"warning: patch: {meta.alpha_note}" in logged
    assert f"warning: {meta.alpha_note}" in closing


@pytest.mark.slow
def test_an_alpha_above_0_has_no_note(tmp_path, capsys):
    config = tiny_config(stages=("pretrain", "patch"))
    with config.unlocked():
        config.pretrain.update(steps=1, test=())
        config.patch.update(steps=1, alpha=0.5, bootstraps=5)
    run_tiny(tmp_path / "w", config)
    assert load_meta(tmp_path / "w" / "patch").alpha_note == ""
    assert "alpha 0 was chosen" not in capsys.readouterr().out


@pytest.mark.parametrize("task", ["single", "multi"])
def test_classes_without_a_validation_example_are_named(tmp_path, capsys, task):
    run = make_run(tmp_path, tiny_config())
    with few_scenes():
        source = run.open("miniature:val")
    names = source.dataset.classnames
    labels = np.array([0, 2, 2])
    if task == "multi":
        labels = np.eye(len(names), dtype=np.uint8)[[0, 2]]
    dataset_checks.warn_of_absent_classes(run, "patch", source, labels, "do not count")
    told = capsys.readouterr().out
    lacking = f"miniature:val has no example of {len(names) - 2} of {len(names)}"
    assert f"{lacking} classes ({names[1]}," in told
    assert "which do not count: use a larger split" in told
    assert "{" not in told
    dataset_checks.warn_of_absent_classes(run, "patch", source, np.arange(len(names)))
    assert capsys.readouterr().out == ""


def test_a_supported_dataset_at_chance_is_told_and_does_not_limit(tmp_path, capsys):
    """A draw of 30 of 100 right is no better than a largest class of 40."""
    run = make_run(tmp_path, tiny_config())
    clip = teacher()
    with few_scenes():
        source = run.open("miniature_natural:val")
        ends = [clip.params["visual"]] * 2
        sweep = Sweep(run, settings_of(run), clip, *ends)
    sweep.labels[str(source.spec)] = np.repeat([0, 1, 2], [40, 30, 30])

    for right, above in ((0.3, False), (0.9, True)):
        drawn = Draw(
            functools.partial(np.random.Generator.binomial, n=100, p=right),
            lambda samples: [{0.0: count / 100} for count in samples],
        )
        found = choice.is_above_chance(sweep, source, {0.0: right}, drawn)
        assert found == above
        told = capsys.readouterr().out
        assert ("no better than guessing (0.400)" in told) == (not above)
