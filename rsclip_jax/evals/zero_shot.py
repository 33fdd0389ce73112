"""Zero-shot classification: logits of a text head, scored as records."""

from collections.abc import Sequence

import numpy as np

from rsclip_jax import metrics
from rsclip_jax.stats import bootstrap
from rsclip_jax.stats.bootstrap import known, rounded


def zero_shot_records(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    task: str,
    sensor: str,
    classnames: Sequence[str],
) -> list[dict]:
    """Scores logits against labels.

    Args:
      logits: [n, k].
      labels: class ids [n] for task "single", multi-hot [n, k] for "multi".
      task: "single" or "multi".
      sensor: the records' sensor.
      classnames: k names, the keys of per_class.

    Returns:
      A record for each metric: accuracy, accuracy@5 (with more than five classes) and
      mean_recall for task "single", mAP_macro and mAP_micro for "multi"; for both ece,
      the calibration error (metrics.calibration_gaps). All have a "ci95"; accuracy and
      mAP_macro have per_class. A value is None where no class has an example.
    """
    scored = _score_single if task == "single" else _score_multi
    base = {"sensor": sensor, "task": "zero_shot", "n": len(labels)}
    gaps = metrics.calibration_gaps(logits, labels)
    found = scored(logits, labels, classnames)
    found["ece"] = {
        "value": known(metrics.calibration_error(logits, labels)),
        "ci95": rounded(bootstrap.calibration_interval(gaps)),
    }
    return [{**base, "metric": metric, **one} for metric, one in found.items()]


def _score_single(logits, labels, classnames) -> dict[str, dict]:
    hits = metrics.in_top_k(logits, labels)
    per_class = metrics.per_class_accuracy(logits, labels)
    found = {"accuracy": {**_share(hits), "per_class": by_class(classnames, per_class)}}
    if logits.shape[1] > 5:
        found["accuracy@5"] = _share(metrics.in_top_k(logits, labels, 5))
    found["mean_recall"] = {
        "value": known(metrics.mean_recall(logits, labels)),
        "ci95": rounded(bootstrap.mean_recall_interval(hits, labels)),
    }
    return found


def _score_multi(logits, labels, classnames) -> dict[str, dict]:
    per_class = metrics.average_precision(logits, labels)
    ci95 = bootstrap.map_intervals(logits, labels)
    found: dict[str, dict] = {
        f"mAP_{average}": {
            "value": known(metrics.mean_ap(logits, labels, average)),
            "ci95": rounded(ci95[average]),
        }
        for average in ("macro", "micro")
    }
    found["mAP_macro"]["per_class"] = by_class(classnames, per_class)
    return found


def _share(hits: np.ndarray) -> dict:
    ci95 = rounded(bootstrap.share_interval(hits))
    return {"value": float(np.mean(hits)), "ci95": ci95}


def by_class(classnames: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    """{class name: value}; None stands for nan, the value without examples."""
    return {
        name: None if np.isnan(value) else round(float(value), 6)
        for name, value in zip(classnames, values, strict=True)
    }
