"""compare.html: runs side by side in one file, from their workdirs and differences."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rsclip_jax.data.specs import as_specs, reported
from rsclip_jax.records.comparison import Comparison
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.report import document
from rsclip_jax.report.changes import set_name
from rsclip_jax.report.chart import legend
from rsclip_jax.report.comparison import (
    SURE,
    change_in_words,
    in_numbers,
    in_points,
    is_sure,
    several,
)
from rsclip_jax.report.comparison import legend as table_legend
from rsclip_jax.report.comparison_figures import (
    ROLES,
    Row,
    alpha_overlay,
    curve_overlay,
    forest,
    forest_span,
)
from rsclip_jax.report.document import Cell, Section
from rsclip_jax.report.sections.choice import sweep
from rsclip_jax.report.table import metric_names
from rsclip_jax.report.workdir import Workdir

_CURVES = ("loss", "grad_norm")
# settings that no number depends on
_IDLE = ("overwrite", "progress", "stages", "data.threads")


def comparison_page(
    runs: Sequence[Workdir], records: Sequence[Comparison], left_out: Sequence[str] = ()
) -> str:
    """The page. runs: the baseline first; records, left_out: as of stage compare."""
    names = short_names([str(run.path) for run in runs])
    made = [
        what_is_compared(runs, names),
        settings(runs, names),
        differences(
            records, dict(zip((str(r.path) for r in runs), names, strict=True))
        ),
        every_difference(records, left_out),
        alpha_curves(runs, names),
        training(runs, names),
    ]
    title = f"{', '.join(names[1:])} against {names[0]}"
    return document.document(title, [x for x in made if x], subtitle="A comparison")


def short_names(paths: Sequence[str]) -> list[str]:
    """The paths' last parts, as many as tell all of them apart."""
    parts = [path.strip("/").split("/") for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _key(names: Sequence[str]) -> str:
    """Which line is which run; of many runs, which are not drawn."""
    drawn = list(zip(ROLES, names, strict=False))
    html = legend([("line", role, name) for role, name in drawn])
    left = ", ".join(names[len(drawn) :])
    return html + (document.note(f"Not drawn: {left}.") if left else "")


def what_is_compared(runs: Sequence[Workdir], names: Sequence[str]) -> Section:
    """Which runs these are, with the digests of what they made."""
    rows = []
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        for stage, meta in run.metas.items():
            rows.append(
                [
                    name + (" (the baseline)" if i == 0 else ""),
                    stage,
                    str(meta.steps or ""),
                    Cell(meta.digest[:8], title=meta.digest),
                    Cell((meta.git_commit or "")[:8]),
                    str(run.path.resolve()),
                ]
            )
    header = ("run", "stage", "steps", "weights", "commit", "where")
    body = document.table(header, rows, label="The runs", numbers=(2,))
    return Section("What is compared", body)


def settings(runs: Sequence[Workdir], names: Sequence[str]) -> Section | None:
    """The settings in which the runs differ."""
    rows = differing([_config(run) for run in runs])
    if not rows:
        return Section("Settings that differ", document.note("None."))
    lines = [[key, *map(_as_text, values)] for key, values in rows]
    body = document.table(("setting", *names), lines, label="Settings that differ")
    return Section("Settings that differ", body)


def _config(run: Workdir) -> dict:
    made = next(iter(run.metas.values()), StageMeta())
    return run.config or dict(made.config or {})


def differing(configs: Sequence[Mapping]) -> list[tuple[str, list[Any]]]:
    """(setting, its value in each config) of those that are not the same in all."""
    flat = [_flatten(config) for config in configs]
    keys = sorted(set().union(*flat) - set(_IDLE))
    rows = [(key, [one.get(key) for one in flat]) for key in keys]
    return [
        (key, values) for key, values in rows if any(v != values[0] for v in values)
    ]


def _flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        found |= (
            _flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
        )
    return found


def _as_text(value: Any) -> str:
    return "–" if value is None else json.dumps(value, ensure_ascii=False)


def differences(
    records: Sequence[Comparison], names: Mapping[str, str]
) -> Section | None:
    """A forest of differences with their intervals, a picture a set and a run."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for r in records:
        if r.p_value is not None and in_points(r):
            groups.setdefault((r.run_b, set_name(r)), []).append(r)
    if not groups:
        return None
    rows = {key: [_row(r) for r in found] for key, found in groups.items()}
    span = forest_span([row for of_one in rows.values() for row in of_one])
    parts = []
    for (run, name), of_one in rows.items():
        title = f"{name}: {names[run]}" if several(records) else name
        parts.append(document.heading(title) + forest(of_one, span))
    lead = (
        f"In points, above zero where {names[records[0].run_a]} is the worse one;"
        " the lines are 95 % intervals of the paired bootstrap over examples. They are"
        " of these two models: another seed of either may be further away."
    )
    key = legend(
        [
            ("circle", "after", f"p below {SURE:g} after Holm's correction"),
            ("circle", "before", "not told from chance"),
        ]
    )
    return Section("Differences", key + "".join(parts), lead)


def _row(record: Comparison) -> Row:
    low, high = (100 * end for end in record.ci95 or () if end is not None)
    assert record.difference is not None
    return Row(
        f"{record.sensor}, {record.metric}",
        100 * record.difference,
        (low, high),
        is_sure(record),
        change_in_words(record, record.difference),
    )


def every_difference(
    records: Sequence[Comparison], left_out: Sequence[str] = ()
) -> Section:
    """The whole table."""
    header = ["set", "sensor", "metric", "a", "b", "b - a", "95 %", "p", "p (Holm)"]
    rows = []
    for r, name in zip(records, metric_names(records), strict=True):
        a, b, change, *rest = in_numbers(r)
        cells = [
            Cell(a, key=r.a),
            Cell(b, key=r.b),
            Cell(change.strip(), key=r.difference),
        ]
        task = r.task.replace("_", "-")
        about = [set_name(r), r.sensor, f"{task} {name}"]
        rows.append([*([r.run_b] if several(records) else []), *about, *cells, *rest])
    if several(records):
        header.insert(0, "b is")
    numbers = range(len(header) - 6, len(header))
    label = "Every metric that both runs have"
    body = document.table(header, rows, label=label, numbers=numbers, sortable=True)
    notes = "".join(map(document.note, table_legend(records, left_out)))
    return Section("Every difference", body + notes)


def alpha_curves(runs: Sequence[Workdir], names: Sequence[str]) -> Section | None:
    """Each validation set of stage patch along alpha, all runs in one picture."""
    swept = [sweep(run.records) for run in runs]
    chosen = [run.alpha for run in runs]
    wanted: dict[str, str] = {}
    for run in runs:
        patch = _config(run).get("patch", {})
        for key in ("val", "supported_val"):
            wanted |= dict.fromkeys(map(reported, as_specs(patch.get(key, ()))), key)
    pictures = []
    for name, key in wanted.items():
        curves = [curves.get(name, {}) for curves in swept]
        if max(map(len, curves)) > 1:
            kind = "task" if key == "val" else "supported set"
            picture = alpha_overlay(name, curves, chosen, names)
            pictures.append(document.figure(picture, f"{name}, {kind}"))
    if not pictures:
        return None
    lead = "On the validation data that chose alpha; the choices are starred."
    return Section("Choice of alpha", _key(names) + document.tiles(pictures), lead)


def training(runs: Sequence[Workdir], names: Sequence[str]) -> Section | None:
    """Loss and gradient norm of each training, all runs in one picture."""
    parts = []
    for stage in dict.fromkeys(stage for run in runs for stage in run.curves):
        pictures = []
        for key in _CURVES:
            curves = [_points(run.curves.get(stage, ()), key) for run in runs]
            if any(curves):
                picture = curve_overlay(key, curves, names)
                pictures.append(document.figure(picture))
        if pictures:
            parts.append(document.heading(stage) + document.tiles(pictures))
    if not parts:
        return None
    return Section("Training", _key(names) + "".join(parts))


def _points(rows: Sequence[dict], key: str) -> list[tuple[float, float]]:
    """(step, value) of a training's lines, those that are finite."""
    each = [(r["step"], r.get(key)) for r in rows]
    return [(s, v) for s, v in each if isinstance(v, int | float) and abs(v) < 1e300]
