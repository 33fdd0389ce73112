"""The text of an inspection: what a person reads first about a dataset."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rsclip_jax.report.numbers import pixel_text, rare_text
from rsclip_jax.report.table import align_rows

_FEW = 5  # names given of a long list


def format_inspection(summary: dict) -> str:
    """Tables of counts, sensors and bands, then all that is odd, a line each.

    summary: as stages/inspect.py makes it and summary.json holds it.
    """
    parts = [_counts(summary), _sensors(summary), _bands(summary)]
    return "\n\n".join([*parts, "\n".join(_findings(summary))])


def _counts(summary: dict) -> str:
    splits = summary["splits"]
    there = [name for name, split in splits.items() if "records" in split]
    rows = [["", *there]]
    for label in ("records", "read", "unreadable"):
        rows.append([label, *(f"{splits[name][label]:,}" for name in there)])
    for i, name in enumerate(summary["classes"]):
        counts = [splits[split]["classes"][i] for split in there]
        rows.append([f"  {name}", *(f"{n:,}" if n else "none" for n in counts)])
    if summary["task"] == "captions":
        described = [splits[name]["captions"] for name in there]
        rows += [[f"  {label}", *map(show, described)] for label, show in _CAPTIONS]
        return align_rows(rows, left=1) + "\n(captions of all records)"
    if not summary["classes"]:
        return align_rows(rows, left=1) + "\n(no labels)"
    kinds = {"single": "examples", "multi": "positives"}
    lines = [f"({kinds[summary['task']]} a class, of all records)"]
    rules = dict.fromkeys(splits[name].get("split_rule") for name in there)
    lines += [f"split by {rule}" for rule in rules if rule]
    return "\n".join([align_rows(rows, left=1), *lines])


def _each(counts: dict[str, int]) -> str:
    """{"3": 20, "5": 80} as "3 to 5, mean 4.6"."""
    numbers = [int(value) for value in counts]
    if len(numbers) < 2:
        return "".join(counts)
    mean = sum(int(value) * n for value, n in counts.items()) / sum(counts.values())
    return f"{min(numbers)} to {max(numbers)}, mean {mean:.1f}"


_CAPTIONS: tuple[tuple[str, Callable[[dict], str]], ...] = (
    ("captions", lambda c: f"{c['captions']:,}"),
    ("an image", lambda c: _each(c["an_image"])),
    ("different an image", lambda c: _each(c["different_an_image"])),
    ("different in all", lambda c: f"{c['different']:,}"),
    ("... of several images", lambda c: f"{c['shared']:,}"),
    ("tokens, mean", lambda c: f"{c['mean_tokens']:.1f}"),
    ("tokens, most", lambda c: f"{c['most_tokens']:,}"),
    ("longer than 77 tokens", lambda c: f"{c['cut']:,}"),
)


def _sensors(summary: dict) -> str:
    rows = [["key", "sensor", "unit", "dtype", "pixels (images)", "bands"]]
    for key, sensor in summary["sensors"].items():
        shapes = [f"{shape} ({n:,})" for shape, n in sensor["shapes"].items()]
        rows.append(
            [
                key,
                sensor["sensor"],
                sensor["unit"],
                _some(list(sensor["dtypes"]), "unread"),
                _some(shapes, "unread"),
                " ".join(sensor["bands"]),
            ]
        )
    return align_rows(rows, left=6)


def _bands(summary: dict) -> str:
    rows = [["key", "band", "min", "mean", "max", "std", "NaN", "0"]]
    for key, sensor in summary["sensors"].items():
        for row in sensor["statistics"]:
            values = (pixel_text(row[name]) for name in ("min", "mean", "max", "std"))
            shares = (rare_text(row[name]) for name in ("nan", "nodata"))
            rows.append([key, row["band"], *values, *shares])
    return align_rows(rows, left=2)


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}" + ("s" if count != 1 else "")


def _some(names: Sequence[str], empty: str = "") -> str:
    rest = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + rest if names else empty


def _findings(summary: dict) -> list[str]:
    lines = []
    for name, split in summary["splits"].items():
        if "missing" in split:
            lines.append(f"split {name} is not read: {split['missing']}")
    if summary["classes_without_example"]:
        names = "; ".join(summary["classes_without_example"])
        lines.append(f"classes without an example: {names}")
    for key, sensor in summary["sensors"].items():
        lines += [f"{key} ({sensor['sensor']}): {text}" for text in sensor["oddities"]]
    lines = (
        _left_out(summary)
        + lines
        + _filled(summary)
        + _unreadable(summary)
        + _repeats(summary)
    )
    return lines or ["nothing odd was found"]


def _left_out(summary: dict) -> list[str]:
    splits: dict[str, list[str]] = {}
    for name, split in summary["splits"].items():
        if text := split.get("left_out"):
            splits.setdefault(text, []).append(name)
    lines = [
        f"{', '.join(names)}: {text}; left out here" for text, names in splits.items()
    ]
    if folders := summary["unknown_folders"]:
        names = _some([Path(folder).name for folder in folders])
        files = _many(sum(folders.values()), "file")
        lines.append(f"{_many(len(folders), 'folder')} of no class ({files}): {names}")
    if unread := summary["unread_files"]:
        kinds = _some([f"{suffix} {n:,}" for suffix, n in unread.items()])
        lines.append(
            f"{_many(sum(unread.values()), 'file')} beside the records' that no record"
            f" is read from: {kinds}"
        )
    if lines and summary["left_out_file"]:
        lines.append(f"each of these is listed in {summary['left_out_file']}")
    return lines


def _filled(summary: dict) -> list[str]:
    """What config.data.max_nodata did; nothing where it is 0."""
    if summary["filled"] is None:
        return ["pixels without data were filled when the set was packed: not counted"]
    read = sum(split.get("read", 0) for split in summary["splits"].values())
    return [
        f"{key}: {_many(n['pixels'], 'pixel')} filled in {n['records']:,} of"
        f" {_many(read, 'record')} read (config.data.max_nodata)"
        for key, n in summary["filled"].items()
    ]


def _unreadable(summary: dict) -> list[str]:
    lost = summary["unreadable"]
    if not lost:
        return []
    lines = [
        f"{_many(len(lost), 'record')} could not be read, all listed in"
        f" {summary['unreadable_file']}; the first:"
    ]
    return lines + [f"  {x['split']}: {x['id']}: {x['error']}" for x in lost[:_FEW]]


def _repeats(summary: dict) -> list[str]:
    lines = []
    if ids := summary["duplicate_ids"]:
        some = _some([x["id"] for x in ids])
        lines.append(f"{_many(len(ids), 'id')} of more than one record: {some}")
    read = sum(split.get("read", 0) for split in summary["splits"].values())
    for leak, words in ((True, "in two splits, a leak"), (False, "within one split")):
        for key in summary["sensors"]:
            same = [
                " = ".join(
                    f"{split}:{i}" for split, ids in x["ids"].items() for i in ids
                )
                for x in summary["identical_images"]
                if x["key"] == key and (len(x["ids"]) > 1) == leak
            ]
            if same:
                images = _many(len(same), f"{key} image")
                lines.append(
                    f"{images} more than once {words}, among {read:,} records read:"
                    f" {_some(same)}"
                )
    return lines
