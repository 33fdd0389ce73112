"""What the processes of a job must have in common, with two that share no folder."""

import dataclasses
from pathlib import Path

import jax
import pytest

from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.stages.shared.alike import written_together
from rsclip_jax.train import checkpoint
from tests.helpers import processes
from tests.helpers.runs import tiny_config


def test_folders_beside_the_workdir_are_those_that_the_stages_write():
    config = tiny_config()
    assert written_together(config, ["align", "evaluate"]) == {}
    config.align.update(cache="exact", cache_dir="features")
    named = {"config.align.cache_dir": Path("features")}
    assert written_together(config, ["align"]) == named
    assert written_together(config, ["ablate"]) == named
    assert written_together(config, ["evaluate"]) == {}
    config.align.cache = "off"
    assert written_together(config, ["align"]) == {}
    with config.unlocked():
        config.pack = {"out": "packed"}
    assert written_together(config, ["pack"]) == {"config.pack.out": Path("packed")}


@pytest.mark.slow
def test_what_one_host_lacks_is_named_on_both(tmp_path):
    """A model that one cannot load, and a folder that only one has."""
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
    row = get_variant("mini")
    params = jax.device_get(init_clip(row, jax.random.key(0)))
    meta = StageMeta(variant=dataclasses.asdict(row))
    checkpoint.save_product(tmp_path / "0" / "clip" / "pretrain", params, meta)
    with processes.start(
        tmp_path / "logs", f"--folder={tmp_path}", module="tests.helpers.hosts"
    ) as job:
        assert job.wait(200) == [0, 0], job.text()
    for i in range(2):
        said = job.output(i)
        assert "True process 1 of 2 (" in said, job.text()
        assert "clip: not a weight file" in said
        assert "config.align.cache_dir = features is not shared: process 1 of 2" in said
        assert "name a folder that all hosts mount" in said
        assert f"{tmp_path / 'features'} is shared" in said
    assert [*(tmp_path / "features").iterdir()] == []
    assert [*(tmp_path / "0" / "features").iterdir()] == []
