"""A warning where images cover another ground than an encoder was trained on."""

import dataclasses

import pytest

from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.models.sensor import SensorSpec, vit_spec
from rsclip_jax.report.card import ground_text
from rsclip_jax.stages.shared.sensor_feeds import warn_of_ground
from tests.helpers.align import SMALL, config_with
from tests.helpers.runs import make_run

SPEC = vit_spec(get_sensor("s1_grd"), **SMALL, out_dim=8)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (
            8,
            "things are 4 times smaller than in training; miniature:val:8 cuts"
            " them into tiles that fit",
        ),
        (64, "things are 2 times larger than in training; use larger images"),
        (30, ""),
        (0, ""),  # an encoder of an older version
    ],
)
def test_another_ground_is_logged_with_the_tile_that_fits(
    tmp_path, capsys, pixels, words
):
    run = make_run(tmp_path, config_with())
    source = run.open("miniature:val")  # of 32 pixels
    capsys.readouterr()
    warn_of_ground(run, "evaluate", dataclasses.replace(SPEC, pixels=pixels), source)
    said = capsys.readouterr().out
    assert words in said
    assert bool(said) == bool(words)
    if words:
        assert f"trained on images of {pixels} pixels" in said


def test_a_card_says_the_ground_and_which_tiles_to_cut():
    assert ground_text(SPEC) == ""
    like = dataclasses.replace(SPEC, pixels=SPEC.image_size, metres=10.0)
    assert ground_text(like).endswith(f"m), resized to {SPEC.image_size}.")
    far = dataclasses.replace(SPEC, pixels=2 * SPEC.image_size)
    assert f"cut tiles of {2 * SPEC.image_size} such pixels" in ground_text(far)


def test_specs_without_ground_or_saturated_value_are_read():
    values = dataclasses.asdict(dataclasses.replace(SPEC, pixels=7, metres=10.0))
    assert SensorSpec.from_json(values).ground.extent == 70
    old = {
        k: v for k, v in values.items() if k not in ("pixels", "metres", "saturated")
    }
    assert SensorSpec.from_json(old) == SPEC
