"""What every training stage asks of the sets that it opens."""

import dataclasses

import pytest

from rsclip_jax.data import rows
from rsclip_jax.stages.align import check_align
from rsclip_jax.stages.patch import check_patch
from rsclip_jax.stages.pretrain import check_pretrain
from tests.runs import few_scenes, make_run, tiny_config


@pytest.mark.parametrize(
    ("stage", "check", "setting"),
    [
        ("patch", check_patch, "val"),
        ("pretrain", check_pretrain, "test"),
        ("align", check_align, "test"),
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
