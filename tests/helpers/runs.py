"""Whole runs at toy size: the embedded miniature, few scenes, few steps, one device.

Programs for eight devices take several times the CPU time; tests of sharding ask for
them (`with_all_devices`, `make_mesh()`).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from configs import align_sar
from rsclip_jax.data.miniature import scenes
from rsclip_jax.data.sources import memory as sources
from rsclip_jax.main import run_stages
from rsclip_jax.records.results import Result, read_results
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import sharding

SIZES = {"train": 64, "val": 40, "test": 48}


def one_device() -> Mesh:
    """A mesh over the first of the fake devices."""
    devices = np.asarray(jax.devices()[:1])[:, None]
    return Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 2)


@contextlib.contextmanager
def few_scenes() -> Iterator[None]:
    """Splits of the miniature with SIZES scenes."""
    sources._open_view.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        for view in scenes.VIEWS:
            patch.setitem(scenes.SIZES, view, SIZES)
        yield
    sources._open_view.cache_clear()


def tiny_config(
    stages=("pretrain", "patch", "align", "evaluate"), **settings
) -> ConfigDict:
    """configs/align_sar.py with six steps of sixteen examples a stage."""
    config = align_sar.get_config()
    config.update(stages=stages, **settings)
    config.progress = False
    config.eval_batch_size = 16
    for stage in ("pretrain", "patch", "align"):
        config[stage].update(batch_size=16, steps=6, warmup=2, log_every=1)
    config.patch.alphas = (0.0, 0.5, 1.0)
    config.evaluate.update(shots=(1, 2), shot_seeds=2)
    return config.lock()


def run_tiny(
    workdir: Path, config: ConfigDict, *, with_all_devices: bool = False
) -> list[Result]:
    """Runs the stages in workdir; its results."""
    with few_scenes(), pytest.MonkeyPatch.context() as patch:
        if not with_all_devices:
            patch.setattr(sharding, "make_mesh", lambda shape: one_device())
        run_stages(config, workdir)
    return read_results(workdir / "results.jsonl")


def make_run(workdir: Path, config: ConfigDict) -> Run:
    """What a stage gets from main."""
    return Run(config, workdir, one_device())
