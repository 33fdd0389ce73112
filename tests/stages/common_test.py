"""What stages ask of sets and settings, what they list, what their numbers say."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from configs import evaluate
from rsclip_jax.data import rows
from rsclip_jax.data.datasets import get_dataset
from rsclip_jax.data.rows import DATASETS
from rsclip_jax.data.sources import MiniatureSource
from rsclip_jax.results import read_results
from rsclip_jax.stages import align, common, patch, pretrain
from tests.runs import few_scenes, make_run, run_tiny, tiny_config


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
        ("patch", "crop_pixels", 33, "more than .* has, 32 x 32 pixels: set it to 32"),
        ("align", "crop_pixels", 99, "more than .* has, 32 x 32 pixels: set it to 32"),
        ("patch", "speckle_looks", 4.0, r"radar in dB, .* read: rgb \(3 x 8-bit\)"),
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
        loud = next(common.make_batches(run, "align", [source], sizes))
        run = make_run(tmp_path, tiny_config())
        plain = next(common.make_batches(run, "align", [source], sizes))
    np.testing.assert_array_equal(loud["rgb"], plain["rgb"])
    assert 1.5 < (loud["s1"] - plain["s1"]).std() < 4  # 4 looks: 2.3 dB


class Spoiled(MiniatureSource):
    """The miniature with records that cannot be read."""

    def __getitem__(self, index):
        if index in (3, 5):
            raise ValueError(f"{self.ids[index]}.tif is cut\nshort")
        return super().__getitem__(index)


def skipping(**settings):
    config = tiny_config(**settings)
    with config.unlocked():
        config.data.on_error = "skip"
    return config


def lines_of(path, *ids, split="train"):
    want = [f"miniature:{split}\t{i}\t{i}.tif is cut short" for i in ids]
    return sorted(path.read_text().splitlines()) == sorted(want)


def test_what_training_could_not_read_is_listed_once_though_it_is_continued(tmp_path):
    path = tmp_path / "align" / "skipped.txt"
    with few_scenes():
        for _ in range(2):  # the second goes on from the first
            run = make_run(tmp_path, skipping())
            source = Spoiled(run.open("miniature:train").dataset, "train")
            batches = common.make_batches(run, "align", [source], {"rgb": 8})
            for _ in range(8):  # 64 records, twice
                next(batches)
            batches.close()
            assert lines_of(path, source.ids[3], source.ids[5])


def test_an_evaluation_lists_what_it_left_out_and_says_how_many(
    tiny_run, tmp_path, monkeypatch, capsys
):
    stale = tmp_path / "evaluate" / "skipped.txt"
    config = skipping(stages=("evaluate",))
    with config.unlocked():
        config.init, config.datasets = str(tiny_run), ("miniature:test",)
    run_tiny(tmp_path, config)
    assert not stale.exists()
    assert "left out" not in capsys.readouterr().out
    # evaluated anew with other files: what was listed of the earlier ones goes
    (tmp_path / "evaluate" / "meta.json").unlink()
    stale.write_text("miniature:test\tgone\tof an earlier evaluation\n")
    monkeypatch.setattr("rsclip_jax.data.datasets.MiniatureSource", Spoiled)
    records = run_tiny(tmp_path, config)
    with few_scenes():
        ids = MiniatureSource(get_dataset("miniature"), "test").ids
    assert lines_of(stale, ids[3], ids[5], split="test")
    said = capsys.readouterr().out
    assert f"2 unreadable record(s) left out, listed in {stale}" in said
    assert {r["n"] for r in records if r["task"] == "zero_shot"} == {len(ids) - 2}
