"""What a finished run left in its workdir, read for its report."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsclip_jax.data.specs import as_specs, reported
from rsclip_jax.io.files import read_json
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.records.outcomes import Outcome, load_outcome
from rsclip_jax.records.results import Result, read_json_lines, read_results

STAGES = ("pretrain", "patch", "align", "evaluate")  # in the order in which they run


@dataclasses.dataclass(frozen=True)
class Workdir:
    """config: as it was given. metas: {stage: its meta.json}. records: results.jsonl.

    curves: {"stage" or "stage/part": the lines of its metrics.jsonl}. outcomes:
    {(stage, "before" or "after"): the sets' Outcomes}.
    """

    path: Path
    config: dict[str, Any]
    metas: dict[str, StageMeta]
    records: list[Result]
    curves: dict[str, list[dict]]
    outcomes: dict[tuple[str, str], list[Outcome]]

    @property
    def alpha(self) -> float | None:
        """What stage patch chose for the whole tower, where it did."""
        return self.metas.get("patch", StageMeta()).alpha

    def specs(self, *keys: str) -> list[str]:
        """The sets of these settings of config.patch, as results spell them."""
        patch = self.config.get("patch", {})
        each = [spec for key in keys for spec in as_specs(patch.get(key, ()))]
        return list(map(reported, each))

    def final(self) -> dict[str, Outcome]:
        """{set: what the last stage that saw it made of it}."""
        return {
            outcome.name: outcome
            for stage in STAGES
            for outcome in self.outcomes.get((stage, "after"), ())
        }

    def pairs(self) -> dict[str, tuple[Outcome, Outcome]]:
        """{set: (before, after)} of the last stage that has both."""
        found = {}
        for stage in STAGES:
            before = {o.name: o for o in self.outcomes.get((stage, "before"), ())}
            for after in self.outcomes.get((stage, "after"), ()):
                if after.name in before:
                    found[after.name] = before[after.name], after
        return found


def read_workdir(path: Path, log: Callable[[str], None]) -> Workdir:
    """Reads all of it; what cannot be read is said and left out."""
    files = {stage: path / stage / "meta.json" for stage in STAGES}
    metas = {stage: _read_json(file, log) for stage, file in files.items()}
    curves = {}
    for stage in STAGES:
        for file in sorted((path / stage).glob("**/metrics.jsonl")):
            name = str(file.parent.relative_to(path))
            if rows := read_json_lines(file):
                curves[name] = rows
    return Workdir(
        path,
        _read_json(path / "config.json", log),
        {s: StageMeta.from_json(meta) for s, meta in metas.items() if meta},
        read_results(path / "results.jsonl"),
        curves,
        _read_outcomes(path, log),
    )


def _read_json(path: Path, log: Callable[[str], None]) -> dict:
    if not path.exists():
        return {}
    try:
        return read_json(path)
    except ValueError as error:
        log(f"report.html: left out {error}")
        return {}


def _read_outcomes(path: Path, log: Callable[[str], None]) -> dict:
    found: dict[tuple[str, str], list[Outcome]] = {}
    for stage in STAGES:
        for when in ("before", "after"):
            for file in sorted((path / stage / "outcomes" / when).glob("*.npz")):
                try:
                    found.setdefault((stage, when), []).append(load_outcome(file))
                except ValueError as error:
                    log(f"report.html: left out {error}")
    return found
