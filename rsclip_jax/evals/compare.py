"""Compares two models' outcomes on a split: the difference of each shared metric."""

import itertools

import numpy as np
from jax.sharding import Mesh

from rsclip_jax import metrics
from rsclip_jax.evals.gains import Overlap, nearest_gains
from rsclip_jax.evals.retrieval import KS, LABEL_KS
from rsclip_jax.evals.search import match_ranks
from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.stats.bootstrap import known, rounded
from rsclip_jax.stats.paired_tests import (
    Paired,
    compare_maps,
    compare_means,
    compare_medians,
    compare_recalls,
    compare_shares,
)

ZERO_SHOT = ("accuracy", "accuracy@5", "mean_recall", "mAP_macro", "mAP_micro")


def measured_sensors(outcome: Outcome) -> list[str]:
    """The sensors that an outcome has results for, as in results: "rgb", "rgb->s1"."""
    found = list(outcome.z) if outcome.head is not None else []
    if outcome.labels is None:
        found = []
    for pair in itertools.permutations(outcome.z, 2):
        if set(pair[0].split("+")).isdisjoint(pair[1].split("+")):
            found.append("->".join(pair))
    if outcome.ztxt is not None:
        found += [x for s in outcome.z for x in (f"text->{s}", f"{s}->text")]
    return found


def has_text(sensor: str) -> bool:
    """Whether the numbers of a sensor depend on prompts or captions."""
    return "->" not in sensor or "text" in sensor.split("->")


def is_compared(sensor: str, task: str, metric: str) -> bool:
    """Whether compare_outcomes covers the metric; the others have no paired test."""
    if task != "retrieval":
        return task == "zero_shot" and metric in ZERO_SHOT
    if metric in {f"recall@{k}" for k in KS}:
        return True
    # not from text: captions are drawn by image, and class prompts are few
    by_query = {"median_rank", *(f"mAP@{k}" for k in LABEL_KS)}
    return metric in by_query and not sensor.startswith("text->")


def are_same(a: Outcome, b: Outcome, sensor: str) -> bool:
    """Whether both have equal embeddings and texts of a sensor, and need no test."""
    keys = [key for key in sensor.split("->") if key != "text"]
    pairs: list[tuple] = [(a.z[key], b.z[key]) for key in keys]
    if "->" not in sensor:
        pairs.append((a.head, b.head))
    elif len(keys) < 2:
        pairs.append((a.ztxt, b.ztxt))
    return all(np.array_equal(*pair) for pair in pairs)


def compare_outcomes(
    a: Outcome,
    b: Outcome,
    sensor: str,
    ks: tuple[int, ...] = KS,
    *,
    mesh: Mesh | None = None,
) -> list[dict]:
    """Compares each metric of a sensor: values a and b, difference = b - a.

    Args:
      a: one model's outcome.
      b: the other's, on the same examples (outcomes.find_mismatch).
      sensor: one that is in measured_sensors of both outcomes.
      ks: the values of k in recall@k.
      mesh: the devices that search large galleries; None searches in numpy.

    Returns:
      A dict for each metric with a, b, difference, its paired ci95, p_value and n.
    """
    if "->" in sensor:
        return _compare_recalls(a, b, sensor, ks, mesh)
    base = {"sensor": sensor, "task": "zero_shot"}
    assert a.labels is not None
    logits = a.logits(sensor), b.logits(sensor)
    if a.pins["task"] == "single":
        found = {"accuracy": _compare_hits(*logits, a.labels, 1)}
        if logits[0].shape[1] > 5:
            found["accuracy@5"] = _compare_hits(*logits, a.labels, 5)
        hits = [metrics.in_top_k(x, a.labels) for x in logits]
        found["mean_recall"] = compare_recalls(hits[0], hits[1], a.labels)
    else:
        maps = compare_maps(*logits, a.labels)
        found = {f"mAP_{average}": paired for average, paired in maps.items()}
    return [{**base, "metric": m, **as_fields(paired)} for m, paired in found.items()]


def _compare_hits(a: np.ndarray, b: np.ndarray, labels: np.ndarray, k: int) -> Paired:
    return compare_shares(
        metrics.in_top_k(a, labels, k), metrics.in_top_k(b, labels, k)
    )


def _compare_recalls(a: Outcome, b: Outcome, sensor: str, ks, mesh) -> list[dict]:
    query, gallery = sensor.split("->")
    of_a, of_b = (_ranks(outcome, query, gallery, mesh) for outcome in (a, b))
    n = len(_embeddings(a, gallery)[0])
    # captions of one image are not independent: they are drawn together
    groups = a.owners if query == "text" else None
    found = {
        f"recall@{k}": compare_shares(of_a <= k, of_b <= k, groups) for k in ks if k < n
    }
    if n > 1 and groups is None:
        found["median_rank"] = compare_medians(of_a, of_b)
    if a.labels is not None and "text" not in (query, gallery):
        found |= _compare_by_label(a, b, query, gallery, mesh)
    base = {"sensor": sensor, "task": "retrieval"}
    return [{**base, "metric": m, **as_fields(paired)} for m, paired in found.items()]


def _compare_by_label(
    a: Outcome, b: Outcome, query: str, gallery: str, mesh: Mesh | None
) -> dict[str, Paired]:
    """mAP@k of retrieval by label."""
    labels = a.labels
    assert labels is not None
    ks = [k for k in LABEL_KS if k < len(labels)]
    if not ks:
        return {}
    gains = []
    for one in (a, b):
        z = one.z[query], one.z[gallery]
        ranked, known = nearest_gains(*z, Overlap(labels, labels), max(ks), mesh=mesh)
        gains.append(ranked[known])
    found = {}
    for k in ks:
        of_a, of_b = (metrics.average_precision_at(each[:, :k]) for each in gains)
        found[f"mAP@{k}"] = compare_means(of_a, of_b)
    return found


def _ranks(outcome: Outcome, query: str, gallery: str, mesh: Mesh | None) -> np.ndarray:
    (zquery, mine), (zgallery, theirs) = (
        _embeddings(outcome, key) for key in (query, gallery)
    )
    return match_ranks(zquery, zgallery, (mine, theirs), mesh=mesh)


def _embeddings(outcome: Outcome, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(embeddings, each one's image) of a sensor, or of the captions."""
    if key != "text":
        return outcome.z[key], np.arange(len(outcome.z[key]))
    assert outcome.ztxt is not None
    assert outcome.owners is not None
    return outcome.ztxt, outcome.owners


def as_fields(paired: Paired) -> dict:
    """The comparison as a record's fields; None stands for nan, which JSON lacks."""
    values = {"a": paired.a, "b": paired.b, "difference": paired.difference}
    found = {key: known(x) for key, x in values.items()}
    p = None if np.isnan(paired.p_value) else round(paired.p_value, 6)
    return {**found, "ci95": rounded(paired.ci95), "p_value": p, "n": paired.n}
