"""Lines of results.jsonl, with stand-ins for what a test leaves out."""

from rsclip_jax.records.results import Result


def make_result(**fields) -> Result:
    """A zero-shot accuracy of 0.5 on "d:test" after stage patch, but for the fields."""
    base = {
        "stage": "patch",
        "dataset": "d",
        "split": "test",
        "sensor": "rgb",
        "task": "zero_shot",
        "metric": "accuracy",
        "value": 0.5,
        "n": 10,
        "step": 0,
        "prompts": "p",
        "checkpoint": "c",
        "split_digest": "1",
    }
    return Result(**{**base, **fields})


def make_results(*records: dict) -> list[Result]:
    return [make_result(**fields) for fields in records]
