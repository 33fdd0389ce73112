"""From files of an own sensor to an encoder that knows its ground and its scale."""

import dataclasses

import numpy as np
import pytest

import rsclip_jax
from configs import export
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.stages.align import stage as align
from rsclip_jax.stages.evaluate import encoders
from rsclip_jax.stages.evaluate.settings import read_settings
from rsclip_jax.stages.export import run_export
from rsclip_jax.train import checkpoint
from tests.helpers.align import SMALL, config_with, teacher
from tests.helpers.evaluate import config_of
from tests.helpers.geotiffs import north_up, write_by_gdal
from tests.helpers.runs import make_run

SENSOR = """
modality = "ir"
bands = ["SWIR1", "NIR", "R", "G", "B"]
unit = "W/(m2 sr um)"
dtype = "float32"
scale = 0.01
wavelengths = [1.61, 0.842, 0.665, 0.56, 0.49]
resolution = [20, 20, 20, 20, 20]
"""
TOML = """
reader = "paired_folders"
folder = "{name}"
task = "single"
[subfolders]
ir = "ir"
[sensors]
ir = "swir.toml"
[composites]
rgb = {{range = [0, 90]}}
"""


def write_set(folder, name, side, count=16):
    """Counts of radiance in class folders, 20 m a pixel."""
    (folder / "swir.toml").write_text(SENSOR)
    (folder / f"{name}.toml").write_text(TOML.format(name=name))
    rng = np.random.default_rng(side)
    for i in range(count):
        for split in ("train", "test"):
            path = folder / name / split / "ir" / "ab"[i % 2] / f"{split}{i}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            array = rng.integers(0, 9000, (side, side, 5), np.uint16)
            grid = north_up(3e5 + 9000 * i, 5e6, 20.0)
            write_by_gdal(path, array, crs="EPSG:32633", transform=grid)
    return f"{folder}/{name}.toml"


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ground")
    small, large = write_set(folder, "small", 16), write_set(folder, "large", 64, 2)
    model, workdir = teacher(), folder / "w"
    meta = StageMeta(variant=dataclasses.asdict(model.variant))
    checkpoint.save_product(workdir / "pretrain", model.params, meta)
    settings = {"student": "vit", "vit": SMALL, "losses": (("mse", 1.0),), "steps": 2}
    settings |= {"train": f"{small}:train", "test": (f"{small}:test",)}
    config = config_with(**settings, sensor="ir", normalize="zscore", batch_size=8)
    run = make_run(workdir, config)
    align.check_align(run)
    align.run_align(run)
    return workdir, small, large


@pytest.mark.slow
def test_the_spec_keeps_ground_and_measured_scale(aligned):
    workdir, *_ = aligned
    spec = rsclip_jax.load(workdir).sensors["ir"].spec
    assert (spec.pixels, spec.unit) == (16, "W/(m2 sr um)")
    assert spec.metres == pytest.approx(20, rel=1e-2)
    np.testing.assert_allclose(spec.mean, 45, atol=2)  # radiance, not counts


@pytest.mark.slow
def test_evaluate_encode_and_export_warn_of_another_ground(aligned, tmp_path, capsys):
    workdir, small, large = aligned
    model = rsclip_jax.load(workdir)
    for dataset, warned in ((small, False), (large, True)):
        run = make_run(tmp_path / "e", config_of(workdir, f"{dataset}:test"))
        capsys.readouterr()
        encoders.feed_each(run, model, read_settings(run.config).parts)
        said = capsys.readouterr().out
        line = "64 pixels of 20 m (1,280 m), and the ir encoder was trained on images"
        assert (line in said) == warned
        assert ("large:test:16 cuts them into tiles that fit" in said) == warned
    with pytest.warns(UserWarning, match="encode tiles of 16 pixels"):
        model.encode(np.full((1, 64, 64, 5), 45, np.float32), sensor="ir")
    config = export.get_config()
    config.init = str(workdir)
    run_export(make_run(tmp_path / "x", config.lock()))
    text = "trained on images of 16 pixels of 20 m (320 m), resized to 32: cut tiles of"
    assert text in capsys.readouterr().out
    assert text in (tmp_path / "x/export/README.md").read_text()
