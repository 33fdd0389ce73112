"""comparison.jsonl: a line for each number that two runs share."""

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The values of runs a and b, their difference b - a, and its paired test.

    ci95 and p_value are None if there is no test; p_holm is p_value after Holm's
    correction for all tests of the table. same: both have identical embeddings.
    """

    dataset: str
    split: str
    tile: int | None = None
    split_digest: str | None = None
    prompts: str | None = None
    stage_a: str
    stage_b: str
    run_a: str
    run_b: str
    sensor: str
    task: str
    metric: str
    n: int
    prompt_set: str | None = None
    shots: int | None = None
    train: str | None = None
    val: str | None = None
    a: float | None
    b: float | None
    difference: float | None
    ci95: Sequence[float | None] | None = None
    p_value: float | None = None
    p_holm: float | None = None
    same: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Omits fields that do not apply; a test's results may be null."""
        kept = ("a", "b", "difference", "ci95", "p_value", "p_holm")
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if v is not None or k in kept}
