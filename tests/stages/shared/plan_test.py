"""The plan: its numbers are the run's, and it writes nothing."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from configs import ablate, align_sar
from rsclip_jax.main import run_stage, run_stages, run_to_end
from rsclip_jax.models.clip import clip_shapes, init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.stages.registry import find_stages
from rsclip_jax.stages.shared import plan
from rsclip_jax.stages.shared.plan_table import (
    Figures,
    Place,
    describe_disk,
    describe_job,
)
from rsclip_jax.train import loop, program, sharding
from rsclip_jax.train.program import Memory, Program
from tests.conftest import REPO
from tests.helpers.processes import toy_variant
from tests.helpers.runs import few_scenes, make_run, one_device, tiny_config

GIB = 2**30


@pytest.fixture
def one_mesh(monkeypatch):
    monkeypatch.setattr(sharding, "make_mesh", lambda shape: one_device())
    monkeypatch.setattr(plan, "SECONDS", 0.1)


@pytest.fixture
def toy():
    with toy_variant():
        yield


def planned(stage, config, folder):
    """The first training program of a stage, and the needs that it is of."""
    run = make_run(folder, config)
    (found,) = find_stages((stage,))
    with few_scenes():
        needs = found.needs_of(run)
        job = needs.jobs[0]
        examples = plan.batch_shapes(run, job)
    place = Place("here", run.mesh, None)
    return plan.job_program(job, examples, place), needs


def trained(stage, config, folder, monkeypatch):
    """The memory of the step that a run of the stage really compiles."""
    seen = []
    make_step = loop.make_training_step

    def kept(state, frozen, **how):
        step = make_step(state, frozen, **how)

        def call(*args):
            if not seen:
                seen.append(program.memory_of(step.lower(*args).compile()))
            return step(*args)

        return call

    monkeypatch.setattr(loop, "make_training_step", kept)
    (found,) = find_stages((stage,))
    with few_scenes():
        run_stage(make_run(folder, config), found)
    return seen[0]


@pytest.mark.slow
def test_the_plan_is_of_the_step_that_trains(tmp_path, toy, monkeypatch):
    config = tiny_config(stages=("pretrain",), variant="toy")
    with config.unlocked():
        config.pretrain.update(test=(), accumulate=2, ema=0.9, steps=1)
    made, _ = planned("pretrain", config, tmp_path / "no")
    assert made.unit == 2
    found = trained("pretrain", config, tmp_path / "w", monkeypatch)
    assert made.memory(16) == found
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("stage", ["pretrain", "patch", "align"])
def test_the_arguments_are_those_counted_by_hand(tmp_path, stage):
    config = tiny_config(stages=("pretrain", stage))
    made, _ = planned(stage, config, tmp_path)
    numbers = {
        "pretrain": 3 * count(clip_shapes("mini")),
        "patch": 3 * count(clip_shapes("mini")["visual"]) + 64 * 10,
        # a student of two bands instead of three, the teacher, and the head
        "align": 3 * (count(clip_shapes("mini")["visual"]) - 8 * 8 * 96)
        + count(clip_shapes("mini")["visual"])
        + 64 * 10,
    }
    image = {"pretrain": 3, "patch": 3, "align": 3 + 4 * 2}[stage] * 32 * 32
    (state, frozen), batch = made.fixed, made.batch(16)
    held = program.device_bytes_of((state, frozen), one_device())
    assert held == pytest.approx(4 * numbers[stage], rel=1e-3)  # and some counts
    small = sum(x.size * x.dtype.itemsize for k, x in batch.items() if k in SMALL)
    assert sum(x.size * x.dtype.itemsize for x in batch.values()) == 16 * image + small


SMALL = ("text", "group", "label")


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.slow
def test_a_plan_prints_a_stage_and_writes_nothing(tmp_path, one_mesh, capsys):
    """A small student learns from cached features of a CLIP whose weights are away."""
    config = tiny_config(stages=("align",))
    with config.unlocked():
        config.update(plan=True, plan_memory_gb=2**-6, init="OpenAI-ViT-B-32")
        config.align.update(student="vit", cache="d4", losses=(("info_nce", 1.0),))
        config.align.vit.update(image_size=16, width=16, layers=1, heads=2)
    with few_scenes():
        run_stages(config, tmp_path / "w")
    text = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    training, encoding, *_ = text.split("  encoding ")
    rows = dict(re.findall(r"^    (\S.*?)  +(\S.*)$", training, re.MULTILINE))
    params = int(re.search(r"examples; ([\d,]+) parameters", text)[1].replace(",", ""))
    assert rows["batch on a device"] == "16"
    assert rows["parameters"] == f"{4 * params:,} bytes"
    assert rows["optimizer"] == f"{8 * params + 8:,} bytes"  # and two counts of steps
    assert rows["frozen weights"] == "0 bytes"
    assert rows["memory of a device"] == "16.0 MiB"
    assert 16 < int(rows["largest batch that fits"].replace(",", "")) < 10_000
    assert float(rows["examples a second"].replace(",", "")) > 1
    # the teacher's features in 8 views, and 48 test scenes before and after
    assert encoding.startswith("rgb: 608 images in batches of 16\n")
    assert "the teacher's features 0.1 MiB" in text
    assert "to the end of all stages: 1 x cpu" in text


@pytest.mark.slow
def test_a_whole_plan_prints_all_and_writes_nothing(tmp_path, one_mesh, toy, capsys):
    config = tiny_config(variant="toy")
    with config.unlocked():
        config.update(plan=True, plan_memory_gb=0.25, progress=True)
    with few_scenes():
        run_stages(config, tmp_path / "w")
    text, said = capsys.readouterr()
    steps = re.findall(r"^  \[(\d+) of 5\] (.+) for 1 x cpu \.\.\. \d+ s$", said, re.M)
    assert steps == [
        ("1", "pretrain: training step"),
        ("2", "pretrain: encoder of rgb"),
        ("3", "patch: training step"),
        ("4", "align: training step"),
        ("5", "align: encoder of s1"),
    ]
    assert said.startswith("plan: compiling 5 programs, 5 for 1 x cpu (also timed) ...")
    assert list(tmp_path.iterdir()) == []
    names = re.findall(r"^(\w+)$", text, re.MULTILINE)
    assert names == ["pretrain", "patch", "align", "evaluate"]
    assert text.count("training: 6 steps of 16 examples") == 3
    assert text.count("256.0 MiB") + text.count("0.25 GiB") >= 3
    # patch encodes val at three alphas and test at three: 2 datasets of 40 and of 48
    assert "encoding rgb: 528 images in batches of 16" in text
    assert "encoding s1: 96 images" in text  # align, before and after
    assert "to the end of all stages: 1 x cpu" in text
    assert "libtpu is not installed" in text


def test_a_plan_of_settings_that_cannot_work_says_so_and_writes_nothing(tmp_path):
    config = tiny_config(stages=("patch",))
    with config.unlocked():
        config.plan = True
    with few_scenes(), pytest.raises(ValueError, match="needs a CLIP to start from"):
        run_stages(config, tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_without_a_place_says_so(tmp_path):
    config = tiny_config(stages=("pretrain",))
    with config.unlocked():
        config.update(plan=True, plan_here=False)
    with few_scenes(), pytest.raises(ValueError, match="leaves nothing to plan for"):
        run_stages(config, tmp_path / "w")


@pytest.mark.parametrize("shipped", [align_sar, ablate])
def test_each_shipped_config_of_the_embedded_world_can_be_planned(tmp_path, shipped):
    """Its own settings pass the checks, and every stage that trains has its needs."""
    config = shipped.get_config()
    run = make_run(tmp_path / "w", config)
    for stage in find_stages(config.stages):
        stage.check(run)
        needs = stage.needs_of(run) if stage.needs_of else None
        trains = stage.name in ("pretrain", "patch", "align")
        assert bool(needs and needs.jobs) == trains
    assert list(tmp_path.iterdir()) == []


def real_config(size):
    """The real data of a size; of BigEarthNet there are a few patches of one split."""
    config = align_sar.get_config(size)
    if size == "vit_b32":
        config.data.on_error = "skip"  # Sentinel-2 patches without Sentinel-1
        config.patch.update(test="bigearthnet_s2:val", allow_shared=True)
        config.align.update(test=("bigearthnet:train",), allow_shared=True)
        config.datasets, config.evaluate.probes = ("bigearthnet:train",), ()
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "images"),
    [
        ("small", {"pretrain": ["rgb"], "patch": ["rgb"], "align": ["rgb", "s1"]}),
        ("vit_b32", {"patch": ["rgb"], "align": ["rgb", "s1"]}),
    ],
)
def test_the_configs_of_real_data_can_be_planned(tmp_path, real_data, size, images):
    """Up to the programs, which are compiled elsewhere: ViT-B/32 takes minutes."""
    config = real_config(size)
    with config.unlocked():
        config.update(plan=True, data_root=str(real_data))
    run = make_run(tmp_path / "w", config)
    for stage in find_stages(config.stages):
        stage.check(run)
        one = plan._Planned.of(run, stage, [Place("here", run.mesh, None)])
        sizes = [x[key].shape[1] for x in one.shapes if x for key in x]
        assert set(sizes) == {224 if size == "vit_b32" else 64}
        for job in one.at[0].jobs:
            examples = plan.batch_shapes(run, job)
            found = plan.job_program(job, examples, Place("here", run.mesh, None))
            jax.eval_shape(found.function, *found.arguments(run.mesh.size))
        if stage.name in images:
            assert [x.name for x in one.at[0].passes] == images[stage.name]
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_plan_leaves_no_traceback(tmp_path, capsys):
    config = tiny_config(stages=("patch",))
    with config.unlocked():
        config.plan = True
    with few_scenes():
        assert run_to_end(config, tmp_path / "w") == 1
    assert "needs a CLIP to start from" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_weights_by_name_are_planned_without_them(tmp_path, monkeypatch):
    """Also at their size: only the shapes of OpenAI's ViT-B/32 are needed."""
    config = tiny_config(stages=("patch", "align"))
    with config.unlocked():
        config.update(plan=True, init="OpenAI-ViT-B-32", variant="")
        config.align.cache = "d4"
    _, needs = planned("patch", config, tmp_path)
    visual = clip_shapes("ViT-B/32")["visual"]
    assert needs.jobs[0].params == visual
    _, needs = planned("align", config, tmp_path)
    assert needs.jobs[0].frozen["teacher"] == {}
    assert needs.files == {"the teacher's features": 64 * 8 * 512 * 4}


def test_what_does_not_fit_is_said():
    class Large(Program):
        def compile(self, batch_size):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory"
                " required for HLO temporaries (24.00G) exceeds available HBM (15.75G)."
            )

    place = Place("v5e:2x2", one_device(), 16 * GIB, "v5e:2x2")
    found = plan.measure(Large(None, (), {}, 4), place, 64)
    assert found.memory is None
    assert "too large: 24.00 GiB asked for" in found.problem
    assert plan.measure(Large(None, (), {}, 4), place, 66).problem == (
        "batch 66 is no multiple of 4"
    )
    assert np.isnan(found.seconds_of(10))


def test_figures_scale_to_any_number_of_examples():
    found = Figures(seconds=2.0, timed=8)
    assert found.seconds_of(4) == 1.0


SETTINGS = [
    {},
    {"class_balanced": 0.9},
    {"loss": "flyp"},
    {"loss": "flyp", "train_text": True},
    {"recipe": "lora"},
    {"recipe": "lp_ft"},
    {"head": "trained"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_shapes_of_frozen_arrays_are_those_of_the_run(tmp_path, settings):
    from rsclip_jax import api
    from rsclip_jax.stages.patch import recipes
    from rsclip_jax.stages.patch.settings import settings_of

    config = tiny_config(stages=("pretrain", "patch"))
    with config.unlocked():
        config.patch.update(settings)
    run, variant = make_run(tmp_path, config), get_variant("mini")
    params = jax.device_get(init_clip(variant, jax.random.key(0)))
    with few_scenes():
        c = settings_of(run)
        train = [run.open(spec) for spec in c.train]
        found = recipes.make_frozen(run, c, api.Model(variant, params, {}, ""), train)
        shapes = recipes.frozen_shapes(c, variant, train)
    assert shapes == jax.eval_shape(lambda: found)


def test_the_example_of_the_page_is_what_a_plan_prints(tmp_path):
    """All of it that does not depend on the machine."""
    page = (REPO / "rsclip_jax" / "stages" / "README.md").read_text()
    example = page.split("## Plan before the run")[1].split("```text\n")[1]
    shown = [" ".join(line.split()) for line in example.split("```")[0].splitlines()]
    run = make_run(tmp_path, align_sar.get_config())
    (stage,) = find_stages(("align",))
    needs = stage.needs_of(run)
    place = Place("1 x cpu", run.mesh, int(23.54 * GIB))
    figures = Figures((0,), Memory(2**20, 2**20), 1, True, 0.245, 128)
    lines = [*describe_job(needs.jobs[0], [place], [figures])]
    lines += describe_disk(plan.disk_of(run, needs))
    made = [" ".join(line.split()) for line in lines]
    rows = [
        line for line in made if line.split(" ")[0] not in ("temporary", "together,")
    ]
    free = ("largest", "examples", "in", "a")
    assert [x for x in rows if x.split(" ")[0] not in free and x not in shown] == []
    labels = [re.sub(r"[\d.,]+.*", "", line) for line in made[2:-1]]
    assert [x for x in labels if not any(y.startswith(x) for y in shown)] == []
    assert any(x.startswith("encoding rgb: 2,000 images") for x in shown)
    assert needs.passes[0].images == 2000


def test_the_run_of_a_stage_has_needs_for_each_mesh(tmp_path, mesh):
    """A loss that devices compare is built for the devices of the place."""
    run = dataclasses.replace(make_run(tmp_path, tiny_config()), mesh=mesh)
    (stage,) = find_stages(("pretrain",))
    with few_scenes():
        job = stage.needs_of(run).jobs[0]
        examples = plan.batch_shapes(run, job)
    found = plan.job_program(job, examples, Place("8", mesh, None))
    assert found.unit == 8
    found.function.lower(*found.arguments(16))
