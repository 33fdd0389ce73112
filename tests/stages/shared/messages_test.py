"""A message about an argument names the setting that it comes from."""

import pytest

from rsclip_jax.stages.shared.messages import name_settings


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("set root to the folder", "set root (--config.data_root) to the folder"),
        ("root = /root is none", "root (--config.data_root) = /root is none"),
        (
            "a, or on_error='skip' leaves it out",
            "a, or on_error (--config.data.on_error)='skip' leaves it out",
        ),
        (
            "more than max_pixels = 9",
            "more than max_pixels (--config.data.max_pixels) = 9",
        ),
        (
            "max_nodata = 2 should be",
            "max_nodata (--config.data.max_nodata) = 2 should be",
        ),
        (
            "for 6 minutes (minutes = 5)",
            "for 6 minutes (minutes (--config.watchdog_minutes) = 5)",
        ),
        ("/data/root to /x/on_error = 1", "/data/root to /x/on_error = 1"),
        ("config.data.on_error = 'a'", "config.data.on_error = 'a'"),
    ],
)
def test_arguments_are_named_as_settings_and_paths_are_not(text, named):
    assert name_settings(text) == named
