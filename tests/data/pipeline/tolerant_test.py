"""Unreadable records: raised, or replaced, masked and listed; threads that die."""

import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.bad_records import error_text
from rsclip_jax.data.catalog.datasets import CIFAR10_CLASSES
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pipeline.tolerant import Tolerant
from rsclip_jax.data.types import ReadOptions
from tests.conftest import REPO
from tests.helpers.numbered import (
    Deadly,
    Numbers,
    assert_same,
    batches_of,
    evaluate,
    numbers,
    take,
)

SKIP = ReadOptions(on_error="skip")


def test_a_bad_record_stops_the_run_unless_it_may_be_skipped():
    source = Numbers(8, broken=(5,))
    with pytest.raises(ValueError, match="number 5 is broken"):
        list(evaluate(source))
    with pytest.raises(ValueError, match="number 5 is broken"):
        take(4, batches_of(source))


def test_a_skipped_record_is_masked_warned_of_once_and_counted(capsys):
    source = Numbers(8, broken=(2, 3, 7))
    batches = list(evaluate(source, on_error="skip", threads=1))
    mask = np.concatenate([b["mask"] for b in batches])
    assert np.flatnonzero(~mask).tolist() == [2, 3, 7]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for count, (line, number) in enumerate(zip(lines, (2, 3, 7), strict=True), 1):
        assert line == (
            f"warning: skipped train/{number} ({count} of 8 so far):"
            f" number {number} is broken"
        )


class Gap(Numbers):
    """200 records; those from 20 to 139 cannot be read. Counts all reads."""

    def __init__(self):
        super().__init__(200, broken=range(20, 140))
        self.reads = np.zeros(200, int)

    def __getitem__(self, index):
        self.reads[index] += 1
        return super().__getitem__(index)


def test_training_continues_with_records_from_the_whole_dataset(capsys):
    source = Gap()
    batches = batches_of(source, batch_size=100, on_error="skip", threads=1)
    seen = numbers(take(8, batches))  # four epochs
    batches.close()
    counts = np.bincount(seen, minlength=200)
    assert not counts[20:140].any()
    good = np.delete(counts, range(20, 140))
    assert good.min() >= 4  # itself, and what it stands in for: on average, 1.5
    assert good.max() <= 4 * (1 + 7)
    assert (good > 4).mean() > 0.6  # of as many draws from 80, 78 % are expected
    assert len(capsys.readouterr().err.splitlines()) == 120


@pytest.mark.parametrize("start", [batches_of, lambda s, **o: evaluate(s, **o)])
def test_unreadable_records_are_not_read_again(start):
    source = Gap()
    batches = start(source, batch_size=100, on_error="skip", threads=1)
    taken = take(8, batches)
    assert len(taken) in (2, 8)  # an epoch, or four
    assert source.reads[20:140].tolist() == [1] * 120
    # a stand-in costs one reading; some batches are read ahead
    assert source.reads.sum() <= 120 + 200 * (len(taken) / 2 + 2)


def test_stand_ins_depend_on_the_index_and_not_on_known_bad_records():
    runs = [
        take(6, batches_of(Gap(), batch_size=50, on_error="skip", threads=threads))
        for threads in (1, 4, 4)
    ]
    for again in runs[1:]:
        assert_same(runs[0], again)
    fresh = [Tolerant(Gap(), SKIP)[i]["id"] for i in range(20, 140)]
    known = Tolerant(Gap(), SKIP)
    assert [known[i]["id"] for i in reversed(range(20, 140))] == fresh[::-1]


@pytest.mark.parametrize("n", [1, 2, 3, 12, 60, 97])
def test_the_only_readable_record_is_found_from_every_index(n):
    source = Numbers(n, broken=range(1, n))
    tolerant = Tolerant(source, SKIP)
    assert {tolerant[i]["id"] for i in range(n)} == {"train/0"}
    assert [tolerant[i]["mask"] for i in range(n)] == [True] + [False] * (n - 1)


@pytest.mark.parametrize("n", [1, 3, 12])
def test_a_dataset_without_a_readable_record_is_an_error(n):
    source = Tolerant(Numbers(n, broken=range(n)), SKIP)
    for _ in range(2):
        with pytest.raises(ValueError, match="no record of numbers:train is readable"):
            source[n // 2]


def test_other_errors_are_never_swallowed():
    class Faulty(Numbers):
        def __getitem__(self, index):
            raise KeyError("s1")

    with pytest.raises(KeyError, match="s1"):
        Tolerant(Faulty(3), SKIP)[0]


# Threads that die.


def error_of(work, seconds=20):
    """The error that ends work; if it hangs, this fails within seconds."""
    ends = []

    def run():
        try:
            ends.append(f"no error, but {work()}")
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert ends, f"still running after {seconds} s"
    return ends[0]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    "error", [MemoryError("no memory"), KeyboardInterrupt(), SystemExit(3), KeyError(1)]
)
def test_an_error_in_a_reader_s_thread_ends_the_run_with_it(error, on_error):
    source = Deadly(40, error)
    other = Numbers(40, first=100)
    for work in (
        lambda: len(take(30, batches_of(source, on_error=on_error))),
        lambda: len(take(30, batches_of(other, source, on_error=on_error, threads=4))),
        lambda: len(take(30, batches_of(source, on_error=on_error, process=(1, 2)))),
        lambda: len(list(evaluate(source, on_error=on_error))),
    ):
        assert error_of(work) is error


def test_stop_iteration_in_a_reader_is_an_error():
    source = Deadly(40, StopIteration())
    for work in (
        lambda: len(take(30, batches_of(source))),
        lambda: len(list(evaluate(source))),
    ):
        error = error_of(work)
        assert isinstance(error, RuntimeError), error
        assert "train/17: StopIteration" in str(error)


def test_a_process_whose_reader_died_ends(tmp_path):
    """Neither the pipeline's threads nor a training that waits keep it alive."""
    code = """
        from tests.helpers.numbered import Deadly, batches_of
        for batch in batches_of(Deadly(40, MemoryError("no memory")), threads=4):
            pass
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 1
    assert "\nMemoryError: no memory\n" in ended.stderr


@pytest.fixture
def jpegs(tmp_path):
    """A CIFAR-10 folder with two JPEGs per class; the second ship is cut short."""
    rng = np.random.default_rng(0)
    for name in CIFAR10_CLASSES:
        folder = tmp_path / "cifar10" / "val" / name
        folder.mkdir(parents=True)
        for i in range(2):
            image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
            image.save(folder / f"{i}.jpg")
    cut = tmp_path / "cifar10" / "val" / "ship" / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    return tmp_path


def test_a_truncated_jpeg_stops_the_run_with_its_name(jpegs):
    source = open_source("cifar10", jpegs, "val")
    with pytest.raises(ValueError, match=r"ship/1\.jpg: unreadable or cut") as error:
        list(evaluate(source, sizes={"rgb": 32}))
    assert "on_error" not in str(error.value)  # which does not help at source[i]
    assert error_text(error.value).endswith("; on_error='skip' leaves such records out")


def test_a_truncated_jpeg_is_skipped_and_counted(jpegs, capsys):
    source = open_source("cifar10", jpegs, "val")
    batches = list(evaluate(source, sizes={"rgb": 32}, on_error="skip"))
    labels = np.concatenate([b["label"] for b in batches])
    mask = np.concatenate([b["mask"] for b in batches])
    at = source.ids.index("val/ship/1")
    assert np.flatnonzero(~mask).tolist() == [at]
    assert labels[mask].tolist() == [i // 2 for i in range(20) if i != at]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: skipped val/ship/1 (1 of 20 so far): ")
    assert "ship/1.jpg" in line
