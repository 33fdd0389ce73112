"""Stage compare: the results of finished runs side by side, differences tested."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from rsclip_jax.data.specs import short_specs
from rsclip_jax.evals.compare import (
    are_same,
    compare_outcomes,
    has_text,
    is_compared,
    measured_sensors,
)
from rsclip_jax.io.files import write_text
from rsclip_jax.io.paths import as_path
from rsclip_jax.io.texts import first_of
from rsclip_jax.records.comparison import Comparison
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.records.outcomes import Outcome, find_mismatch
from rsclip_jax.records.results import Result
from rsclip_jax.report.comparison import (
    VARIANTS,
    format_comparison,
    format_markdown,
)
from rsclip_jax.report.comparison_page import comparison_page
from rsclip_jax.report.names import set_name
from rsclip_jax.report.workdir import STAGES, Workdir, read_workdir
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.stats.paired_tests import holm
from rsclip_jax.train import checkpoint, processes

_TRAINED = ("pretrain", "patch", "align")
# fields that two comparable results must share besides their examples
_ASKED = ("prompts", "train_digest", "val_digest", "k", "reference")
_SAME = ("sensor", "task", "metric", "n")  # fields that identify a result


def check_compare(run: Run) -> None:
    """Raises ValueError for runs that cannot be compared, saying why."""
    baseline, *others = open_runs(run)
    for other in others:
        check_pair(baseline, other)


def run_compare(run: Run) -> None:
    """Compares each of config.runs with the first, and prints the table.

    Writes <workdir>/compare/ with comparison.jsonl, table.txt, table.md, compare.html.
    """
    runs = open_runs(run)
    records = [r for other in runs[1:] for r in compare_runs(runs[0], other, run.mesh)]
    if not processes.is_first():
        return
    skipped = [text for other in runs[1:] for text in left_out(runs[0], other)]
    adjusted = holm([_known(r.p_value) for r in records])
    records = [
        dataclasses.replace(r, p_holm=None if r.p_value is None else round(p, 6))
        for r, p in zip(records, adjusted, strict=True)
    ]
    folder = run.workdir / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(r.to_json()) + "\n" for r in records)
    write_text(folder / "comparison.jsonl", lines)
    text = format_comparison(records, skipped)
    write_text(folder / "table.txt", text + "\n")
    write_text(folder / "table.md", format_markdown(records, skipped) + "\n")
    page = comparison_page(runs, records, skipped)
    write_text(folder / "compare.html", page)
    run.log(f"\n{text}\n\nside by side: {folder / 'compare.html'}")


def _known(p_value: float | None) -> float:
    return float("nan") if p_value is None else p_value


# The runs


def open_runs(run: Run) -> list[Workdir]:
    """Reads config.runs. Raises ValueError for an unfinished or repeated run."""
    paths = [as_path(path) for path in run.config.get("runs", ())]
    if len(paths) < 2:
        raise ValueError(
            f"config.runs = {tuple(map(str, paths))}: name two workdirs or more, the"
            " baseline first, as --config.runs=\"('runs/a','runs/b')\""
        )
    for i, path in enumerate(paths):
        if same := [p for p in paths[:i] if p.resolve() == path.resolve()]:
            raise ValueError(f"config.runs names one workdir twice: {same[0]}, {path}")
    return [open_run(path) for path in paths]


def open_run(path: Path) -> Workdir:
    """Reads a workdir, or the folder of one combination of stage ablate.

    Raises ValueError if it is not finished.
    """
    if not path.is_dir():
        raise ValueError(f"config.runs names {path}, but there is no such folder")
    made = read_workdir(path, _refuse)
    if not made.config and not made.metas:
        raise ValueError(
            f"config.runs names {path}, which is not the workdir of a run: it has no"
            " config.json"
        )
    wanted = made.config.get("stages", made.metas)
    for stage in (s for s in STAGES if s in wanted or (path / s).exists()):
        done = stage in made.metas
        if stage in _TRAINED:
            done = checkpoint.has_product(path / stage)
        if not done:
            raise ValueError(
                f"config.runs names {path}, whose stage {stage!r} has not finished: run"
                " its command again"
            )
    return made


def _refuse(text: str) -> None:
    raise ValueError(re.sub(r"^report\.html: (left out|warning:) ", "", text))


def settings_of(run: Workdir) -> Mapping:
    """The config; for one combination of an ablation, from its stage's meta."""
    return run.config or next(iter(run.metas.values())).config or {}


# What two runs share


def check_pair(a: Workdir, b: Workdir) -> None:
    """Raises ValueError for runs that share no result, or whose examples differ."""
    wrong = dict.fromkeys([*wrong_outcomes(a, b), *wrong_records(a, b)])
    if wrong:
        raise ValueError(
            f"{a.path} and {b.path} were measured on different examples:\n  "
            + first_of(list(wrong), "\n  ")
            + "\nevaluate both on the same data"
        )
    if pairs(a, b) or untested(a, b):
        return
    if unlike := left_out(a, b):
        raise ValueError(
            f"{a.path} and {b.path} have no comparable result:\n  "
            + first_of(unlike, "\n  ")
            + "\nevaluate both with the same prompts, probes and reference"
        )
    of_a, of_b = (first_of(sorted(sets_of(run))) or "none" for run in (a, b))
    raise ValueError(
        f"the runs have no dataset in common: {a.path} has {of_a}; {b.path} has {of_b}"
    )


def sets_of(run: Workdir) -> set[str]:
    """The datasets of a run's results, spelled as in settings."""
    kept = {
        o.name for (_, when), os in run.outcomes.items() if when == "after" for o in os
    }
    return kept | {key[0] for key in finals(run)}


Pair = tuple[Outcome, Outcome, str]


def shared(a: Workdir, b: Workdir) -> list[Pair]:
    """(a's outcome, b's, sensor) for those that both have, from the latest stages."""
    of_a, of_b = latest(a), latest(b)
    return [(of_a[key], of_b[key], key[1]) for key in of_a if key in of_b]


def pairs(a: Workdir, b: Workdir) -> list[Pair]:
    """The shared outcomes, without those whose texts differ."""
    return [pair for pair in shared(a, b) if not _unlike_pair(pair)]


def _unlike_pair(pair: Pair) -> tuple:
    one, other, sensor = pair
    return _unlike(one.pins, other.pins, ("prompts",)) if has_text(sensor) else ()


def _unlike(one: Mapping, other: Mapping, pins: Sequence[str] = _ASKED) -> tuple:
    """(the first pin that differs, its value in each), or ()."""
    values = ((pin, one.get(pin), other.get(pin)) for pin in pins)
    return next((found for found in values if found[1] != found[2]), ())


def _unlike_results(one: Result, other: Result, pins: Sequence[str] = _ASKED) -> tuple:
    return _unlike(vars(one), vars(other), pins)


def latest(run: Workdir) -> dict[tuple[str, str], Outcome]:
    """{(dataset, sensor): the outcome of the last stage that has one}."""
    found = {}
    for stage in STAGES:
        for outcome in run.outcomes.get((stage, "after"), ()):
            for sensor in measured_sensors(outcome):
                found[outcome.name, sensor] = outcome
    return found


def finals(run: Workdir) -> dict[tuple, Result]:
    """{(dataset, sensor, task, metric, prompts, ...): the last stage's result}.

    For stage patch, only its product's on the test datasets; for other stages, only
    results after training.
    """
    patch = settings_of(run).get("patch", {})
    named = (patch.get("test", ""), patch.get("supported_test", ()))
    tests = [spec for one in named for spec in short_specs(one)]
    product = run.metas.get("patch", StageMeta()).digest
    found = {}
    for stage in STAGES:
        for r in (r for r in run.records if r.stage == stage):
            final = r.step != 0 or stage == "evaluate"
            if stage == "patch":
                final = r.checkpoint == product and set_name(r) in tests
            if final:
                # other stages use only the dataset's prompts, without storing a name
                of = (getattr(r, key) for key in VARIANTS if key != "prompt_set")
                asked = r.prompt_set or "dataset"
                key = (set_name(r), r.sensor, r.task, r.metric, asked, *of)
                found[key] = r
    return found


def untested(a: Workdir, b: Workdir) -> list[tuple[Result, Result]]:
    """Results that both have but whose outcomes give no test."""
    return [two for two in _beside(a, b) if not _unlike_results(*two)]


def _beside(a: Workdir, b: Workdir) -> list[tuple[Result, Result]]:
    """Like untested, including results of different prompts, probes or references."""
    of_a, of_b = finals(a), finals(b)
    tested = {(one.name, sensor): one for one, _, sensor in pairs(a, b)}

    def has_test(r: Result) -> bool:
        outcome = tested.get((set_name(r), r.sensor))
        if outcome is None or not is_compared(r.sensor, r.task, r.metric):
            return False
        return not has_text(r.sensor) or outcome.pins["prompts"] == r.prompts

    return [(r, of_b[k]) for k, r in of_a.items() if k in of_b and not has_test(r)]


def left_out(a: Workdir, b: Workdir) -> list[str]:
    """Why shared results are not compared: a line for each dataset and reason.

    Other results of the same dataset may still be compared.
    """
    found: dict[tuple, dict[str, None]] = {}
    for one, other, sensor in shared(a, b):
        if unlike := _unlike_pair((one, other, sensor)):
            found.setdefault((one.name, "tests", *unlike), {})[sensor] = None
    for left, right in _beside(a, b):
        if unlike := _unlike_results(left, right):
            key = (set_name(left), left.task, *unlike)
            found.setdefault(key, {})[left.sensor] = None
    return [
        f"{name}: {task} of {', '.join(sensors)}: {_differ(a, b, *unlike)}"
        for (name, task, *unlike), sensors in found.items()
    ]


def _differ(a: Workdir, b: Workdir, pin: str, one: Any, other: Any) -> str:
    return f"{pin} is {one!r} in {a.path} and {other!r} in {b.path}"


def wrong_outcomes(a: Workdir, b: Workdir) -> Iterator[str]:
    """How the examples of two outcomes differ, a line for each dataset."""
    names = str(a.path), str(b.path)
    for one, other, _ in shared(a, b):
        if text := find_mismatch(one, other, names, prompts=False):
            yield f"{one.name}: {text}"


def wrong_records(a: Workdir, b: Workdir) -> Iterator[str]:
    """Like wrong_outcomes, for results without an outcome."""
    for one, other in _beside(a, b):
        if unlike := _unlike_results(one, other, ("split_digest",)):
            yield f"{set_name(one)}: {_differ(a, b, *unlike)}"


def compare_runs(a: Workdir, b: Workdir, mesh: Mesh | None = None) -> list[Comparison]:
    """Compares every result that both runs have; those without an outcome are untested.

    mesh: as in compare_outcomes. Raises ValueError if there is no such result.
    """
    names = {"run_a": str(a.path), "run_b": str(b.path)}
    found = []
    for one, other, sensor in pairs(a, b):
        about = {**_about(one.pins, other.pins), **names}
        if has_text(sensor) and "prompt_set" in one.pins:
            about["prompt_set"] = one.pins["prompt_set"]
        test: dict[str, Any] = {}
        if are_same(one, other, sensor):  # a test would only weaken Holm's correction
            test = {"same": True, "ci95": None, "p_value": None}
        for r in compare_outcomes(one, other, sensor, mesh=mesh):
            found.append(Comparison(**{**about, **r, **test}))
    for left, right in untested(a, b):
        about = {**_about(vars(left), vars(right)), **names}
        about |= {key: getattr(left, key) for key in (*_SAME, *VARIANTS)}
        found.append(Comparison(**about, **_change(left, right)))
    if not found:  # for example a single record, which allows no retrieval
        raise ValueError(f"{a.path} and {b.path} have no number in common")
    order = {
        name: i for i, name in enumerate(dict.fromkeys(set_name(r) for r in found))
    }
    return sorted(found, key=lambda r: order[set_name(r)])


def _change(one: Result, other: Result) -> dict:
    """The values of two records and their difference, without a test."""
    a, b = one.value, other.value
    return {"a": a, "b": b, "difference": None if a is None or b is None else b - a}


def _about(one: Mapping, other: Mapping) -> dict:
    """The dataset and prompts that are compared, and the stages that measured them."""
    kept = ("dataset", "split", "tile", "split_digest", "prompts")
    about = {key: one[key] for key in kept if key in one}
    return {**about, "stage_a": one["stage"], "stage_b": other["stage"]}
