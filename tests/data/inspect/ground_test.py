"""The ground of images, and by how much two differ."""

import numpy as np
import pytest

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.inspect.ground import (
    compare_ground,
    fitting_tile,
    measure_ground,
)
from rsclip_jax.data.sources.wrappers import TiledSource
from rsclip_jax.data.types import Ground
from tests.helpers.geotiffs import north_up, write_by_gdal

TOML = 'reader = "folder"\nfolder = "files"\n[sensors]\ns1 = "s1_grd"\n'


def radar_set(folder, pixel, side, **place):
    (folder / "files").mkdir(parents=True)
    (folder / "mine.toml").write_text(TOML)
    db = np.random.default_rng(0).normal(-12, 4, (side, side + 8, 2))
    for name in "abcd":
        grid = {"transform": north_up(3e5, 5e6, pixel), **place}
        write_by_gdal(folder / f"files/{name}.tif", db.astype(np.float32), **grid)
    (folder / "files/b.tif").write_bytes(b"damaged")
    return open_source(folder / "mine.toml")


def test_the_files_say_the_ground_and_a_tile_has_its_part(tmp_path):
    source = radar_set(tmp_path, 20.0, 64, crs="EPSG:32633")
    ground = measure_ground(source, "s1")
    assert (ground.pixels, ground.extent) == (64, pytest.approx(1280, rel=1e-3))
    assert str(ground) == "64 pixels of 20 m (1,280 m)"
    tiles = TiledSource(source, 16, on_error="skip")
    assert measure_ground(tiles, "s1").pixels == 16
    bare = radar_set(tmp_path / "bare", 20.0, 64)
    assert measure_ground(bare, "s1") == Ground(64, 0.0)
    assert str(Ground(64)) == "64 pixels"


def test_a_source_that_cannot_be_read_has_no_ground(tmp_path):
    source = radar_set(tmp_path, 20.0, 64, crs="EPSG:32633")
    for path in (tmp_path / "files").iterdir():
        path.write_bytes(b"damaged")
    assert measure_ground(source, "s1") == Ground()


@pytest.mark.parametrize(
    ("trained", "seen", "ratio", "tile"),
    [
        (Ground(64, 10), Ground(256, 10), 4, 64),
        (Ground(64, 10), Ground(128, 5), 1, 128),
        (Ground(64, 10), Ground(64, 20), 2, 32),
        (Ground(64, 10), Ground(256), 4, 64),  # by pixels
        (Ground(64), Ground(32, 10), 0.5, 64),
        (Ground(), Ground(256, 10), 1, 256),
        (Ground(64, 10), Ground(), 1, 1),
    ],
)
def test_grounds_are_compared_by_metres_where_both_have_them(
    trained, seen, ratio, tile
):
    assert compare_ground(trained, seen) == ratio
    assert fitting_tile(trained, seen) == tile
