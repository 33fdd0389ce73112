"""The table of a survey: a row a model and set, what others published beside it."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from rsclip_jax.report.table import align_markdown, split_of

HEADER = ("model", "dataset", "prompts", "metric", "n", "measured", "95 %", "published")
SHOWN = ("accuracy", "mAP_macro")


def survey_rows(
    found: Mapping[str, Sequence[dict]], published: Iterable[Sequence]
) -> list[dict]:
    """A row for each zero-shot number that is one to quote, by dataset.

    found: {model: its records}. published, of RGB: (model, dataset, metric, percent,
    source); several sources of one number stand beside each other.
    """
    rows = []
    for model, records in found.items():
        for r in records:
            if r["task"] != "zero_shot" or r["metric"] not in SHOWN:
                continue
            others = [
                (value, source)
                for name, dataset, metric, value, source in published
                if (name, dataset, metric) == (model, r["dataset"], r["metric"])
                and r["sensor"] == "rgb"
            ]
            rows.append({**r, "model": model, "published": others})
    order = list(dict.fromkeys((r["dataset"], split_of(r)) for r in rows))
    return sorted(rows, key=lambda r: order.index((r["dataset"], split_of(r))))


def format_survey(rows: Sequence[dict]) -> str:
    """Markdown that lines up as text, in percent."""
    lines = [list(HEADER)]
    for r in rows:
        lines.append(
            [
                r["model"],
                f"{r['dataset']}:{split_of(r)}" + _sensor(r),
                r.get("prompt_set", "dataset"),
                r["metric"],
                f"{r['n']:,}",
                *_percents(r),
                ", ".join(f"{v:g} ({source})" for v, source in r["published"]),
            ]
        )
    return align_markdown(lines, left=4)


def _percents(record: Mapping) -> list[str]:
    """The value and its interval; "-" where a set has no example of any class."""
    value, ci95 = record["value"], record["ci95"]
    return [
        "-" if value is None else f"{100 * value:.1f}",
        "-" if None in ci95 else "{:.1f} to {:.1f}".format(*(100 * x for x in ci95)),
    ]


def format_csv(rows: Sequence[dict]) -> str:
    """The same table for a spreadsheet: numbers between 0 and 1, a source a row."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    keys = ("model", "dataset", "split", "sensor", "prompt_set", "metric", "n", "value")
    writer.writerow([*keys, "low", "high", "published", "source"])
    for r in rows:
        mine = [r.get(k, "") for k in keys]
        for value, source in r["published"] or [(None, "")]:
            other = "" if value is None else round(value / 100, 6)
            writer.writerow([*mine, *r["ci95"], other, source])
    return file.getvalue()


def _sensor(record: Mapping) -> str:
    return "" if record["sensor"] == "rgb" else f" {record['sensor']}"
