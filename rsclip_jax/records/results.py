"""results.jsonl: every reported number of every stage, one JSON object per line."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsclip_jax.io.files import write_text

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
        """Reads a line; unknown keys go to `more`. Raises ValueError if keys lack."""
        if missing := [name for name in FIELDS if name not in values]:
            raise ValueError(f"a result lacks {missing}: {dict(values)}")
        known = {name: values[name] for name in _NAMES if name in values}
        more = {key: value for key, value in values.items() if key not in _NAMES}
        return cls(**known, more=more)

    def to_json(self) -> dict[str, Any]:
        """The line's keys and values, in the order that all versions use."""
        kept = {*FIELDS, *_NULLABLE.get(self.stage, ()), *_NULLABLE.get(self.task, ())}
        values = {name: getattr(self, name) for name in _order(self)}
        values = {k: v for k, v in values.items() if v is not None or k in kept}
        return {**values, **self.more}


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
    """Reads all complete lines; a line cut short by a kill is skipped.

    Raises ValueError naming the file if a line lacks a field.
    """
    try:
        return [Result.from_json(values) for _, values in _whole_lines(path)]
    except ValueError as error:
        raise ValueError(f"{path}: {error}; remove that line") from error


def count_cut(path: Path) -> int:
    """The number of incomplete lines, such as one cut short by a kill."""
    if not path.exists():
        return 0
    lines = [line for line in path.read_text().splitlines() if line]
    return len(lines) - len(list(_whole_lines(path)))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of any .jsonl file; lines cut short by a kill are skipped."""
    return [values for _, values in _whole_lines(path)]


def _whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(line, its object) for each complete line."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            values = json.loads(line, parse_constant=_no_number)
        except json.JSONDecodeError:
            continue
        if isinstance(values, dict):
            yield line, values


def _no_number(_: str) -> None:
    """For NaN and infinities, which are not JSON."""


def start_stage(path: Path, stage: str) -> None:
    """Removes the results of an unfinished run of this stage, which will rerun."""
    keep_results(path, lambda values: values["stage"] != stage)


def keep_results(path: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
    """Removes unwanted lines; the others stay byte for byte."""
    kept = [line for line, values in _whole_lines(path) if wanted(values)]
    write_text(path, "".join(f"{line}\n" for line in kept))


def append_results(path: Path, results: Iterable[Result]) -> None:
    """Appends results, all or none. Raises ValueError for a value that is NaN."""
    lines = [_line(result) for result in results]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("".join(lines))


def _line(result: Result) -> str:
    # ASCII, so that a kill cannot split a character and none reads as a line break
    try:
        return json.dumps(result.to_json(), allow_nan=False) + "\n"
    except ValueError as error:
        raise ValueError(
            f"a result has a value that JSON cannot represent: {result}"
        ) from error
