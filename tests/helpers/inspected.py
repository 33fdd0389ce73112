"""Runs of stage inspect over folders of noise pictures."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from configs import inspect
from rsclip_jax.main import run_stages


def inspect_set(workdir, dataset, root="", samples=0, **settings):
    """summary.json of a run, with the set's folders under root."""
    config = inspect.get_config()
    config.update(dataset=dataset, data_root=str(root), progress=False)
    config.inspect.samples = samples
    config.data.update(**settings)
    run_stages(config.lock(), workdir)
    folder = workdir / "inspect" / Path(dataset).stem  # of a dataset's file
    return json.loads((folder / "summary.json").read_text())


def picture(seed, side=24, bands=3):
    rng = np.random.default_rng(seed)
    shape = (side, side) if bands == 1 else (side, side, bands)
    return rng.integers(0, 256, shape, dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
