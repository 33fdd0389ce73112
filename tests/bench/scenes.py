"""Windows of a scene a second, its opening included, beside rasterio alone.

python -m tests.bench.scenes [--side 3240] [--tiles 64 256] [--rounds 3]

A GeoTIFF of 12 bands (deflate, blocks of 256) and a Sentinel-2 L2A product (JPEG 2000
in ESA's blocks), both made for the occasion. The aim: 0.7 of rasterio's rate, which
reads the same pixels into arrays, on the same grid and with the same cache.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from rsclip_jax.data.scenes.files import CACHE
from rsclip_jax.data.scenes.opening import open_scene
from rsclip_jax.data.scenes.scene import Scene
from rsclip_jax.data.scenes.tiles import tiles
from tests.bench.timing import in_turn, machine, print_ratio, print_table, timed
from tests.helpers.geotiffs import north_up, write_by_gdal
from tests.helpers.safe import LEFT, METRES, TOP, write_s2

BLOCKS = {10: 1024, 20: 640, 60: 192}
BANDS = tuple(band for band in METRES if band != "B10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=3240)
    parser.add_argument("--tiles", type=int, nargs="+", default=(64, 256))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{machine()}, scenes of {args.side} x {args.side} pixels")
    with tempfile.TemporaryDirectory() as folder:
        for make in (make_tiff, make_product):
            path = make(Path(folder), args.side)
            for size in args.tiles:
                bench(path, size, args.rounds)


def bench(path: Path, size: int, rounds: int) -> None:
    scene = open_scene(path, "s2_l2a")
    windows = [tile.window for tile in tiles(scene, size, edges="drop")]
    alone = read_tiff if path.suffix == ".tif" else read_product
    clocks: dict[str, Callable[[], float]] = {
        "scene": partial(timed, partial(read_scene, path, windows)),
        "rasterio": partial(timed, partial(alone, path, scene, windows)),
    }
    print(f"{path.name[:11]}, {len(windows)} windows of {size} pixels")
    times = in_turn(clocks, rounds, warmup=0)
    print_table(times, len(windows))
    print_ratio(times, "scene", "rasterio")


def read_scene(path: Path, windows) -> None:
    scene = open_scene(path, "s2_l2a")
    for window in windows:
        scene.read(window)


def read_tiff(path: Path, scene: Scene, windows) -> None:
    with rasterio.Env(GDAL_CACHEMAX=CACHE), rasterio.open(path, sharing=False) as file:
        for window in windows:
            file.read(window=window)


def read_product(path: Path, scene: Scene, windows) -> None:
    grid = {
        "crs": scene.crs,
        "transform": scene.transform,
        "width": scene.width,
        "height": scene.height,
    }
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        files = []
        for band in BANDS:
            (image,) = path.rglob(f"*_{band}_{METRES[band]}m.jp2")
            file = rasterio.open(image, sharing=False)
            coarse = METRES[band] > 10
            bilinear = {"resampling": Resampling.bilinear, "src_nodata": 0}
            files.append(WarpedVRT(file, **grid, **bilinear) if coarse else file)
        for window in windows:
            for file in files:
                file.read(1, window=window)


def draw(side: int, seed: int) -> np.ndarray:
    """A smooth band with some noise, which compresses about as ground does."""
    rng = np.random.default_rng(seed)
    base = rng.normal(3000, 600, (side // 40 + 2,) * 2).astype(np.float32)
    wide = cv2.resize(base, (side, side), interpolation=cv2.INTER_CUBIC)
    noisy = wide + rng.normal(0, 40, (side, side))
    return noisy.clip(1001, 12000).astype(np.uint16)


def make_tiff(root: Path, side: int) -> Path:
    array = np.stack([draw(side, i) for i in range(len(BANDS))], -1)
    place = {"crs": "EPSG:32632", "transform": Affine(*north_up(LEFT, TOP)[:6])}
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    packed = {"compress": "deflate", "predictor": 2, "nodata": 0}
    return write_by_gdal(root / "scene.tif", array, **place, **blocks, **packed)


def make_product(root: Path, side: int) -> Path:
    sides = {band: side * 10 // metres for band, metres in METRES.items()}
    bands = {band: draw(n, i) for i, (band, n) in enumerate(sides.items())}
    return write_s2(root, "L2A", bands, blocks=BLOCKS)


if __name__ == "__main__":
    main()
