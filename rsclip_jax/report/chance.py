"""The value of a random guess, for each metric."""

import re
from collections.abc import Mapping

import numpy as np

from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.records.results import Result
from rsclip_jax.report.names import set_name


def chance_of(result: Result, outcomes: Mapping[str, Outcome]) -> float | None:
    """A result's value by guessing, in [0, 1]; None where that is not known.

    Accuracy: 1/k of k classes. recall@k of n locations: k/n. mAP: the mean share of
    positives. outcomes: by dataset, whose labels tell k and the share of positives.
    """
    outcome = outcomes.get(set_name(result))
    if result.task == "retrieval":
        match = re.fullmatch(r"recall@(\d+)", result.metric)
        if match is None or "text" in result.sensor:  # an image has several captions
            return None
        return min(int(match[1]) / result.n, 1.0)
    if result.task not in ("zero_shot", "linear_probe", "knn"):
        return None
    if result.metric.startswith("mAP"):
        labels = outcome.labels if outcome is not None else None
        return None if labels is None or labels.ndim < 2 else float(np.mean(labels))
    classes = len(result.per_class or ()) or (len(outcome.classnames) if outcome else 0)
    top = re.fullmatch(r"accuracy(?:@(\d+))?|mean_recall", result.metric)
    if top is None or not classes:
        return None
    return min(int(top[1] or 1) / classes, 1.0)
