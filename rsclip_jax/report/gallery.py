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
from rsclip_jax.report.contact_sheet import render, shrink, views_of
from rsclip_jax.report.render import Section
from rsclip_jax.report.render import render as render_html
from rsclip_jax.report.workdir import STAGES, Workdir

_QUERIES, _NEAREST = 6, 5
_SIDE = 112  # pixels: what larger images are shrunk to


@dataclasses.dataclass(frozen=True)
class Search:
    """One query and the indices of the nearest of a sensor's images, best first.

    query: the index of a record; for a text query, of its class or caption. rank: the
    rank of the query's own location among all, from 1; 0 for text.
    """

    query_sensor: str
    query: int
    sensor: str
    found: tuple[int, ...]
    rank: int = 0


def choose_searches(outcome: Outcome) -> list[Search]:
    """Queries spread over a dataset: each sensor's to RGB, the text's to each sensor.

    Without sensors beside RGB, the text's to RGB.
    """
    sensors = [key for key in outcome.z if key != "rgb" and "+" not in key]
    searches = []
    for sensor in sensors if "rgb" in outcome.z else ():
        for query in spread_indices(len(outcome.ids), _QUERIES):
            scores = outcome.z["rgb"] @ outcome.z[sensor][query]
            order = np.argsort(-scores, kind="stable")
            rank = 1 + int(np.flatnonzero(order == query)[0])
            found = tuple(order[:_NEAREST].tolist())
            searches.append(Search(sensor, query, "rgb", found, rank))
    text = outcome.ztxt if outcome.head is None else outcome.head.T
    if text is None:
        return searches
    for sensor in sensors or outcome.z:
        for query in spread_indices(len(text), _QUERIES):
            order = np.argsort(-(outcome.z[sensor] @ text[query]), kind="stable")
            found = tuple(order[:_NEAREST].tolist())
            searches.append(Search("text", query, sensor, found))
    return searches


def save_thumbnails(path: Path, outcome: Outcome, source: Any) -> None:
    """Writes small pictures of the records that choose_searches shows, as .npz.

    source: the records of the outcome, in its order. The arrays are PNG or JPEG files
    by "sensor/index"; "text" is JSON: the view's heading by sensor, and the captions
    of text queries.
    """
    shown: dict[str, set[int]] = {}
    for search in choose_searches(outcome):
        shown.setdefault(search.sensor, set()).update(search.found)
        if search.query_sensor != "text":
            shown.setdefault(search.query_sensor, set()).add(search.query)
            shown.setdefault("rgb", set()).add(search.query)
    indices = sorted(set().union(*shown.values())) if shown else []
    records = {index: source[index] for index in indices}
    arrays, views = {}, {}
    for sensor, of_sensor in shown.items():
        view = views_of(get_sensor(source.dataset.sensors[sensor]))[0]
        each = sorted(of_sensor)
        pictures, _ = render([records[index][sensor] for index in each], view)
        views[sensor] = view.heading
        for index, picture in zip(each, pictures, strict=True):
            arrays[f"{sensor}/{index}"] = _encode(picture)
    text = {"views": views, "captions": _captions(outcome, source)}
    arrays["text"] = np.array(json.dumps(text))
    write_npz(path, **arrays)


def _captions(outcome: Outcome, source: Any) -> dict[int, str]:
    """The text queries of a dataset with captions."""
    if outcome.head is not None or outcome.ztxt is None or outcome.owners is None:
        return {}
    captions = {}
    for query in spread_indices(len(outcome.ztxt), _QUERIES):
        owner = int(outcome.owners[query])
        nth = int((outcome.owners[:query] == owner).sum())
        captions[query] = source[owner]["captions"][nth]
    return captions


def _encode(picture: np.ndarray) -> np.ndarray:
    """A small picture as a file: lossless if it is tiny, JPEG otherwise."""
    picture = shrink(np.repeat(picture, 3 // picture.shape[-1], axis=-1), _SIDE)
    kind = ".png" if max(picture.shape) <= 64 else ".jpg"
    done, file = cv2.imencode(kind, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return file.ravel()


def galleries(run: Workdir) -> Section | None:
    """Each dataset with thumbnails, by its last stage; sensors first."""
    found: dict[str, list[dict]] = {}
    for stage in reversed(STAGES):
        for outcome in run.outcomes.get((stage, "after"), ()):
            path = thumbnails_path(run.path / stage, outcome)
            if outcome.name in found or not path.exists():
                continue
            if searches := choose_searches(outcome):
                found[outcome.name] = list(_galleries(outcome, searches, path))
    if not found:
        return None
    every = [gallery for of_set in found.values() for gallery in of_set]
    return Section("Retrieval", render_html("retrieval.html", galleries=every))


def thumbnails_path(folder: Path, outcome: Outcome) -> Path:
    """The file of a dataset's thumbnails in a stage's folder."""
    return folder / "thumbnails" / f"{outcome.file_name}.npz"


def _read_thumbnails(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            files = {key: stored[key] for key in stored.files}
        return files, json.loads(str(files.pop("text")))
    except Exception as error:  # a damaged zip file raises many kinds
        raise ValueError(
            f"{path}: not a file of thumbnails ({type(error).__name__}: {error});"
            " delete it to continue without them"
        ) from error


def _galleries(
    outcome: Outcome, searches: Sequence[Search], path: Path
) -> Iterator[dict[str, Any]]:
    """What the template shows, a gallery for each pair of modalities."""
    files, text = _read_thumbnails(path)
    images = {key: data_uri(file.tobytes()) for key, file in files.items()}
    kinds = dict.fromkeys((search.query_sensor, search.sensor) for search in searches)
    for kind in kinds:
        views = {s: text["views"].get(s, "as is") for s in kind}
        views = {s: view for s, view in views.items() if view != "as is"}
        yield {
            "title": f"{outcome.name}: {kind[0]} → {kind[1]}",
            "caption": "; ".join(
                f"{s} is shown as {view}" for s, view in views.items()
            ),
            "rows": [
                _row(outcome, search, images, text["captions"])
                for search in searches
                if (search.query_sensor, search.sensor) == kind
            ],
        }


def _row(
    outcome: Outcome, search: Search, images: Mapping[str, str], captions: Mapping
) -> dict[str, Any]:
    shown, text = [], ""
    if search.query_sensor == "text":
        text = captions.get(str(search.query), "")
        if outcome.head is not None:
            text = outcome.classnames[search.query]
    else:
        own = class_of(outcome, search.query) or search.query_sensor
        query = images[f"{search.query_sensor}/{search.query}"]
        shown.append({"uri": query, "text": f"query: {own}", "kind": "query"})
        rank = f"same location, rank {search.rank:,} of {len(outcome.ids):,}"
        match = images[f"rgb/{search.query}"]
        shown.append({"uri": match, "text": rank, "kind": "match"})
    for index in search.found:
        correct, words = judge(outcome, search, index)
        sign, kind = ("✓", "correct") if correct else ("✗", "wrong")
        uri = images[f"{search.sensor}/{index}"]
        shown.append({"uri": uri, "text": f"{sign} {words}", "kind": kind})
    return {"text": text, "images": shown}


def judge(outcome: Outcome, search: Search, index: int) -> tuple[bool, str]:
    """(whether a found image is correct, what it is)."""
    if search.query_sensor == "text":
        return _judge_text(outcome, search.query, index)
    if index == search.query:
        return True, "same location"
    if own := class_of(outcome, search.query):
        found = class_of(outcome, index)
        return own == found, found
    return False, "another location"


def _judge_text(outcome: Outcome, query: int, index: int) -> tuple[bool, str]:
    labels, owners = outcome.labels, outcome.owners
    if labels is None:
        correct = owners is not None and bool(owners[query] == index)
        return correct, "its image" if correct else "another image"
    if labels.ndim == 1:
        return bool(labels[index] == query), class_of(outcome, index)
    correct = bool(labels[index, query])
    return correct, "has the label" if correct else "without the label"


def class_of(outcome: Outcome, index: int) -> str:
    """A record's class name; "" if it does not have exactly one class."""
    if outcome.labels is None or outcome.labels.ndim > 1:
        return ""
    return outcome.classnames[int(outcome.labels[index])]


def data_uri(file: bytes) -> str:
    """A PNG or JPEG as an address that holds it."""
    kind = "png" if file.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{b64encode(file).decode()}"
