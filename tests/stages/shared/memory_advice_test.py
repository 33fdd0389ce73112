"""A lack of memory names the stage, the step and the settings, with their numbers."""

import dataclasses

import numpy as np
import optax
import pytest

from rsclip_jax.main import run_stage
from rsclip_jax.stages.registry import find_stages
from rsclip_jax.stages.shared.memory_advice import advice, parts
from rsclip_jax.train import loop, memory, sharding
from rsclip_jax.train.settings import TrainSettings
from tests.helpers.batches import make_batches
from tests.helpers.runs import few_scenes, make_run, tiny_config
from tests.helpers.too_large import too_large

GIB = 2**30


def lines_of(run, stage, work, asked=None, held=None):
    shortage = memory.Shortage(asked, held, None, False)
    return advice(run, stage, work, shortage)


@pytest.mark.parametrize("stage", ["pretrain", "patch", "align"])
def test_a_training_names_its_own_settings(tmp_path, stage):
    text = "\n".join(lines_of(make_run(tmp_path, tiny_config()), stage, "training"))
    assert f"config.{stage}.batch_size, now 16 (16 on each of 1 device(s))" in text
    assert "config.remat, now 'none'" in text
    assert "config.precision, now float32" in text
    assert "eval_batch_size" not in text
    assert ("config.align.cache, now 'off'" in text) == (stage == "align")
    assert ("config.patch.block_cache_gb" in text) == (stage == "patch")


def test_an_evaluation_names_its_batch_alone(tmp_path):
    run = make_run(tmp_path, tiny_config())
    for stage in ("pretrain", "align", "evaluate"):
        first, *others = lines_of(run, stage, "encoding")
        assert first.startswith("config.eval_batch_size, now 16 (16 on each of 1")
        assert not [x for x in others if "batch_size" in x or "accumulate" in x]


def test_several_devices_can_share_the_parameters(tmp_path, mesh):
    run = make_run(tmp_path, tiny_config())
    assert "config.mesh" not in "".join(lines_of(run, "patch", "training"))
    run = dataclasses.replace(run, mesh=mesh)
    text = "\n".join(lines_of(run, "patch", "training"))
    assert "config.mesh, now (8, 1): with (-1, 8) each device holds 1/8" in text
    run = dataclasses.replace(run, mesh=sharding.make_mesh((1, 8)))
    assert "config.mesh" not in "".join(lines_of(run, "patch", "training"))


@pytest.mark.parametrize(
    ("size", "now", "asked", "held", "devices", "found"),
    [
        (128, 1, None, None, 1, 2),  # nothing is known: half
        (128, 1, 24 * GIB, 15 * GIB, 1, 2),
        (128, 1, 50 * GIB, 15 * GIB, 1, 4),
        (128, 2, 50 * GIB, 15 * GIB, 1, 8),
        (96, 1, 50 * GIB, 10 * GIB, 8, 6),
        (96, 4, 50 * GIB, 10 * GIB, 8, 12),  # at most one example a device
        (8, 1, None, None, 8, None),
    ],
)
def test_the_parts_of_a_batch_follow_from_what_was_asked(
    size, now, asked, held, devices, found
):
    shortage = memory.Shortage(asked, held, None, False)
    assert parts(size, now, shortage, devices) == found


def greedy_loss(params, frozen, batch):
    """A step that really asks for more than there is."""
    miss = (batch["x"] @ params["w"] - batch["x"] @ frozen["w"]).mean()
    return miss + too_large(miss).sum(), {}


def test_a_stage_that_asks_for_too_much_says_step_and_settings(tmp_path, mesh):
    def train_greedily(run):
        loop.train(
            {"w": np.zeros((4, 2), np.float32)},
            {"w": np.ones((4, 2), np.float32)},
            make_batches(),
            loss_fn=greedy_loss,
            tx=optax.sgd(0.1),
            settings=TrainSettings(8, 6, 0.1),
            mesh=mesh,
            folder=run.folder("align"),
            meta={},
            progress=False,
        )

    (stage,) = find_stages(("align",))
    stage = dataclasses.replace(stage, run=train_greedily)
    with pytest.raises(memory.OutOfMemory) as caught:
        run_stage(make_run(tmp_path, tiny_config()), stage)
    first, *settings, last = str(caught.value).splitlines()
    assert first.startswith("stage 'align', step 1 of 6: 1,048,576")
    assert "GiB asked for, this machine has" in first
    assert "config.align.accumulate, now 1: with 16 the" in settings[0]
    assert "config.remat, now 'none'" in settings[1]
    assert "config.align.batch_size, now 16" in settings[2]
    assert "--config.plan=True" in last


def test_a_real_evaluation_that_asks_for_too_much_says_so(tmp_path):
    config = tiny_config(stages=("pretrain",))
    with config.unlocked():
        config.eval_batch_size = 10**12
    (stage,) = find_stages(("pretrain",))
    with few_scenes(), pytest.raises(memory.OutOfMemory) as caught:
        run_stage(make_run(tmp_path, config), stage)
    first, second, *_ = str(caught.value).splitlines()
    assert first.startswith("stage 'pretrain', encoding miniature_natural:test: 2,8")
    assert "config.eval_batch_size, now 1,000,000,000,000 (" in second
