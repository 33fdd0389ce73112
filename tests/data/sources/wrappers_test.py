"""Tiles of scenes, and classes shared by several sources."""

import numpy as np
import pytest

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pipeline.batches import eval_batches
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.sources.wrappers import SharedLabels, TiledSource
from rsclip_jax.data.types import Dataset, ReadOptions
from tests.helpers.coordinate_scenes import Scenes
from tests.helpers.runs import few_scenes


def test_the_tiles_make_up_the_scene():
    scenes = Scenes(2, 12, 20)
    tiles = TiledSource(scenes, 4)
    assert len(tiles) == len(set(tiles.ids)) == 2 * 3 * 5
    for i in range(2):
        for key in ("s1", "ir"):
            part = [tiles[15 * i + t][key] for t in range(15)]
            rows = [np.concatenate(part[5 * y : 5 * y + 5], 1) for y in range(3)]
            np.testing.assert_array_equal(np.concatenate(rows), scenes[i][key])


def test_a_tiles_id_names_its_scene_and_position():
    tiles = TiledSource(Scenes(2, 12, 20), 4)
    record = tiles[15 + 5 + 2]
    assert record.keys() == {"id", "label", "s1", "ir"}
    assert record["id"] == tiles.ids[22] == "scene1/tile_1_2"
    assert record["label"] == 1
    assert record["s1"][0, 0].tolist() == [1004, 8]
    assert (tiles.dataset, tiles.split) == (Scenes.dataset, "all")


def test_a_remainder_at_the_right_and_bottom_is_left_out():
    tiles = TiledSource(Scenes(1, 11, 9), 4)
    assert len(tiles) == 2 * 2
    assert max(tiles[i]["s1"][..., 0].max() for i in range(4)) == 7
    assert max(tiles[i]["s1"][..., 1].max() for i in range(4)) == 7
    assert all(tiles[i]["ir"].shape == (4, 4, 1) for i in range(4))


def test_a_scene_is_read_once_for_its_neighbouring_tiles():
    scenes = Scenes(3, 8, 8)
    tiles = TiledSource(scenes, 4)
    scenes.reads.clear()
    for i in range(len(tiles)):
        tiles[i]
    assert scenes.reads == [0, 1, 2]


def test_a_tile_larger_than_the_scene_is_refused():
    with pytest.raises(ValueError, match="scenes: images of 12x6 hold no 8x8 tile"):
        TiledSource(Scenes(1, 12, 6), 8)


def test_a_scene_of_another_size_is_refused():
    class Odd(Scenes):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            if index == 1:
                record["ir"] = record["ir"][::2, ::2]
            return record

    tiles = TiledSource(Odd(2, 8, 8), 4)
    assert tiles[3]["ir"].shape == (4, 4, 1)
    with pytest.raises(ValueError, match=r"scene1: ir has 4x4 .* cut from 8x8"):
        tiles[4]


class Damaged(Scenes):
    """The second scene cannot be read; the first tile of the third is all nodata."""

    dataset = Dataset("damaged", "", "none", {"s1": "s1_grd", "s2": "s2_l1c"})

    def __getitem__(self, index):
        record = super().__getitem__(index)
        if index == 1:
            raise OSError(f"{self.ids[index]}.tif is cut short")
        s2 = np.full((8, 8, 13), 700, np.uint16)
        if index == 2:
            s2[:4, :4] = 0
            s2[:4, 4:7] = 0  # most of the second: not for a tile to say
        return {"id": record["id"], "label": -1, "s1": record["s1"], "s2": s2}


def test_a_tile_of_only_nodata_is_refused():
    tiles = TiledSource(Damaged(3, 8, 8), 4)
    with pytest.raises(ValueError, match=r"scene2/tile_0_0: all 16 pixels are 0, "):
        tiles[8]
    assert (tiles[9]["s2"] == 0).mean() == 0.75
    assert tiles.read(8, ("s1",))["s1"].shape == (4, 4, 2)  # which is asked for


def test_an_unreadable_scene_is_read_once_for_all_its_tiles():
    scenes = Damaged(3, 8, 8)
    tiles = TiledSource(scenes, 4, on_error="skip")
    scenes.reads.clear()
    for _ in range(2):
        for i in range(4, 8):
            with pytest.raises(OSError, match=r"scene1\.tif is cut short"):
                tiles[i]
    assert scenes.reads == [1]


def test_each_skipped_tile_is_listed(tmp_path):
    scenes = Damaged(3, 8, 8)
    tiles = TiledSource(scenes, 4, on_error="skip")
    scenes.reads.clear()
    sizes, listed = {"s1": 4, "s2": 4}, tmp_path / "skipped.txt"
    options = ReadOptions(12, on_error="skip", skipped=listed)
    (batch,) = eval_batches(tiles, sizes=sizes, options=options)
    assert np.flatnonzero(~batch["mask"]).tolist() == [4, 5, 6, 7, 8]
    assert scenes.reads.count(1) <= 2  # in as many threads
    lines = [line.split("\t") for line in listed.read_text().splitlines()]
    assert sorted(line[:2] for line in lines) == [
        ["damaged:all:4", tiles.ids[i]] for i in range(4, 9)
    ]


def test_the_tiles_make_up_real_pairs(real_data):
    source = open_source("sentinel_pairs", real_data, "val[:20%]")
    tiles = TiledSource(source, 64)
    assert len(tiles) == 16 * len(source)
    for key in ("rgb", "s1"):
        part = np.stack([tiles[16 + t][key] for t in range(16)])
        whole = part.reshape(4, 4, 64, 64, -1).swapaxes(1, 2).reshape(256, 256, -1)
        np.testing.assert_array_equal(whole, source[1][key])


@pytest.mark.parametrize("name", ["miniature", "miniature_multi"])
def test_labels_move_to_their_index_and_other_labels_are_unknown(name):
    with few_scenes():
        source = open_source(name, split="val")
        k = len(source.dataset.classnames)
        shared = SharedLabels(source, 3, k + 5)
        assert len(shared) == len(source)
        assert split_digest(shared) == split_digest(source)
        for i in range(0, len(source), 7):
            want, found = source[i], shared[i]
            np.testing.assert_array_equal(found["rgb"], want["rgb"])
            if name == "miniature":
                assert found["label"] == want["label"] + 3
            else:
                others = np.r_[found["label"][:3], found["label"][k + 3 :]]
                np.testing.assert_array_equal(others, [-1] * 5)
                np.testing.assert_array_equal(found["label"][3 : k + 3], want["label"])
