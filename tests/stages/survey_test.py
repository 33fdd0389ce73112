"""A survey: several models on one set, in one table with what was published."""

import csv
import dataclasses

import jax
import numpy as np
import pytest

from configs import evaluate as configs_evaluate
from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.main import run_stages
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import VARIANTS
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.records.results import read_results
from rsclip_jax.report.survey import survey_rows
from rsclip_jax.stages import survey
from rsclip_jax.train import checkpoint
from rsclip_jax.weights.pretrained import PRETRAINED
from tests.helpers.results import make_result
from tests.helpers.runs import few_scenes, make_run

TOY = dataclasses.replace(VARIANTS["mini"], vision_layers=1, text_layers=1)


def config(*models, **settings):
    config = configs_evaluate.get_config("rs_clips")
    told = {"datasets": ("miniature:test",), "progress": False, "eval_batch_size": 16}
    config.update({"models": tuple(map(str, models)), **told, **settings})
    return config.lock()


def save_clip(workdir, seed):
    params = jax.tree.map(np.asarray, init_clip(TOY, jax.random.key(seed)))
    meta = StageMeta(variant=dataclasses.asdict(TOY))
    checkpoint.save_product(workdir / "pretrain", params, meta)
    return workdir


def read_table(workdir):
    lines = (workdir / "table.md").read_text().splitlines()
    head, _, *rows = [[c.strip() for c in x.strip("|").split("|")] for x in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.slow
def test_each_model_has_its_row_with_what_was_published(tmp_path, capsys):
    """A longer list goes on from a shorter one; a missing model is tried again."""
    one, two = save_clip(tmp_path / "one", 0), save_clip(tmp_path / "two", 1)
    gone = tmp_path / "gone.safetensors"
    gone.write_bytes(b"no weights")
    published = (
        ("two", "miniature", "accuracy", 12.5, "paper A"),
        ("two", "miniature", "accuracy", 40.0, "paper B"),
        ("two", "eurosat_rgb", "accuracy", 99.0, "another set"),
    )
    workdir = tmp_path / "w"
    with few_scenes():
        run_stages(config(one, gone, published=published), workdir)
        said = capsys.readouterr().out
        assert "gone is skipped" in said
        assert "skipped: gone; run the command again to retry" in said
        run_stages(config(one, two, published=published), workdir)
        said = capsys.readouterr().out
        assert said.count("already done, skipped") == 1
        run_stages(config(one, two, published=published), workdir)
        assert "survey: already done, skipped" in capsys.readouterr().out
        other = (("one", "miniature", "accuracy", 7.0, "paper C"), *published)
        run_stages(config(one, two, published=other), workdir)
        assert read_table(workdir / "survey")[0]["published"] == "7 (paper C)"
        run_stages(config(one, two, published=published), workdir)
    rows = read_table(workdir / "survey")
    assert [row["model"] for row in rows] == ["one", "two"]
    assert [row["published"] for row in rows] == ["", "12.5 (paper A), 40 (paper B)"]
    records = read_results(workdir / "results.jsonl")
    assert {r.stage for r in records} == {"survey"}
    for row in rows:
        own = read_results(workdir / "survey" / row["model"] / "results.jsonl")
        (r,) = [r for r in own if r.metric == "accuracy" and r.sensor == "rgb"]
        assert row["measured"] == f"{100 * r.value:.1f} %"
        assert row["n"] == "48"
        mine = [x for x in records if x.model == row["model"]]
        assert [x.value for x in mine] == [x.value for x in own]
    assert rows[0]["measured"] != rows[1]["measured"] or one != two
    with (workdir / "survey" / "table.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [(r["model"], r["published"]) for r in found] == [
        ("one", ""),
        ("two", "0.125"),
        ("two", "0.4"),
    ]


@pytest.mark.slow
def test_a_dry_run_needs_no_weights_and_leaves_no_numbers(
    tmp_path, capsys, monkeypatch
):
    row = dataclasses.replace(PRETRAINED["SkyCLIP-ViT-B-32"], variant=TOY)
    monkeypatch.setitem(PRETRAINED, "SkyCLIP-ViT-B-32", row)
    settings = config("SkyCLIP-ViT-B-32", dry_run=True, dry_records=20)
    with few_scenes():
        run_stages(settings, tmp_path / "w")
        said = capsys.readouterr().out
        assert "random weights, 20 records of each dataset" in said
        # and then the true one, in the same workdir
        true = config(save_clip(tmp_path / "clip", 0))
        run_stages(true, tmp_path / "w")
    (found,) = read_table(tmp_path / "w" / "survey" / "dry_run")
    assert found["n"] == "20"
    assert "33.3" not in found["published"]  # of other sets
    records = read_results(tmp_path / "w" / "results.jsonl")
    assert {r.model for r in records} == {"clip"}


@pytest.mark.parametrize(
    ("models", "settings", "message"),
    [
        ((), {}, "config.models is empty"),
        (("RemoteCLIP-ViT-B-23",), {}, "none of .*RemoteCLIP-ViT-B-32"),
        (("{w}/a/clip", "{w}/b/clip"), {}, "are both 'clip' in the table"),
        (("{w}/a/clip",), {"dry_run": True}, "the shapes of .* are unknown"),
        (("{w}/a/clip",), {"published": (("a", "b"),)}, "has .*'a', 'b'.*percent"),
        (("{w}/a/clip",), {"datasets": ()}, "config.datasets is empty"),
    ],
)
def test_what_is_refused(tmp_path, models, settings, message):
    for folder in ("a", "b"):
        (tmp_path / folder / "clip").mkdir(parents=True)
    named = [name.format(w=tmp_path) for name in models]
    run = make_run(tmp_path / "w", config(*named, **settings))
    with pytest.raises(ValueError, match=message):
        survey.check_survey(run)


def test_no_model_at_all_is_an_error(tmp_path):
    gone = tmp_path / "gone.safetensors"
    gone.write_bytes(b"no weights")
    with few_scenes(), pytest.raises(ValueError, match="none of them could be loaded"):
        run_stages(config(gone), tmp_path / "w")


def test_what_was_published_is_of_models_and_sets_that_there_are():
    config = configs_evaluate.get_config("rs_clips")
    sets = {spec.split(":")[0] for spec in config.datasets}
    assert sets <= set(DATASETS)
    assert set(config.models) <= set(PRETRAINED)
    for model, dataset, metric, percent, source in config.published:
        assert model in config.models
        assert dataset in sets
        assert metric == "accuracy"
        assert 20 < percent < 100
        assert source in ("open_clip", "RS5M", "SkyScript")
    keys = [(row[0], row[1], row[4]) for row in config.published]
    assert len(keys) == len(set(keys))


def test_what_was_published_of_rgb_does_not_stand_beside_radar():
    found = {"m": [make_result(sensor=sensor) for sensor in ("rgb", "s1")]}
    rows = survey_rows(found, [("m", "d", "accuracy", 40.0, "paper")])
    assert [row.published for row in rows] == [[(40.0, "paper")], []]
