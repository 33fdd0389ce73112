"""What many saves leave behind: memory, threads and files of one long training.

    python -m tests.soak [--steps 20000] [--every 50]

Prints a line of each tenth, and the slope of resident memory (RSS) over the second
half, in KiB a save.
"""

import argparse
import dataclasses
import os
import tempfile
import threading
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rsclip_jax.train import loop, sharding
from rsclip_jax.train.settings import TrainSettings

PAGE = os.sysconf("SC_PAGE_SIZE")
WIDTH = 256


@dataclasses.dataclass(frozen=True)
class Use:
    """What a process holds after a number of saves; rss in KiB."""

    saves: int
    rss: float
    threads: int
    open_files: int
    files: int


def measure(folder: Path, saves: int) -> Use:
    return Use(
        saves,
        int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1024,
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
        sum(len(names) for _, _, names in os.walk(folder)),
    )


def soak(folder: Path, steps: int, every: int) -> list[Use]:
    """A toy training that saves every so many steps; what it holds before each save."""
    uses: list[Use] = []

    def note(step: int) -> None:
        if step % every == every - 1:
            uses.append(measure(folder, step // every))

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(64, 8, WIDTH)).astype(np.float32)
    data = grain.MapDataset.range(64).repeat().map(lambda i: {"x": rows[i % 64]})
    layers = {f"layer_{i}": np.eye(WIDTH, dtype=np.float32) for i in range(4)}
    loop.train(
        layers,
        {},
        iter(data.to_iter_dataset(grain.ReadOptions(num_threads=1))),
        loss_fn=_loss,
        tx=optax.adamw(1e-4),
        settings=TrainSettings(
            8, steps, 1e-4, checkpoint_every=every, log_every=10, keep=2, keep_best=1
        ),
        mesh=sharding.make_mesh(),
        folder=folder,
        meta={"stage": "soak", "sources": {}},
        progress=False,
        alive=note,
    )
    return uses


def _loss(params, frozen, batch):
    del frozen
    x = batch["x"]
    for kernel in params.values():
        x = jnp.tanh(x @ kernel)
    return jnp.mean(x**2), {}


def slope(uses: list[Use]) -> float:
    """KiB a save, by least squares."""
    return float(np.polyfit([u.saves for u in uses], [u.rss for u in uses], 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=50)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uses = soak(Path(folder), args.steps, args.every)
    print(f"{jax.device_count()} device(s), {threading.active_count()} threads at last")
    print("saves  RSS KiB  threads  open files  files on disk")
    for use in [*uses[:: max(1, len(uses) // 10)], uses[-1]]:
        print(
            f"{use.saves:5}  {use.rss:7.0f}  {use.threads:7}  {use.open_files:10}"
            f"  {use.files:13}"
        )
    half = uses[len(uses) // 2 :]
    print(f"second half: {slope(half):+.2f} KiB of RSS a save")


if __name__ == "__main__":
    main()
