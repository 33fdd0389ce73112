"""The list of what could not be read: each record once, from any thread or process."""

import multiprocessing
import threading

from rsclip_jax.data.bad_records import count_skipped, note_skipped


def note_many(path, start):
    for i in range(start, start + 20):
        note_skipped(path, "numbers:train", f"scene/{i}", "cut\n short")


def test_a_record_is_listed_once_with_its_set_and_reason(tmp_path):
    path = tmp_path / "patch" / "skipped.txt"
    assert count_skipped(path) == 0
    note_skipped(path, "numbers:train", "scene/1", "a.tif:\tcut\nshort")
    note_skipped(path, "numbers:train", "scene/1", "another reason")
    note_skipped(path, "numbers:train", "scene/10", "begins like the first")
    note_skipped(path, "numbers:val", "scene/1", "of another split")
    assert path.read_text().splitlines() == [
        "numbers:train\tscene/1\ta.tif: cut short",
        "numbers:train\tscene/10\tbegins like the first",
        "numbers:val\tscene/1\tof another split",
    ]
    assert count_skipped(path) == 3


def test_threads_and_processes_may_list_the_same_records(tmp_path):
    path = tmp_path / "skipped.txt"
    context = multiprocessing.get_context("spawn")
    several = [context.Process(target=note_many, args=(path, 10))]
    several += [threading.Thread(target=note_many, args=(path, i)) for i in (0, 5)]
    for one in several:
        one.start()
    for one in several:
        one.join(60)
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(
        f"numbers:train\tscene/{i}\tcut short" for i in range(30)
    )
