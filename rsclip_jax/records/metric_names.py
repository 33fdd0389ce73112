"""The name, unit and better direction of each metric of results.jsonl."""

import dataclasses
import re
from typing import Literal

# The primary metric of a dataset, by its task.
PRIMARY = {"single": "accuracy", "multi": "mAP_macro"}
# The metrics of these tasks that tables show; other tasks show all.
_FIRST = {
    "zero_shot": (*PRIMARY.values(), "mAP_micro"),
    "retrieval": ("recall@1", "recall@10", "recall@50"),
    "modality_gap": ("centroid_distance",),
}


@dataclasses.dataclass(frozen=True)
class Metric:
    """words: its name in a sentence. unit: a "share" of 1, or a plain "number"."""

    words: str
    unit: Literal["share", "number"] = "share"
    better: Literal["higher", "lower", ""] = "higher"


_METRICS = (
    (r"accuracy", Metric("accuracy")),
    (r"accuracy@(\d+)", Metric("top-{} accuracy")),
    (r"mean_recall", Metric("mean recall over classes")),
    (r"ece", Metric("calibration error", better="lower")),
    (r"mAP_macro", Metric("mean average precision over classes")),
    (r"mAP_micro", Metric("average precision over all labels")),
    (r"mAP@(\d+)", Metric("mean average precision of the nearest {}")),
    (r"recall@(\d+)", Metric("recall@{}")),
    (r"median_rank", Metric("median rank", "number", "lower")),
    (r"centroid_distance", Metric("distance of the means", "number", "lower")),
    (r"cosine_paired", Metric("cosine of pairs", "number")),
    (r"cosine_unpaired", Metric("cosine of other pairs", "number", "lower")),
    (r"separability", Metric("separability of the modalities", better="lower")),
    (r"alignment", Metric("squared distance of pairs", "number", "lower")),
    (r"uniformity", Metric("uniformity", "number", "lower")),
)


def find_metric(name: str) -> Metric:
    """The metric of a name in results.jsonl; an unknown one is a plain number."""
    for pattern, metric in _METRICS:
        if match := re.fullmatch(pattern, name):
            words = metric.words.format(*match.groups())
            return dataclasses.replace(metric, words=words)
    return Metric(name.replace("_", " "), "number", "")


def is_primary(task: str, metric: str) -> bool:
    """Whether a result is its dataset's primary zero-shot metric."""
    return task == "zero_shot" and metric in PRIMARY.values()


def is_first(task: str, metric: str) -> bool:
    """Whether tables show this metric of this task."""
    return metric in _FIRST.get(task, (metric,))
