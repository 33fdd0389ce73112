"""What every training stage asks of its sets, and every number says of them."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from configs import evaluate
from rsclip_jax.data import rows
from rsclip_jax.data.rows import DATASETS
from rsclip_jax.results import read_results
from rsclip_jax.stages.align import check_align
from rsclip_jax.stages.patch import check_patch
from rsclip_jax.stages.pretrain import check_pretrain
from tests.runs import few_scenes, make_run, tiny_config


def test_results_say_which_lists_made_the_split(tmp_path, capsys):
    for name in DATASETS["eurosat_rgb"].classes:
        folder = tmp_path / "EuroSAT_RGB" / name
        folder.mkdir(parents=True)
        for i in range(30):
            flat = Image.fromarray(np.full((4, 4, 3), i, np.uint8))
            flat.save(folder / f"{name}_{i}.png")
    config = evaluate.get_config()
    config.data_root = str(tmp_path)
    record = {"sensor": "rgb", "task": "zero_shot", "metric": "accuracy"}
    record |= {"value": 0.5, "n": 10}
    for listed in (False, True):
        if listed:
            lines = [f"{c}_3.jpg" for c in DATASETS["eurosat_rgb"].classes]
            (tmp_path / "eurosat-val.txt").write_text("\n".join(lines))
        run = make_run(tmp_path, config.lock())
        source = run.open("eurosat_rgb:val")
        run.report("evaluate", source, [record], step=0, checkpoint="")
        said = capsys.readouterr().out
        line = "eurosat_rgb:val: 10 records, split by eurosat-*.txt"
        assert (line in said) == listed
        assert len(source) == 10 if listed else len(source) > 20
    hashed, listed = read_results(tmp_path / "results.jsonl")
    assert "split_rule" not in hashed
    assert listed["split_rule"] == "eurosat-*.txt"
    assert hashed["split_digest"] != listed["split_digest"]


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
