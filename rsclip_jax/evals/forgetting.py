"""What a model lost, or gained, on a set since it was trained further."""

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from rsclip_jax import metrics
from rsclip_jax.evals.compare import compare_outcomes
from rsclip_jax.records.outcomes import Outcome, find_mismatch

KS = (1, 5, 10)
# a set's own metric, where it has classes
OWN = {"single": "accuracy", "multi": "mAP_macro"}


def forgetting_records(
    before: Outcome, after: Outcome, *, mesh: Mesh | None = None
) -> list[dict]:
    """The set's own metric from RGB: value = after - before, below zero if forgotten.

    accuracy, mAP_macro, or of captions recall@1, 5 and 10 both ways; with the paired
    interval ci95, p_value, n, the value before, and where there are classes the change
    of each in per_class. Raises ValueError where the two are not of the same examples,
    prompts or captions, or have one class, of which nothing can be forgotten. mesh as
    of compare_outcomes.
    """
    if wrong := find_mismatch(before, after, ("the one before", "the one after")):
        raise ValueError(f"{after.name}: what was forgotten cannot be told: {wrong}")
    task = after.pins["task"]
    if task == "captions":
        sensors = ("text->rgb", "rgb->text")
        found = [
            r
            for sensor in sensors
            for r in compare_outcomes(before, after, sensor, KS, mesh=mesh)
        ]
        return [_as_change(r) for r in found if r["metric"].startswith("recall@")]
    if task not in OWN:
        raise ValueError(f"{after.name} has neither classes nor captions to forget")
    if task == "single" and len(after.classnames) < 2:
        raise ValueError(
            f"{after.name} has one class, of which every answer is right: it tells"
            " nothing of what was forgotten"
        )
    found = compare_outcomes(before, after, "rgb")
    (own,) = (r for r in found if r["metric"] == OWN[task])
    changes = _per_class(after) - _per_class(before)
    return [{**_as_change(own), "per_class": _named(after.classnames, changes)}]


def _as_change(record: dict) -> dict:
    """A comparison's record as one of what changed."""
    kept = ("sensor", "metric", "ci95", "p_value", "n")
    change = {"value": record["difference"], "before": record["a"]}
    return {"task": "forgetting", **{key: record[key] for key in kept}, **change}


def _per_class(outcome: Outcome) -> np.ndarray:
    """Accuracy or average precision [k] from RGB; nan of a class without examples."""
    assert outcome.labels is not None
    single = outcome.pins["task"] == "single"
    measure = metrics.per_class_accuracy if single else metrics.average_precision
    return measure(outcome.logits("rgb"), outcome.labels)


def _named(classnames: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    # JSON has no nan; a class without examples has no value
    return {
        name: None if np.isnan(value) else round(float(value), 6)
        for name, value in zip(classnames, values, strict=True)
    }
