"""What all stages have of a run: splits, what could not be read, what is kept."""

import numpy as np
import pytest
from PIL import Image

from configs import evaluate
from rsclip_jax import metrics
from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import get_dataset
from rsclip_jax.data.sources.memory import MiniatureSource
from rsclip_jax.data.sources.wrappers import Wrapper
from rsclip_jax.records.outcomes import load_outcomes
from rsclip_jax.records.results import read_results
from tests.helpers.align import batches_of
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config


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
    assert hashed.split_rule is None
    assert listed.split_rule == "eurosat-*.txt"
    assert hashed.split_digest != listed.split_digest


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
            batches = batches_of(run, [source], {"rgb": 8})
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
        config.evaluate.probes = ()
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
    assert {r.n for r in records if r.task == "zero_shot"} == {len(ids) - 2}


@pytest.mark.parametrize("stage", ["patch", "align"])
def test_what_a_stage_keeps_gives_what_it_reported(tiny_run, stage):
    results = read_results(tiny_run / "results.jsonl")
    for when in ("before", "after"):
        kept = load_outcomes(tiny_run / stage / "outcomes" / when)
        assert kept
        for outcome in kept:
            for sensor in outcome.z.keys() - ({"rgb"} if stage == "align" else set()):
                logits = outcome.logits(sensor)
                (record,) = (
                    r
                    for r in results
                    if (r.stage, r.sensor, r.task, r.metric)
                    == (stage, sensor, "zero_shot", "accuracy")
                    and r.split_digest == outcome.pins["split_digest"]
                    and r.checkpoint == outcome.pins["checkpoint"][sensor]
                )
                assert metrics.top_k_accuracy(logits, outcome.labels) == record.value
                assert record.prompts == outcome.pins["prompts"]
                assert record.step == outcome.pins["step"]
        assert len({tuple(o.ids) for o in kept}) == len(kept)


def test_nothing_is_kept_where_it_is_not_wanted(tmp_path):
    run = make_run(tmp_path, tiny_config(keep_embeddings=False))
    with few_scenes():
        outcome = run.keep("align", "after", run.open("miniature:test"), {})
    assert outcome.name == "miniature:test"
    assert not [*tmp_path.rglob("*.npz")]


def test_a_picture_that_cannot_be_made_stops_no_stage(tiny_run, tmp_path, capsys):
    class Unreadable(Wrapper):
        def read(self, index, keys):
            raise OSError("the disk is gone")

    (kept,) = load_outcomes(tiny_run / "align" / "outcomes" / "after")
    with few_scenes():
        run = make_run(tmp_path, tiny_config())
        source = Unreadable(run.open(kept.name))
        z = {key: value[: len(source.ids)] for key, value in kept.z.items()}
        run.keep("align", "after", source, z, labels=kept.labels, head=kept.head)
    said = capsys.readouterr().out
    assert "align: no thumbnails of miniature:test: the disk is gone" in said
    assert (tmp_path / "align/outcomes/after/miniature-test.npz").exists()
    assert not (tmp_path / "align/thumbnails").exists()
