"""Checks of the datasets that a stage is given."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.sources.memory import MiniatureSource
from rsclip_jax.stages.shared.dataset_checks import LABELLED, has_zero_shot, open_as
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


def test_classes_that_are_bare_numbers_need_words_for_prompts(tmp_path):
    for name in "ab":
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text("path,class\na.png,3\nb.png,11\n")
    path = tmp_path / "mine.toml"
    text = 'reader = "csv"\ntable = "t.csv"\n[sensors]\nrgb = "rgb"\n'
    text += '[columns]\nrgb = "path"\nlabel = "class"\n'
    path.write_text(text)
    run, spec = make_run(tmp_path / "run", tiny_config()), f"{path}:all"
    words = (
        r"config\.datasets = .*: the classes 11, 3 of mine are bare .* 11 = 'forest'"
    )
    with pytest.raises(ValueError, match=words):
        open_as(run, "config.datasets", spec, LABELLED)
    assert len(open_as(run, "x", spec, LABELLED, prompted=False)) == 2
    path.write_text(f"{text}[classnames]\n11 = 'lake'\n3 = '3'\n")  # its own words
    run = make_run(tmp_path / "again", tiny_config())
    assert len(open_as(run, "config.datasets", spec, LABELLED)) == 2
