"""configs/align_sar.py:small on real files, shortened: every stage, every set."""

import numpy as np
import pytest

import rsclip_jax
from configs import align_sar
from rsclip_jax.data.datasets import open_source
from rsclip_jax.main import run_stages
from rsclip_jax.records.results import read_results
from rsclip_jax.train import sharding
from tests.helpers.runs import one_device

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(real_data, tmp_path_factory):
    config = align_sar.get_config("small")
    config.data_root = str(real_data)
    config.progress = False
    config.variant = "mini"  # 32 pixels instead of 64
    config.eval_batch_size = 64
    for stage in ("pretrain", "patch", "align"):
        config[stage].update(batch_size=32, steps=12, warmup=3)
    config.patch.update(steps=60, batch_size=64, lr=1e-3, warmup=5)
    config.pretrain.test = ("imagenette:test", "resisc45:test")
    config.patch.update(alphas=(0.0, 0.5, 1.0), val="eurosat_rgb:train[98%:]")
    config.patch.update(test="eurosat_rgb:val[:20%]")
    config.patch.update(supported_val=("cifar10:train[98%:]",))
    config.patch.update(supported_test=("cifar10:val[:20%]",))
    config.datasets = ("eurosat_rgb:val[:20%]", "sentinel_pairs:val:128")
    config.evaluate.probes = (
        ("eurosat_rgb:train[:10%]", "eurosat_rgb:train[98%:]", "eurosat_rgb:val[:20%]"),
    )
    config.evaluate.update(shots=(1, 16))
    config.align.test = ("sentinel_pairs:val:128",)
    path = tmp_path_factory.mktemp("small") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda shape: one_device())
        run_stages(config, path)
    return path


def test_every_real_set_was_read_and_reported(workdir):
    found = {
        (r.stage, r.dataset, r.task, r.sensor)
        for r in read_results(workdir / "results.jsonl")
        if r.task != "modality_gap"
    }
    assert found == {
        ("pretrain", "imagenette", "zero_shot", "rgb"),
        ("pretrain", "resisc45", "zero_shot", "rgb"),
        ("patch", "eurosat_rgb", "zero_shot", "rgb"),
        ("patch", "cifar10", "zero_shot", "rgb"),
        ("patch", "cifar10", "forgetting", "rgb"),
        ("align", "sentinel_pairs", "retrieval", "rgb->s1"),
        ("align", "sentinel_pairs", "retrieval", "s1->rgb"),
        ("evaluate", "eurosat_rgb", "zero_shot", "rgb"),
        ("evaluate", "eurosat_rgb", "retrieval", "text->rgb"),
        ("evaluate", "eurosat_rgb", "linear_probe", "rgb"),
        ("evaluate", "eurosat_rgb", "knn", "rgb"),
        ("evaluate", "sentinel_pairs", "retrieval", "rgb->s1"),
        ("evaluate", "sentinel_pairs", "retrieval", "s1->rgb"),
    }


def test_a_few_steps_already_learn(workdir):
    """Chance is 10 %: a broken label order, head or pairing would stay there."""
    results = read_results(workdir / "results.jsonl")
    task = {
        r.alpha: r.value
        for r in results
        if (r.stage, r.dataset, r.metric) == ("patch", "eurosat_rgb", "accuracy")
    }
    assert task[1.0] > max(task[0.0], 0.1) + 0.1
    probes = {
        r.shots or r.task: r.value for r in results if r.task in ("knn", "linear_probe")
    }
    assert probes["linear_probe"] > probes[16] > probes[1] > 0.1
    assert probes["knn"] > 0.3
    curve = (workdir / "align" / "metrics.jsonl").read_text().splitlines()
    assert len(curve) == 1  # logged every tenth step
    assert "mse" in curve[0]


def test_the_aligned_encoder_takes_real_radar_pictures(workdir, real_data):
    model = rsclip_jax.load(workdir)
    source = open_source("sentinel_pairs", real_data, "val")
    # tiles as large as those of its training: whole pictures would bring a warning
    tiles = [source[i]["s1"][:64, :64] for i in range(3)]
    z = model.encode(tiles, sensor="s1")
    assert z.shape == (3, model.variant.embed_dim)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
