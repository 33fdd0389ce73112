"""What stage evaluate reads through texts: prompt sets, few classes, captions."""

import numpy as np
import pytest

from rsclip_jax import api
from rsclip_jax.data.catalog.prompts import (
    captions_digest,
    get_templates,
    prompts_digest,
)
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.records.outcomes import load_outcomes
from rsclip_jax.records.results import read_results
from rsclip_jax.report.table import format_table
from rsclip_jax.stages.evaluate import stage
from rsclip_jax.stages.shared.dataset_checks import ANY_TASK, LABELLED, open_as
from tests.helpers.caption_sets import listed, write_set
from tests.helpers.changed import ONE_CLASS, Captioned, Changed
from tests.helpers.evaluate import config_of, evaluate_source, model_of, values_of
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config
from tests.helpers.shares import assert_share


def test_each_prompt_set_is_a_head_of_its_own_and_images_are_encoded_once(
    tiny_run, tmp_path, monkeypatch
):
    model = api.load(tiny_run)
    config = config_of(tiny_run, "miniature:val")
    with config.unlocked():
        config.evaluate.prompts = ("single", "dataset", "openai7")
    encoded = []
    encode = stage.Run.encode
    monkeypatch.setattr(
        stage.Run,
        "encode",
        lambda self, *args: encoded.append(args[1]) or encode(self, *args),
    )
    results = run_tiny(tmp_path / "w", config)
    assert len(encoded) == 1
    with few_scenes():
        source = make_run(tmp_path, tiny_config()).open("miniature:val")
        records = [source[i] for i in range(len(source))]
    z, row = model.encode_image([r["rgb"] for r in records]), source.dataset
    labels = np.array([r["label"] for r in records])
    found = {
        r.prompt_set: r for r in results if (r.sensor, r.metric) == ("rgb", "accuracy")
    }
    assert list(found) == ["single", "dataset", "openai7"]
    for name, record in found.items():
        templates = get_templates(name, row.templates)
        head = model.zero_shot(row.classnames, templates)
        assert_share(record.value, z @ head, labels)
        assert record.prompts == prompts_digest(row.classnames, templates)
    # classes are searched with the set's own; places need no prompts
    asked = {r.prompt_set for r in results if r.sensor == "text->s1"}
    assert asked == {"dataset"}
    assert not [
        r for r in results if r.sensor == "rgb->s1" and r.prompt_set is not None
    ]
    (outcome,) = load_outcomes(tmp_path / "w/evaluate/outcomes/after")
    assert outcome.pins["prompt_set"] == "dataset"
    assert outcome.pins["prompts"] == found["dataset"].prompts
    table = (tmp_path / "w/evaluate/table.txt").read_text()
    assert "accuracy (openai7)" in table


def test_the_gap_to_text_says_of_which_prompts_it_is(tiny_run, tmp_path):
    config = config_of(tiny_run, "miniature:val")
    with config.unlocked():
        config.evaluate.prompts = ("openai7", "single")
    results = run_tiny(tmp_path / "w", config)
    gap = [r for r in results if r.task == "modality_gap"]
    asked = {r.sensor: r.prompt_set for r in gap if "->" in r.sensor}
    assert asked == {"rgb->s1": None, "rgb->text": "openai7", "s1->text": "openai7"}
    table = (tmp_path / "w/evaluate/table.txt").read_text()
    assert "centroid_distance (openai7)" in table
    assert "median_rank" in table


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ((), "name each prompt set once"),
        (("single", "single"), "name each prompt set once"),
        (("single", "sngle"), "unknown prompt set 'sngle': did you mean 'single'"),
    ],
)
def test_prompt_sets_are_checked_before_the_start(tiny_run, tmp_path, prompts, words):
    config = config_of(tiny_run, "miniature:val")
    with config.unlocked():
        config.evaluate.prompts = prompts
    with pytest.raises(ValueError, match=words) as error:
        run_tiny(tmp_path / "w", config)
    assert str(error.value).startswith("config.evaluate.prompts = ")


def test_of_one_class_zero_shot_is_left_out_and_said(tmp_path, capsys):
    model = model_of(get_sensor("s1_grd"))
    with few_scenes():
        run = make_run(tmp_path, tiny_config())
        source = Changed(run.open("miniature:val"), **ONE_CLASS)
        found = values_of(run, model, source)
    assert not {"accuracy", "ece"} & {metric for _, metric in found}
    assert not [metric for _, metric in found if metric.startswith("mAP")]
    said = capsys.readouterr().out
    assert "miniature:val has one class, 'river'" in said
    assert "zero-shot is skipped" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kept": 0}, "config.datasets = 'x:val' has no records; name another split"),
        (
            {"classnames": ("lake",) * 10},
            r"config\.datasets = 'x:val': class names appear twice: \['lake'\]",
        ),
        (
            {"classnames": ("a", "b", " ", *"defghij")},
            r"config\.datasets = 'x:val': class\(es\) \[2\] of .* have no name",
        ),
        (
            {"templates": ("a photo.",)},
            r"'x:val': template 'a photo\.' has no placehol",
        ),
        ({"templates": ()}, r"config\.datasets = 'x:val': no prompt templates"),
    ],
)
def test_what_gives_no_number_is_found_before_the_start(tmp_path, changes, words):
    config = config_of("x", "x:val")
    with few_scenes():
        run = make_run(tmp_path, config)
        run.opened["x:val"] = Changed(run.open("miniature:val"), **changes)
        with pytest.raises(ValueError, match=words):
            stage.check_evaluate(run)


def test_a_head_of_one_class_is_not_trained_on(tmp_path):
    with few_scenes():
        run = make_run(tmp_path, tiny_config())
        run.opened["x:val"] = Changed(run.open("miniature:val"), **ONE_CLASS)
        words = r"config\.patch\.val = 'x:val' has one class, 'river'"
        with pytest.raises(ValueError, match=words):
            open_as(run, "config.patch.val", "x:val", LABELLED)
        assert open_as(run, "config.datasets", "x:val", ANY_TASK)


def test_captions_are_searched_in_every_sensor_that_has_an_encoder(
    tiny_run, tmp_path, capsys
):
    model = api.load(tiny_run)
    config = tiny_config()
    with config.unlocked():
        config.data.on_error = "skip"
    with few_scenes():
        run = make_run(tmp_path, config)
        source = Captioned(run.open("miniature:val"), broken=(4,))
        evaluate_source(run, model, source)
        records = [source[i] for i in range(len(source)) if i != 4]
    results = read_results(run.results)
    captions = [r["captions"] for r in records]
    owners = np.array([i for i, texts in enumerate(captions) for _ in texts])
    ztxt = model.encode_text([t for texts in captions for t in texts], truncate=True)
    value = {(r.sensor, r.metric): r for r in results}
    gap = [r for r in results if r.task == "modality_gap"]
    results = [r for r in results if r.task != "modality_gap"]
    assert {r.sensor for r in gap if r.prompts} == {
        "rgb->text",
        "s1->text",
        "text",
    }
    (kept,) = load_outcomes(tmp_path / "evaluate" / "outcomes" / "after")
    np.testing.assert_array_equal(kept.owners, owners)
    np.testing.assert_allclose(kept.ztxt, ztxt, atol=1e-6)
    assert kept.labels is None
    for sensor in ("rgb", "s1"):
        z = model.encode([r[sensor] for r in records], sensor)
        scores = z.astype(float) @ ztxt.T.astype(float)
        hits = owners == np.arange(len(z))[:, None]
        back = value[f"{sensor}->text", "recall@10"]
        assert_share(back.value, scores, hits, 10)
        there = value[f"text->{sensor}", "recall@10"]
        assert_share(there.value, scores.T, owners, 10)
        assert (back.n, there.n) == (39, len(owners))
        pinned = {r.prompts for r in (back, there)}
        assert pinned == {captions_digest(captions)}
    clip, s1 = model.digests["clip"], model.digests["s1"]
    assert value["text->rgb", "recall@1"].checkpoint == clip
    assert value["text->s1", "recall@1"].checkpoint == f"{clip}+{s1}"
    assert value["s1->text", "recall@1"].checkpoint == f"{s1}+{clip}"
    assert value["text->s1", "recall@1"].step == model.steps["s1"]
    assert value["rgb->s1", "recall@1"].prompts is None
    assert {r.task for r in results} == {"retrieval"}
    said = capsys.readouterr().out
    assert "distinct captions have more than 24 tokens and are truncated" in said


def test_captioned_sets_of_files_are_evaluated(tiny_run, tmp_path):
    images = [
        listed(f"{s}_{i}", s, f"a {i}") for s in ("val", "test") for i in range(6)
    ]
    write_set(tmp_path, "ucm_captions", images, side=40)
    config = config_of(tiny_run, "ucm_captions:test", data_root=str(tmp_path))
    results = run_tiny(tmp_path / "w", config)
    found = {
        (r.sensor, r.metric, r.n, r.dataset) for r in results if r.task == "retrieval"
    }
    assert found == {
        (way, metric, 6, "ucm_captions")
        for way in ("text->rgb", "rgb->text")
        for metric in ("recall@1", "recall@5", "median_rank")
    }


def test_several_labels_without_one_example_have_no_value_and_a_table(tmp_path):
    model = model_of(get_sensor("s1_grd"))
    with few_scenes():
        run = make_run(tmp_path, tiny_config())
        found = values_of(run, model, Changed(run.open("miniature_multi:val")))
    assert found["rgb", "mAP_macro"] is found["s1", "mAP_micro"] is None
    assert "NaN" not in run.results.read_text()
    assert "mAP_macro" in format_table(read_results(run.results))
