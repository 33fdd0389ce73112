"""What stages ask of their sets."""

import dataclasses

import pytest

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.sources.memory import MiniatureSource
from rsclip_jax.stages.shared.common import has_zero_shot
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
def test_zero_shot_is_of_what_can_be_told_apart(
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
