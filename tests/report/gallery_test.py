"""Galleries: what is nearest, what is right, and the pictures of it."""

import json

import cv2
import numpy as np
import pytest

from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.types import Source
from rsclip_jax.report.contact_sheet import render, views_of
from rsclip_jax.report.gallery import Search, choose_searches, judge, save_thumbnails
from tests.helpers.workdirs import N, make_outcome, make_source


@pytest.fixture
def outcome():
    return make_outcome("scenes", ("rgb", "s1"))


def test_rows_hold_the_nearest_and_the_rank_of_the_own_index(outcome):
    searches = choose_searches(outcome)
    kinds = [(search.query_sensor, search.sensor) for search in searches]
    assert kinds == [("s1", "rgb")] * 6 + [("text", "s1")] * 3
    for search in searches[:6]:
        cosines = {
            index: float(outcome.z["s1"][search.query] @ outcome.z["rgb"][index])
            for index in range(N)
        }
        best = sorted(cosines, key=lambda index: -cosines[index])
        assert list(search.found) == best[:5]
        assert search.rank == best.index(search.query) + 1
    logits = outcome.logits("s1")
    assert searches[7].found == tuple(np.argsort(-logits[:, 1], kind="stable")[:5])


def test_without_a_sensor_the_text_finds_rgb():
    searches = choose_searches(make_outcome("scenes"))
    assert [(search.query_sensor, search.sensor) for search in searches] == [
        ("text", "rgb")
    ] * 3


def test_a_set_without_labels_and_text_is_searched_by_sensor_alone(outcome):
    fields = {**vars(outcome), "labels": None, "head": None, "classnames": ()}
    bare = type(outcome)(**fields)
    searches = choose_searches(bare)
    assert {(search.query_sensor, search.sensor) for search in searches} == {
        ("s1", "rgb")
    }
    assert judge(bare, searches[0], searches[0].query) == (True, "same location")
    assert judge(bare, searches[0], searches[0].query + 1) == (
        False,
        "another location",
    )


def test_right_is_the_class_of_the_query(outcome):
    search = Search("s1", 0, "rgb", ())
    assert judge(outcome, search, 0) == (True, "same location")
    assert judge(outcome, search, 3) == (True, "river")  # labels go 0, 1, 2, 0, ...
    assert judge(outcome, search, 4) == (False, "forest")
    assert judge(outcome, Search("text", 1, "s1", ()), 4) == (True, "forest")
    assert judge(outcome, Search("text", 1, "s1", ()), 3) == (False, "river")


def test_a_text_query_counts_its_own_label_among_several(outcome):
    labels = np.eye(3, dtype=np.uint8)[outcome.labels]
    labels[3, 1] = 1
    several = type(outcome)(**{**vars(outcome), "labels": labels})
    search = Search("text", 1, "s1", ())
    found = [judge(several, search, index) for index in (3, 4, 5)]
    assert found == [
        (True, "has the label"),
        (True, "has the label"),
        (False, "without the label"),
    ]


def test_captions_find_their_own_image(outcome):
    fields = {**vars(outcome), "head": None, "labels": None, "classnames": ()}
    owners = np.repeat(np.arange(N), 2)
    captioned = type(outcome)(
        **fields | {"ztxt": outcome.z["rgb"][owners], "owners": owners}
    )
    search = choose_searches(captioned)[-1]
    assert (search.query_sensor, search.query, search.sensor) == (
        "text",
        2 * N - 1,
        "s1",
    )
    assert judge(captioned, search, N - 1) == (True, "its image")
    assert judge(captioned, search, 0) == (False, "another image")


def test_thumbnails_are_the_shown_records_pixel_for_pixel(outcome, tmp_path):
    source = make_source(outcome)
    save_thumbnails(tmp_path / "a" / "set.npz", outcome, source)
    with np.load(tmp_path / "a" / "set.npz") as stored:
        files = {key: stored[key] for key in stored.files}
    assert json.loads(str(files.pop("text")))["views"]["s1"] == "VV, VH, VV - VH"
    searches = choose_searches(outcome)
    wanted = {
        f"{search.sensor}/{index}" for search in searches for index in search.found
    }
    wanted |= {f"{s}/{search.query}" for search in searches[:6] for s in ("s1", "rgb")}
    assert set(files) == wanted
    for sensor in ("rgb", "s1"):
        indexs = sorted(int(k.split("/")[1]) for k in files if k.startswith(sensor))
        view = views_of(get_sensor(source.dataset.sensors[sensor]))[0]
        pictures, _ = render([source[index][sensor] for index in indexs], view)
        for index, picture in zip(indexs, pictures, strict=True):
            decoded = cv2.imdecode(files[f"{sensor}/{index}"], cv2.IMREAD_COLOR)
            np.testing.assert_array_equal(decoded[..., ::-1], picture)


def test_large_pictures_are_shrunk(outcome, tmp_path):
    class Large(Source):
        dataset = make_source(outcome).dataset

        def __getitem__(self, index):
            return {
                "rgb": np.full((300, 200, 3), index, np.uint8),
                "s1": np.zeros((300, 200, 2), np.float32),
            }

    save_thumbnails(tmp_path / "set.npz", outcome, Large())
    with np.load(tmp_path / "set.npz") as stored:
        (first, *_) = [key for key in stored.files if key.startswith("rgb/")]
        picture = cv2.imdecode(stored[first], cv2.IMREAD_COLOR)
        assert picture.shape == (112, 75, 3)
        assert stored[first].tobytes().startswith(b"\xff\xd8")  # JPEG
