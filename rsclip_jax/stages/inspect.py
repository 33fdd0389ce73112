"""Stage inspect: reports what a dataset holds, with a contact sheet."""

import functools
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np

from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.inspect.scan import Scan, scan
from rsclip_jax.data.inspect.statistics import (
    count_labels,
    describe_captions,
    find_oddities,
    find_repeats,
    merge,
)
from rsclip_jax.data.inspect.unread import find_unread
from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.specs import folder_name
from rsclip_jax.data.types import Dataset, Source
from rsclip_jax.io.files import write_json, write_text
from rsclip_jax.report.contact_sheet import save_contact_sheet
from rsclip_jax.report.examples import example_rows
from rsclip_jax.report.inspection import format_inspection
from rsclip_jax.stages.shared.run import Run

_SPLITS = ("train", "val", "test")
_CONTEXT = 77  # tokens that CLIP's text towers take


def check_inspect(run: Run) -> None:
    """Raises ValueError for what would stop this stage."""
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
    """Prints what was found, and writes it with a contact sheet.

    Records that cannot be read are reported, whatever config.data.on_error says.
    """
    c = run.config
    if jax.process_index():
        return
    sources, splits = open_splits(c.dataset, c.data_root, c.data.max_nodata)
    row = next(iter(sources.values())).dataset
    scans = {
        split: scan(
            source,
            spread_indices(len(source), c.inspect.samples),
            run.read_options("inspect"),
        )
        for split, source in sources.items()
    }
    folder = run.workdir / "inspect" / folder_name(row.name)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier look
    folder.mkdir(parents=True)
    summary = summarise(row, sources, scans, splits)
    summary["data_root"] = str(c.data_root)
    lost = [(x["split"], x["id"], x["error"]) for x in summary["unreadable"]]
    summary["unreadable_file"] = write_lines(folder / "unreadable.txt", lost)
    strange, unread = find_unread(sources.values()) or ({}, [])
    summary |= describe_unread(strange, unread)
    lines = left_out_lines(row, sources, strange, unread)
    summary["filled"] = describe_filled(row, sources, scans)
    summary["left_out_file"] = write_lines(folder / "left_out.txt", lines)
    sheet = folder / "contact_sheet.png"
    rows = example_rows(row, sources, scans, seed=c.seed)
    summary["contact_sheet"] = str(sheet) if rows else ""
    if rows:
        sensors = {key: get_sensor(name) for key, name in row.sensors.items()}
        title = f"{row.name}: {', '.join(sources)}"
        if row.classes:
            title += f" ({len(rows)} of {len(row.classes)} classes)"
        save_contact_sheet(sheet, rows, sensors, title)
    write_json(folder / "summary.json", summary)
    run.log(f"\n{format_inspection(summary)}\n")
    run.log(f"all of it: {folder / 'summary.json'}\npictures: {sheet if rows else '-'}")


def open_splits(
    name: str, root: str, max_nodata: float = 0.0
) -> tuple[dict[str, Source], dict[str, dict]]:
    """(the splits that can be opened, {split: notes on it}).

    Raises the first split's error where none can.
    """
    sources: dict[str, Source] = {}
    notes: dict[str, dict] = {split: {} for split in _SPLITS}
    errors = []
    for split in _SPLITS:
        try:
            sources[split], left_out = open_split(name, root, split, max_nodata)
            if left_out:
                notes[split]["left_out"] = left_out
        except (ValueError, FileNotFoundError) as error:
            notes[split]["missing"] = str(error)
            errors.append(error)
    if not sources:
        raise errors[0]
    return sources, notes


def open_split(
    name: str, root: str, split: str, max_nodata: float
) -> tuple[Source, str]:
    """(the split, what is wrong with it, such as missing pairs, or "")."""
    opened = functools.partial(open_source, name, root, split, max_nodata=max_nodata)
    try:
        return opened(), ""
    except (ValueError, FileNotFoundError) as error:
        try:
            return opened(on_error="skip", partial=True), str(error)
        except FileNotFoundError:  # there is nothing of it
            raise error from None


def summarise(
    row: Dataset,
    sources: dict[str, Source],
    scans: dict[str, Scan],
    splits: dict[str, dict],
) -> dict:
    """All that was found, as summary.json has it. splits: open_splits' notes."""
    found = {
        split: {
            **splits[split],
            "records": len(source),
            "read": len(scans[split].indices),
            "unreadable": len(scans[split].unreadable),
            "split_rule": source.split_rule,
            "classes": count_labels(scans[split].all_labels, len(row.classes)).tolist(),
        }
        for split, source in sources.items()
    }
    if row.task == "captions":
        for split, s in scans.items():
            found[split]["captions"] = describe_captions(s.captions, _CONTEXT)
    total = np.sum([split["classes"] for split in found.values()], axis=0)
    empty = [c for c, n in zip(row.classes, total, strict=True) if not n]
    for of_split in found.values():
        counts = zip(row.classes, of_split["classes"], total, strict=True)
        of_split["classes_without_example"] = [c for c, n, m in counts if m and not n]
    ids = {split: source.ids for split, source in sources.items()}
    return {
        "dataset": row.name,
        "task": row.task,
        "classes": list(row.classes),
        "classes_without_example": empty,
        "splits": {**splits, **found},
        "sensors": {k: summarise_sensor(k, row, scans.values()) for k in row.sensors},
        "unreadable": [
            {"split": split, "id": ids[split][index], "error": error}
            for split, s in scans.items()
            for index, error in sorted(s.unreadable.items())
        ],
        "duplicate_ids": [
            {"id": ids[s][places[0]], "splits": {s: len(p) for s, p in group.items()}}
            for group in find_repeats(ids)
            for s, places in list(group.items())[:1]
        ],
        "identical_images": [
            {"key": key, "ids": group}
            for key in row.sensors
            for group in identical_images(key, ids, scans)
        ],
    }


def summarise_sensor(key: str, row: Dataset, scans: Iterable[Scan]) -> dict:
    """One sensor key over all splits: its entry in SENSORS and what its files hold."""
    sensor = get_sensor(row.sensors[key])
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
        "oddities": find_oddities(sensor, statistics),
    }


def identical_images(
    key: str, ids: dict[str, list[str]], scans: dict[str, Scan]
) -> list[dict[str, list[str]]]:
    """{split: ids} of each image of this key that occurs more than once."""
    digests = {split: s.digests.get(key, []) for split, s in scans.items()}
    return [
        {
            split: [ids[split][scans[split].indices[i]] for i in places]
            for split, places in group.items()
        }
        for group in find_repeats(digests)
    ]


def write_lines(path: Path, rows: Sequence[tuple[str, ...]]) -> str:
    """Writes a line for each row, tab-separated; the path, or "" without rows."""
    if not rows:
        return ""
    lines = [" ".join("\t".join(row).split("\n")) for row in rows]
    write_text(path, "\n".join(lines) + "\n")
    return str(path)


def describe_unread(strange: dict[Path, int], unread: list[Path]) -> dict:
    """What find_unread found, as summary.json has it: counts."""
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in unread)
    return {
        "unknown_folders": {str(path): n for path, n in strange.items()},
        "unread_files": dict(suffixes.most_common()),
    }


def describe_filled(
    row: Dataset, sources: dict[str, Source], scans: dict[str, Scan]
) -> dict[str, dict[str, int]] | None:
    """{record key: pixels filled, and in how many of the records read}.

    {} at config.data.max_nodata 0; None of a pack, which was filled when it was made.
    """
    if not any(source.max_nodata for source in sources.values()):
        return {}
    if any(source.is_packed for source in sources.values()):
        return None
    return {
        key: {
            "pixels": sum(sum(s.filled.get(key, ())) for s in scans.values()),
            "records": sum(len(s.filled.get(key, ())) for s in scans.values()),
        }
        for key in row.sensors
        if key not in row.composites
    }


def left_out_lines(
    row: Dataset,
    sources: dict[str, Source],
    strange: dict[Path, int],
    unread: list[Path],
) -> list[tuple[str, ...]]:
    """(split or "-", file or record, why no record comes from it), each once."""
    lines: dict[tuple[str, str], str] = {}
    for split, source in sources.items():
        for found in source.left_out:
            lines.setdefault(found, split)
    for path, count in strange.items():
        lines[str(path), f"no class of {row.name}, {count} file(s) in it"] = "-"
    for path in unread:
        lines[str(path), "no record is read from it"] = "-"
    return [(split, *found) for found, split in lines.items()]
