"""The sections of a run's report: each from the workdir, None where it has no data."""

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rsclip_jax.alpha import Budget
from rsclip_jax.data.specs import as_specs, reported
from rsclip_jax.interpolate import sort_blocks
from rsclip_jax.outcomes import Outcome
from rsclip_jax.report import changes, document, figures
from rsclip_jax.report.chart import legend
from rsclip_jax.report.changes import Change, in_words, interval_in_words, set_name
from rsclip_jax.report.document import Cell, Section
from rsclip_jax.report.table import describe_alpha
from rsclip_jax.report.workdir import STAGES, Workdir

_PRIMARY = ("accuracy", "mAP_macro")  # of zero-shot records
_MOST_CLASSES = 60  # of a confusion matrix
_MOST_POINTS = 400  # of one kind in a map


def overview(run: Workdir) -> Section:
    """What ran, on what, and the whole config."""
    rows = []
    for stage, meta in run.metas.items():
        made = run.path / stage / "meta.json"
        when = datetime.datetime.fromtimestamp(made.stat().st_mtime, datetime.UTC)
        rows.append(
            [
                stage,
                f"{when:%Y-%m-%d %H:%M} UTC",
                meta.get("devices", ""),
                str(meta.get("steps", "")),
                _digest(meta.get("digest", "")),
                _digest(meta.get("git_commit", "")),
            ]
        )
    header = ("stage", "finished", "devices", "steps", "weights", "commit")
    body = document.table(header, rows, label="The stages of this run", numbers=(3,))
    if sources := _sources(run.metas):
        body += document.heading("Made from")
        body += document.table(
            ("stage", "what", "where", "digest"), sources, label="Sources"
        )
    if "patch" in run.metas:
        body += document.note(f"patch: after = {describe_alpha(run.metas['patch'])}")
    if run.config:
        text = json.dumps(run.config, indent=2)
        html = f"<pre>{document.escape(text)}</pre>"
        body += document.details("The whole config", html)
    return Section("What ran", body)


def _sources(metas: Mapping[str, dict]) -> list[list]:
    rows = []
    for stage, meta in metas.items():
        for name, source in meta.get("sources", {}).items():
            if isinstance(source, dict):
                about = source.get("path") or source.get("name") or ""
                rows.append([stage, name, about, _digest(source.get("digest", ""))])
        for name, digest in (meta.get("data") or {}).items():
            rows.append([stage, "data", name, _digest(digest)])
    return rows


def _digest(text: str) -> Cell:
    """The first eight signs, all of them on hovering."""
    return Cell(text[:8], key=text, title=text if len(text) > 8 else "")


def headlines(run: Workdir) -> Section | None:
    """The values that a run is about, before and after, with their intervals."""
    cards = [_card(run, change) for change in headline_changes(run)]
    if not cards:
        return None
    key = [("circle", "before", "before"), ("circle", "after", "after")]
    body = legend([*key, ("area", "text", "95 % of resamples of the examples")])
    return Section("Headline numbers", body + document.tiles(cards))


def headline_changes(run: Workdir) -> list[Change]:
    """Zero-shot of patch's test sets and of each sensor; retrieval where that is all."""
    every = changes.find_changes(run.records, _alpha(run))
    patch = run.config.get("patch", {})
    tests = [
        reported(s)
        for key in ("test", "supported_test")
        for s in as_specs(patch.get(key, ()))
    ]
    zero_shot = [c for c in every if c.task == "zero_shot" and c.metric in _PRIMARY]
    found = [c for c in zero_shot if c.stage == "patch" and c.name in tests]
    found += [c for c in zero_shot if c.stage == "align"]
    found += [
        c
        for c in every
        if c.stage == "align" and c.task == "retrieval" and c.metric == "recall@10"
    ]
    return found or [c for c in zero_shot if c.stage in ("pretrain", "evaluate")][:12]


def _card(run: Workdir, change: Change) -> str:
    tried = [("before", change.before), ("after", change.after)]
    rows, words = [], []
    for role, record in tried:
        if record is not None:
            ci95 = record.get("ci95")
            scaled = None if ci95 is None else [100 * v for v in ci95]
            rows.append((role, 100 * record["value"], scaled))
            words.append(in_words(record["value"], change.metric))
    big = " → ".join([*(w.removesuffix(" %") for w in words[:-1]), words[-1]])
    said = [f"{c} {text}" for c, r in tried if r and (text := interval_in_words(r))]
    small = [f"{change.sensor}, {change.task.replace('_', '-')} {change.metric}"]
    if said:
        small.append("95 %: " + ", ".join(said))
    if change.full and change.full is not change.after:
        small.append(
            f"fine-tuned alone: {in_words(change.full['value'], change.metric)}"
        )
    html = (
        f'<p class="role">{document.escape(role_of(run, change))}</p>'
        f'<p class="set">{document.escape(change.name)}</p>'
        f'<p class="big">{document.escape(big)}</p>'
        f"{figures.interval_figure(rows)}"
    )
    return document.figure(
        html + "".join(f'<p class="note">{document.escape(s)}</p>' for s in small)
    )


def role_of(run: Workdir, change: Change) -> str:
    """What a set is in a run: the task, a supported set, a sensor's."""
    patch = run.config.get("patch", {})
    if change.stage == "patch":
        supported = map(reported, as_specs(patch.get("supported_test", ())))
        return "patch: supported set" if change.name in supported else "patch: the task"
    return f"{change.stage}: {change.sensor}"


def _alpha(run: Workdir) -> float | None:
    return run.metas.get("patch", {}).get("alpha")


def alpha_curves(run: Workdir) -> Section | None:
    """Task and supported sets along alpha on validation data, the choice marked."""
    patch = run.config.get("patch", {})
    tasks = [reported(s) for s in as_specs(patch.get("val", ()))]
    kept = [reported(s) for s in as_specs(patch.get("supported_val", ()))]
    budget = Budget(
        patch.get("max_supported_drop", 1.0), patch.get("min_supported_retained", 0.0)
    )
    meta, parts, before = run.metas.get("patch", {}), [], {}
    rounds = meta.get("rounds") or [meta]
    for i, choice in enumerate(rounds):
        swept = sweep(run.records, i + 1 if "rounds" in meta else None)
        done = {name: swept[name] for name in tasks if name in swept}
        supported = {name: swept[name] for name in kept if name in swept}
        if not done or len(next(iter(done.values()))) < 2:
            continue
        before = before or {
            n: c.get(0.0, next(iter(c.values()))) for n, c in supported.items()
        }
        share = budget.share((i + 1) / len(rounds))
        least = {n: 100 * share.least(before[n] / 100) for n in supported}
        if "rounds" in meta:
            parts.append(document.heading(f"Round {i + 1}: {choice.get('train', '')}"))
        parts.append(_alpha_part(done, supported, least, choice))
    if not parts:
        return None
    lead = (
        "The mixture (1 - alpha) * original + alpha * fine-tuned, on the validation"
        " data that chose alpha: the best task value that no supported set pays for"
        " with more than its budget."
    )
    return Section("Choice of alpha", "".join(parts), lead)


def sweep(records: Iterable[dict], round_: int | None = None) -> dict[str, dict]:
    """{set: {alpha: value in percent}} of stage patch's primary metric."""
    found: dict[str, dict[float, float]] = {}
    for r in records:
        mine = r["stage"] == "patch" and r.get("round") == round_
        if mine and r.get("alpha") is not None and r["metric"] in _PRIMARY:
            found.setdefault(set_name(r), {})[r["alpha"]] = 100 * r["value"]
    return found


def _alpha_part(tasks: dict, supported: dict, least: dict, choice: Mapping) -> str:
    chosen, interval = choice.get("alpha"), choice.get("alpha_ci95")
    shapes = ("circle", "square", "diamond")
    key = [(shapes[i % 3], "after", f"task {n}") for i, n in enumerate(tasks)]
    key += [(shapes[i % 3], "other", f"supported {n}") for i, n in enumerate(supported)]
    if supported:
        key.append(("dashes", "other", "least that a supported set may fall to"))
    if chosen is not None:
        key.append(("star", "chosen", f"chosen: alpha {chosen:g}"))
    if interval:
        key.append(
            (
                "area",
                "chosen",
                f"the choice in 95 % of resamples: {interval[0]:g} to {interval[1]:g}",
            )
        )
    curves = {**tasks, **supported}
    along = figures.alpha_figure(
        curves, len(tasks), chosen=chosen, interval=interval, least=least
    )
    pictures = [document.figure(along, "All sets along alpha")]
    if supported:
        name = next(iter(tasks)) if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
        mean = {
            a: float(np.mean([c[a] for c in tasks.values()]))
            for a in next(iter(tasks.values()))
        }
        trade = figures.trade_figure(
            (name, mean), supported, chosen=chosen, least=least
        )
        pictures.append(document.figure(trade, "What the task's gain costs"))
    text = legend(key) + document.tiles(pictures)
    if blocks := choice.get("alpha_blocks"):
        rows = [(b, None, 100 * blocks[b]) for b in sort_blocks(blocks)]
        text += document.heading("An alpha for each block (in percent)")
        text += figures.bars(rows)
    return text


def per_class(run: Workdir) -> Section | None:
    """Each class before and after, of the sets that the headlines are about."""
    parts = []
    for c in changes.find_changes(run.records, _alpha(run)):
        if c.task != "zero_shot" or c.metric not in _PRIMARY or not c.after:
            continue
        if c.stage not in ("patch", "align") or not (
            c.before and c.after.get("per_class")
        ):
            continue
        if (
            c.name
            in [
                reported(s)
                for key in ("val", "supported_val")
                for s in as_specs(run.config.get("patch", {}).get(key, ()))
            ]
            and c.stage == "patch"
        ):
            continue
        before, after = c.before.get("per_class", {}), c.after["per_class"]
        rows = [(n, _percent(before.get(n)), _percent(v)) for n, v in after.items()]
        rows.sort(key=lambda row: -np.nan_to_num(row[2] - row[1], nan=-1e9))
        title = f"{role_of(run, c)}, {c.name} ({c.sensor}, {c.metric})"
        parts.append(document.heading(title) + figures.bars(rows))
    if not parts:
        return None
    key = legend([("square", "before", "before"), ("square", "after", "after")])
    lead = "In percent, the largest gain first and the largest loss last."
    return Section("Class by class", key + "".join(parts), lead)


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value


def confusion(run: Workdir) -> Section | None:
    """Which classes the final model takes for which, of each set and sensor."""
    parts = []
    for name, outcome in run.final().items():
        if outcome.pins["task"] != "single" or outcome.head is None:
            continue
        for sensor in outcome.z:
            counts = confusion_counts(outcome, sensor)
            parts.append(_confusion_part(outcome, counts, f"{name}, {sensor}"))
    if not parts:
        return None
    lead = (
        "Rows are the true classes, columns what the final model says; the darker, the"
        " larger the share of its row, in percent where there is room. The outlined"
        " diagonal is right."
    )
    return Section("Confusion", "".join(parts), lead)


def confusion_counts(outcome: Outcome, sensor: str) -> np.ndarray:
    """[k, k]: how many of each true class (row) were given each class (column)."""
    k = len(outcome.classnames)
    counts = np.zeros((k, k), np.int64)
    np.add.at(counts, (outcome.labels, outcome.logits(sensor).argmax(axis=1)), 1)
    return counts


def _confusion_part(outcome: Outcome, counts: np.ndarray, title: str) -> str:
    names = outcome.classnames
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:5]
    worst = [np.unravel_index(i, wrong.shape) for i in order if wrong.flat[i]]
    said = "; ".join(
        f"{names[i]} as {names[j]}: {wrong[i, j]} of {counts[i].sum()}"
        for i, j in worst
    )
    caption = f"Most often: {said}." if said else "Nothing is confused."
    if len(names) > _MOST_CLASSES:
        return document.heading(title) + document.note(
            f"{len(names)} classes are too many for a picture. {caption}"
        )
    picture = figures.confusion_figure(counts, names)
    html = f'<div class="scroll" tabindex="0" role="region" aria-label="{document.escape(title)}"><div class="keep">{picture}</div></div>'
    return document.heading(title) + document.figure(html, caption)


def training(run: Workdir) -> Section | None:
    """Loss, learning rate and gradient norm of each training."""
    parts = []
    for name, rows in run.curves.items():
        pictures = []
        for key in ("loss", "grad_norm", "lr"):
            points = [
                (r["step"], r[key]) for r in rows if isinstance(r.get(key), int | float)
            ]
            if any(np.isfinite(v) for _, v in points):
                pictures.append(
                    document.figure(figures.curve_figure(points, key, "after"))
                )
        if pictures:
            parts.append(document.heading(name) + document.tiles(pictures))
    return Section("Training", "".join(parts)) if parts else None


def embedding_maps(run: Workdir) -> Section | None:
    """Where RGB, sensors and text lie, before and after."""
    parts = []
    for name, (before, after) in _shown_pairs(run):
        ends = [_points(before), _points(after)]
        pictures = figures.map_figures(*ends)
        captions = [
            f"{name}, {when} stage {after.pins['stage']}"
            for when in ("before", "after")
        ]
        each = map(document.figure, pictures, captions)
        shapes = ("circle", "square")
        key = [
            (
                "diamond" if k == "text" else shapes[i % 2],
                k,
                "text: the class names" if k == "text" else k,
            )
            for i, k in enumerate(ends[1])
        ]
        if len(ends[1]) > 1 and set(ends[1]) - {"rgb", "text"}:
            key.append(("line", "text", "the same place"))
        parts.append(legend(key) + document.tiles(each))
    lead = (
        "The first two principal components of all embeddings together, before and"
        " after on the same axes: what lies apart in the first is the modality gap."
    )
    return Section("Map of the embeddings", "".join(parts), lead) if parts else None


def _shown_pairs(run: Workdir) -> list[tuple[str, tuple[Outcome, Outcome]]]:
    """The sets with a sensor beside RGB, or else all; no more than three."""
    pairs = list(run.pairs().items())
    several = [(name, pair) for name, pair in pairs if len(pair[1].z) > 1]
    return (several or pairs)[:3]


def _points(outcome: Outcome) -> dict[str, np.ndarray]:
    """{sensor or "text": its embeddings}, thinned out; the same places of each."""
    n = len(outcome.ids)
    places = np.linspace(0, n - 1, min(n, _MOST_POINTS)).round().astype(int)
    points = {key: z[places] for key, z in outcome.z.items() if "+" not in key}
    if outcome.head is not None:
        points["text"] = outcome.head.T
    elif outcome.ztxt is not None:
        points["text"] = outcome.ztxt[:_MOST_POINTS]
    return points


def gap_histograms(run: Workdir) -> Section | None:
    """Cosines of RGB and each sensor: of the same place, and of two places."""
    parts = []
    for name, (before, after) in _shown_pairs(run):
        for sensor in (key for key in after.z if key != "rgb" and "rgb" in after.z):
            cosines = [pair_cosines(o.z["rgb"], o.z[sensor]) for o in (before, after)]
            if len(after.ids) < 2:
                continue
            every = np.concatenate([v for pair in cosines for v in pair])
            span = float(every.min()) - 0.02, float(every.max()) + 0.02
            pictures = []
            for when, (paired, unpaired), o in zip(
                ("before", "after"), cosines, (before, after), strict=True
            ):
                gap = float(np.linalg.norm(o.z["rgb"].mean(0) - o.z[sensor].mean(0)))
                caption = (
                    f"{name}, rgb and {sensor}, {when}: same place"
                    f" {paired.mean():.2f} on average, other places {unpaired.mean():.2f};"
                    f" the two means are {gap:.2f} apart"
                )
                pictures.append(
                    document.figure(
                        figures.histogram_figure(paired, unpaired, sensor, span),
                        caption,
                    )
                )
            key = [
                ("area", sensor, f"rgb and {sensor} of the same place"),
                ("dashes", "text", "of two places"),
            ]
            parts.append(legend(key) + document.tiles(pictures))
    lead = "What is learnt is the distance between the two curves, not their place."
    return Section("Modality gap", "".join(parts), lead) if parts else None


def pair_cosines(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of a[i] and b[i], and of a[i] with another's b, of unit-norm [n, d]."""
    shift = max(1, len(a) // 3)  # a neighbour may be of the same class or scene
    return (a * b).sum(axis=1), (a * np.roll(b, shift, axis=0)).sum(axis=1)


def forgetting(run: Workdir) -> Section | None:
    """What the supported sets lost."""
    patch = run.config.get("patch", {})
    tests = [reported(s) for s in as_specs(patch.get("supported_test", ()))]
    every = changes.find_changes(run.records, _alpha(run))
    rows = []
    for c in every:
        mine = c.stage == "patch" and c.task == "zero_shot" and c.name in tests
        if mine and c.before and c.after:
            lost = c.after["value"] - c.before["value"]
            rows.append(
                [
                    c.name,
                    c.sensor,
                    c.metric,
                    *_with_interval(c.before),
                    *_with_interval(c.after),
                    Cell(f"{100 * lost:+.1f}".replace("-", "−"), key=lost),
                ]
            )
    parts = []
    if rows:
        header = (
            "supported set",
            "sensor",
            "metric",
            "before",
            "95 %",
            "after",
            "95 %",
            "points",
        )
        parts.append(
            document.table(
                header, rows, label="Supported sets", numbers=(3, 4, 5, 6, 7)
            )
        )
    if told := [r for r in run.records if r["task"] == "forgetting"]:
        lines = [
            [
                r["stage"],
                set_name(r),
                r["sensor"],
                r["metric"],
                in_words(r["value"], r["metric"]),
                interval_in_words(r),
            ]
            for r in told
        ]
        header = ("stage", "set", "sensor", "metric", "value", "95 %")
        parts.append(document.table(header, lines, label="Forgetting", numbers=(4, 5)))
    lead = "On test images, which chose nothing: what patching cost of what CLIP knew."
    return Section("Forgetting", "".join(parts), lead) if parts else None


def _with_interval(record: dict) -> tuple[Cell, str]:
    value = record["value"]
    return Cell(in_words(value, record["metric"]), key=value), interval_in_words(record)


_COLUMNS = (
    "stage",
    "dataset",
    "split",
    "tile",
    "sensor",
    "task",
    "metric",
    "value",
    "ci95",
    "n",
    "step",
    "alpha",
    "round",
)
_DIGESTS = ("prompts", "checkpoint", "split_digest", "head")


def results_table(run: Workdir) -> Section | None:
    """All of results.jsonl."""
    if not run.records:
        return None
    used = {key for r in run.records for key in r if r[key] is not None}
    known = (*_COLUMNS, *_DIGESTS)
    more = sorted(used - {*known, "per_class", "alpha_blocks"})
    columns = [key for key in (*_COLUMNS, *more, *_DIGESTS) if key in used]
    rows = [[_result_cell(r, key) for key in columns] for r in run.records]
    numbers = [
        i
        for i, key in enumerate(columns)
        if key in ("value", "ci95", "n", "step", "alpha", "round", "seconds", "tile")
    ]
    header = ["95 %" if key == "ci95" else key.replace("_", " ") for key in columns]
    body = document.table(
        header, rows, label="Every result", numbers=numbers, sortable=True
    )
    lead = "Every line of results.jsonl. A click on a heading sorts; digests are shortened, and whole on hovering."
    return Section("All results", body, lead)


def _result_cell(record: dict, key: str) -> Cell:
    value = record.get(key)
    if value is None:
        return Cell("", key="")
    if key == "value":
        return Cell(in_words(value, record["metric"]), key=value, title=f"{value!r}")
    if key == "ci95":
        return Cell(interval_in_words(record), key=value[0], title=f"{value!r}")
    if key in _DIGESTS:
        return _digest(str(value))
    return Cell(f"{value:,}" if isinstance(value, int) else str(value), key=value)
