"""Examples a second out of archives as they are downloaded, packed, and in torch.

python -m tests.bench.archives [--threads 2] [--batch 64] [--patches 900]

JPEGs of 64 pixels enlarged to 224, and BigEarthNet's folders of a tif a band, both
made for the occasion. The aims, on two cores: 4,500 JPEGs a second; 150 patches a
second from tifs and 20 times that when packed; the first batch within a second. A
DataLoader of torch with as many workers reads the same files with Pillow and tifffile,
under the Python that RSCLIP_TORCH_PYTHON names (default: this one), where it has these.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import tifffile

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pack.write import pack_source
from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.batches import train_batches
from rsclip_jax.data.readers.bigearthnet import S2_BANDS, S2_V1
from rsclip_jax.data.types import ReadOptions, Source
from tests.bench.pipeline import make_photos
from tests.bench.timing import (
    Clock,
    in_turn,
    machine,
    print_ratio,
    print_table,
    timed,
)
from tests.bench.worker import Worker

BIGEARTHNET, ROUNDS, NAME = 590_326, 4, "bigearthnet_s2"
SIDES = dict.fromkeys(("B01", "B09"), 20) | dict.fromkeys(S2_BANDS[1:4], 120)
SIDES["B08"] = 120  # the others are of 60 pixels
Start = Callable[[Source], Iterator]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("threads", 2), ("batch", 64), ("patches", 900)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    print(f"{machine()}, {args.threads} threads or workers, batch {args.batch}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bench_photos(root, args.batch, args.threads)
        bench_patches(root, args.patches, args.batch, args.threads)


def bench_photos(root: Path, batch: int, threads: int) -> None:
    """JPEGs of 64 pixels, enlarged to 224 and flipped."""
    make_photos(root / "eurosat_rgb")
    start = starter({"rgb": 224}, batch, threads, Augment())
    photos = partial(open_source, "eurosat_rgb", root)
    batches = 24
    print("\nJPEGs of 64 pixels, enlarged to 224")
    times = in_turn(
        {
            "rsclip_jax": partial(pull, start, photos(), batches),
            **torch_clock(root / "eurosat_rgb", "jpeg", batch, threads, batches),
        },
        ROUNDS,
    )
    print_table(times, batches * batch)
    if "torch" in times:
        print_ratio(times, "torch", "rsclip_jax")
    print_first(start, photos)


def bench_patches(root: Path, patches: int, batch: int, threads: int) -> None:
    """BigEarthNet's folders of tifs, packing them, and the pack."""
    make_patches(root / S2_V1, patches)
    archive = partial(open_source, NAME, root, "train", packed=False)
    out = root / "packed"
    pack(archive, out / NAME / "train", threads)
    packed = partial(open_source, NAME, out, "train")
    start = starter({"s2": 120}, batch, threads, Augment(flip_lr=False))
    batches = 4
    print("\nBigEarthNet's 12 bands, from tifs and from a pack")
    times = in_turn(
        {
            "tifs": partial(pull, start, archive(), batches),
            # ten times as many, and a tenth of their time
            "packed": lambda: pull(start, packed(), 10 * batches) / 10,
            **torch_clock(root / S2_V1, "tif", batch, threads, batches),
        },
        ROUNDS,
    )
    print_table(times, batches * batch)
    print_ratio(times, "tifs", "packed")
    if "torch" in times:
        print_ratio(times, "torch", "tifs")
        print_ratio(times, "torch", "packed")
    print_first(start, archive)
    print_first(start, packed)


def make_patches(folder: Path, count: int) -> None:
    """Patches in BigEarthNet's layout: a tif a band, a json with one label."""
    rng = np.random.default_rng(0)
    for i in range(count):
        patch = folder / f"S2A_MSIL2A_20170613T101031_{i // 100}_{i % 100}"
        patch.mkdir(parents=True)
        for band in S2_BANDS:
            side = SIDES.get(band, 60)
            small = rng.integers(0, 4000, (10, 10), np.uint16)
            array = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)
            tifffile.imwrite(patch / f"{patch.name}_{band}.tif", array)
        text = json.dumps({"labels": ["Pastures"]})
        (patch / f"{patch.name}_labels_metadata.json").write_text(text)


def pack(archive: Callable[[], Source], folder: Path, workers: int) -> None:
    """Packs it; prints the rate and what it means for the whole of BigEarthNet."""
    source = archive()
    options = {"half": None, "provenance": {}, "workers": workers}
    seconds = timed(lambda: pack_source(source, archive, folder, **options))
    hours = BIGEARTHNET / len(source) * seconds / 3600
    print(f"\n{len(source)} patches packed by {workers} processes in {seconds:.1f} s,")
    print(f"their start included; {BIGEARTHNET:,} at that rate: {hours:.1f} h")


def starter(sizes: dict, batch: int, threads: int, augment: Augment) -> Start:
    """What starts the training batches of a source."""
    return lambda source: train_batches(
        [source],
        sizes=sizes,
        augment=augment,
        seed=0,
        options=ReadOptions(batch, threads),
    )


def pull(start: Start, source: Source, batches: int) -> float:
    """Seconds of so many batches after the first, which starts the threads."""
    iterator = start(source)
    next(iterator)
    seconds = timed(lambda: [next(iterator) for _ in range(batches)] and None)
    iterator.close()  # type: ignore[attr-defined]
    time.sleep(0.1)  # its readers shall not compete with the next row's
    return seconds


def torch_clock(
    folder: Path, kind: str, batch: int, workers: int, batches: int
) -> dict[str, Clock]:
    """The DataLoader's clock; none, and why, where torch is not installed."""
    loader = Worker("torch_loader.py", str(folder), kind, f"{batch}", f"{workers}")
    if loader.missing:
        print(f"  torch's half is left out: {loader.missing}")
        return {}
    return {"torch": lambda: float(loader.ask(f"{batches}"))}


def print_first(start: Start, reopen: Callable[[], Source]) -> None:
    """Seconds from nothing open to the first batch."""
    seconds = timed(lambda: next(start(reopen())))
    print(f"  first batch: {seconds:.2f} s from opening {len(reopen()):,} examples")


if __name__ == "__main__":
    main()
