"""What stages ask of their sets."""

import dataclasses

import pytest

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.sources.memory import MiniatureSource
from rsclip_jax.stages.shared import common
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


@pytest.mark.parametrize(
    ("error", "settings"),
    [
        ("a.pt: pass activation='gelu', or variant=", "variant, --config.activation"),
        ("omit image_size", "image_size"),
    ],
)
def test_an_error_of_loading_names_the_settings(tmp_path, monkeypatch, error, settings):
    def load(*_, **__):
        raise ValueError(error)

    monkeypatch.setattr(common.api, "load", load)
    run = make_run(tmp_path, tiny_config())
    with pytest.raises(ValueError, match=rf"{error} \(--config\.{settings}\)"):
        common.load_init(run)


def test_another_error_of_loading_stays_as_it_is(tmp_path, monkeypatch):
    def load(*_, **__):
        raise ValueError("damaged")

    monkeypatch.setattr(common.api, "load", load)
    with pytest.raises(ValueError, match=r"^damaged$"):
        common.load_init(make_run(tmp_path, tiny_config()))
