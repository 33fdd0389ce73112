"""Features are the encoder's, once each; anything else that lies there is refused."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from rsclip_jax.train import feature_cache
from tests.conftest import REPO
from tests.helpers.taught import DIM, TEACHER, Encoder, Pictures, taught


def turned(rgb, view):
    """A view by numpy alone."""
    return np.rot90(rgb[:, ::-1] if view >= 4 else rgb, view % 4)


def assert_right(found, source, views=range(8), places=None):
    for i in range(len(source)) if places is None else places:
        rgb = source[i]["rgb"]
        want = Encoder()(np.stack([turned(rgb, v) for v in views]))
        teacher = found.read(i, ("s1",))["teacher"]
        assert tuple(teacher) == tuple(views)
        np.testing.assert_allclose(np.stack([*teacher.values()]), want, rtol=1e-5)


@pytest.mark.parametrize("views", [range(8), (0,), (0, 4), (1, 6, 7)])
def test_features_are_the_encoders_of_the_turned_pictures(tmp_path, views):
    source, encode, lines = Pictures(), Encoder(), []
    found = taught(tmp_path, source, encode, views=views, log=lines.append)
    assert_right(found, source, views)
    assert encode.count == 20 * len(views)
    megabytes = 20 * len(views) * DIM * 4 / 1e6
    assert (
        f"20 records x {len(views)} view(s) x 5 x 4 bytes = {megabytes:,.1f} MB"
        in (lines[0])
    )
    assert isinstance(found._features.base, np.memmap)
    assert (found.dataset, found.split, found.ids) == (
        source.dataset,
        "train",
        source.ids,
    )
    source.read_keys.clear()
    np.testing.assert_array_equal(found.read(3, ("s1",))["s1"], source[3]["s1"])
    assert source.read_keys[0] == ("s1",)  # and no picture


def test_what_is_there_is_used_after_a_look_at_a_few_records(tmp_path):
    taught(tmp_path)
    encode = Encoder()
    assert_right(taught(tmp_path, encode=encode), Pictures())
    assert encode.count == 8
    some = taught(tmp_path, views=(0, 4))  # of more views than these
    assert some.read(0, ())["teacher"].keys() >= {0, 4}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": {**TEACHER, "digest": "2b"}}, "teacher digest: '1a' .*'2b' in"),
        ({"teacher": {**TEACHER, "activation": "quick_gelu"}}, "teacher activation: "),
        ({"source": Pictures(19)}, "dataset split_digest: "),
        ({"source": Pictures(name="others")}, "dataset name: 'pictures:train' in the"),
        ({"size": 24}, "pictures size: 12 in the cache, 24 in this run"),
        ({"dim": 6}, "features dim: 5 in the cache, 6"),
        (
            {"views": range(5)},
            r"\[0, 4\] in the cache, .* also draws \[1, 2, 3\]",
        ),
        ({"encode": Encoder(scale=1.1)}, r"train/0 \(10 %\).* weights"),
    ],
)
def test_features_of_something_else_are_refused_by_name(tmp_path, changes, words):
    taught(tmp_path, views=(0, 4))
    with pytest.raises(ValueError, match="(?s)" + words) as error:
        taught(tmp_path, **{"views": (0, 4), **changes})
    assert "use another folder, remove" in str(error.value)
    assert f"remove {tmp_path}" in str(error.value)
    assert_right(taught(tmp_path, views=(0, 4)), Pictures(), (0, 4))  # still there


def test_all_that_differs_is_in_one_message(tmp_path):
    taught(tmp_path, views=(0,))
    with pytest.raises(ValueError, match=r"(?s)dataset.*teacher digest.*views"):
        taught(tmp_path, Pictures(19), teacher={**TEACHER, "digest": "2b"})


@pytest.mark.parametrize("changed", [range(20), [0], [19], [9, 10, 11]])
def test_other_pictures_under_the_same_ids_are_noticed(tmp_path, changed):
    taught(tmp_path)

    class Changed(Pictures):
        def read(self, index, keys):
            other = Pictures(seed=1) if index in changed else super()
            return other.read(index, keys)

    with pytest.raises(ValueError, match=r"encoded again.* have changed"):
        taught(tmp_path, Changed())


FILES = ["teacher_features.npy", "teacher_records.npy", "meta.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(tmp_path, name):
    taught(tmp_path)
    path = tmp_path / name
    os.truncate(path, path.stat().st_size - 7)
    with pytest.raises(ValueError, match=rf"{name}.* is damaged .*remove"):
        taught(tmp_path)


@pytest.mark.parametrize("name", FILES[:2])
def test_a_flipped_bit_is_never_believed(tmp_path, name):
    whole = taught(tmp_path)
    path, rng = tmp_path / name, np.random.default_rng(0)
    right = path.read_bytes()
    refused = 0
    for _ in range(40):
        damaged = bytearray(right)
        place = int(rng.integers(len(right)))
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = taught(tmp_path)
        except ValueError as error:
            assert "damaged" in str(error) or "holds" in str(error)  # noqa: PT017
            refused += 1
        else:  # a mark was lost, or it is a blank of the header
            for i in range(20):
                got, want = found.read(i, ())["teacher"], whole.read(i, ())["teacher"]
                np.testing.assert_allclose(
                    np.stack([*got.values()]), np.stack([*want.values()]), rtol=1e-6
                )
    assert refused > 20


def test_a_lost_file_is_refused(tmp_path):
    taught(tmp_path)
    (tmp_path / FILES[0]).unlink()
    with pytest.raises(ValueError, match="is damaged"):
        taught(tmp_path)


@pytest.mark.parametrize("after", [0, 4])
def test_a_making_that_was_killed_is_gone_on_with(tmp_path, after):
    """kill -9 while a batch is encoded; features without their mark are made again."""
    code = f"""
        import sys, time
        import numpy as np
        from rsclip_jax.train import feature_cache
        from tests.helpers.taught import Encoder, taught
        feature_cache._SECONDS = -1.0
        class Slow(Encoder):
            def __call__(self, pictures):
                if self.count >= {after} * 24:
                    print("now", flush=True)
                    time.sleep(600)
                return super().__call__(pictures)
        from pathlib import Path
        taught(Path({str(tmp_path)!r}), encode=Slow())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.PIPE, text=True
    ) as process:
        assert any(line == "now\n" for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    features = np.load(tmp_path / FILES[0], mmap_mode="r+")
    features[3 * after :] = 7.0  # what a half-written row may hold
    features.flush()
    encode = Encoder()
    assert_right(taught(tmp_path, encode=encode), Pictures())
    sample = min(8, 3 * after)
    assert encode.count == sample + (20 - 3 * after) * 8


def test_a_kill_before_the_meta_leaves_nothing_that_counts(tmp_path):
    taught(tmp_path)
    (tmp_path / "meta.json").unlink()
    encode = Encoder()
    taught(tmp_path, encode=encode)
    assert encode.count == 20 * 8


def test_two_at_once_take_turns(tmp_path):
    """Both have all features, made once."""
    encode, found, lines = Encoder(), [], []

    def run():
        found.append(taught(tmp_path, encode=encode, log=lines.append))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert encode.count == 20 * 8 + 2 * 8
    for one in found:
        assert_right(one, Pictures())
    assert any("waiting for another run" in line for line in lines)


def test_records_that_cannot_be_read_stop_the_making_or_are_marked(tmp_path):
    source = Pictures(broken=(4, 17))
    with pytest.raises(ValueError, match="picture 4 is broken"):
        taught(tmp_path, source, on_error="raise")
    good = [i for i in range(20) if i not in source.broken]
    for _ in range(2):  # and when it is used again
        found = taught(tmp_path, source, on_error="skip")
        assert_right(found, source, places=good)
        with pytest.raises(ValueError, match="train/17: could not be read when"):
            found.read(17, ("s1",))
    encode = Encoder()
    assert_right(taught(tmp_path, Pictures(), encode), Pictures())  # mended
    assert encode.count == 8 + 2 * 8


def test_features_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not finite"):
        taught(tmp_path, encode=Encoder(scale=np.nan))
    assert_right(taught(tmp_path), Pictures())


def test_a_full_disk_is_said_before_anything_is_made(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache.os, "posix_fallocate", full)
    encode = Encoder()
    with pytest.raises(OSError, match=r"no room for 20 records .*another folder"):
        taught(tmp_path, encode=encode)
    assert encode.count == 0
    monkeypatch.undo()
    assert_right(taught(tmp_path), Pictures())


def test_the_meta_says_what_the_features_are_of(tmp_path):
    taught(tmp_path)
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["teacher"]["digest"] == "1a"
    assert meta["dataset"]["name"] == "pictures:train"
    assert meta["views"] == list(range(8))
