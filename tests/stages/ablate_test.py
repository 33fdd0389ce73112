"""An ablation: every combination, one after the other, in one table."""

import csv
import dataclasses
import json

import numpy as np
import pytest

import rsclip_jax
from configs import ablate as configs_ablate
from rsclip_jax.main import run_stages
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.records.results import read_results
from rsclip_jax.stages import ablate
from rsclip_jax.train import checkpoint
from tests.helpers.align import SMALL, teacher
from tests.helpers.runs import few_scenes, make_run

MSE, BOTH = (("mse", 1.0),), (("mse", 1.0), ("cosine", 0.05))


def config(*sweep, **settings):
    config = configs_ablate.get_config()
    told = {"steps": 2, "warmup": 1, "batch_size": 16, "student": "vit", "vit": SMALL}
    config.align.update({**told, "losses": MSE, **settings})
    config.update(stages=("ablate",), progress=False, eval_batch_size=16)
    config.ablate.sweep = sweep
    return config.lock()


def with_clip(workdir):
    meta = StageMeta(variant=dataclasses.asdict(teacher().variant))
    checkpoint.save_product(workdir / "pretrain", teacher().params, meta)
    (workdir / "config.json").write_text(json.dumps(config().to_dict()))
    return workdir


def read_table(workdir):
    lines = (workdir / "ablate" / "table.md").read_text().splitlines()
    head, _, *rows = [[c.strip() for c in x.strip("|").split("|")] for x in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.slow
def test_each_combination_trains_once_and_stands_in_one_table(tmp_path, capsys):
    """A longer sweep goes on from a shorter one; each number is its own run's."""
    workdir = with_clip(tmp_path / "w")
    with few_scenes():
        run_stages(config(("align.losses", (MSE, BOTH))), workdir)
        first = read_table(workdir)
        assert [row["losses"] for row in first] == ["mse", "mse+0.05cosine"]
        capsys.readouterr()
        longer = config(("align.losses", (MSE, BOTH, (("cosine", 1.0),))))
        run_stages(longer, workdir)
    said = capsys.readouterr().out
    assert said.count("already done, skipped") == 2
    assert "3 of 3, losses=cosine" in said
    assert "| losses" in said
    rows = read_table(workdir)
    assert [row["losses"] for row in rows] == ["mse", "mse+0.05cosine", "cosine"]
    with (workdir / "ablate" / "table.csv").open() as file:
        exact = list(csv.DictReader(file))
    folders = [f"losses={row['losses']}" for row in rows]
    kept = [r for r in read_results(workdir / "results.jsonl") if r.stage == "ablate"]
    assert list(dict.fromkeys(r.setting for r in kept)) == folders
    for column, metric, sensor in (
        ("s1 accuracy", "accuracy", "s1"),
        ("rgb->s1 R@10", "recall@10", "rgb->s1"),
        ("s1->rgb R@1", "recall@1", "s1->rgb"),
    ):
        values = []
        for row, line, folder in zip(rows, exact, folders, strict=True):
            own = read_results(workdir / "ablate" / folder / "results.jsonl")
            (value,) = (
                r.value
                for r in own
                if (r.sensor, r.metric, r.step) == (sensor, metric, 2)
            )
            values.append(value)
            assert float(line[column]) == value
            assert row[column].strip("*") == f"{100 * value:.1f}"
        best = [row[column].startswith("**") for row in rows]
        assert best == [value == max(values) for value in values]
    model = rsclip_jax.load(workdir / "ablate" / folders[0])  # a workdir of its own
    np.testing.assert_array_equal(
        model.params["visual"]["proj"]["kernel"],
        teacher().params["visual"]["proj"]["kernel"],
    )
    with few_scenes():
        run_stages(longer, workdir)
    assert "ablate: already done, skipped" in capsys.readouterr().out
    with few_scenes(), pytest.raises(ValueError, match=r"align\.lr: 0\.001 in the"):
        run_stages(config(("seed", (0, 1)), lr=0.1), workdir)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ((), r"sweep = \(\): give each setting with a tuple"),
        ((("align.losses", MSE[0]), 3), "give each setting with a tuple of its values"),
        ((("align.student", "vit"),), "give each setting with a tuple of its values"),
        ((("align.stdent", ("vit",)),), r"'align\.stdent', .*similar: align\.stude"),
        ((("patch.lr", (0.1,)),), r"'patch\.lr', which is not a setting of stage"),
        ((("seed", (0,)), ("seed", (1,))), "or is named twice"),
        ((("seed", (0, 0)),), "the same combination twice"),
        ((("align.lr", ("fast",)),), r"lr=fast: align\.lr: Could not override"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_trains(tmp_path, sweep, message):
    with few_scenes(), pytest.raises(ValueError, match=message):
        run_stages(config(*sweep), with_clip(tmp_path / "w"))
    assert not (tmp_path / "w" / "ablate").exists()


def test_all_that_cannot_run_are_in_one_message(tmp_path):
    sweep = (("align.losses", (MSE, (("l2", 1.0),))), ("align.temperature", (1.0, 0.0)))
    run = make_run(with_clip(tmp_path / "w"), config(*sweep))
    with few_scenes(), pytest.raises(ValueError, match="losses names") as caught:
        ablate.check_ablate(run)
    text = str(caught.value)
    assert text.count("losses=l2,temperature=") == 2
    assert "losses=mse,temperature=0: config.align.temperature = 0.0" in text
    assert "losses=mse,temperature=1" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("clip", "clip"),
        ("/weights/mine.safetensors", "mine.safetensors"),
        (0.05, "0.05"),
        (1e-5, "1e-05"),
        (3, "3"),
        (True, "True"),
        ((("mse", 1.0), ("labels", 0.05)), "mse+0.05labels"),
        ((("mse", (0.0, 1.0)),), "0-1mse"),
        (("s1", "s2"), "s1-s2"),
        ((("s1", "vit"), ("s2", "clip")), "vits1+clips2"),
        ((), "none"),
    ],
)
def test_values_in_few_letters(value, text):
    assert ablate.short(value) == text


def test_settings_that_look_alike_have_folders_of_their_own():
    files = ("a/mine.safetensors", "b/mine.safetensors", "clip")
    settings = ablate.settings_of(config(("align.student", files)))
    names = [setting.name for setting in settings]
    assert len(set(names)) == 3
    assert names[2] == "student=clip"
    assert all(name.startswith("student=mine.safetensors,") for name in names[:2])


def test_the_sweep_does_not_change_the_config_it_came_from(tmp_path):
    told = config(("align.sensor", ("s2", ("s1", "s2"))), ("align.vit.width", (32,)))
    run = make_run(tmp_path, told)
    one, two = (ablate.with_values(run, s) for s in ablate.settings_of(told))
    assert (one.config.align.sensor, two.config.align.sensor) == ("s2", ("s1", "s2"))
    assert one.config.align.vit.width == 32
    assert (told.align.sensor, told.align.vit.width) == ("s1", 16)
    assert two.workdir == tmp_path / "ablate" / "sensor=s1-s2,width=32"


def test_an_ablation_of_the_paper_has_its_axes():
    told = configs_ablate.get_config("vit_b32")
    names = [setting.name for setting in ablate.settings_of(told)]
    assert len(names) == 18
    assert "losses=mse+0.05labels,student=ssl4eo-moco-vits16-s2" in names
    assert "losses=labels,student=vit" in names
