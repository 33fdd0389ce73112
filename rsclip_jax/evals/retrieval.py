"""Cross-modal retrieval of the same place, both ways."""

import numpy as np

from rsclip_jax.metrics import match_ranks

KS = (1, 5, 10, 50)


def retrieval_records(
    embeddings: dict[str, np.ndarray], ks: tuple[int, ...] = KS
) -> list[dict]:
    """recall@k for every ordered pair of modalities: {"rgb": [n, d], "s1": [n, d]}.

    Row i of each is the same place; a k that is not below n says nothing and is left
    out.
    """
    records = []
    for query, zquery in embeddings.items():
        for gallery, zgallery in embeddings.items():
            if query == gallery:
                continue
            ranks = match_ranks(zquery, zgallery)
            base = {"sensor": f"{query}->{gallery}", "task": "retrieval"}
            for k in ks:
                if k < len(ranks):
                    value = float(np.mean(ranks <= k))
                    line = {"metric": f"recall@{k}", "value": value, "n": len(ranks)}
                    records.append({**base, **line})
    return records
