"""Cross-modal retrieval both ways: by location, by label, and by caption."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from rsclip_jax.evals.gains import Classes, Gains, Overlap, nearest_gains
from rsclip_jax.evals.search import match_ranks
from rsclip_jax.metrics import average_precision_at
from rsclip_jax.stats.bootstrap import (
    mean_interval,
    median_interval,
    rounded,
    share_interval,
)

KS = (1, 5, 10, 20, 50)
LABEL_KS = (20, 50)


def retrieval_records(
    embeddings: dict[str, np.ndarray],
    ks: tuple[int, ...] = KS,
    *,
    mesh: Mesh | None = None,
    labels: np.ndarray | None = None,
    head: np.ndarray | None = None,
) -> list[dict]:
    """recall@k and median_rank for all ordered pairs of modalities.

    Args:
      embeddings: {"rgb": [n, d], ...}; row i of each shows the same location.
      ks: the values of k in recall@k; those of n or more, for which recall is 1 by
        definition, are left out.
      mesh: the devices that search large galleries; None searches in numpy.
      labels: class ids [n] or multi-hot [n, k]; with labels, label_retrieval_records'
        mAP@k is included.
      head: [d, k], see label_retrieval_records.

    Returns:
      Records. A sensor is not searched in a fusion of itself ("s1+s2"). median_rank
      (1 = best) needs two locations.
    """
    records = []
    for query, gallery in _pairs(embeddings):
        ranks = match_ranks(embeddings[query], embeddings[gallery], mesh=mesh)
        records += _rank_records(f"{query}->{gallery}", ranks, len(ranks), ks)
    if labels is not None:
        records += label_retrieval_records(embeddings, labels, head, mesh=mesh)
    return records


def label_retrieval_records(
    embeddings: Mapping[str, np.ndarray],
    labels: np.ndarray,
    head: np.ndarray | None = None,
    ks: tuple[int, ...] = LABEL_KS,
    *,
    mesh: Mesh | None = None,
) -> list[dict]:
    """mAP@k for all ordered pairs of modalities, and from class prompts to each.

    A result's gain is 1 where it has the query's class. For multi-hot labels it is the
    Jaccard index of the two sets of labels, as Imbriaco et al. (TGRS 2021) judge
    BigEarthNet; gains are averaged as in Zhao et al. (CVPR 2015; see
    metrics.average_precision_at). The query's own location is in the gallery, and a
    search should find it.

    Args:
      embeddings: {"rgb": [n, d], ...}; row i of each shows the same location.
      labels: class ids [n] or multi-hot [n, k].
      head: [d, k], class texts; with it each class is a query of "text->rgb", where
        results with the class have a gain of 1.
      ks: the values of k in mAP@k; those of n or more are left out.
      mesh: as for retrieval_records.

    Returns:
      Records. Queries without any gain in the gallery are left out; n counts the rest.
    """
    records = []
    alike = Overlap(labels, labels)
    for query, gallery in _pairs(embeddings):
        both = embeddings[query], embeddings[gallery]
        records += _label_records(f"{query}->{gallery}", *both, alike, ks, mesh)
    if head is None:
        return records
    found: Gains = Classes(labels)
    if labels.ndim == 1:
        found = Overlap(np.arange(head.shape[1]), labels)
    for sensor, z in embeddings.items():
        records += _label_records(f"text->{sensor}", head.T, z, found, ks, mesh)
    return records


def _pairs(embeddings: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    for query in embeddings:
        for gallery in embeddings:
            if set(query.split("+")).isdisjoint(gallery.split("+")):
                yield query, gallery


def _label_records(
    sensor: str,
    queries: np.ndarray,
    gallery: np.ndarray,
    gain: Gains,
    ks: Sequence[int],
    mesh: Mesh | None,
) -> list[dict]:
    ks = [k for k in ks if k < len(gallery)]
    if not ks:
        return []
    gains, known = nearest_gains(queries, gallery, gain, max(ks), mesh=mesh)
    gains = gains[known]
    values = {f"mAP@{k}": average_precision_at(gains[:, :k]) for k in ks}
    return [
        {
            "sensor": sensor,
            "task": "retrieval",
            "metric": metric,
            "value": float(np.mean(each)),
            "ci95": rounded(mean_interval(each)),
            "n": len(each),
        }
        for metric, each in values.items()
        if len(each)
    ]


def text_retrieval_records(
    embeddings: dict[str, np.ndarray],
    ztxt: np.ndarray,
    owners: Sequence[int] | np.ndarray,
    ks: tuple[int, ...] = KS,
    *,
    mesh: Mesh | None = None,
) -> list[dict]:
    """recall@k and median_rank from captions to images and back.

    A caption should find its image, an image any of its captions. Captions of one image
    are not independent, so intervals are over images both ways.

    Args:
      embeddings: {"rgb": [n, d], ...} of images.
      ztxt: [m, d] of captions.
      owners: [m], the index of each caption's image.
      ks: the values of k in recall@k; those of the gallery's size or more are left out.
      mesh: as for retrieval_records.

    Returns:
      Records; n is the number of queries.
    """
    owners = np.asarray(owners)
    records = []
    for sensor, z in embeddings.items():
        images = np.arange(len(z))
        ranks = match_ranks(ztxt, z, (owners, images), mesh=mesh)
        records += _rank_records(f"text->{sensor}", ranks, len(z), ks, owners)
        ranks = match_ranks(z, ztxt, (images, owners), mesh=mesh)
        records += _rank_records(f"{sensor}->text", ranks, len(ztxt), ks)
    return records


def _rank_records(
    sensor: str,
    ranks: np.ndarray,
    gallery: int,
    ks: Sequence[int],
    groups: np.ndarray | None = None,
) -> list[dict]:
    base = {"sensor": sensor, "task": "retrieval", "n": len(ranks)}
    records = [
        {
            **base,
            "metric": f"recall@{k}",
            "value": float(np.mean(ranks <= k)),
            "ci95": rounded(share_interval(ranks <= k, groups)),
        }
        for k in ks
        if k < gallery
    ]
    if gallery > 1:
        median = {"value": float(np.median(ranks)), "metric": "median_rank"}
        ends = rounded(median_interval(ranks, groups))
        records.append({**base, **median, "ci95": ends})
    return records
