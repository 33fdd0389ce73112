"""<stage>/meta.json: the description of a finished stage's product."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsclip_jax.io.files import read_object, write_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlphaChoice:
    """The interpolation that stage patch, or one of its rounds, made."""

    alpha: float | None = None
    alpha_ci95: Sequence[float] | None = None
    alpha_chosen_by: str | None = None  # "validation", or the setting that gave it
    alpha_blocks: Mapping[str, float] | None = None
    alpha_note: str = ""  # why alpha 0 was chosen, and what to do
    train: str | None = None  # a round's dataset, "name:split"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageMeta(AlphaChoice):
    """The content of meta.json.

    A field that does not apply to the stage has its default and is absent from the
    file; keys of other versions are kept in `more`.
    """

    stage: str | None = None
    config: Mapping[str, Any] | None = None
    git_commit: str | None = None
    finished: str | None = None
    devices: str | None = None
    precision: str = ""  # of the models' matrix products
    digest: str = ""  # of the product's params
    steps: int = 0
    variant: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)  # split digests
    # {"theta_0", "teacher", ...: the origin of the weights, with their digest}
    sources: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rounds: Sequence[AlphaChoice] | None = None  # of sequential patching
    # of patch: {"val", "test", "supported_val", "supported_test": names of datasets}
    sets: Mapping[str, Sequence[str]] | None = None
    budget: Mapping[str, float] | None = None  # of patch: the fields of Budget
    head: Mapping[str, Any] | None = None  # trained by patch
    spec: Mapping[str, Any] | None = None  # of the one sensor encoder
    specs: Sequence[Mapping[str, Any]] | None = None  # of several
    digests: Mapping[str, str] | None = None  # of several, by modality
    records: int | None = None  # results of an evaluation
    # {"lines", "digest"} of the stage's lines of results.jsonl when it ended
    results: Mapping[str, Any] | None = None
    model: Mapping[str, str] | None = None  # the weights that were evaluated
    reference: Mapping[str, str] | None = None
    settings: Mapping[str, str] | None = None  # an ablation's products
    models: Sequence[str] | None = None  # of a survey
    published: Sequence[Sequence] | None = None
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "StageMeta":
        """Raises ValueError for a value of another type."""
        for name, kinds in _KINDS.items():
            if not isinstance(values.get(name), (*kinds, type(None))):
                raise ValueError(f"{name} is {values[name]!r}, not {_WORDS[kinds[0]]}")
        names = {field.name for field in dataclasses.fields(cls)} - {"more"}
        known = {key: value for key, value in values.items() if key in names}
        if known.get("rounds") is not None:
            known["rounds"] = tuple(_as_choice(one) for one in known["rounds"])
        more = {key: value for key, value in values.items() if key not in names}
        return cls(**known, more=more)

    def to_json(self) -> dict[str, Any]:
        values = _given(self)
        if self.stage:  # a product has "sources" even if they are empty
            values["sources"] = self.sources
        if self.rounds is not None:
            values["rounds"] = [_given(one) for one in self.rounds]
        more = values.pop("more", {})
        return {**values, **more}


# The types of what other modules rely on.
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("stage", "digest", "git_commit", "finished", "devices"), (str,)),
    **dict.fromkeys(("steps", "records"), (int,)),
    **dict.fromkeys(("alpha",), (float, int)),
    **dict.fromkeys(("rounds", "specs", "models", "published"), (list, tuple)),
    **dict.fromkeys(
        (
            *("config", "variant", "data", "sources", "sets", "budget", "head"),
            *("spec", "digests", "model", "reference", "settings", "results"),
        ),
        (dict,),
    ),
}
_WORDS = {str: "a text", int: "a whole number", float: "a number", list: "a list"}
_WORDS[dict] = "an object"


def _as_choice(one: Any) -> AlphaChoice:
    try:
        return AlphaChoice(**one)
    except TypeError:
        raise ValueError(f"rounds has {one!r}, not a choice of alpha") from None


def _given(made: AlphaChoice) -> dict[str, Any]:
    """Fields that differ from their defaults, and all fields of a choice of alpha."""
    kept = ("alpha", "alpha_ci95", "alpha_blocks") if made.alpha_chosen_by else ()
    default = type(made)()
    return {
        field.name: getattr(made, field.name)
        for field in dataclasses.fields(made)
        if field.name in kept
        or getattr(made, field.name) != getattr(default, field.name)
    }


def read_meta(stage_dir: Path) -> StageMeta:
    """Reads <stage>/meta.json.

    Raises FileNotFoundError if there is none, and ValueError naming one that is
    damaged, or that another program wrote.
    """
    path = stage_dir / "meta.json"
    way = (
        f"restore it from a copy of the workdir, or remove {stage_dir} to run the"
        " stage again"
    )
    values = read_object(path, way)
    try:
        return StageMeta.from_json(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {way}") from error


def write_meta(stage_dir: Path, meta: StageMeta) -> None:
    """Writes <stage>/meta.json atomically."""
    write_json(stage_dir / "meta.json", meta.to_json())
