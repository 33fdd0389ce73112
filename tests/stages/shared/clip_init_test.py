"""Errors of loading the CLIP that a stage starts from."""

import pytest

from rsclip_jax.stages.shared import clip_init
from tests.helpers.runs import make_run, tiny_config


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

    monkeypatch.setattr(clip_init.api, "load", load)
    run = make_run(tmp_path, tiny_config())
    with pytest.raises(ValueError, match=rf"{error} \(--config\.{settings}\)"):
        clip_init.load_init(run)


def test_another_error_of_loading_stays_as_it_is(tmp_path, monkeypatch):
    def load(*_, **__):
        raise ValueError("damaged")

    monkeypatch.setattr(clip_init.api, "load", load)
    with pytest.raises(ValueError, match=r"^damaged$"):
        clip_init.load_init(make_run(tmp_path, tiny_config()))
