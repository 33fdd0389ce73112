"""Stage pretrain: captions, and learning from them."""

import json

import numpy as np
import pytest

from rsclip_jax.data.catalog.prompts import captions_digest
from rsclip_jax.data.tokenizer import END, tokenize
from rsclip_jax.models.variants import get_variant
from rsclip_jax.records.results import read_results
from rsclip_jax.stages.pretrain import caption_tokens, check_pretrain, run_pretrain
from rsclip_jax.train.checkpoint import load_meta
from tests.helpers.caption_sets import listed, write_set
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config


def test_captions_are_the_prompts_of_each_class_cut_to_the_longest(tmp_path):
    run = make_run(tmp_path, tiny_config())
    with few_scenes():
        sources = [run.open("miniature_natural:val"), run.open("miniature:val")]
    tables = caption_tokens(run, sources, get_variant("mini"))
    lengths = []
    for source, table in zip(sources, tables, strict=True):
        row = source.dataset
        assert table.shape[:2] == (len(row.classnames), len(row.templates))
        for name, texts in zip(row.classnames, table, strict=True):
            whole = tokenize([t.format(c=name) for t in row.templates], 24)
            np.testing.assert_array_equal(texts, whole[:, : texts.shape[-1]])
            assert not whole[:, texts.shape[-1] :].any()
            lengths += [row.tolist().index(END) + 1 for row in whole]
    assert max(lengths) == tables[0].shape[-1] == tables[1].shape[-1]


COLOURS = {
    name: tuple(255 * ((i >> j) & 1) for j in range(3))
    for i, name in enumerate("black red green yellow blue purple cyan white".split())
}


def coloured_set(root, *, long=""):
    """16 images of RSICD, all of train and val: a colour, light or dark, two texts."""
    texts = [
        (f"a {name} place {kind}.", f"this is {name} and {kind}{long}.")
        for name in COLOURS
        for kind in ("by day", "at night")
    ]
    colours = [
        tuple((40 + 200 * c // 255) // (1 + 3 * night) for c in colour)
        for colour in COLOURS.values()
        for night in range(2)
    ]
    both = ("train", "val")
    images = [
        listed(f"{split}_{i}", split, *texts[i]) for split in both for i in range(16)
    ]
    write_set(root, "rsicd", images, side=32, colours=2 * colours)
    return texts


def test_captions_and_classes_have_one_length_and_long_captions_are_cut(
    tmp_path, capsys
):
    texts = coloured_set(tmp_path, long=" and a road" * 9)
    run = make_run(tmp_path, tiny_config(data_root=str(tmp_path)))
    with few_scenes():
        sources = [run.open("miniature:val"), run.open("rsicd:train")]
    classes, captions = caption_tokens(run, sources, get_variant("mini"))
    assert classes.shape[-1] == 24
    assert set(captions) == {text for two in texts for text in two}
    short, long = texts[3]
    np.testing.assert_array_equal(captions[short], tokenize(short, 24)[0])
    whole = tokenize(long, 77)[0]
    assert whole.argmax() > 24
    np.testing.assert_array_equal(captions[long], [*whole[:23], END])
    said = capsys.readouterr().out
    assert "rsicd:train: 16 of 32 distinct captions have more than 24 tokens" in said
    # without the long ones all are as short as the longest of both
    coloured_set(tmp_path / "b")
    run = make_run(tmp_path, tiny_config(data_root=str(tmp_path / "b")))
    with few_scenes():
        sources = [run.open("miniature:val"), run.open("rsicd:train")]
    classes, captions = caption_tokens(run, sources, get_variant("mini"))
    lengths = {ids.shape[-1] for ids in captions.values()} | {classes.shape[-1]}
    longest = max(ids.argmax() + 1 for ids in captions.values())
    (length,) = lengths
    assert length == max(longest, int(classes.argmax(axis=-1).max()) + 1) < 24
    assert "tokens" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5,), r"has 1 numbers for 2 dataset"),
        ((0.5, 0.3, 0.2), "has 3 numbers"),
        ((1.0, 0.0), "above 0"),
        ((1.0, -1.0), "above 0"),
        ((1.0, float("nan")), "above 0"),
    ],
)
def test_weights_that_do_not_fit_are_named_before_anything_starts(
    tmp_path, weights, message
):
    config = tiny_config()
    assert config.pretrain.weights == ()  # a setting of every config
    config.pretrain.train = ("miniature_natural:train", "miniature_aerial:train")
    for fits in ((), (3.0, 1.0)):
        config.pretrain.weights = fits
        with few_scenes():
            check_pretrain(make_run(tmp_path, config))
    config.pretrain.weights = weights
    with few_scenes(), pytest.raises(ValueError, match=message) as error:
        check_pretrain(make_run(tmp_path, config))
    assert f"config.pretrain.weights = {weights}" in str(error.value)


@pytest.mark.slow
def test_a_captioned_set_is_learned_and_searched_both_ways(tmp_path):
    texts = coloured_set(tmp_path)
    config = tiny_config(("pretrain", "evaluate"), data_root=str(tmp_path))
    with config.unlocked():
        config.pretrain.update(
            train=("rsicd:train", "miniature_aerial:train"),
            weights=(0.9, 0.1),
            test=("rsicd:val",),
            steps=40,
            lr=2e-3,
            warmup=5,
            batch_size=16,
        )
        config.datasets = ("rsicd:val",)
        config.evaluate.update(probes=(), gap=False)
    results = run_tiny(tmp_path / "w", config)
    found = {(r.stage, r.step, r.sensor, r.metric): r for r in results}
    chance, n = {"text->rgb": 5 / 16, "rgb->text": 10 / 32}, {}
    for way in chance:
        before = found["pretrain", 0, way, "recall@5"].value
        after = found["pretrain", 40, way, "recall@5"].value
        assert before < 2.2 * chance[way]
        assert after > 0.85
        n[way] = found["evaluate", 40, way, "recall@5"].n
        assert found["evaluate", 40, way, "recall@5"].value == after
    assert n == {"text->rgb": 32, "rgb->text": 16}
    assert {r.task for r in results} == {"retrieval"}
    assert {r.prompts for r in results} == {captions_digest(texts)}
    # one CLIP has made both sides
    digests = {r.checkpoint for r in results if r.step == 40}
    assert digests == {load_meta(tmp_path / "w" / "pretrain").digest}


@pytest.mark.slow
def test_a_little_training_beats_chance_and_reports_it(tmp_path):
    config = tiny_config()
    with config.unlocked():
        config.pretrain.update(
            steps=60,
            lr=2e-3,
            warmup=5,
            batch_size=32,
            train=("miniature_aerial:train",),
        )
        config.pretrain.test = ("miniature_aerial:train",)  # fits what it saw
    run = make_run(tmp_path, config)
    with few_scenes():
        run_pretrain(run)
    lines = [r for r in read_results(run.results) if r.metric == "accuracy"]
    before, after = (r.value for r in lines)
    assert before <= 0.25
    assert after >= 0.5
    assert [r.step for r in lines] == [0, 60]
    assert lines[0].prompts == lines[1].prompts
    assert lines[0].checkpoint != lines[1].checkpoint


@pytest.mark.slow
def test_the_same_seed_gives_the_same_clip(tmp_path):
    digests = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        config = tiny_config()
        with config.unlocked():
            config.seed = seed
            config.pretrain.steps = 2
        with few_scenes():
            run_pretrain(make_run(tmp_path / name, config))
        meta = json.loads((tmp_path / name / "pretrain" / "meta.json").read_text())
        digests.append(meta["digest"])
    assert digests[0] == digests[1] != digests[2]
