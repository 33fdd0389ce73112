"""Batches: order by seed, each example once per epoch, mixing and resuming."""

import dataclasses
import json

import grain
import numpy as np
import pytest

from rsclip_jax.data import types
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pipeline import batches as pipeline
from rsclip_jax.data.pipeline.geometry import resize
from rsclip_jax.data.sources.packed import open_packed
from tests.helpers.numbered import (
    FULL,
    ROWS,
    SIZES,
    SYMMETRY,
    Numbers,
    Pictures,
    assert_same,
    batches_of,
    evaluate,
    numbers,
    resume,
    take,
)
from tests.helpers.pack_sources import ROW as PACKED_ROW
from tests.helpers.pack_sources import pack_numbers

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
def test_examples_do_not_depend_on_the_batch_size(jitter):
    # enlarged: the others of a batch are written into its array
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


def test_no_source_has_the_order_of_a_source_with_another_seed(monkeypatch):
    found = [tuple(order) for seed in range(4) for order in orders(seed, count=2)]
    assert len(set(found)) == len(found) == 8
    # planted: seed + index makes the second source of a run the first of the next
    monkeypatch.setattr(pipeline, "source_seed", lambda seed, index: seed + index)
    assert orders(0, count=2)[1] == orders(1, count=2)[0]


def test_a_single_source_has_the_order_of_the_runs_seed():
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
        "records": ((4,), "int32"),
    }


def test_a_batch_says_which_records_are_in_it():
    """Numbered through all sources: the second one's first is number 5."""
    found = take(9, batches_of(Numbers(5), Numbers(7, first=5)))
    assert [n for batch in found for n in batch["records"].tolist()] == numbers(found)
    assert set(numbers(found)) == set(range(12))


def test_sensors_and_labels_of_a_record_belong_together():
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
def test_a_restored_state_gives_exactly_the_next_batches(stop):
    tokens = [
        np.arange(3 * 4 * 5).reshape(3, 4, 5),
        np.arange(3 * 4 * 5).reshape(3, 4, 5),
    ]

    def start():
        sources = Pictures(10), Pictures(7)
        return batches_of(*sources, augment=FULL, tokens=tokens, weights=(2, 1))

    after = resume(start, stop)
    assert not np.array_equal(next(start())["rgb"], after[0]["rgb"])


def test_a_state_can_be_restored_in_the_same_iterator():
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
def test_sources_are_mixed_by_weight_and_by_default_by_size(weights, share):
    sources = Numbers(40), Numbers(10, first=100)
    seen = np.array(numbers(take(50, batches_of(*sources, weights=weights))))
    assert np.mean(seen >= 100) == pytest.approx(share, abs=0.01)
    # all along, and not one after the other
    for part in seen.reshape(5, 40):
        assert np.mean(part >= 100) == pytest.approx(share, abs=0.06)


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Two packed datasets: 40 records of 6 pixels, and 24 of 12."""
    folder = tmp_path_factory.mktemp("packs")
    for name, n, side in (("a", 40, 6), ("b", 24, 12)):
        pack_numbers(folder / name, n, side=side)
    return [open_packed(PACKED_ROW, folder / name, "train") for name in ("a", "b")]


@pytest.mark.parametrize(
    ("weights", "share"), [((3, 1), 0.25), ((0.1, 0.9), 0.9), (None, 24 / 64)]
)
def test_packed_datasets_are_mixed_by_weight(packs, weights, share):
    index_of = {
        resize(pack[i]["rgb"], 6).tobytes(): (name, i)
        for name, pack in zip("ab", packs, strict=True)
        for i in range(len(pack))
    }
    assert len(index_of) == 64
    batches = batches_of(*packs, weights=weights, batch_size=20, sizes={"rgb": 6})
    seen = [index_of[rgb.tobytes()] for b in take(100, batches) for rgb in b["rgb"]]
    assert np.mean([name == "b" for name, _ in seen]) == pytest.approx(share, abs=0.002)
    for name, pack in zip("ab", packs, strict=True):  # and within a set, evenly
        drawn = [i for which, i in seen if which == name]
        assert np.ptp(np.bincount(drawn, minlength=len(pack))) <= 1


@pytest.mark.parametrize("stop", [1, 5])
def test_mixed_packs_are_split_among_processes_and_resumed(packs, stop):
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
            union = np.concatenate([part[key] for part in parts])
            np.testing.assert_array_equal(union, rows)


# Processes.


@pytest.mark.parametrize("count", [2, 4])
def test_the_processes_share_the_batch_of_a_single_process(count):
    def run(process):
        return take(
            9, batches_of(Pictures(21), batch_size=8, augment=FULL, process=process)
        )

    whole = run((0, 1))
    shares = [run((index, count)) for index in range(count)]
    for step, batch in enumerate(whole):
        for key, rows in batch.items():
            parts = [share[step][key] for share in shares]
            assert {len(part) for part in parts} == {8 // count}
            np.testing.assert_array_equal(np.concatenate(parts), rows)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 13, 16, 21])
@pytest.mark.parametrize("count", [2, 4])
def test_each_record_is_evaluated_by_one_process_once(length, count):
    def run(process):
        options = types.ReadOptions(8)
        read = pipeline.eval_batches(
            Pictures(length), sizes={"rgb": 6}, options=options, process=process
        )
        return list(read)

    whole = run((0, 1))
    shares = [run((index, count)) for index in range(count)]
    assert {len(share) for share in shares} == {len(whole)}
    for step, batch in enumerate(whole):
        real = batch["mask"]
        for key, rows in batch.items():
            parts = [share[step][key] for share in shares]
            assert {part.shape for part in parts} == {(8 // count, *rows.shape[1:])}
            assert {part.dtype for part in parts} == {rows.dtype}
            np.testing.assert_array_equal(np.concatenate(parts)[real], rows[real])
        joined = np.concatenate([share[step]["mask"] for share in shares])
        np.testing.assert_array_equal(joined, real)


def test_a_batch_that_processes_cannot_share_equally_is_refused():
    with pytest.raises(ValueError, match="process 1 of 3; choose a multiple of 3"):
        batches_of(Pictures(21), batch_size=8, process=(1, 3))


def test_processes_never_read_the_same_example_in_an_epoch():
    first, second = (
        numbers(take(4, batches_of(Numbers(16), process=(i, 2)))) for i in (0, 1)
    )
    assert not set(first) & set(second)
    assert sorted(first + second) == list(range(16))


# Refusals.


def test_fewer_examples_than_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"numbers:train: 3 examples .* batch of 4"):
        batches_of(Numbers(3))
    assert take(1, batches_of(Numbers(2), Numbers(2)))  # together they are enough


@pytest.mark.parametrize("start", [batches_of, lambda s, **o: next(evaluate(s, **o))])
def test_an_unknown_on_error_lists_the_choices(start):
    with pytest.raises(ValueError, match=r"on_error = 'ignore' .* 'raise' or 'skip'"):
        start(Numbers(5), on_error="ignore")


# Evaluation.


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


def test_a_dataset_that_divides_evenly_needs_no_padding():
    batches = list(evaluate(Numbers(8)))
    assert len(batches) == 2
    assert all(b["mask"].all() for b in batches)


def test_a_dataset_smaller_than_a_batch_is_one_padded_batch():
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
