"""Patches a second into a pack, and examples a second out of it into host batches.

python -m tests.bench.packing [--threads 2] [--workers 2] [--batch 128] [--patches 3000]

Patches of 13 bands, 120 x 120 pixels, uint16: BigEarthNet's size. They come from
memory, so packing them shows what the packer can take, not what an archive of tifs can
give; the JPEGs of 64 pixels come from files. The aim: 4,500 examples a second out of a
pack on two cores. CPU time is printed, too: it depends less on a busy machine.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pack.write import pack_source
from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.batches import train_batches
from rsclip_jax.data.sources.packed import open_packed
from rsclip_jax.data.types import Dataset, Source
from tests.bench.pipeline import make_photos
from tests.bench.timing import Clock, in_turn, machine, print_table, timed

ROUNDS, READS, BIGEARTHNET = 4, 1000, 590_326
FIRST, BATCHES = 8, 48  # a batch is 48 MB, and memory is slow when first touched
ROW = Dataset("s2_patches", "", "single", {"s2": "s2_l1c"}, ("a", "b"), ("a", "b"))


class Made(Source):
    """n patches, cut from one noise at places of their own."""

    dataset, split = ROW, "train"

    def __init__(self, n: int):
        self.ids = [f"patch_{i:06d}" for i in range(n)]
        rng = np.random.default_rng(0)
        self._noise = rng.integers(0, 10000, (220, 220, 13), np.uint16)

    def __getitem__(self, index: int) -> dict:
        y, x = divmod(index % 10000, 100)
        patch = np.ascontiguousarray(self._noise[y : y + 120, x : x + 120])
        return {"id": self.ids[index], "label": index % 2, "s2": patch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("threads", 2), ("workers", 2), ("batch", 128)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--patches", type=int, default=3000)
    args = parser.parse_args()
    print(f"{machine()}, {args.threads} threads, {args.workers} packing processes")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bench_packing(root, args.patches, args.workers)
        bench_reading(root / "packed", args.batch, args.threads)


def bench_packing(root: Path, patches: int, workers: int) -> None:
    """Prints the rates of packing either kind, starting the workers included."""
    make_photos(root / "eurosat_rgb")
    photos = partial(open_source, "eurosat_rgb", root, packed=False)
    print("\npatches a second into a pack")
    for name, reopen in (("13x120x120", partial(Made, patches)), ("JPEG 64", photos)):
        source: Source = reopen()
        pack = partial(
            pack_source,
            source,
            reopen,
            root / "packed" / source.dataset.name / "train",
            half=None,
            provenance={},
            workers=workers,
        )
        rate = len(source) / timed(pack)
        hours = BIGEARTHNET / rate / 3600
        print(f"  {name:12}{rate:10,.0f}/s; {BIGEARTHNET:,} patches: {hours:.2f} h")


def bench_reading(root: Path, batch: int, threads: int) -> None:
    """Prints examples a second of batches out of the packs, and of bare reads."""
    sources = {
        "13x120x120": (open_packed(ROW, root, "train"), {"s2": 120}),
        "8-bit RGB 64": (open_source("eurosat_rgb", root, "train"), {"rgb": 64}),
    }
    augments = {
        "as they are": Augment(flip_lr=False),
        "flips and turns": Augment(flip_ud=True, rotate=True),
    }
    clocks: dict[str, Clock] = {}
    cpu: dict[str, list[float]] = {}
    for (kind, (source, sizes)), (how, augment) in itertools.product(
        sources.items(), augments.items()
    ):
        start = partial(
            train_batches,
            [source],
            sizes=sizes,
            batch_size=batch,
            augment=augment,
            seed=0,
            threads=threads,
        )
        times = cpu.setdefault(f"{kind}, {how}", [])
        clocks[f"{kind}, {how}"] = partial(pull, start, times)
    print("\nbatches out of a pack")
    print_table(in_turn(clocks, ROUNDS), BATCHES * batch)
    for name, times in cpu.items():
        example = min(times) / (BATCHES * batch)
        print(f"  {name}: {1e6 * example:.0f} us of CPU time an example")
    print("\none thread, without the pipeline")
    places = np.random.default_rng(0).permutation(READS).tolist()
    reads = {
        f"read {kind}": partial(timed, partial(read, source, places))
        for kind, (source, _) in sources.items()
    }
    print_table(in_turn(reads, ROUNDS), READS)


def pull(start: Callable[[], Iterator], cpu: list[float]) -> float:
    """Seconds for BATCHES batches after the first ones; their CPU time goes to cpu."""
    batches = start()
    for _ in range(FIRST):
        next(batches)
    before = time.process_time()
    seconds = timed(lambda: [len(next(batches)) for _ in range(BATCHES)])
    cpu.append(time.process_time() - before)
    batches.close()
    time.sleep(0.1)  # its readers shall not compete with the next row's
    return seconds


def read(source: Source, places: list[int]) -> None:
    """Reads the records and lets them go, as the pipeline does."""
    for i in places:
        source[i]


if __name__ == "__main__":
    main()
