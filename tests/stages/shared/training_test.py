"""What is checked before a stage trains, and how its settings reach the batches."""

import dataclasses

import numpy as np
import pytest

from rsclip_jax.data.catalog import datasets as rows
from rsclip_jax.stages import pretrain
from rsclip_jax.stages.align import stage as align
from rsclip_jax.stages.patch import stage as patch
from tests.helpers.align import batches_of
from tests.helpers.runs import few_scenes, make_run, tiny_config


@pytest.mark.parametrize(
    ("stage", "check", "setting"),
    [
        ("patch", patch.check_patch, "val"),
        ("pretrain", pretrain.check_pretrain, "test"),
        ("align", align.check_align, "test"),
    ],
)
def test_a_set_without_rgb_is_refused_with_what_it_holds(
    tmp_path, monkeypatch, stage, check, setting
):
    row = rows.DATASETS["miniature"]
    sensors = {key: name for key, name in row.sensors.items() if key != "rgb"}
    blind = dataclasses.replace(row, sensors=sensors)
    config = tiny_config()
    with config.unlocked():
        spec = "blind:val" if stage == "patch" else ("blind:val",)
        config[stage].update({setting: spec})
    with few_scenes():
        run = make_run(tmp_path, config)
        source = run.open("miniature:val")
        run.opened["blind:val"] = source
        monkeypatch.setattr(source, "dataset", blind)
        words = rf"config\.{stage}\.{setting} = 'blind:val' holds s1, s2, ir.*'rgb'"
        with pytest.raises(ValueError, match=words):
            check(run)


CHECKS = {
    "pretrain": pretrain.check_pretrain,
    "patch": patch.check_patch,
    "align": align.check_align,
}


@pytest.mark.parametrize(
    ("stage", "setting", "value", "message"),
    [
        ("pretrain", "grey_prob", 1.5, "should be between 0 and 1"),
        ("patch", "crop_scale", (1.0, 0.5), "should be"),
        ("patch", "crop_pixels", 33, "33 exceeds .* has 32 x 32 pixels: set it to 32"),
        ("align", "crop_pixels", 99, "99 exceeds .* has 32 x 32 pixels: set it to 32"),
        ("patch", "speckle_looks", 4.0, r"radar in dB, .* are rgb \(3 x 8-bit\)"),
        ("align", "speckle_looks", 0.5, "1 look or more"),
        ("align", "band_dropout", 0.2, r"more than three .* s1_grd \(2 x dB\); set"),
    ],
)
def test_augmentation_is_checked_before_a_stage_begins(
    tmp_path, stage, setting, value, message
):
    config = tiny_config()
    with config.unlocked():
        config[stage].augment[setting] = value
    named = rf"config\.{stage}\.augment\.{setting} = .*{message}"
    with few_scenes(), pytest.raises(ValueError, match=named):
        CHECKS[stage](make_run(tmp_path, config))


def test_augmentation_of_the_sensor_is_taken(tmp_path):
    config = tiny_config()
    with config.unlocked():
        config.align.augment.update(speckle_looks=4.0, sar_gain_db=1.0)
    with few_scenes():
        run = make_run(tmp_path, config)
        align.check_align(run)
        source = run.open("miniature:train")
        sizes = {"rgb": 32, "s1": 32}
        loud = next(batches_of(run, [source], sizes))
        plain = next(batches_of(make_run(tmp_path, tiny_config()), [source], sizes))
    np.testing.assert_array_equal(loud["rgb"], plain["rgb"])
    assert 1.5 < (loud["s1"] - plain["s1"]).std() < 4  # 4 looks: 2.3 dB
