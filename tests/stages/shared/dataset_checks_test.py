"""Checks of the datasets that a stage is given."""

import dataclasses

import pytest

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.sources.memory import MiniatureSource
from rsclip_jax.stages.shared.dataset_checks import has_zero_shot
from tests.helpers.runs import few_scenes, make_run, tiny_config


@pytest.mark.parametrize(
    ("task", "classes", "measured"),
    [
        ("single", ("a", "b"), True),
        ("single", ("a",), False),
        ("multi", ("a",), True),  # a can be there or not
        ("none", (), False),
        ("captions", (), False),
    ],
)
def test_zero_shot_is_measured_where_an_answer_can_be_wrong(
    tmp_path, capsys, task, classes, measured
):
    with few_scenes():
        run = make_run(tmp_path, tiny_config())
        row = dataclasses.replace(
            DATASETS["miniature"], task=task, classes=classes, classnames=classes
        )
        source = MiniatureSource(row, "val")
        assert has_zero_shot(run, "pretrain", source) == measured
    said = capsys.readouterr().out
    assert ("has one class, 'a': every answer is right" in said) == (
        task == "single" and not measured
    )
