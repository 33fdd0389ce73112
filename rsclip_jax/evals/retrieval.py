"""Cross-modal retrieval both ways: of the same place, and of images and captions."""

from collections.abc import Sequence

import numpy as np

from rsclip_jax.metrics import match_ranks
from rsclip_jax.resample import rounded, share_interval

KS = (1, 5, 10, 50)


def retrieval_records(
    embeddings: dict[str, np.ndarray], ks: tuple[int, ...] = KS
) -> list[dict]:
    """recall@k for every ordered pair of modalities: {"rgb": [n, d], "s1": [n, d]}.

    Row i of each is the same place; a k that is not below n says nothing and is left
    out, as is the search for a sensor in what is fused of it ("s1+s2").
    """
    records = []
    for query, zquery in embeddings.items():
        for gallery, zgallery in embeddings.items():
            if set(query.split("+")).isdisjoint(gallery.split("+")):
                ranks = match_ranks(zquery, zgallery)
                records += _recalls(f"{query}->{gallery}", ranks, len(zgallery), ks)
    return records


def text_retrieval_records(
    embeddings: dict[str, np.ndarray],
    ztxt: np.ndarray,
    owners: Sequence[int] | np.ndarray,
    ks: tuple[int, ...] = KS,
) -> list[dict]:
    """recall@k from captions to images and back: {"rgb": [n, d]}, ztxt [m, d].

    owners [m]: which image each caption is of. A caption finds its own image; an image
    any of its captions. n is the number of queries; a k that is not below the gallery's
    size is left out.
    """
    owners = np.asarray(owners)
    records = []
    for sensor, z in embeddings.items():
        images = np.arange(len(z))
        ranks = match_ranks(ztxt, z, (owners, images))
        records += _recalls(f"text->{sensor}", ranks, len(z), ks)
        ranks = match_ranks(z, ztxt, (images, owners))
        records += _recalls(f"{sensor}->text", ranks, len(ztxt), ks)
    return records


def _recalls(sensor: str, ranks: np.ndarray, gallery: int, ks) -> list[dict]:
    base = {"sensor": sensor, "task": "retrieval"}
    return [
        {
            **base,
            "metric": f"recall@{k}",
            "value": float(np.mean(ranks <= k)),
            "ci95": rounded(share_interval(ranks <= k)),
            "n": len(ranks),
        }
        for k in ks
        if k < gallery
    ]
