"""Examples a second of the training and evaluation pipelines, and where time goes.

python -m tests.bench.pipeline [--threads 2] [--batch 128] [--data_root DIR]

Over class folders of 64-pixel JPEGs: made for the occasion, or eurosat_rgb's under
--data_root, of 3,100 files or more. The aim: 4,000 training examples a second on two
cores, so that a model and not its input is what one waits for.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from configs.align_sar import get_config
from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.open.locate import find_folder
from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.batches import eval_batches, train_batches
from rsclip_jax.data.pipeline.fitting import fit_record
from rsclip_jax.data.pipeline.transforms import augment_record
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.types import ReadOptions, Source
from tests.bench.timing import Clock, in_turn, machine, print_table, timed

PER_CLASS, BATCHES, ROUNDS, PARTS = 700, 24, 5, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--data_root", help="folder that holds eurosat_rgb")
    args = parser.parse_args()
    print(
        f"{machine()}, {args.threads} threads, batch {args.batch}, images of 64 pixels"
    )
    with tempfile.TemporaryDirectory() as folder:
        if not args.data_root:
            make_photos(Path(folder) / "eurosat_rgb")
        root = args.data_root or folder
        source = open_source("eurosat_rgb", root)
        print(f"\nbatches from {len(source)} files")
        clocks = pipelines(source, args.batch, args.threads)
        print_table(in_turn(clocks, ROUNDS), BATCHES * args.batch)
        print("\none thread, without the pipeline")
        files = find_folder(source.dataset, root).rglob("*.jpg")
        paths = list(itertools.islice(files, PARTS))
        print_table(in_turn(parts(source, paths), ROUNDS), PARTS)


def make_photos(folder: Path) -> None:
    """Class folders of smooth coloured noise, of EuroSAT's size in pixels."""
    rng = np.random.default_rng(0)
    for name in get_dataset("eurosat_rgb").classes:
        (folder / name).mkdir(parents=True)
        for i in range(PER_CLASS):
            small = rng.integers(0, 256, (16, 16, 3), np.uint8)
            image = cv2.resize(small, (64, 64), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / name / f"{i}.jpg"), image)


def settings() -> dict[str, tuple[int, Augment]]:
    """Side in pixels and augmentation of stage patch: two configs, and one between."""
    small, large = (get_config(n).patch.augment for n in ("small", "vit_b32"))
    turns, full = Augment(**small.to_dict()), Augment(**large.to_dict())
    return {
        "64 px, flips and turns": (64, turns),
        "224 px, flips and turns": (224, turns),
        "224 px, crop, flips, colour, blur": (224, full),
    }


def pipelines(source: Source, batch: int, threads: int) -> dict[str, Clock]:
    """Clocks of BATCHES batches of either pipeline."""

    def train(size: int, augment: Augment) -> Iterator:
        return train_batches(
            [source],
            sizes={"rgb": size},
            augment=augment,
            seed=0,
            options=ReadOptions(batch, threads),
        )

    def evaluate(size: int) -> Iterator:
        return eval_batches(
            source, sizes={"rgb": size}, options=ReadOptions(batch, threads)
        )

    clocks: dict[str, Clock] = {
        f"train {name}": partial(pull, partial(train, *values))
        for name, values in settings().items()
    }
    for size in (64, 224):
        clocks[f"evaluate {size} px"] = partial(pull, partial(evaluate, size))
    return clocks


def pull(start: Callable[[], Iterator]) -> float:
    """Seconds for BATCHES batches after the first, which starts the threads."""
    batches = start()
    next(batches)
    seconds = timed(lambda: list(map(len, itertools.islice(batches, BATCHES))))
    batches.close()
    time.sleep(0.1)  # its readers shall not compete with the next row's
    return seconds


def parts(source: Source, paths: list[Path]) -> dict[str, Clock]:
    """Clocks of reading, of each augmentation and of stacking, for PARTS examples."""
    indices = np.linspace(0, len(source) - 1, PARTS).astype(int).tolist()
    records = [source[i] for i in indices]
    rng = np.random.default_rng(0)
    clocks = {
        "read the bytes": over(paths, Path.read_bytes),
        "read and decode": over(indices, source.__getitem__),
    }
    for name, (size, augment) in settings().items():
        transform = partial(
            augment_record,
            rng=rng,
            sizes={"rgb": size},
            sensors={"rgb": SENSORS["rgb"]},
            augment=augment,
        )
        clocks[f"augment {name}"] = over(records, transform)
    for size in (64, 224):
        images = [np.zeros((size, size, 3), np.uint8)] * PARTS
        clocks[f"stack {size} px"] = over([images], np.stack)
    clocks["fit 224 px"] = over(records, partial(fit_record, sizes={"rgb": 224}))
    return clocks


def over(items: Iterable, function: Callable) -> Clock:
    """The clock of function over all items."""
    return lambda: timed(lambda: [function(item) for item in items])


if __name__ == "__main__":
    main()
