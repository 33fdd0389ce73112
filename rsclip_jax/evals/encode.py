"""One pass over a dataset, decoded once, through any number of encoders."""

import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from rsclip_jax.data.pipeline.batches import eval_batches
from rsclip_jax.data.pipeline.fitting import Fit
from rsclip_jax.data.sources.wrappers import Subset
from rsclip_jax.data.types import READING, ReadOptions, Source
from rsclip_jax.train import memory, processes, sharding, stopping, watchdog

# batch on the mesh -> unit-norm embeddings [b, d]
Encoder = Callable[[dict[str, jax.Array]], jax.Array]


def encode_source(
    source: Source,
    encoders: dict[str, Encoder],
    *,
    sizes: Mapping[str, int | Fit],
    mesh: Mesh,
    options: ReadOptions = READING,
    group: int = 1,
) -> tuple[dict[str, np.ndarray], np.ndarray, Source]:
    """Encodes every record of a source.

    Each process reads its share of the records, and all return all of them.

    Args:
      source: the records.
      encoders: name -> function of a batch on the mesh, giving embeddings [b, d].
      sizes: record key -> the side in pixels that its images are fitted to.
      mesh: the devices.
      options: how records are read.
      group: the batches on the mesh at a time; an encoder takes all of them in turn
        before the next encoder does.

    Returns:
      ({encoder: embeddings [n, d]}, labels [n] or [n, k], the source of the n records
      that were read).
    """
    batches = eval_batches(
        source,
        sizes=sizes,
        options=options,
        process=(processes.index(), processes.count()),
    )
    wait = 0 if sys.stderr.isatty() else 10  # seconds; a log has a line now and then
    bar = tqdm(
        batches,
        total=-(-len(source) // options.batch_size),
        desc=f"encode {source.spec}",
        unit="batch",
        leave=False,
        disable=not options.progress,
        delay=wait,
        mininterval=max(wait, 0.1),
    )
    what = f"encoding {source.spec}"
    with memory.during(what, "encoding"), watchdog.during(what):
        embeddings, labels, mask = encode_batches(bar, encoders, mesh, group)
    read = np.flatnonzero(mask).tolist()
    seen = source if len(read) == len(source) else Subset(source, read)
    for name, z in embeddings.items():
        check_finite(z, name, seen)
    return embeddings, labels, seen


def check_finite(z: np.ndarray, name: str, source: Source) -> None:
    """Raises ValueError naming the first record whose embedding is not finite.

    z [n, d] by the encoder of this name, of the source's n records.
    """
    bad = np.flatnonzero(~np.isfinite(z).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{source.spec}: the embeddings by encoder {name!r} of {len(bad)} of"
            f" {len(z)} records are NaN or infinite, first that of record"
            f" {source.ids[int(bad[0])]!r}: look at its pixels, or at the encoder's"
            " weights"
        )


def encode_batches(
    batches: Iterable[dict[str, np.ndarray]],
    encoders: dict[str, Encoder],
    mesh: Mesh,
    group: int = 1,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """({encoder: embeddings [n, d]}, labels of these n, mask of all records).

    batches: this process's, as eval_batches makes them; what is returned is of all
    processes, in the source's order. Records whose mask is False are left out. group:
    as in encode_source.
    """
    parts: dict[str, list] = {name: [] for name in encoders}
    labels, masks = [], []
    rest, number = iter(batches), 0
    while held := list(itertools.islice(rest, group)):
        labels += [batch["label"] for batch in held]
        masks += [batch["mask"] for batch in held]
        on_mesh = [_put_images(batch, mesh) for batch in held]
        for name, encoder in encoders.items():
            watchdog.beat(number := number + 1)
            stopping.stop_point("in an evaluation")
            each = [_readable(encoder(images), mesh) for images in on_mesh]
            parts[name] += [np.asarray(z, np.float32) for z in each]
    mask = _gather_blocks(masks)
    embeddings = {name: np.concatenate(p)[mask] for name, p in parts.items()}
    return embeddings, _gather_blocks(labels)[mask], mask


def _put_images(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    images = {k: v for k, v in batch.items() if k not in ("label", "mask")}
    return sharding.put_batch(images, mesh)


def _readable(z: jax.Array, mesh: Mesh) -> jax.Array:
    """Embeddings that this process can read whole."""
    return z if z.is_fully_addressable else sharding.replicate(z, mesh)


def _gather_blocks(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all processes' blocks, one of each batch, in the batches' order."""
    if processes.count() == 1:
        return np.concatenate(blocks)
    each = processes.gather_rows(np.stack(blocks))
    return np.concatenate([b for of_batch in zip(*each, strict=True) for b in of_batch])
