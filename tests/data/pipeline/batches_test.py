"""Batches: set by the seed, each example once an epoch, resumed where they stopped."""

import dataclasses
import itertools
import json
import subprocess
import sys
import textwrap
import threading

import grain
import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.bad_records import in_words
from rsclip_jax.data.catalog.datasets import CIFAR10_CLASSES
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pipeline import batches as pipeline
from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.batches import Tolerant, eval_batches
from rsclip_jax.data.pipeline.geometry import resize
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sources.packed import open_packed
from rsclip_jax.data.types import Dataset
from tests.conftest import REPO
from tests.helpers.moved import write_sensor
from tests.helpers.numbered import (
    ROWS,
    SIZES,
    Deadly,
    Numbers,
    Pictures,
    batches_of,
    split_options,
)
from tests.helpers.pack_sources import ROW as PACKED_ROW
from tests.helpers.pack_sources import pack_numbers

FULL = Augment(
    crop_scale=(0.3, 1.0),
    flip_ud=True,
    rotate=True,
    jitter=0.4,
    grey_prob=0.2,
    blur_prob=0.4,
    speckle_looks=4,
    sar_gain_db=1,
    band_dropout=0.2,
)
SYMMETRY = Augment(crop_scale=(0.3, 1.0), flip_ud=True, rotate=True)


def take(n, batches):
    return list(itertools.islice(batches, n))


def numbers(batches):
    return np.concatenate([b["rgb"][:, 0, 0, 0] for b in batches]).tolist()


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


# Order and seed.


class Multispectral(Pictures):
    """The same with 13 bands beside them."""

    def __init__(self, n):
        super().__init__(n)
        sensors = {**ROWS, "s2": "s2_l1c"}
        self.dataset = dataclasses.replace(self.dataset, sensors=sensors)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        s2 = rng.integers(1, 9000, (6, 6, 13), np.uint16)
        return {**super().__getitem__(index), "s2": s2}


def test_batches_depend_on_the_seed_and_not_on_the_threads():
    sizes = {**SIZES, "s2": 3}

    def run(**options):
        source = Multispectral(10)
        return take(12, batches_of(source, augment=FULL, sizes=sizes, **options))

    first, *others = (run(threads=threads) for threads in (1, 2, 5))
    for again in others:
        assert_same(first, again)
    plain = take(12, batches_of(Multispectral(10), augment=SYMMETRY, sizes=sizes))
    other = run(seed=1)
    for key in ("rgb", "s1", "s2"):  # each is changed in value
        kept, changed = (np.concatenate([b[key] for b in r]) for r in (plain, first))
        assert not np.array_equal(kept, changed)
    for key in ("rgb", "s1", "s2", "label"):
        one, two = (np.concatenate([b[key] for b in r]) for r in (first, other))
        assert not np.array_equal(one, two)


@pytest.mark.parametrize("jitter", [0.0, 0.5])
def test_examples_of_a_batch_are_those_of_batches_of_one(jitter):
    # enlarged: the others of a batch are written to their place in it
    sizes, augment = {"rgb": 24, "s1": 24}, dataclasses.replace(FULL, jitter=jitter)
    options = {"sizes": sizes, "augment": augment}
    (four,) = take(1, batches_of(Pictures(8), batch_size=4, **options))
    ones = take(4, batches_of(Pictures(8), batch_size=1, **options))
    for key, array in four.items():
        np.testing.assert_array_equal(array, np.concatenate([b[key] for b in ones]))


def test_every_epoch_visits_every_example_once_in_another_order():
    seen = numbers(take(10, batches_of(Numbers(10), batch_size=4)))
    epochs = [seen[i : i + 10] for i in range(0, 40, 10)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(e) for e in epochs}) == 4
    assert list(range(10)) not in epochs


def test_an_example_is_augmented_anew_in_every_epoch():
    source = Pictures(4, classes=4)
    seen = {label: set() for label in range(4)}
    for batch in take(6, batches_of(source, augment=FULL)):
        for label, rgb in zip(batch["label"], batch["rgb"], strict=True):
            seen[int(label)].add(rgb.tobytes())
    assert all(len(pictures) == 6 for pictures in seen.values())


def test_two_sources_of_one_run_are_shuffled_differently():
    sources = Numbers(16), Numbers(16, first=100)
    seen = numbers(take(8, batches_of(*sources)))
    first = [n for n in seen if n < 100]
    second = [n - 100 for n in seen if n >= 100]
    assert sorted(first) == sorted(second) == list(range(16))
    assert first != second


def orders(seed, count=3):
    """The order in which each of several equal sources of a run is visited."""
    sources = [Numbers(16, first=100 * i) for i in range(count)]
    seen = numbers(take(4 * count, batches_of(*sources, seed=seed)))
    return [[n % 100 for n in seen if n // 100 == i] for i in range(count)]


def test_no_source_is_ordered_as_one_of_another_seed(monkeypatch):
    found = [tuple(order) for seed in range(4) for order in orders(seed, count=2)]
    assert len(set(found)) == len(found) == 8
    # planted: seed + index makes the second source of a run the first of the next
    monkeypatch.setattr(pipeline, "source_seed", lambda seed, index: seed + index)
    assert orders(0, count=2)[1] == orders(1, count=2)[0]


def test_a_run_s_only_source_has_the_order_of_the_run_s_own_seed():
    for seed in (0, 1, 7):
        plain = grain.MapDataset.range(16).seed(seed).shuffle().repeat()
        want = [plain[i] for i in range(32)]
        assert numbers(take(8, batches_of(Numbers(16), seed=seed))) == want
        assert orders(seed, count=2)[0] == want[:16]


def test_batches_have_their_keys_shapes_and_types():
    (batch,) = take(1, batches_of(Pictures(9), sizes={"s1": 5, "rgb": 7}))
    assert {k: (v.shape, str(v.dtype)) for k, v in batch.items()} == {
        "rgb": ((4, 7, 7, 3), "uint8"),
        "s1": ((4, 5, 5, 2), "float32"),
        "label": ((4,), "int32"),
    }


def test_sensors_and_labels_of_a_row_belong_together():
    for batch in take(5, batches_of(Numbers(10))):
        number = batch["rgb"][:, 0, 0, 0].astype(np.float32)
        np.testing.assert_array_equal(batch["s1"][:, 0, 0, 0], -number / 7)
        np.testing.assert_array_equal(batch["label"], number % 3)


def test_multi_hot_labels_are_stacked():
    class Multi(Numbers):
        def __getitem__(self, index):
            hot = np.array([index % 2, 1, 0], np.uint8)
            return {**super().__getitem__(index), "label": hot}

    (batch,) = take(1, batches_of(Multi(8)))
    assert batch["label"].dtype == np.int32
    expected = [[n % 2, 1, 0] for n in batch["rgb"][:, 0, 0, 0]]
    np.testing.assert_array_equal(batch["label"], expected)


# Resume.


@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_restored_state_gives_exactly_the_batches_that_would_have_followed(stop):
    tokens = [
        np.arange(3 * 4 * 5).reshape(3, 4, 5),
        np.arange(3 * 4 * 5).reshape(3, 4, 5),
    ]

    def start():
        sources = Pictures(10), Pictures(7)
        return batches_of(*sources, augment=FULL, tokens=tokens, weights=(2, 1))

    straight = start()
    take(stop, straight)
    state = json.loads(json.dumps(straight.get_state()))
    after = take(8, straight)
    resumed = start()
    resumed.set_state(state)
    assert_same(take(8, resumed), after)
    assert not np.array_equal(next(start())["rgb"], after[0]["rgb"])


def test_a_state_can_be_taken_back_in_the_same_iterator():
    batches = batches_of(Pictures(10), augment=FULL)
    take(2, batches)
    state = batches.get_state()
    first = take(3, batches)
    batches.set_state(state)
    assert_same(take(3, batches), first)


# Mixing.


@pytest.mark.parametrize(
    ("weights", "share"),
    [((3, 1), 0.25), ((1, 1), 0.5), (None, 0.2), ((0.2, 1.8), 0.9)],
)
def test_sources_are_mixed_by_weight_or_else_by_size(weights, share):
    sources = Numbers(40), Numbers(10, first=100)
    seen = np.array(numbers(take(50, batches_of(*sources, weights=weights))))
    assert np.mean(seen >= 100) == pytest.approx(share, abs=0.01)
    # all along, and not one after the other
    for part in seen.reshape(5, 40):
        assert np.mean(part >= 100) == pytest.approx(share, abs=0.06)


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Two packed sets, of 40 records of 6 pixels and of 24 of 12."""
    folder = tmp_path_factory.mktemp("packs")
    for name, n, side in (("a", 40, 6), ("b", 24, 12)):
        pack_numbers(folder / name, n, side=side)
    return [open_packed(PACKED_ROW, folder / name, "train") for name in ("a", "b")]


@pytest.mark.parametrize(
    ("weights", "share"), [((3, 1), 0.25), ((0.1, 0.9), 0.9), (None, 24 / 64)]
)
def test_packed_sets_are_mixed_by_weight(packs, weights, share):
    places = {
        resize(pack[i]["rgb"], 6).tobytes(): (name, i)
        for name, pack in zip("ab", packs, strict=True)
        for i in range(len(pack))
    }
    assert len(places) == 64
    batches = batches_of(*packs, weights=weights, batch_size=20, sizes={"rgb": 6})
    seen = [places[rgb.tobytes()] for b in take(100, batches) for rgb in b["rgb"]]
    assert np.mean([name == "b" for name, _ in seen]) == pytest.approx(share, abs=0.002)
    for name, pack in zip("ab", packs, strict=True):  # and within a set, evenly
        drawn = [i for which, i in seen if which == name]
        assert np.ptp(np.bincount(drawn, minlength=len(pack))) <= 1


@pytest.mark.parametrize("stop", [1, 5])
def test_a_mixed_stream_of_packs_is_dealt_out_to_processes_and_resumed(packs, stop):
    def start(process):
        settings = {"augment": FULL, "batch_size": 16, "sizes": {"rgb": 6, "s1": 4}}
        return batches_of(*packs, weights=(2, 1), process=process, **settings)

    whole, shares = take(9, start((0, 1))), []
    for process in ((0, 2), (1, 2)):
        straight = start(process)
        before = take(stop, straight)
        state = json.loads(json.dumps(straight.get_state()))
        resumed = start(process)
        resumed.set_state(state)
        after = take(9 - stop, resumed)
        assert_same(take(9 - stop, straight), after)
        shares.append([*before, *after])
    for batch, *parts in zip(whole, *shares, strict=True):
        for key, rows in batch.items():
            union = np.stack([part[key] for part in parts], 1).reshape(rows.shape)
            np.testing.assert_array_equal(union, rows)


# Captions.


def test_text_is_one_of_the_labels_own_captions_and_groups_are_classes():
    # a caption's tokens spell (source, class, template)
    def tokens_of(source, classes, templates):
        grid = np.indices((classes, templates))
        return np.stack([np.full_like(grid[0], source), *grid], -1).astype(np.int32)

    other = Numbers(12, first=100, classes=4, template="a {c}")
    sources = Numbers(12, classes=3), other
    tokens = tokens_of(0, 3, 2), tokens_of(1, 4, 5)
    class_of_group, templates = {}, {0: set(), 1: set()}
    for batch in take(30, batches_of(*sources, tokens=tokens)):
        assert batch["text"].shape == (4, 3)
        assert batch["text"].dtype == np.int32
        for i, (source, label, template) in enumerate(batch["text"].tolist()):
            assert label == batch["label"][i]
            assert source == (batch["rgb"][i, 0, 0, 0] >= 100)
            templates[source].add(template)
            group = int(batch["group"][i])
            assert class_of_group.setdefault(group, (source, label)) == (source, label)
    assert len(class_of_group) == len(set(class_of_group.values())) == 7
    assert templates == {0: set(range(2)), 1: set(range(5))}


def test_without_tokens_there_is_no_text():
    (batch,) = take(1, batches_of(Numbers(5)))
    assert batch.keys() == {"rgb", "s1", "label"}


# Processes.


@pytest.mark.parametrize("count", [2, 4])
def test_shares_of_the_processes_are_the_single_process_batch_dealt_out(count):
    def run(process):
        return take(
            9, batches_of(Pictures(21), batch_size=8, augment=FULL, process=process)
        )

    whole = run((0, 1))
    shares = [run((index, count)) for index in range(count)]
    for step, batch in enumerate(whole):
        for key, rows in batch.items():
            dealt = np.empty_like(rows)
            for index, share in enumerate(shares):
                assert len(share[step][key]) == 8 // count
                dealt[index::count] = share[step][key]
            np.testing.assert_array_equal(dealt, rows)


def test_processes_never_read_the_same_example_in_an_epoch():
    first, second = (
        numbers(take(4, batches_of(Numbers(16), process=(i, 2)))) for i in (0, 1)
    )
    assert not set(first) & set(second)
    assert sorted(first + second) == list(range(16))


# Refusals.


def test_fewer_examples_than_a_batch_are_refused_by_name():
    with pytest.raises(ValueError, match=r"numbers:train: 3 examples .* batch of 4"):
        batches_of(Numbers(3))
    assert take(1, batches_of(Numbers(2), Numbers(2)))  # together they are enough


@pytest.mark.parametrize("start", [batches_of, lambda s, **o: next(evaluate(s, **o))])
def test_an_unknown_on_error_lists_the_choices(start):
    with pytest.raises(ValueError, match=r"on_error = 'ignore' .* 'raise' or 'skip'"):
        start(Numbers(5), on_error="ignore")


# Evaluation.


def evaluate(source, sizes=SIZES, **options):
    reading, _ = split_options(**options)
    return eval_batches(source, sizes=sizes, options=reading)


@pytest.mark.parametrize("threads", [1, 4])
def test_evaluation_sees_every_record_once_in_order_and_pads_the_last_batch(threads):
    batches = list(evaluate(Numbers(10, first=1), threads=threads))
    assert [len(b["rgb"]) for b in batches] == [4, 4, 4]
    assert numbers(batches) == [*range(1, 11), 0, 0]
    mask = np.concatenate([b["mask"] for b in batches])
    assert mask.dtype == bool
    assert mask.tolist() == [True] * 10 + [False] * 2
    labels = np.concatenate([b["label"] for b in batches])
    assert labels.dtype == np.int32
    assert labels[:10].tolist() == [i % 3 for i in range(10)]


def test_a_set_that_divides_evenly_needs_no_padding():
    batches = list(evaluate(Numbers(8)))
    assert len(batches) == 2
    assert all(b["mask"].all() for b in batches)


def test_a_set_smaller_than_a_batch_is_one_padded_batch():
    (batch,) = evaluate(Numbers(2), batch_size=5)
    assert batch["s1"].shape == (5, 6, 6, 2)
    assert batch["s1"].dtype == np.float32
    assert batch["mask"].tolist() == [True, True, False, False, False]


def test_evaluation_images_are_not_augmented():
    source = Pictures(6)
    (batch,) = evaluate(source, batch_size=6, sizes={"rgb": 12, "s1": 12})
    for i in range(6):
        for key in ("rgb", "s1"):
            np.testing.assert_array_equal(batch[key][i], source[i][key])


# Records that cannot be read.


def test_a_broken_record_stops_the_run_unless_it_may_be_skipped():
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
    """200 records of which those from 20 to 139 cannot be read; counts all readings."""

    def __init__(self):
        super().__init__(200, broken=range(20, 140))
        self.reads = np.zeros(200, int)

    def __getitem__(self, index):
        self.reads[index] += 1
        return super().__getitem__(index)


def test_training_goes_on_with_records_from_all_over_the_set(capsys):
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
def test_what_cannot_be_read_is_not_read_again(start):
    source = Gap()
    batches = start(source, batch_size=100, on_error="skip", threads=1)
    taken = take(8, batches)
    assert len(taken) in (2, 8)  # an epoch, or four
    assert source.reads[20:140].tolist() == [1] * 120
    # a stand-in costs one reading; some batches are read ahead
    assert source.reads.sum() <= 120 + 200 * (len(taken) / 2 + 2)


def test_stand_ins_depend_on_the_index_and_not_on_what_is_known_to_be_bad():
    runs = [
        take(6, batches_of(Gap(), batch_size=50, on_error="skip", threads=threads))
        for threads in (1, 4, 4)
    ]
    for again in runs[1:]:
        assert_same(runs[0], again)
    fresh = [Tolerant(Gap(), "skip")[i]["id"] for i in range(20, 140)]
    known = Tolerant(Gap(), "skip")
    assert [known[i]["id"] for i in reversed(range(20, 140))] == fresh[::-1]


@pytest.mark.parametrize("n", [1, 2, 3, 12, 60, 97])
def test_the_only_readable_record_is_found_from_everywhere(n):
    source = Numbers(n, broken=range(1, n))
    tolerant = Tolerant(source, "skip")
    assert {tolerant[i]["id"] for i in range(n)} == {"train/0"}
    assert [tolerant[i]["mask"] for i in range(n)] == [True] + [False] * (n - 1)


@pytest.mark.parametrize("n", [1, 3, 12])
def test_nothing_readable_is_an_error_that_names_the_set(n):
    source = Tolerant(Numbers(n, broken=range(n)), "skip")
    for _ in range(2):
        with pytest.raises(ValueError, match="no record of numbers:train is readable"):
            source[n // 2]


def test_other_errors_are_never_swallowed():
    class Faulty(Numbers):
        def __getitem__(self, index):
            raise KeyError("s1")

    with pytest.raises(KeyError, match="s1"):
        Tolerant(Faulty(3), "skip")[0]


# Threads that die.


def error_of(work, seconds=20):
    """What ends work, within some seconds: one that hangs fails, and hangs no test."""
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


def test_a_reader_that_runs_out_does_not_end_the_data_in_silence():
    source = Deadly(40, StopIteration())
    for work in (
        lambda: len(take(30, batches_of(source))),
        lambda: len(list(evaluate(source))),
    ):
        error = error_of(work)
        assert isinstance(error, RuntimeError), error
        assert "train/17: StopIteration" in str(error)


def test_a_process_whose_reader_died_ends(tmp_path):
    """No thread of the pipeline keeps it alive, nor a training that waits for data."""
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
        timeout=60,
    )
    assert ended.returncode == 1
    assert "\nMemoryError: no memory\n" in ended.stderr


@pytest.fixture
def jpegs(tmp_path):
    """A CIFAR-10 folder of two JPEGs a class, the ship's second one cut short."""
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
    assert in_words(error.value).endswith(
        "; on_error='skip' (--config.data.on_error=skip) leaves such records out"
    )


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


# Real files.


def test_real_photographs_make_the_same_batches_twice(real_data):
    source = open_source("eurosat_rgb", real_data, "val[:20%]")
    runs = [
        take(
            3,
            batches_of(source, batch_size=16, augment=FULL, sizes={"rgb": 48}, seed=3),
        )
        for _ in range(2)
    ]
    assert_same(*runs)
    assert runs[0][0]["rgb"].shape == (16, 48, 48, 3)
    assert len({int(n) for b in runs[0] for n in b["label"]}) > 5


def test_real_evaluation_batches_hold_the_files_in_order(real_data):
    source = open_source("sentinel_pairs", real_data, "val[:40%]")
    sizes = {"rgb": 256, "s1": 256}
    batches = list(evaluate(source, sizes=sizes, batch_size=8))
    rows = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    assert rows["mask"].sum() == len(source)
    assert set(rows["label"][rows["mask"]].tolist()) == {-1}
    for i in (0, len(source) - 1):
        for key in sizes:
            np.testing.assert_array_equal(rows[key][i], source[i][key])


# Captions.


class Captioned(Numbers):
    """n records of 1 + i % 3 captions; the first of every odd one is the same text."""

    def __init__(self, n, **options):
        super().__init__(n, classes=0, **options)
        self.dataset = Dataset("captioned", "captions", "captions", ROWS)

    def texts(self, i):
        first = "odd" if i % 2 else f"even {self.first + i}"
        return (first, *(f"{self.first + i}.{j}" for j in range(i % 3)))

    def __getitem__(self, index):
        return {**super().__getitem__(index), "captions": self.texts(index)}

    def tokens(self):
        """{caption: ids}, each caption's ids its own."""
        texts = sorted({text for i in range(self.n) for text in self.texts(i)})
        return {text: np.full(3, 500 + i, np.int32) for i, text in enumerate(texts)}


def examples(batches):
    """(number, ids, label, group) of every example."""
    for b in batches:
        pixels = b["rgb"][:, 0, 0, 0].tolist()
        labels, groups = b["label"].tolist(), b["group"].tolist()
        yield from zip(pixels, b["text"].tolist(), labels, groups, strict=True)


def test_an_image_gets_each_of_its_captions_and_no_other_s():
    source = Captioned(9)
    text_of = {ids[0]: text for text, ids in source.tokens().items()}
    seen, groups = {}, {}
    batches = take(60, batches_of(source, tokens=[source.tokens()]))
    for number, ids, label, group in examples(batches):
        assert label == -1
        seen.setdefault(number, set()).add(text_of[ids[0]])
        groups.setdefault(text_of[ids[0]], set()).add(group)
    assert seen == {i: set(source.texts(i)) for i in range(9)}
    # one group a caption, also where two images have it
    assert all(len(group) == 1 for group in groups.values())
    assert len(set.union(*groups.values())) == len(groups) == len(source.tokens())


def test_captions_and_classes_in_one_batch_have_groups_of_their_own():
    labelled, captioned = Numbers(6, classes=3), Captioned(5, first=100)
    more = Numbers(4, first=200, classes=2, template="a {c}")
    classes = np.arange(9, dtype=np.int32).reshape(3, 1, 3)
    tokens = [classes, captioned.tokens(), 90 + classes[:2]]
    groups = {}
    batches = take(40, batches_of(labelled, captioned, more, tokens=tokens))
    for number, ids, label, group in examples(batches):
        groups[number if label >= 0 else ids[0]] = group
        if label >= 0:
            first = (90 if number >= 200 else 0) + 3 * label
            assert ids == [first, first + 1, first + 2]
        else:
            assert ids[0] >= 500
    n = len(captioned.tokens())
    want = {i: i % 3 for i in range(6)} | {500 + i: 3 + i for i in range(n)}
    assert groups == want | {200 + i: 3 + n + i % 2 for i in range(4)}


def test_equal_captions_are_one_group_also_in_two_sets():
    sets = Captioned(5), Captioned(6, first=100)
    first, second = (source.tokens() for source in sets)
    second = {text: ids + len(first) for text, ids in second.items()}
    text_of = {int(x[0]): text for t in (first, second) for text, x in t.items()}
    group_of, drawn = {}, set()
    batches = take(60, batches_of(*sets, tokens=[first, second]))
    for _, ids, _, group in examples(batches):
        drawn.add(ids[0])
        assert group_of.setdefault(text_of[ids[0]], group) == group
    assert drawn == set(text_of)  # "odd" as both of its ids
    assert len(set(group_of.values())) == len(group_of) == len(text_of) - 1


def test_equal_classes_are_one_group_also_in_two_sets():
    """Where they are described alike; in a set alone groups are the labels."""
    sets = [Numbers(6, classes=3), Numbers(6, first=100, classes=4)]
    sets.append(Numbers(6, first=200, template="a {c}"))
    tokens = [np.zeros((len(s.dataset.classes), 1, 3), np.int32) for s in sets]
    groups = {0: {}, 100: {}, 200: {}}
    for n, _, label, group in examples(take(40, batches_of(*sets, tokens=tokens))):
        assert groups[n // 100 * 100].setdefault(label, group) == group
    assert groups[0] == {0: 0, 1: 1, 2: 2}
    assert groups[100] == {0: 0, 1: 1, 2: 2, 3: 3}
    assert groups[200] == {0: 4, 1: 5, 2: 6}


def test_a_stand_in_brings_its_own_captions(capsys):
    source = Captioned(6, broken=(2, 5))
    text_of = {ids[0]: text for text, ids in source.tokens().items()}
    tokens = [source.tokens()]
    batches = take(20, batches_of(source, tokens=tokens, on_error="skip"))
    for number, ids, _, _ in examples(batches):
        assert text_of[ids[0]] in source.texts(number)
        assert number not in (2, 5)
    assert "skipped train/2" in capsys.readouterr().err


def test_captions_depend_on_the_seed_and_not_on_the_threads():
    source = Captioned(10)
    runs = [
        take(9, batches_of(source, tokens=[source.tokens()], threads=n, seed=s))
        for n, s in ((1, 0), (4, 0), (1, 1))
    ]
    assert_same(runs[0], runs[1])
    texts = [np.concatenate([b["text"] for b in run]) for run in runs]
    assert not np.array_equal(texts[0], texts[2])


# Sensors that some have.


class Lacking(Pictures):
    """Pictures with the sensors told, of which some records lack those in gaps."""

    def __init__(self, n, sensors, gaps=(), task="single"):
        super().__init__(n)
        self.dataset = dataclasses.replace(
            self.dataset, sensors={"rgb": "rgb", **sensors}, task=task
        )
        self.gaps = gaps

    def __getitem__(self, index):
        rng, record = np.random.default_rng(index), super().__getitem__(index)
        del record["s1"]
        if self.dataset.task == "multi":
            record["label"] = np.eye(3, dtype=np.uint8)[record["label"]]
        for key, name in self.dataset.sensors.items():
            bands = get_sensor(name).bands
            if key == "s2":  # its values are its bands' numbers
                values = [100 * L1C.index(band) + 1 for band in bands]
                record[key] = np.broadcast_to(values, (12, 12, len(bands))).astype(
                    np.uint16
                )
            elif key == "s1":
                record[key] = rng.normal(-12, 5, (12, 12, 2)).astype(np.float32)
            if key in self.gaps and index % 2:
                del record[key]
        return record


L1C = get_sensor("s2_l1c").bands
OF_TWO = {"rgb": 6, "s1": 6, "s2": 6}
SEEN = {"s1": get_sensor("s1_grd"), "s2": get_sensor("s2_l1c")}


def of_two(*sources, **options):
    told = {"sizes": OF_TWO, "sensors": SEEN, "optional": ("s1", "s2"), **options}
    return batches_of(*sources, batch_size=16, **told)


def test_a_set_without_a_sensor_gives_zeros_and_says_so():
    with_both = Lacking(16, {"s1": "s1_grd", "s2": "s2_l1c"})
    with_one = Lacking(16, {"s2": "s2_l1c"})
    batches = take(4, of_two(with_both, with_one, augment=FULL))
    has = np.concatenate([b["has_s1"] for b in batches])
    assert has.dtype == bool
    assert 16 < has.sum() < 48
    for batch in batches:
        assert batch["s1"].dtype == np.float32
        reached = np.abs(batch["s1"]).max(axis=(1, 2, 3)) > 0
        np.testing.assert_array_equal(reached, batch["has_s1"])
        assert batch["has_s2"].all()
        assert batch["label"].shape == (16,)
    assert_same(batches, take(4, of_two(with_both, with_one, augment=FULL, threads=1)))


def test_records_of_one_set_may_lack_a_sensor():
    source = Lacking(32, {"s1": "s1_grd", "s2": "s2_l1c"}, gaps=("s1", "s2"))
    for batch in take(2, of_two(source)):
        assert 0 < batch["has_s1"].sum() < 16
        for key in ("s1", "s2"):
            reached = np.abs(batch[key]).max(axis=(1, 2, 3)) > 0
            np.testing.assert_array_equal(reached, batch[f"has_{key}"])
    with pytest.raises(KeyError, match="s1"):  # of one that has to be there
        take(2, of_two(source, optional=("s2",)))


def test_bands_of_another_order_are_moved_by_name(tmp_path):
    row = get_sensor("s2_l1c")
    turned = write_sensor(tmp_path / "turned.toml", row, bands=row.bands[::-1])
    fewer = write_sensor(tmp_path / "fewer.toml", row, bands=row.bands[:5])
    batch = next(of_two(Lacking(16, {"s2": turned})))
    want = [100 * i + 1 for i in range(13)]
    np.testing.assert_array_equal(batch["s2"][:, 0, 0], np.tile(want, (16, 1)))
    with pytest.raises(ValueError, match="takes the bands"):
        next(of_two(Lacking(16, {"s2": fewer})))


def test_labels_of_other_shapes_are_left_out():
    one = Lacking(16, {"s1": "s1_grd"})
    several = Lacking(16, {"s2": "s2_l1c"}, task="multi")
    assert "label" not in next(of_two(one, several))
    assert next(of_two(several))["label"].shape == (16, 3)
