"""Stage align with the teacher in each step, and with its features kept, in turn.

python -m tests.bench.teacher_cache [--teachers ViT-B/32 ViT-L/14] [--batch 8]
    [--steps 3] [--examples 16200]

The student is SSL4EO's ViT-S/16 over 13 bands, images of 64 pixels enlarged to 224, RGB
a JPEG, all eight flips and turns. A step is what loop.train does: the next batch, put
on the device, and the update. Weights and features are random, on which time does not
depend. --examples: of an epoch, EuroSAT's training split.
"""

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Iterator

import cv2
import jax
import numpy as np
import optax

from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.batches import train_batches
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.types import Dataset, ReadOptions, Source
from rsclip_jax.models.clip import clip_shapes, image_features
from rsclip_jax.models.sensor import init_sensor, sensor_features, vit_spec
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.stages.align.teacher import Teaching
from rsclip_jax.train import objectives, sharding
from rsclip_jax.train.feature_cache import Taught
from rsclip_jax.train.loop import make_step
from rsclip_jax.train.optim import make_optimizer
from rsclip_jax.train_step import make_state
from tests.bench.timing import in_turn, machine, print_ratio, print_table, timed

RECORDS, VIEWS, BATCHES = 512, 8, 20
SENSOR = get_sensor("s2_l1c")
AUGMENT = Augment(flip_ud=True, rotate=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teachers", nargs="+", default=["ViT-B/32", "ViT-L/14"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--examples", type=int, default=16200)
    args = parser.parse_args()
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(f"{machine()}, {device}, student ViT-S/16 float32, batch {args.batch}")
    print("\nbatches alone", flush=True)
    variant = get_variant(args.teachers[0])
    ways = {"teacher": (SENSOR.modality, "rgb"), "features kept": (SENSOR.modality,)}
    clocks = {
        name: functools.partial(pull, start_batches(variant, keys, args.batch))
        for name, keys in ways.items()
    }
    print_table(in_turn(clocks, 3), BATCHES * args.batch)
    for name in args.teachers:
        print(f"\nteacher {name}", flush=True)
        compare(get_variant(name), args.batch, args.steps, args.examples)


def compare(variant: Variant, batch: int, steps: int, examples: int) -> None:
    """Times steps of both ways and a making of features; epochs an hour of each."""
    visual = random_params(clip_shapes(variant)["visual"])
    live = Teaching(
        Patches(),
        visual,
        {"rgb": variant.image_size},
        lambda p, b: image_features(p, b["rgb"], variant),
    )
    kept = Teaching(taught(variant), {}, {}, lambda _, b: b["teacher"])
    making = jax.jit(functools.partial(image_features, variant=variant))
    pictures = np.zeros((batch, variant.image_size, variant.image_size, 3), np.uint8)
    clocks = {
        "teacher in the step": Steps(live, variant, batch).step,
        "features kept": Steps(kept, variant, batch).step,
        "making features": lambda: timed(
            lambda: jax.block_until_ready(making(visual, pictures))
        ),
    }
    times = in_turn(clocks, steps)
    print_table(times, batch)
    print_ratio(times, "teacher in the step", "features kept")
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name in ("teacher in the step", "features kept"):
        rate = 3600 * batch / medians[name] / examples
        print(f"  {name}: {rate:.3g} epochs of {examples:,} examples an hour")
    saved = medians["teacher in the step"] - medians["features kept"]
    views = medians["making features"] / saved
    print(f"  all {VIEWS} views are made up for after {VIEWS * views:.1f} epochs")


def random_params(shapes):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jax.numpy.asarray(
            0.02 * rng.standard_normal(x.shape, np.float32), x.dtype
        ),
        shapes,
    )


class Patches(Source):
    """Records of EuroSAT's shape, in memory; a picture is decoded when it is wanted."""

    split = "train"

    def __init__(self):
        rows = {"rgb": "rgb", SENSOR.modality: SENSOR.name}
        self.dataset = Dataset("patches", "folders", "none", rows)
        self.ids = [f"train/{i}" for i in range(RECORDS)]
        rng = np.random.default_rng(0)
        self.bands = rng.integers(1, 9000, (64, 64, 13), np.uint16)
        small = rng.integers(0, 256, (16, 16, 3), np.uint8)
        self.jpeg = cv2.imencode(".jpg", cv2.resize(small, (64, 64)))[1]

    def read(self, index, keys):
        out = {"id": self.ids[index], "label": -1, SENSOR.modality: self.bands}
        if "rgb" in keys:
            out["rgb"] = cv2.imdecode(self.jpeg, cv2.IMREAD_COLOR_RGB)
        return out


def taught(variant: Variant) -> Source:
    features = np.zeros((RECORDS, VIEWS, variant.embed_dim), np.float32)
    return Taught(Patches(), features, np.ones(RECORDS, bool), range(VIEWS))


def start_batches(variant: Variant, keys: tuple[str, ...], batch: int) -> Iterator:
    """Training batches with pictures, or with features in their place."""
    return train_batches(
        [Patches() if "rgb" in keys else taught(variant)],
        sizes=dict.fromkeys(keys, variant.image_size),
        augment=AUGMENT,
        seed=0,
        options=ReadOptions(batch),
    )


def pull(batches: Iterator) -> float:
    """Seconds for BATCHES batches."""
    return timed(lambda: list(map(len, itertools.islice(batches, BATCHES))))


class Steps:
    """The project's own step on its own batches, as loop.train calls it."""

    def __init__(self, teaching: Teaching, variant: Variant, batch: int):
        self.mesh = sharding.make_mesh()
        spec = vit_spec(
            SENSOR,
            image_size=224,
            patch_size=16,
            width=384,
            layers=12,
            heads=6,
            out_dim=variant.embed_dim,
        )
        student = init_sensor(spec, jax.random.key(1))
        tx = make_optimizer(
            optax.constant_schedule(1e-4), weight_decay=0.01, clip_norm=1.0
        )
        self.state = sharding.put_params(make_state(student, tx), self.mesh)
        self.frozen = sharding.put_params({"teacher": teaching.frozen}, self.mesh)
        loss_fn = objectives.make_align_loss(
            lambda p, b: sensor_features(p, b[spec.modality], spec),
            teaching.encode,
            terms={"mse": 1.0},
        )
        self.step_fn = make_step(
            self.state, self.frozen, loss_fn=loss_fn, tx=tx, mesh=self.mesh
        )
        keys = (spec.modality, *teaching.sizes)
        self.batches = start_batches(variant, keys, batch)

    def step(self) -> float:
        """Seconds of one step, its batch included."""
        start = time.perf_counter()
        batch = sharding.put_batch(next(self.batches), self.mesh)
        self.state, metrics = self.step_fn(self.state, self.frozen, batch)
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
