"""Words for datasets, metrics and columns in tables and pages."""

from collections.abc import Sequence

from rsclip_jax.data.specs import DatasetSpec
from rsclip_jax.records.comparison import Comparison
from rsclip_jax.records.results import Result

FITTED = ("train", "val")  # the datasets that a probe was fitted and chosen on
_ROW = ("run_b", "stage", "dataset", "task", "sensor")


def split_of(result: Result | Comparison) -> str:
    """The split, with the side of its tiles if it was cut into tiles."""
    return f"{result.split}:{result.tile}" if result.tile else result.split


def set_name(result: Result | Comparison) -> str:
    """A result's dataset as settings spell it: "name:split" or "name:split:tile"."""
    return str(DatasetSpec(result.dataset, result.split, result.tile or 0))


def metric_of(result: Result | Comparison) -> str:
    """The metric, with prompts that are not the dataset's own, and with few shots."""
    name = result.prompt_set or "dataset"
    text = result.metric + ("" if name == "dataset" else f" ({name})")
    return text + (f", {result.shots} a class" if result.shots else "")


def metric_names(results: Sequence[Result] | Sequence[Comparison]) -> list[str]:
    """metric_of each; with the datasets that a probe was fitted on if others differ."""
    every: Sequence[Result | Comparison] = results
    names = [metric_of(r) for r in every]
    keys = [
        (*(getattr(r, k, None) for k in _ROW), split_of(r), name)
        for r, name in zip(every, names, strict=True)
    ]
    for part in FITTED:
        found: dict[tuple, set] = {}
        for key, r in zip(keys, every, strict=True):
            if fitted := getattr(r, part):  # nearest neighbours have no val
                found.setdefault(key, set()).add(fitted)
        for i, (key, r) in enumerate(zip(keys, every, strict=True)):
            if (fitted := getattr(r, part)) and len(found[key]) > 1:
                names[i] += f", {part} {fitted}"
    return names


def columns_of(result: Result, chosen: float | None) -> list[str]:
    """The columns of a result: "before", "after", "alpha 1"; maybe none in a sweep.

    chosen: the alpha of stage patch's product.
    """
    if result.stage == "evaluate" or result.task == "forgetting":
        return ["after"]  # a weight file's step is 0, and nothing came before it
    if result.alpha is None:
        return ["before" if result.step == 0 else "after"]
    alphas = {"before": 0.0, "after": chosen, "alpha 1": 1.0}
    return [column for column, alpha in alphas.items() if result.alpha == alpha]
