"""Real patches opened as scenes: the pixels that the datasets' own readers give."""

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.scenes.opening import open_scene
from rsclip_jax.data.scenes.scene import join_scenes
from rsclip_jax.data.scenes.tiles import read_tiles
from rsclip_jax.data.sensors import SENSORS

pytestmark = pytest.mark.real
FINE = [i for i, metres in enumerate(SENSORS["s2_l2a"].resolution) if metres == 10]


def whole(scene):
    return scene.read(Window(0, 0, scene.width, scene.height))


def test_eurosats_patches_in_their_order_of_bands(real_data):
    source = open_source("eurosat_ms", real_data)
    order = source.dataset.file_bands["s2"]
    for i in (0, len(source) - 1):
        path = next(real_data.rglob(f"{source.ids[i].split('/')[-1]}.tif"))
        scene = open_scene(path, "s2_l1c", file_bands=order)
        np.testing.assert_array_equal(whole(scene)["s2"], source[i]["s2"])
        with rasterio.open(path) as file:
            assert scene.box == tuple(file.bounds)
            for tile, record in read_tiles(scene, 16):
                at = file.xy(tile.row, tile.column, offset="ul")
                apart = np.abs(np.subtract((tile.box[0], tile.box[3]), at))
                assert apart.max() <= 1e-6 * scene.transform.a
                pixels = file.read(window=tile.window).transpose(1, 2, 0)
                bands = [order.index(band) for band in SENSORS["s2_l1c"].bands]
                np.testing.assert_array_equal(record["s2"], pixels[..., bands])


def test_bigearthnets_folders_of_both_sensors(real_data):
    source = open_source("bigearthnet", real_data, on_error="skip")
    record = source[0]
    name = source.ids[0].split("/")[-1]
    root = real_data / "bigearthnet"
    s2 = open_scene(root / "BigEarthNet-v1.0" / name, "s2_l2a")
    found = whole(s2)
    np.testing.assert_array_equal(found["s2"][..., FINE], record["s2"][..., FINE])
    apart = np.abs(found["s2"].astype(int) - record["s2"])
    assert apart.max() <= 1  # GDAL and OpenCV round halves differently
    assert (apart > 0).mean() < 0.05
    tail = name.split("_")[-2:]
    (folder,) = (root / "BigEarthNet-S1-v1.0").glob(f"*_{tail[0]}_{tail[1]}")
    pair = join_scenes(s2, open_scene(folder, "s1_grd", unit="dB", onto=s2))
    np.testing.assert_allclose(whole(pair)["s1"], record["s1"], atol=1e-4)
