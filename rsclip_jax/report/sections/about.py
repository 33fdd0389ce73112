"""What ran, and the numbers that a run is about."""

import datetime
import json
from collections.abc import Mapping

from rsclip_jax.records.meta import StageMeta
from rsclip_jax.records.results import Result
from rsclip_jax.report import changes, document
from rsclip_jax.report.changes import Change, interval_in_words, value_in_words
from rsclip_jax.report.chart import legend
from rsclip_jax.report.document import Cell, Section
from rsclip_jax.report.figures import interval_figure
from rsclip_jax.report.table import describe_alpha
from rsclip_jax.report.workdir import Workdir


def overview(run: Workdir) -> Section:
    """What ran, on what, and the whole config."""
    rows = []
    for stage, meta in run.metas.items():
        row = [stage, finished(run, stage), meta.devices or "", str(meta.steps or "")]
        rows.append([*row, shorten(meta.digest), shorten(meta.git_commit or "")])
    header = ("stage", "finished", "devices", "steps", "weights", "commit")
    body = document.table(header, rows, label="The stages of this run", numbers=(3,))
    if "patch" in run.metas:
        body += document.note(f"patch: after = {describe_alpha(run.metas['patch'])}")
    if sources := _sources(run.metas):
        columns = ("stage", "made from", "where", "digest")
        made = document.table(columns, sources, label="Weights and data")
        body += document.details("The weights and data that it was made from", made)
    if run.config:
        text = json.dumps(run.config, indent=2)
        html = f"<pre>{document.escape(text)}</pre>"
        body += document.details("The whole config", html)
    return Section("What ran", body)


def finished(run: Workdir, stage: str) -> str:
    """When a stage wrote its product: by its meta.json, or when that was written."""
    if when := run.metas[stage].finished:
        return when
    written = (run.path / stage / "meta.json").stat().st_mtime
    moment = datetime.datetime.fromtimestamp(written, datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _sources(metas: Mapping[str, StageMeta]) -> list[list]:
    rows = []
    for stage, meta in metas.items():
        for name, source in meta.sources.items():
            if isinstance(source, dict):
                about = source.get("path") or source.get("name") or ""
                rows.append([stage, name, about, shorten(source.get("digest", ""))])
        for name, digest in meta.data.items():
            rows.append([stage, "data", name, shorten(digest)])
    return rows


def shorten(digest: str) -> Cell:
    """The first eight signs, all of them on hovering."""
    return Cell(digest[:8], key=digest, title=digest if len(digest) > 8 else "")


def headlines(run: Workdir) -> Section | None:
    """The values that a run is about, before and after, with their intervals."""
    cards = [_card(run, change) for change in headline_changes(run)]
    if not cards:
        return None
    key = [("circle", "before", "before"), ("circle", "after", "after")]
    body = legend([*key, ("area", "text", "95 % of resamples of the examples")])
    return Section("Headline numbers", body + document.tiles(cards))


def headline_changes(run: Workdir) -> list[Change]:
    """Of patch its test sets, of align each sensor's zero-shot and recall@10.

    Where there is neither, what pretrain and evaluate found by zero-shot.
    """
    every = changes.find_changes(run.records, run.alpha)
    tests = run.specs("test", "supported_test")
    zero_shot = [c for c in every if c.is_headline]
    found = [c for c in zero_shot if c.stage == "patch" and c.name in tests]
    found.sort(key=lambda change: tests.index(change.name))
    found += [c for c in zero_shot if c.stage == "align"]
    aligned = [c for c in every if (c.stage, c.task) == ("align", "retrieval")]
    found += [c for c in aligned if c.metric == "recall@10"]
    return found or [c for c in zero_shot if c.stage in ("pretrain", "evaluate")][:12]


def _card(run: Workdir, change: Change) -> str:
    there = [("before", change.before), ("after", change.after)]
    values = {role: record for role, record in there if record is not None}
    rows = [
        (role, 100 * r.value, _interval(r))
        for role, r in values.items()
        if r.value is not None
    ]
    words = [value_in_words(r) for r in values.values()]
    within = [text for r in values.values() if (text := interval_in_words(r))]
    small = [f"95 %: {_arrow(within)}"] if within else []
    if change.full and change.full is not change.after:
        small.append(f"the fine-tuned model, unmixed: {value_in_words(change.full)}")
    lines = [
        ("role", f"{role_of(run, change)}: {change.name}"),
        ("note", f"{change.sensor}, {change.task.replace('_', '-')} {change.metric}"),
        ("big", _arrow(words)),
    ]
    html = "".join(_paragraph(*line) for line in lines)
    html += interval_figure(rows) if rows else ""
    html += "".join(_paragraph("note", text) for text in small)
    return document.figure(f'<div class="card">{html}</div>')


def _interval(record: Result) -> list[float] | None:
    """In percent; None where it has none."""
    ends = [100 * end for end in record.ci95 or () if end is not None]
    return ends if len(ends) == 2 else None


def _arrow(words: list[str]) -> str:
    """ "38.0 → 65.8 %"."""
    return " → ".join([*(w.removesuffix(" %") for w in words[:-1]), words[-1]])


def _paragraph(kind: str, text: str) -> str:
    return f'<p class="{kind}">{document.escape(text)}</p>'


def role_of(run: Workdir, change: Change) -> str:
    """What a set is in a run: patch's task or a supported set of it, or the stage's."""
    if change.stage != "patch":
        return change.stage
    supported = change.name in run.specs("supported_val", "supported_test")
    return "patch, supported set" if supported else "patch, the task"
