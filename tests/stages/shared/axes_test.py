"""A training that goes on with other axes of the mesh."""

import json

import numpy as np
import pytest

from rsclip_jax.main import run_stages
from rsclip_jax.train import stopping
from tests.helpers.processes import toy_variant
from tests.helpers.runs import few_scenes, tiny_config


def run(workdir, mesh):
    config = tiny_config(("pretrain",), variant="toy", mesh=mesh)
    config.pretrain.update(steps=5, test=())
    with few_scenes(), toy_variant():
        run_stages(config, workdir)


def curve(workdir):
    lines = (workdir / "pretrain" / "metrics.jsonl").read_text().splitlines()
    return [(row["step"], row["loss"]) for row in map(json.loads, lines)]


@pytest.mark.slow
def test_a_training_on_2_by_4_devices_goes_on_on_4_by_2(tmp_path, monkeypatch):
    run(tmp_path / "straight", (2, 4))
    steps = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(stopping.Stop, "reached", lambda self: next(steps))
        with pytest.raises(stopping.Interrupted, match="step 3 of 5 of pretrain"):
            run(tmp_path / "w", (2, 4))
    assert len(curve(tmp_path / "w")) == 3
    run(tmp_path / "w", (4, 2))
    ours, theirs = curve(tmp_path / "w"), curve(tmp_path / "straight")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    stored = json.loads((tmp_path / "w" / "config.json").read_text())
    assert stored["mesh"] == [4, 2]
