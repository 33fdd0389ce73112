"""Two models' outcomes of one split: the difference of each metric they share."""

import itertools

import numpy as np

from rsclip_jax import metrics
from rsclip_jax.evals.retrieval import KS
from rsclip_jax.outcomes import Outcome
from rsclip_jax.paired import Paired, compare_maps, compare_shares
from rsclip_jax.resample import rounded

ZERO_SHOT = ("accuracy", "accuracy@5", "mAP_macro", "mAP_micro")


def measured_sensors(outcome: Outcome) -> list[str]:
    """What an outcome gives numbers of, as results spell it: "rgb", "rgb->s1"."""
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


def is_compared(task: str, metric: str) -> bool:
    """Whether compare_outcomes has a metric; others of results have no paired test."""
    if task == "retrieval":
        return metric in {f"recall@{k}" for k in KS}
    return task == "zero_shot" and metric in ZERO_SHOT


def compare_outcomes(
    a: Outcome, b: Outcome, sensor: str, ks: tuple[int, ...] = KS
) -> list[dict]:
    """Records of every metric of a sensor: values a and b, difference = b - a.

    With its paired interval ci95, p_value and n. sensor: one of measured_sensors of
    both, which are of the same examples (outcomes.find_mismatch).
    """
    if "->" in sensor:
        return _compare_recalls(a, b, sensor, ks)
    base = {"sensor": sensor, "task": "zero_shot"}
    assert a.labels is not None
    logits = a.logits(sensor), b.logits(sensor)
    if a.pins["task"] == "single":
        found = {"accuracy": _compare_hits(*logits, a.labels, 1)}
        if logits[0].shape[1] > 5:
            found["accuracy@5"] = _compare_hits(*logits, a.labels, 5)
    else:
        maps = compare_maps(*logits, a.labels)
        found = {f"mAP_{average}": paired for average, paired in maps.items()}
    return [{**base, "metric": m, **as_fields(paired)} for m, paired in found.items()]


def _compare_hits(a: np.ndarray, b: np.ndarray, labels: np.ndarray, k: int) -> Paired:
    return compare_shares(
        metrics.in_top_k(a, labels, k), metrics.in_top_k(b, labels, k)
    )


def _compare_recalls(a: Outcome, b: Outcome, sensor: str, ks) -> list[dict]:
    query, gallery = sensor.split("->")
    of_a, of_b = (_ranks(outcome, query, gallery) for outcome in (a, b))
    n = len(_embeddings(a, gallery)[0])
    # the captions of one image stand or fall together
    groups = a.owners if query == "text" else None
    return [
        {
            "sensor": sensor,
            "task": "retrieval",
            "metric": f"recall@{k}",
            **as_fields(compare_shares(of_a <= k, of_b <= k, groups)),
        }
        for k in ks
        if k < n
    ]


def _ranks(outcome: Outcome, query: str, gallery: str) -> np.ndarray:
    (zquery, mine), (zgallery, theirs) = (
        _embeddings(outcome, key) for key in (query, gallery)
    )
    return metrics.match_ranks(zquery, zgallery, (mine, theirs))


def _embeddings(outcome: Outcome, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(embeddings, which image each is of) of a sensor, or of the captions."""
    if key != "text":
        return outcome.z[key], np.arange(len(outcome.z[key]))
    assert outcome.ztxt is not None
    assert outcome.owners is not None
    return outcome.ztxt, outcome.owners


def as_fields(paired: Paired) -> dict:
    """As a record has it: JSON has no nan."""
    values = {"a": paired.a, "b": paired.b, "difference": paired.difference}
    found = {key: None if np.isnan(x) else float(x) for key, x in values.items()}
    p = None if np.isnan(paired.p_value) else round(paired.p_value, 6)
    return {**found, "ci95": rounded(paired.ci95), "p_value": p, "n": paired.n}
