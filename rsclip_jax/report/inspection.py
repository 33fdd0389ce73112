"""The text of an inspection: counts, sensors, pixel statistics, and findings."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rsclip_jax.report.numbers import pixel_text, rare_text
from rsclip_jax.report.table import align_rows

_FEW = 5  # names shown of a long list


def format_inspection(summary: dict) -> str:
    """Tables of counts, sensors and bands, then a line for each finding.

    summary: the content of summary.json.
    """
    parts = [_counts(summary), _sensors(summary), _bands(summary)]
    return "\n\n".join([*parts, "\n".join(_findings(summary))])


def _counts(summary: dict) -> str:
    splits = summary["splits"]
    names = [name for name, split in splits.items() if "records" in split]
    rows = [["", *names]]
    for label in ("records", "read", "unreadable"):
        rows.append([label, *(f"{splits[name][label]:,}" for name in names)])
    for i, class_name in enumerate(summary["classes"]):
        counts = [splits[name]["classes"][i] for name in names]
        rows.append([f"  {class_name}", *(f"{n:,}" if n else "none" for n in counts)])
    if summary["task"] == "captions":
        described = [splits[name]["captions"] for name in names]
        rows += [[f"  {label}", *map(show, described)] for label, show in _CAPTIONS]
        return align_rows(rows, left=1) + "\n(captions of all records)"
    if not summary["classes"]:
        return align_rows(rows, left=1) + "\n(no labels)"
    kinds = {"single": "examples", "multi": "positives"}
    lines = [f"({kinds[summary['task']]} a class, of all records)"]
    rules = dict.fromkeys(splits[name].get("split_rule") for name in names)
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
    ("for each image", lambda c: _each(c["an_image"])),
    ("distinct, for each image", lambda c: _each(c["different_an_image"])),
    ("distinct, in total", lambda c: f"{c['different']:,}"),
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
    lines = [align_rows(rows, left=6)]
    for key, sensor in summary["sensors"].items():
        if ways := [
            f"{way} in {_many(n, 'file')}" for way, n in sensor["found"].items() if n
        ]:
            lines.append(f"({key}: bands are found {', '.join(ways)})")
    if unplaced := summary["pairs"]["unplaced"]:
        lines.append(
            f"({unplaced:,} of {summary['pairs']['read']:,} pairs are not checked for"
            " their place: their files do not say where they lie)"
        )
    return "\n".join(lines)


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


def _some(names: Sequence[str], empty: str = "", between: str = ", ") -> str:
    rest = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return between.join(names[:_FEW]) + rest if names else empty


def _findings(summary: dict) -> list[str]:
    lines = []
    for name, split in summary["splits"].items():
        if "missing" in split:
            lines.append(f"split {name} is not read: {split['missing']}")
        if absent := split.get("classes_without_example"):
            lines.append(
                f"split {name} has no example of {len(absent)} of"
                f" {len(summary['classes'])} classes ({_some(absent)}), so nothing is"
                " learnt or measured of them there: make the split larger, or give the"
                " dataset split lists that put some of each class into every split"
            )
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
        f"{', '.join(names)}: {text}; not used here" for text, names in splits.items()
    ]
    if folders := summary["unknown_folders"]:
        names = _some([Path(folder).name for folder in folders])
        files = _many(sum(folders.values()), "file")
        lines.append(f"{_many(len(folders), 'folder')} of no class ({files}): {names}")
    if nested := summary["nested_folders"]:
        images, names = _many(sum(nested.values()), "image"), _some(list(nested))
        lines.append(f"{images} in folders within a class's, read as of it: {names}")
    if unread := summary["unread_files"]:
        kinds = _some([f"{suffix} {n:,}" for suffix, n in unread.items()])
        lines.append(
            f"{_many(sum(unread.values()), 'file')} beside the records that no record"
            f" uses: {kinds}"
        )
    if lines and summary["left_out_file"]:
        lines.append(f"each of these is listed in {summary['left_out_file']}")
    return lines


def _filled(summary: dict) -> list[str]:
    """The effect of max_nodata; nothing where it is 0."""
    if summary["filled"] is None:
        return ["missing pixels were filled when the dataset was packed: not counted"]
    read = sum(split.get("read", 0) for split in summary["splits"].values())
    return [
        f"{key}: {_many(n['pixels'], 'pixel')} filled in {n['records']:,} of"
        f" {_many(read, 'record')} read (max_nodata)"
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
        lines.append(f"{_many(len(ids), 'id')} used by more than one record: {some}")
    read = sum(split.get("read", 0) for split in summary["splits"].values())
    for leak, words in ((True, "in two splits, a leak"), (False, "within one split")):
        for key in summary["sensors"]:
            same = [
                _some(
                    [f"{split}:{i}" for split, ids in x["ids"].items() for i in ids],
                    between=" = ",
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
