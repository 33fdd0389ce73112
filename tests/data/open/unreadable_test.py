"""Warnings and errors for records that cannot be read."""

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.bad_records import error_text, first_record
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pipeline.batches import eval_batches
from rsclip_jax.data.pipeline.tolerant import Tolerant
from rsclip_jax.data.sources.wrappers import TiledSource
from rsclip_jax.data.types import ReadOptions
from tests.helpers.packs import pack_archive

WAY_ON = "; on_error='skip' leaves such records out"


@pytest.fixture
def scenes(tmp_path):
    """sentinel_pairs with four 32 x 32 scenes; the third radar file is cut."""
    rng = np.random.default_rng(0)
    for i in range(4):
        for name, shape in (("s2_rgb", (32, 32, 3)), ("s1_vh", (32, 32))):
            path = tmp_path / "sentinel_pairs" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    path.with_name("2.png").write_bytes(b"cut")
    return tmp_path


def test_one_warning_per_file_and_each_tile_is_listed(scenes, tmp_path, capsys):
    tiles = TiledSource(open_source("sentinel_pairs", scenes), 8)
    listed = tmp_path / "skipped.txt"
    tolerant = Tolerant(tiles, ReadOptions(on_error="skip", skipped=listed))
    masks = [tolerant[i]["mask"] for i in range(len(tiles))]
    assert [i // 16 for i, mask in enumerate(masks) if not mask] == [2] * 16
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: skipped 2/tile_0_0 (1 of 64 so far): ")
    assert "2.png: unreadable or cut image" in line
    assert "on_error" not in line
    lines = listed.read_text().splitlines()
    assert len(lines) == 16
    assert not any("on_error" in line for line in lines)


def test_two_files_give_two_warnings(scenes, capsys):
    (scenes / "sentinel_pairs" / "s2_rgb" / "1.png").write_bytes(b"cut")
    tiles = TiledSource(open_source("sentinel_pairs", scenes), 16)
    tolerant = Tolerant(tiles, ReadOptions(on_error="skip"))
    for i in range(len(tiles)):
        tolerant[i]
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_error_of_a_single_record_has_no_hint(scenes):
    with pytest.raises(ValueError, match="cut image") as error:
        open_source("sentinel_pairs", scenes)[2]
    assert "on_error" not in error_text(error.value)


def test_the_hint_to_skip_appears_once(scenes, tmp_path):
    source = open_source("sentinel_pairs", scenes)
    tiles = TiledSource(source, 16)
    sizes = {"rgb": 16, "s1": 16}

    def evaluate():
        list(eval_batches(tiles, sizes=sizes))

    for _ in range(2):  # the tile's error is raised again
        with pytest.raises(ValueError, match="cut image") as error:
            evaluate()
        assert error_text(error.value).count(WAY_ON) == 1
        assert error_text(error.value).endswith(WAY_ON)
    first, *_, last = open_source("sentinel_pairs", scenes, "train").ids
    assert first != "2"
    (scenes / "sentinel_pairs" / "s1_vh" / f"{last}.png").write_bytes(b"cut")
    with pytest.raises(ValueError, match=rf"{last}\.png: .* cut image") as error:
        pack_archive("sentinel_pairs", scenes, tmp_path / "out", ("train",))
    assert error_text(error.value).endswith(WAY_ON)  # from another process
    (scenes / "sentinel_pairs" / "s1_vh" / "0.png").write_bytes(b"cut")
    with pytest.raises(ValueError, match="cut image") as error:
        first_record(source, "raise")
    assert error_text(error.value).endswith(WAY_ON)
    assert first_record(source, "skip")["id"] == ("3" if last == "1" else "1")
