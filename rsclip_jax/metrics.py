"""Metrics on arrays: numpy, exact, summed in float64."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

# A matrix product may round equal columns differently: scores of unit-norm vectors that
# are this close count as a tie.
TIE = 1e-12


def top_k_accuracy(
    logits: Float[ndarray, "b k"], labels: Int[ndarray, "b"], k: int = 1
) -> float:
    """Share of examples whose label is among the k highest logits.

    Ties and nan count as misses: a constant classifier scores 0 for k below the number
    of classes.
    """
    return float(np.mean(in_top_k(logits, labels, k)))


def in_top_k(
    logits: Float[ndarray, "b k"], labels: Int[ndarray, "b"], k: int = 1
) -> Bool[ndarray, "b"]:
    """Whether each example's label is among the k highest logits; a tie is a miss."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    own = logits[np.arange(len(labels)), labels]
    rank = (~(logits < own[:, None])).sum(axis=1)  # 1 = alone at the top
    return rank <= k


def per_class_accuracy(
    logits: Float[ndarray, "b k"], labels: Int[ndarray, "b"]
) -> Float[ndarray, "k"]:
    """Top-1 accuracy of each class's examples; nan for a class without examples."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    out = np.full(logits.shape[1], np.nan)
    for c in np.unique(labels):
        of_class = labels == c
        out[c] = top_k_accuracy(logits[of_class], labels[of_class], 1)
    return out


def mean_recall(logits: Float[ndarray, "b k"], labels: Int[ndarray, "b"]) -> float:
    """Mean of per_class_accuracy over the classes that have examples."""
    recalls = per_class_accuracy(logits, labels)
    known = recalls[~np.isnan(recalls)]
    return float(known.mean()) if len(known) else float("nan")


def calibration_error(
    logits: Float[ndarray, "b k"], labels: Shaped[ndarray, "..."], bins: int = 15
) -> float:
    """Expected calibration error (Guo et al. 2017): see calibration_gaps."""
    gaps = calibration_gaps(logits, labels, bins)
    return float(np.abs(gaps.mean(axis=0)).sum()) if len(gaps) else float("nan")


def calibration_gaps(
    logits: Float[ndarray, "b k"], labels: Shaped[ndarray, "..."], bins: int = 15
) -> Float[ndarray, "b bins"]:
    """Each example's contribution to every bin's gap between accuracy and confidence.

    The expected calibration error is the sum over bins of the absolute mean over
    examples; bins have equal width and include their upper end (Guo et al. 2017).

    Args:
      logits: scores of each class.
      labels: class ids [b]: the confidence is the highest softmax probability, and a
        prediction is right where in_top_k says so. Or multi-hot [b, k]: each class of
        each example is one prediction, with the sigmoid probability that the class is
        present, and all are pooled. nan logits count as confident and wrong.
      bins: their number.
    """
    logits, labels = np.asarray(logits, float), np.asarray(labels)
    if labels.ndim == 1:
        right = in_top_k(logits, labels)[:, None].astype(float)
        confidence = _softmax_peak(logits)[:, None]
    else:
        right, confidence = (labels > 0).astype(float), 0.5 * (1 + np.tanh(logits / 2))
    confidence = np.where(np.isnan(confidence), 1 - right, confidence)
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    bin_indices = np.searchsorted(edges, confidence, side="left")
    n, k = confidence.shape
    flat = (bin_indices + bins * np.arange(n)[:, None]).ravel()
    gaps = np.bincount(flat, ((right - confidence) / k).ravel(), minlength=n * bins)
    return gaps.reshape(n, bins).astype(float)


def _softmax_peak(logits: ndarray) -> ndarray:
    """Each example's highest softmax probability; nan where one of its logits is."""
    with np.errstate(invalid="ignore"):  # infinite logits have no softmax
        rest = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    return 1 / rest


def average_precision(
    scores: Float[ndarray, "b k"], targets: Shaped[ndarray, "b k"]
) -> Float[ndarray, "k"]:
    """Average precision of each class; nan for a class without a positive.

    The step-wise sum over thresholds, where equal scores are one threshold
    (scikit-learn's definition). nan ranks last.
    """
    scores = np.asarray(scores)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    positive = np.asarray(targets).astype(bool)
    return np.array(
        [_one_ap(scores[:, c], positive[:, c]) for c in range(scores.shape[1])]
    )


def _one_ap(scores: ndarray, positive: ndarray) -> float:
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # the end of each run of ties
    hits = np.cumsum(positive[order])[last]
    precision = hits / (np.flatnonzero(last) + 1)
    recall = hits / positive.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def mean_ap(
    scores: Float[ndarray, "b k"], targets: Shaped[ndarray, "b k"], average: str
) -> float:
    """mAP: "macro" is the mean over classes that have a positive, "micro" pools all.

    Raises ValueError for an unknown average.
    """
    if average == "macro":
        per_class = average_precision(scores, targets)
        known = per_class[~np.isnan(per_class)]
        return float(known.mean()) if len(known) else float("nan")
    if average == "micro":
        flat = np.asarray(scores).reshape(-1, 1), np.asarray(targets).reshape(-1, 1)
        return float(average_precision(*flat)[0])
    raise ValueError(f"average is {average!r}; use 'macro' or 'micro'")


def recall_at_k(
    queries: Float[ndarray, "b d"], gallery: Float[ndarray, "b d"], k: int
) -> float:
    """Share of queries whose match is among the k nearest of the gallery.

    Query i's match is gallery i; nearness is the inner product, and a tie is a miss.
    """
    return float(np.mean(match_ranks(queries, gallery) <= k))


def match_ranks(
    queries: Float[ndarray, "m d"],
    gallery: Float[ndarray, "n d"],
    owners: tuple[Int[ndarray, "m"], Int[ndarray, "n"]] | None = None,
    block: int = 1024,
) -> Int[ndarray, "m"]:
    """Rank (1 = best) of each query's best match by inner product.

    Args:
      queries: embeddings of unit norm.
      gallery: embeddings of unit norm.
      owners: an owner's number for each query and each gallery entry. Entries with the
        query's owner match it, and do not rank against each other. None: query i's
        only match is gallery i.
      block: queries at a time, which bounds the memory.

    Returns:
      Ranks; a match ranks behind all entries of an equal score, and nan last.

    Raises:
      ValueError: for a query without a match.
    """
    queries, gallery = np.asarray(queries, float), np.asarray(gallery, float)
    mine, theirs = check_owners(queries, gallery, owners)
    block = max(1, min(block, 2**24 // max(1, len(gallery))))  # 128 MiB of scores
    longest = np.linalg.norm(gallery, axis=1).max(initial=0.0)
    ties = TIE * np.linalg.norm(queries, axis=1) * longest
    ranks = [
        _block_ranks(queries[rows], gallery, mine[rows], theirs, ties[rows])
        for rows in _blocks(len(queries), block)
    ]
    return np.concatenate(ranks) if ranks else np.zeros(0, np.int64)


def check_owners(
    queries: Shaped[ndarray, "m d"],
    gallery: Shaped[ndarray, "n d"],
    owners: tuple[Int[ndarray, "m"], Int[ndarray, "n"]] | None,
) -> tuple[Int[ndarray, "m"], Int[ndarray, "n"]]:
    """match_ranks's owners, checked; without owners, each entry is its own.

    Raises ValueError for a query without a match.
    """
    if owners is None and queries.shape != gallery.shape:
        raise ValueError(
            f"query i must match gallery i: got {queries.shape} queries and"
            f" {gallery.shape} gallery entries"
        )
    mine, theirs = owners or (np.arange(len(queries)), np.arange(len(gallery)))
    if lost := np.setdiff1d(mine, theirs).tolist():
        raise ValueError(
            f"queries of owner(s) {lost[:5]} have no match in the gallery: leave those"
            " queries out"
        )
    return mine, theirs


def _blocks(n: int, block: int) -> Iterator[slice]:
    for i in range(0, n, block):
        yield slice(i, min(i + block, n))


def _block_ranks(
    queries: ndarray, gallery: ndarray, mine: ndarray, theirs: ndarray, ties: ndarray
) -> ndarray:
    scores = queries @ gallery.T
    own = mine[:, None] == theirs
    best = np.where(own & ~np.isnan(scores), scores, -np.inf).max(axis=1)
    above = ~(scores < (best - ties)[:, None])
    return 1 + (above & ~own).sum(axis=1)


def label_overlap(
    mine: Shaped[ndarray, "m ..."], theirs: Shaped[ndarray, "n ..."]
) -> Float[ndarray, "m n"]:
    """Similarity of labels, 0 to 1.

    For class ids [m] and [n]: 1 where they are equal, else 0. For multi-hot labels
    [m, k] and [n, k]: the Jaccard index, the labels that both have over those that
    either has.
    """
    if mine.ndim == 1:
        return (mine[:, None] == theirs).astype(float)
    a, b = (mine > 0).astype(np.float32), (theirs > 0).astype(np.float32)
    both = a @ b.T  # sums of whole numbers are exact
    either = a.sum(axis=1)[:, None] + b.sum(axis=1) - both
    return both.astype(float) / np.maximum(either, 1)


def ranked_gains(
    queries: Float[ndarray, "m d"],
    gallery: Float[ndarray, "n d"],
    gain: Callable[[slice], ndarray],
    k: int,
    block: int = 1024,
) -> tuple[Float[ndarray, "m k"], Bool[ndarray, "m"]]:
    """Gains of each query's k nearest gallery entries by inner product, best first.

    Args:
      queries: embeddings.
      gallery: embeddings.
      gain: slice of queries -> their gains [., n] from each gallery entry, 0 to 1.
      k: at most n.
      block: queries at a time, which bounds the memory.

    Returns:
      (gains, whether the gallery has any gain for the query). Among equal scores the
      lower gain ranks first; nan ranks last.
    """
    queries, gallery = np.asarray(queries, float), np.asarray(gallery, float)
    block = max(1, min(block, 2**22 // max(1, len(gallery))))  # 32 MiB of scores
    # a nan entry must not become the longest: it would make every bound nan
    longest = np.nan_to_num(np.linalg.norm(gallery, axis=1)).max(initial=0.0)
    lengths = np.asarray(np.linalg.norm(queries, axis=1) * longest)
    parts = [
        _block_gains(queries[rows], gallery, gain(rows), k, lengths[rows])
        for rows in _blocks(len(queries), block)
    ]
    ranked = [np.zeros((0, k)), *(gains for gains, _ in parts)]
    known = [np.zeros(0, bool), *(some for _, some in parts)]
    return np.concatenate(ranked), np.concatenate(known)


def _block_gains(
    queries: ndarray, gallery: ndarray, gains: ndarray, k: int, lengths: ndarray
) -> tuple[ndarray, ndarray]:
    some = np.asarray((gains > 0).any(axis=1))
    return rank_gains(queries @ gallery.T, gains, lengths, k)[0], some


def rank_gains(
    scores: Float[ndarray, "m n"],
    gains: Float[ndarray, "m n"],
    lengths: Float[ndarray, "m"],
    k: int,
) -> tuple[Float[ndarray, "m k"], Float[ndarray, "m k"]]:
    """(gains, keys) of the k highest scores, best first, as ranked_gains orders them.

    lengths: an upper bound of each query's scores. A key is the score as a share of it,
    minus a little that ranks the lower gain first among equal scores.
    """
    lengths = np.maximum(lengths, 1e-300)[:, None]
    # Equal columns may be rounded differently, as for ranks: scores this close are a
    # tie. It still separates gains that differ by 1 / 43**2, BigEarthNet's finest.
    keys = scores / lengths - 1e-10 * gains
    keys = np.where(np.isnan(keys), -2 - gains, keys)
    nearest = np.argpartition(-keys, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(keys, nearest, axis=1), axis=1)
    nearest = np.take_along_axis(nearest, order, axis=1)
    of_gains, of_keys = (np.take_along_axis(x, nearest, axis=1) for x in (gains, keys))
    return of_gains, of_keys


def average_precision_at(gains: Float[ndarray, "m k"]) -> Float[ndarray, "m"]:
    """Each query's average precision at k, from the gains of its k nearest in order.

    The mean gain from rank 1 down to each rank that has a gain, averaged over those
    ranks; 0 where none has one. For gains of 0 and 1 this is retrieval's usual average
    precision, otherwise the weighted one (Zhao et al., CVPR 2015).
    """
    means = np.cumsum(gains, axis=1) / np.arange(1, gains.shape[1] + 1)
    relevant = gains > 0
    return (means * relevant).sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)
