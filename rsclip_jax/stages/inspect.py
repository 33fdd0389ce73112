"""Stage inspect: reports what a dataset holds, with a contact sheet."""

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.inspect.offsets import describe_offset
from rsclip_jax.data.inspect.scan import Scan, scan
from rsclip_jax.data.inspect.statistics import (
    count_labels,
    describe_captions,
    find_oddities,
    find_repeats,
    merge,
)
from rsclip_jax.data.inspect.unread import find_nested, find_unread
from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sensors.baseline import is_msi
from rsclip_jax.data.specs import folder_name
from rsclip_jax.data.types import Dataset, Source
from rsclip_jax.io.files import remove_tree, write_json, write_text
from rsclip_jax.report.contact_sheet import save_contact_sheet
from rsclip_jax.report.examples import example_rows
from rsclip_jax.report.inspection import format_inspection
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import processes

_SPLITS = ("train", "val", "test")
_FOUND = ("by name", "by position")  # kinds of notes on how bands were found
_CONTEXT = 77  # tokens that CLIP's text towers take


def check_inspect(run: Run) -> None:
    """Raises ValueError for anything that would stop this stage."""
    try:
        get_dataset(run.config.dataset, run.config.data_root)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"config.dataset: {error}") from error
    if run.config.inspect.samples < 0:
        raise ValueError(
            f"config.inspect.samples = {run.config.inspect.samples} is below 0; 0 reads"
            " all records"
        )


def run_inspect(run: Run) -> None:
    """Prints a summary of the dataset, and writes it with a contact sheet.

    Unreadable records are reported regardless of config.data.on_error.
    """
    c = run.config
    if not processes.is_first():
        return
    sources, splits = open_splits(
        c.dataset,
        c.data_root,
        max_nodata=c.data.max_nodata,
        max_pixels=c.data.max_pixels,
    )
    dataset = next(iter(sources.values())).dataset
    scans = {
        split: scan(
            source,
            spread_indices(len(source), c.inspect.samples),
            run.read_options("inspect"),
        )
        for split, source in sources.items()
    }
    folder = run.workdir / "inspect" / folder_name(dataset.name)
    remove_tree(folder)  # of an earlier inspection
    folder.mkdir(parents=True)
    summary = summarise(dataset, sources, scans, splits)
    summary["data_root"] = str(c.data_root)
    lost = [(x["split"], x["id"], x["error"]) for x in summary["unreadable"]]
    summary["unreadable_file"] = write_lines(folder / "unreadable.txt", lost)
    strange, unread = find_unread(sources.values()) or ({}, [])
    summary |= describe_unread(strange, unread)
    summary["nested_folders"] = find_nested(sources.values())
    lines = left_out_lines(dataset, sources, strange, unread)
    summary["filled"] = describe_filled(dataset, sources, scans)
    summary["left_out_file"] = write_lines(folder / "left_out.txt", lines)
    sheet = folder / "contact_sheet.png"
    rows = example_rows(dataset, sources, scans, seed=c.seed)
    summary["contact_sheet"] = str(sheet) if rows else ""
    if rows:
        sensors = {key: get_sensor(name) for key, name in dataset.sensors.items()}
        title = f"{dataset.name}: {', '.join(sources)}"
        if dataset.classes:
            title += f" ({len(rows)} of {len(dataset.classes)} classes)"
        save_contact_sheet(sheet, rows, sensors, title)
    write_json(folder / "summary.json", summary)
    run.log(f"\n{format_inspection(summary)}\n")
    run.log(f"summary: {folder / 'summary.json'}\npictures: {sheet if rows else '-'}")


def open_splits(
    name: str, root: str, **settings: Any
) -> tuple[dict[str, Source], dict[str, dict]]:
    """(the splits that can be opened, {split: notes on it}).

    settings: for open_source. Raises the first split's error if none can be opened.
    """
    sources: dict[str, Source] = {}
    notes: dict[str, dict] = {split: {} for split in _SPLITS}
    errors = []
    for split in _SPLITS:
        try:
            sources[split], left_out = open_split(name, root, split, **settings)
            if left_out:
                notes[split]["left_out"] = left_out
        except (ValueError, FileNotFoundError) as error:
            notes[split]["missing"] = str(error)
            errors.append(error)
    if not sources:
        raise errors[0]
    return sources, notes


def open_split(name: str, root: str, split: str, **settings: Any) -> tuple[Source, str]:
    """(the split, its problem, such as missing pairs, or "")."""
    opened = functools.partial(open_source, name, root, split, **settings)
    try:
        return opened(), ""
    except (ValueError, FileNotFoundError) as error:
        try:
            return opened(on_error="skip", partial=True), str(error)
        except FileNotFoundError:  # nothing of it exists
            raise error from None


def summarise(
    dataset: Dataset,
    sources: dict[str, Source],
    scans: dict[str, Scan],
    splits: dict[str, dict],
) -> dict:
    """The content of summary.json. splits: open_splits' notes."""
    found = {
        split: {
            **splits[split],
            "records": len(source),
            "read": len(scans[split].indices),
            "unreadable": len(scans[split].unreadable),
            "split_rule": source.split_rule,
            "classes": count_labels(
                scans[split].all_labels, len(dataset.classes)
            ).tolist(),
        }
        for split, source in sources.items()
    }
    if dataset.task == "captions":
        for split, s in scans.items():
            found[split]["captions"] = describe_captions(s.captions, _CONTEXT)
    total = np.sum([split["classes"] for split in found.values()], axis=0)
    empty = [c for c, n in zip(dataset.classes, total, strict=True) if not n]
    for of_split in found.values():
        counts = zip(dataset.classes, of_split["classes"], total, strict=True)
        of_split["classes_without_example"] = [c for c, n, m in counts if m and not n]
    ids = {split: source.ids for split, source in sources.items()}
    return {
        "dataset": dataset.name,
        "task": dataset.task,
        "classes": list(dataset.classes),
        "classes_without_example": empty,
        "splits": {**splits, **found},
        "sensors": {
            k: summarise_sensor(k, dataset, [*scans.values()]) for k in dataset.sensors
        },
        "pairs": {
            "read": sum(len(s.indices) for s in scans.values()),
            "unplaced": sum(
                len(counts_of(key, "unplaced", scans.values()))
                for key in dataset.sensors
            ),
        },
        "unreadable": [
            {"split": split, "id": ids[split][index], "error": error}
            for split, s in scans.items()
            for index, error in sorted(s.unreadable.items())
        ],
        "duplicate_ids": [
            {"id": ids[s][indices[0]], "splits": {s: len(p) for s, p in group.items()}}
            for group in find_repeats(ids)
            for s, indices in list(group.items())[:1]
        ],
        "identical_images": [
            {"key": key, "ids": group}
            for key in dataset.sensors
            for group in identical_images(key, ids, scans)
        ],
    }


def summarise_sensor(key: str, dataset: Dataset, scans: Sequence[Scan]) -> dict:
    """One sensor key over all splits: its sensor, and statistics of its files."""
    sensor = get_sensor(dataset.sensors[key])
    offset = []
    if is_msi(sensor) and key not in dataset.scaling:
        text = describe_offset(key, [x for s in scans for x in s.darkest.get(key, ())])
        offset = [text] if text else []
    read = [s for s in scans if key in s.moments]
    shapes = sum((s.shapes[key] for s in read), Counter())
    statistics = []
    if read:
        moments = functools.reduce(merge, (s.moments[key] for s in read))
        statistics = moments.rows(sensor.bands)
    return {
        "sensor": sensor.name,
        "unit": sensor.unit,
        "bands": list(sensor.bands),
        "dtypes": dict(sum((s.dtypes[key] for s in read), Counter())),
        "shapes": dict(shapes.most_common()),
        "statistics": statistics,
        "found": {kind: len(counts_of(key, kind, scans)) for kind in _FOUND},
        "oddities": offset
        + describe_notes(key, scans)
        + find_oddities(sensor, statistics, is_raised=bool(offset)),
    }


def describe_notes(key: str, scans: Sequence[Scan]) -> list[str]:
    """Lines on what reading changed in a sensor's values."""
    lines = []
    if lowered := counts_of(key, "offset", scans):
        lines.append(
            f"1000 was subtracted from the DN of {len(lowered):,} of"
            f" {sum(len(s.indices) for s in scans):,} records read, whose product names"
            " or metadata state a processing baseline of 04.00 or later"
        )
    if negative := counts_of(key, "negative", scans):
        lines.append(
            f"{sum(negative):,.0f} values below 0 in {len(negative):,} records became 0"
        )
    return lines


def identical_images(
    key: str, ids: dict[str, list[str]], scans: dict[str, Scan]
) -> list[dict[str, list[str]]]:
    """{split: ids} of each image of this key that occurs more than once."""
    digests = {split: s.digests.get(key, []) for split, s in scans.items()}
    return [
        {
            split: [ids[split][scans[split].indices[i]] for i in indices]
            for split, indices in group.items()
        }
        for group in find_repeats(digests)
    ]


def write_lines(path: Path, rows: Sequence[tuple[str, ...]]) -> str:
    """Writes each row as a tab-separated line; returns the path, or "" without rows."""
    if not rows:
        return ""
    lines = [" ".join("\t".join(row).split("\n")) for row in rows]
    write_text(path, "\n".join(lines) + "\n")
    return str(path)


def describe_unread(strange: dict[Path, int], unread: list[Path]) -> dict:
    """The counts of find_unread's findings for summary.json."""
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in unread)
    return {
        "unknown_folders": {str(path): n for path, n in strange.items()},
        "unread_files": dict(suffixes.most_common()),
    }


def describe_filled(
    dataset: Dataset, sources: dict[str, Source], scans: dict[str, Scan]
) -> dict[str, dict[str, int]] | None:
    """{record key: filled pixels, and the number of records with any}.

    {} if config.data.max_nodata is 0; None for a pack, which was filled when packed.
    """
    if not any(source.max_nodata for source in sources.values()):
        return {}
    if any(source.is_packed for source in sources.values()):
        return None
    return {
        key: {
            "pixels": int(sum(counts_of(key, "filled", scans.values()))),
            "records": len(counts_of(key, "filled", scans.values())),
        }
        for key in dataset.sensors
        if key not in dataset.composites
    }


def counts_of(key: str, kind: str, scans: Iterable[Scan]) -> list[float]:
    """The amounts of the records' notes of this kind on a sensor key."""
    return [n for s in scans for n in s.notes.get(key, {}).get(kind, ())]


def left_out_lines(
    dataset: Dataset,
    sources: dict[str, Source],
    strange: dict[Path, int],
    unread: list[Path],
) -> list[tuple[str, ...]]:
    """Distinct (split or "-", file or record, why it gives no record)."""
    lines: dict[tuple[str, str], str] = {}
    for split, source in sources.items():
        for found in source.left_out:
            lines.setdefault(found, split)
    for path, count in strange.items():
        lines[str(path), f"no class of {dataset.name}, {count} file(s) in it"] = "-"
    for path in unread:
        lines[str(path), "no record is read from it"] = "-"
    return [(split, *found) for found, split in lines.items()]
