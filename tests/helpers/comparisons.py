"""One line of comparison.jsonl."""

from rsclip_jax.records.comparison import Comparison


def record(**values) -> Comparison:
    fields = {
        "dataset": "d",
        "split": "test",
        "sensor": "s1",
        "task": "zero_shot",
        "metric": "accuracy",
        "stage_a": "align",
        "stage_b": "align",
        "a": 0.5,
        "b": 0.625,
        "run_a": "runs/a",
        "run_b": "runs/b",
        "difference": 0.125,
        "ci95": [0.05, 0.2],
        "p_value": 0.002,
        "p_holm": 0.004,
        "n": 80,
    }
    return Comparison(**{**fields, **values})


UNTESTED = {"ci95": None, "p_value": None, "p_holm": None}
