"""results.jsonl: every reported number of every stage, one JSON object per line."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsclip_jax.io.json_lines import append_lines, keep_lines, number_lines
from rsclip_jax.io.json_lines import count_cut as count_cut

FIELDS = tuple(
    "stage dataset split sensor task metric value n step prompts checkpoint"
    " split_digest".split()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One reported number, and the model, data and prompts that it was measured with.

    The first twelve fields are in every line. The others are None, and absent from the
    line, if they do not apply.
    """

    stage: str
    dataset: str
    split: str
    sensor: str  # "rgb", "s1", fused "s1+s2"; for retrieval "rgb->s1", "text->s1"
    task: str
    metric: str
    value: float | None  # None if undefined on these examples
    n: int  # examples, or queries
    step: int  # 0: before the stage trained
    prompts: str | None  # digest of the texts
    checkpoint: str  # digest of the weights; several are joined by "+"
    split_digest: str
    tile: int | None = None  # side of the tiles that the records were cut into
    split_rule: str | None = None
    ci95: Sequence[float | None] | None = None
    per_class: Mapping[str, float | None] | None = None
    prompt_set: str | None = None
    alpha: float | None = None
    alpha_blocks: Mapping[str, float] | None = None
    round: int | None = None  # of sequential patching, from 1
    head: str | None = None  # digest of a trained head
    reference: str | None = None  # digest of the weights that forgetting compares with
    p_value: float | None = None
    before: float | None = None  # the reference's value
    k: int | None = None  # nearest neighbours
    shots: int | None = None  # training examples of each class
    per_seed: Sequence[float | None] | None = None
    C: float | Sequence[float] | None = None  # scikit-learn's inverse regularisation
    converged: bool | None = None
    train: str | None = None  # the split that a probe was fitted on
    train_digest: str | None = None
    val: str | None = None  # the split that its C was chosen on
    val_digest: str | None = None
    seconds: float | None = None
    setting: str | None = None  # of an ablation
    model: str | None = None  # of a survey
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # unknown keys

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Result":
        """Reads a line; unknown keys go to `more`.

        Raises ValueError if keys lack, or if one of FIELDS has another type.
        """
        if missing := [name for name in FIELDS if name not in values]:
            raise ValueError(f"a result lacks {missing}: {dict(values)}")
        for name in FIELDS:
            if not _TYPES.get(name, _is_text)(values[name]):
                kind = "a number" if name in _TYPES and name != "prompts" else "a text"
                raise ValueError(f"{name} is {values[name]!r}, not {kind}")
        known = {name: values[name] for name in _NAMES if name in values}
        more = {key: value for key, value in values.items() if key not in _NAMES}
        return cls(**known, more=more)

    def to_json(self) -> dict[str, Any]:
        """The line's keys and values, in the order that all versions use."""
        kept = {*FIELDS, *_NULLABLE.get(self.stage, ()), *_NULLABLE.get(self.task, ())}
        values = {name: getattr(self, name) for name in _order(self)}
        values = {k: v for k, v in values.items() if v is not None or k in kept}
        return {**values, **self.more}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# The types of FIELDS that are not texts.
_TYPES: dict[str, Callable[[Any], bool]] = {
    "value": lambda value: value is None or _is_number(value),
    "n": _is_number,
    "step": _is_number,
    "prompts": lambda value: value is None or _is_text(value),
}
_NAMES = tuple(f.name for f in dataclasses.fields(Result) if f.name != "more")
# Optional keys that lines of this stage or task have even if they are null.
_NULLABLE = {"patch": ("alpha",), "forgetting": ("p_value", "before")}
_PINS = "stage prompts dataset split split_digest tile split_rule".split()
_ORDERS = {
    "default": [*_PINS, *"sensor task metric value ci95 n".split()],
    "shares": [*_PINS, *"sensor task n metric value ci95".split()],
    "median_rank": [*_PINS, *"sensor task n value metric ci95".split()],
    "forgetting": (
        "stage dataset split split_digest tile split_rule prompts step checkpoint"
        " reference task sensor metric ci95 p_value n value before per_class"
    ).split(),
}
_LAST = (
    "per_class per_seed k shots C converged train train_digest val val_digest"
    " prompt_set alpha alpha_blocks round step checkpoint head reference p_value before"
    " seconds setting model"
).split()


def _order(result: Result) -> Iterable[str]:
    """All names, in an order by task, so that equal numbers give equal bytes in all
    versions."""
    kind = "default"
    if result.task == "forgetting" or result.metric == "median_rank":
        kind = "forgetting" if result.task == "forgetting" else "median_rank"
    elif result.task == "zero_shot" or result.metric.startswith("recall@"):
        kind = "shares"
    return dict.fromkeys([*_ORDERS[kind], *_LAST])


def read_results(path: Path) -> list[Result]:
    """Reads all lines; a last line cut short by a kill is left out.

    Raises ValueError naming the file and the line that is damaged, that lacks a field,
    or that has a value of a wrong type.
    """
    found = []
    for number, values in number_lines(path):
        try:
            found.append(Result.from_json(values))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}; remove that line") from (
                error
            )
    return found


def start_stage(path: Path, stage: str) -> None:
    """Removes the results of an unfinished run of this stage, which will rerun."""
    keep_results(path, lambda values: values.get("stage") != stage)


def keep_results(path: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
    """Removes unwanted lines; the others stay byte for byte."""
    keep_lines(path, wanted)


def append_results(path: Path, results: Iterable[Result]) -> None:
    """Appends results, all or none. Raises ValueError for a value that is NaN."""
    append_lines(path, [_line(result) for result in results])


def _line(result: Result) -> str:
    # ASCII, so that a kill cannot split a character and none reads as a line break
    try:
        return json.dumps(result.to_json(), allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"a result has a value that JSON cannot represent: {result}"
        ) from error
