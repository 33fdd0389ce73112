"""Stage pretrain: captions, and learning from them."""

import json

import numpy as np

from rsclip_jax.data.tokenizer import END, tokenize
from rsclip_jax.models.variants import get_variant
from rsclip_jax.stages.pretrain import caption_tokens, run_pretrain
from tests.runs import few_scenes, make_run, tiny_config


def test_captions_are_the_prompts_of_each_class_cut_to_the_longest(tmp_path):
    run = make_run(tmp_path, tiny_config())
    with few_scenes():
        sources = [run.open("miniature_natural:val"), run.open("miniature:val")]
    tables = caption_tokens(sources, get_variant("mini"))
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
    lines = [json.loads(x) for x in run.results.read_text().splitlines()]
    before, after = (r["value"] for r in lines)
    assert before <= 0.25
    assert after >= 0.5
    assert [r["step"] for r in lines] == [0, 60]
    assert lines[0]["prompts"] == lines[1]["prompts"]
    assert lines[0]["checkpoint"] != lines[1]["checkpoint"]


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
