"""Retrieval galleries: which records they show, thumbnails of these, and the page's."""

import dataclasses
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.io.files import write_npz
from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.report.contact_sheet import render, views_of
from rsclip_jax.report.document import Section, escape, figure, heading
from rsclip_jax.report.workdir import STAGES, Workdir

_QUERIES, _NEAREST = 6, 5
_SIDE = 112  # pixels: what larger images are shrunk to


@dataclasses.dataclass(frozen=True)
class Row:
    """One query and the nearest of a sensor's images, best first.

    query: a record's place, or of text the class's or the caption's. rank: of the
    query's own place among all, from 1; 0 of text.
    """

    query_sensor: str
    query: int
    sensor: str
    found: tuple[int, ...]
    rank: int = 0


def choose_rows(outcome: Outcome) -> list[Row]:
    """Queries spread over a set: each sensor's to RGB, and the text's to each sensor.

    Without sensors beside RGB, the text's to RGB.
    """
    sensors = [key for key in outcome.z if key != "rgb" and "+" not in key]
    rows = []
    for sensor in sensors if "rgb" in outcome.z else ():
        for query in spread_indices(len(outcome.ids), _QUERIES):
            scores = outcome.z["rgb"] @ outcome.z[sensor][query]
            order = np.argsort(-scores, kind="stable")
            rank = 1 + int(np.flatnonzero(order == query)[0])
            found = tuple(order[:_NEAREST].tolist())
            rows.append(Row(sensor, query, "rgb", found, rank))
    text = outcome.ztxt if outcome.head is None else outcome.head.T
    if text is None:
        return rows
    for sensor in sensors or outcome.z:
        for query in spread_indices(len(text), _QUERIES):
            order = np.argsort(-(outcome.z[sensor] @ text[query]), kind="stable")
            rows.append(Row("text", query, sensor, tuple(order[:_NEAREST].tolist())))
    return rows


def save_thumbnails(path: Path, outcome: Outcome, source: Any) -> None:
    """Writes pictures of the records that choose_rows shows, small, as .npz.

    source: the records that the outcome is of, in its order. Its arrays are PNG or JPEG
    files by "sensor/place"; "text" is JSON: the view's heading by sensor, the captions
    of text queries.
    """
    shown: dict[str, set[int]] = {}
    for row in choose_rows(outcome):
        shown.setdefault(row.sensor, set()).update(row.found)
        if row.query_sensor != "text":
            shown.setdefault(row.query_sensor, set()).add(row.query)
            shown.setdefault("rgb", set()).add(row.query)
    places = sorted(set().union(*shown.values())) if shown else []
    records = {place: source[place] for place in places}
    arrays, views = {}, {}
    for sensor, of_sensor in shown.items():
        view = views_of(get_sensor(source.dataset.sensors[sensor]))[0]
        each = sorted(of_sensor)
        pictures, _ = render([records[place][sensor] for place in each], view)
        views[sensor] = view.heading
        for place, picture in zip(each, pictures, strict=True):
            arrays[f"{sensor}/{place}"] = _encode(picture)
    text = {"views": views, "captions": _captions(outcome, source)}
    arrays["text"] = np.array(json.dumps(text))
    write_npz(path, **arrays)


def _captions(outcome: Outcome, source: Any) -> dict[int, str]:
    """The words of the text queries of a captioned set."""
    if outcome.head is not None or outcome.ztxt is None or outcome.owners is None:
        return {}
    words = {}
    for query in spread_indices(len(outcome.ztxt), _QUERIES):
        owner = int(outcome.owners[query])
        nth = int((outcome.owners[:query] == owner).sum())
        words[query] = source[owner]["captions"][nth]
    return words


def _encode(picture: np.ndarray) -> np.ndarray:
    """A small picture as a file: lossless where it is tiny, JPEG otherwise."""
    picture = np.repeat(picture, 3 // picture.shape[-1], axis=-1)
    h, w = picture.shape[:2]
    if max(h, w) > _SIDE:
        scale = _SIDE / max(h, w)
        size = max(1, round(w * scale)), max(1, round(h * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    kind = ".png" if max(h, w) <= 64 else ".jpg"
    done, file = cv2.imencode(kind, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return file.ravel()


def galleries(run: Workdir) -> Section | None:
    """A gallery of each set that has thumbnails, by its last stage; sensors first."""
    parts: dict[str, str] = {}
    for stage in reversed(STAGES):
        for outcome in run.outcomes.get((stage, "after"), ()):
            path = thumbnails_path(run.path / stage, outcome)
            if outcome.name in parts or not path.exists():
                continue
            if rows := choose_rows(outcome):
                parts[outcome.name] = _gallery(outcome, rows, path)
    if not parts:
        return None
    lead = (
        "Queries spread over each set and what the final model finds nearest, best"
        " first: a tick is right, a cross is wrong. Right is the query's class; of"
        " several labels or none, its place."
    )
    return Section("Retrieval", "".join(parts.values()), lead)


def thumbnails_path(folder: Path, outcome: Outcome) -> Path:
    """Where a stage's folder has a set's thumbnails."""
    return folder / "thumbnails" / f"{outcome.file_name}.npz"


def _gallery(outcome: Outcome, rows: Sequence[Row], path: Path) -> str:
    with np.load(path, allow_pickle=False) as stored:
        files = {key: stored[key] for key in stored.files}
    text = json.loads(str(files.pop("text")))
    images = {key: _data_uri(file.tobytes()) for key, file in files.items()}
    parts = []
    for kind in dict.fromkeys((row.query_sensor, row.sensor) for row in rows):
        mine = [row for row in rows if (row.query_sensor, row.sensor) == kind]
        lines = [_line(outcome, row, images, text["captions"]) for row in mine]
        views = {s: text["views"].get(s, "as is") for s in kind}
        views = {s: view for s, view in views.items() if view != "as is"}
        caption = "; ".join(f"{s} is shown as {view}" for s, view in views.items())
        label = escape(f"{outcome.name}, {' to '.join(kind)}")
        html = (
            f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
            f'<table class="gallery">'
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )
        title = f"{outcome.name}: {kind[0]} → {kind[1]}"
        parts.append(heading(title) + figure(html, caption))
    return "".join(parts)


def _line(outcome, row: Row, images: Mapping[str, str], captions: Mapping) -> str:
    cells = list(_query_cells(outcome, row, images, captions))
    for place in row.found:
        right, words = judge(outcome, row, place)
        sign, kind = ("✓ ", "right") if right else ("✗ ", "wrong")
        cells.append(_picture(images[f"{row.sensor}/{place}"], sign + words, kind))
    return f"<tr>{''.join(cells)}</tr>"


def _query_cells(outcome, row: Row, images, captions) -> Iterator[str]:
    if row.query_sensor == "text":
        words = captions.get(str(row.query), "")
        if outcome.head is not None:
            words = outcome.classnames[row.query]
        yield f'<th scope="row">“{escape(words)}”</th>'
        return
    own = class_of(outcome, row.query)
    query = images[f"{row.query_sensor}/{row.query}"]
    yield _picture(query, f"query: {own or row.query_sensor}", "query")
    place = images[f"rgb/{row.query}"]
    words = f"its place, rank {row.rank:,} of {len(outcome.ids):,}"
    yield _picture(place, words, "place")


def judge(outcome: Outcome, row: Row, place: int) -> tuple[bool, str]:
    """(whether a found image is right, what it is)."""
    if row.query_sensor == "text":
        return _judge_text(outcome, row.query, place)
    if place == row.query:
        return True, "same place"
    if own := class_of(outcome, row.query):
        found = class_of(outcome, place)
        return own == found, found
    return False, "another place"


def _judge_text(outcome: Outcome, query: int, place: int) -> tuple[bool, str]:
    labels, owners = outcome.labels, outcome.owners
    if labels is None:
        right = owners is not None and bool(owners[query] == place)
        return right, "its image" if right else "another's"
    if labels.ndim == 1:
        return bool(labels[place] == query), class_of(outcome, place)
    right = bool(labels[place, query])
    return right, "has it" if right else "has it not"


def class_of(outcome: Outcome, place: int) -> str:
    """Its class's name, "" where it has not one class."""
    if outcome.labels is None or outcome.labels.ndim > 1:
        return ""
    return outcome.classnames[int(outcome.labels[place])]


def _picture(uri: str, words: str, kind: str) -> str:
    return (
        f'<td class="{kind}"><img src="{uri}" alt="{escape(words)}">'
        f"<span>{escape(words)}</span></td>"
    )


def _data_uri(file: bytes) -> str:
    kind = "png" if file.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{b64encode(file).decode()}"
