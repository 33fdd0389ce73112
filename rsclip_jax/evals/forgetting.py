"""The loss, or gain, of a model on a dataset after further training."""

import numpy as np
from jax.sharding import Mesh

from rsclip_jax import metrics
from rsclip_jax.evals.compare import compare_outcomes
from rsclip_jax.evals.zero_shot import by_class
from rsclip_jax.records.metric_names import PRIMARY
from rsclip_jax.records.outcomes import Outcome, find_mismatch

KS = (1, 5, 10)


def forgetting_records(
    before: Outcome, after: Outcome, *, mesh: Mesh | None = None
) -> list[dict]:
    """The change of a dataset's main metric from RGB: value = after - before.

    The metric is accuracy, mAP_macro, or for captions recall@1, 5 and 10 both ways.

    Args:
      before: the outcome before training; after: the one after it.
      mesh: as for compare_outcomes.

    Returns:
      Records with value (below zero where the model forgot), its paired ci95, p_value
      and n, the value before, and per_class with each class's change.

    Raises:
      ValueError: where the outcomes differ in examples, prompts or captions, or have
        neither captions nor at least two classes.
    """
    if wrong := find_mismatch(before, after, ("the one before", "the one after")):
        raise ValueError(f"{after.name}: forgetting cannot be measured: {wrong}")
    task = after.pins["task"]
    if task == "captions":
        sensors = ("text->rgb", "rgb->text")
        found = [
            r
            for sensor in sensors
            for r in compare_outcomes(before, after, sensor, KS, mesh=mesh)
        ]
        return [_as_change(r) for r in found if r["metric"].startswith("recall@")]
    if task not in PRIMARY:
        raise ValueError(
            f"{after.name} has neither classes nor captions, so forgetting cannot be"
            " measured on it"
        )
    if task == "single" and len(after.classnames) < 2:
        raise ValueError(
            f"{after.name} has one class, so every answer is right: measuring"
            " forgetting needs at least two classes"
        )
    found = compare_outcomes(before, after, "rgb")
    (main,) = (r for r in found if r["metric"] == PRIMARY[task])
    changes = _per_class(after) - _per_class(before)
    return [{**_as_change(main), "per_class": by_class(after.classnames, changes)}]


def _as_change(record: dict) -> dict:
    """A comparison's record as a record of forgetting."""
    kept = ("sensor", "metric", "ci95", "p_value", "n")
    change = {"value": record["difference"], "before": record["a"]}
    return {"task": "forgetting", **{key: record[key] for key in kept}, **change}


def _per_class(outcome: Outcome) -> np.ndarray:
    """Accuracy or average precision [k] from RGB; nan for a class without examples."""
    assert outcome.labels is not None
    single = outcome.pins["task"] == "single"
    measure = metrics.per_class_accuracy if single else metrics.average_precision
    return measure(outcome.logits("rgb"), outcome.labels)
