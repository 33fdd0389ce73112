"""One pass over a dataset, decoded once, through any number of encoders."""

import sys
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from rsclip_jax.data.pipeline.batches import eval_batches
from rsclip_jax.data.sources.wrappers import Subset
from rsclip_jax.data.types import READING, ReadOptions, Source
from rsclip_jax.train import memory, processes, sharding, stopping, watchdog

# batch on the mesh -> unit-norm embeddings [b, d]
Encoder = Callable[[dict[str, jax.Array]], jax.Array]


def encode_source(
    source: Source,
    encoders: dict[str, Encoder],
    *,
    sizes: dict[str, int],
    mesh: Mesh,
    options: ReadOptions = READING,
) -> tuple[dict[str, np.ndarray], np.ndarray, Source]:
    """Encodes every record of a source.

    Each process reads its share of the records, and all return all of them.

    Args:
      source: the records.
      encoders: name -> function of a batch on the mesh, giving embeddings [b, d].
      sizes: record key -> the side in pixels that its images are fitted to.
      mesh: the devices.
      options: how records are read.

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
    bar = tqdm(
        batches,
        total=-(-len(source) // options.batch_size),
        desc=f"encode {source.spec}",
        unit="batch",
        leave=False,
        disable=not (options.progress and sys.stderr.isatty()),
    )
    what = f"encoding {source.spec}"
    with memory.during(what, "encoding"), watchdog.during(what):
        embeddings, labels, mask = encode_batches(bar, encoders, mesh)
    read = np.flatnonzero(mask).tolist()
    seen = source if len(read) == len(source) else Subset(source, read)
    return embeddings, labels, seen


def encode_batches(
    batches: Iterable[dict[str, np.ndarray]], encoders: dict[str, Encoder], mesh: Mesh
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """({encoder: embeddings [n, d]}, labels of these n, mask of all records).

    batches: this process's, as eval_batches makes them; what is returned is of all
    processes, in the source's order. Records whose mask is False are left out.
    """
    parts: dict[str, list] = {name: [] for name in encoders}
    labels, masks = [], []
    for number, batch in enumerate(batches):
        watchdog.beat(number)
        stopping.stop_point("in an evaluation")
        labels.append(batch["label"])
        masks.append(batch["mask"])
        images = {k: v for k, v in batch.items() if k not in ("label", "mask")}
        on_mesh = sharding.put_batch(images, mesh)
        for name, encoder in encoders.items():
            z = _readable(encoder(on_mesh), mesh)
            parts[name].append(np.asarray(z, np.float32))
    mask = _gather_blocks(masks)
    embeddings = {name: np.concatenate(p)[mask] for name, p in parts.items()}
    return embeddings, _gather_blocks(labels)[mask], mask


def _readable(z: jax.Array, mesh: Mesh) -> jax.Array:
    """Embeddings that this process can read whole."""
    return z if z.is_fully_addressable else sharding.replicate(z, mesh)


def _gather_blocks(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all processes' blocks, one of each batch, in the batches' order."""
    if processes.count() == 1:
        return np.concatenate(blocks)
    each = processes.gather_rows(np.stack(blocks))
    return np.concatenate([b for of_batch in zip(*each, strict=True) for b in of_batch])
