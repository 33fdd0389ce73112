"""Reads the files of a finished run's workdir for its report."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsclip_jax.data.specs import short_specs
from rsclip_jax.io.files import read_object
from rsclip_jax.io.json_lines import read_json_lines
from rsclip_jax.records.budget import Budget
from rsclip_jax.records.lost import find_all_lost
from rsclip_jax.records.meta import StageMeta, read_meta
from rsclip_jax.records.outcomes import Outcome, load_outcome
from rsclip_jax.records.results import Result, read_results

# In the order in which they run.
STAGES = ("pretrain", "patch", "align", "evaluate", "map")


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The files of a workdir.

    config: config.json. metas: {stage: its meta.json}. records: results.jsonl. curves:
    {"stage" or "stage/part": the lines of its metrics.jsonl}. outcomes: {(stage,
    "before" or "after"): the datasets' Outcomes}. lost: what records/lost.py found.
    """

    path: Path
    config: dict[str, Any]
    metas: dict[str, StageMeta]
    records: list[Result]
    curves: dict[str, list[dict]]
    outcomes: dict[tuple[str, str], list[Outcome]]
    lost: tuple[str, ...] = ()

    @property
    def alpha(self) -> float | None:
        """The alpha that stage patch chose for the whole tower, if it did."""
        return self.metas.get("patch", StageMeta()).alpha

    def sets(self, *keys: str) -> list[str]:
        """Stage patch's datasets of these roles: "val", "supported_test", ..."""
        sets = self.metas.get("patch", StageMeta()).sets or {}
        return [name for key in keys for name in sets.get(key, ())]

    @property
    def budget(self) -> Budget | None:
        """How much stage patch let the supported datasets lose, where it says so."""
        budget = self.metas.get("patch", StageMeta()).budget
        return Budget(**budget) if budget is not None else None

    def final(self) -> dict[str, Outcome]:
        """{dataset: its Outcome from the last stage that has one}."""
        return {
            outcome.name: outcome
            for stage in STAGES
            for outcome in self.outcomes.get((stage, "after"), ())
        }

    def pairs(self) -> dict[str, tuple[Outcome, Outcome]]:
        """{dataset: (before, after)} from the last stage that has both."""
        found = {}
        for stage in STAGES:
            before = {o.name: o for o in self.outcomes.get((stage, "before"), ())}
            for after in self.outcomes.get((stage, "after"), ()):
                if after.name in before:
                    found[after.name] = before[after.name], after
        return found


def read_workdir(path: Path, log: Callable[[str], None]) -> Workdir:
    """Reads all of it; skips files that cannot be read and logs them.

    Raises ValueError for a results.jsonl that cannot be read.
    """
    metas, curves = {}, {}
    for stage in STAGES:
        if (path / stage / "meta.json").exists():
            metas[stage] = _try(read_meta, path / stage, log)
        for file in sorted((path / stage).glob("**/metrics.jsonl")):
            if rows := _try(read_json_lines, file, log):
                curves[str(file.parent.relative_to(path))] = rows
    lost = _try(find_all_lost, path, log) or []
    for text in lost:
        log(f"report.html: warning: {text}")
    stored = path / "config.json"
    return Workdir(
        path,
        (_try(read_object, stored, log) or {}) if stored.exists() else {},
        {stage: _with_sets(meta) for stage, meta in metas.items() if meta},
        read_results(path / "results.jsonl"),
        curves,
        _read_outcomes(path, log),
        tuple(lost),
    )


def _try(read: Callable, path: Path, log: Callable[[str], None]) -> Any:
    """What read makes of a path; None, and logged, if that is damaged."""
    try:
        return read(path)
    except ValueError as error:
        log(f"report.html: left out {error}")
        return None


def _with_sets(meta: StageMeta) -> StageMeta:
    """The datasets and the budget of stage patch, which versions before 0.2 have only
    in their config."""
    patch = (meta.config or {}).get("patch")
    if meta.stage != "patch" or meta.sets is not None or not patch:
        return meta
    roles = ("val", "test", "supported_val", "supported_test")
    sets = {role: list(short_specs(patch.get(role, ()))) for role in roles}
    budget = {
        "max_drop": patch.get("max_supported_drop", 1.0),
        "min_retained": patch.get("min_supported_retained", 0.0),
    }
    return dataclasses.replace(meta, sets=sets, budget=budget)


def _read_outcomes(path: Path, log: Callable[[str], None]) -> dict:
    found: dict[tuple[str, str], list[Outcome]] = {}
    for stage in STAGES:
        for when in ("before", "after"):
            for file in sorted((path / stage / "outcomes" / when).glob("*.npz")):
                if outcome := _try(load_outcome, file, log):
                    found.setdefault((stage, when), []).append(outcome)
    return found
