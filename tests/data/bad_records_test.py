"""The list of skipped records: each record once, from any thread, process or run."""

import multiprocessing
import threading

from rsclip_jax.data import bad_records
from rsclip_jax.data.bad_records import SkippedList, count_skipped


def add_many(path, start):
    listed = SkippedList(path)
    for i in range(start, start + 20):
        listed.add("numbers:train", f"scene/{i}", "cut\n short")


class Counting(SkippedList):
    """Counts the bytes that are read from the file."""

    count = 0

    def _read_new(self, file):
        start = self._end
        cut = super()._read_new(file)
        self.count += file.tell() - start
        return cut


def test_a_record_is_listed_once_with_its_dataset_and_reason(tmp_path):
    path = tmp_path / "patch" / "skipped.txt"
    assert count_skipped(path) == 0
    listed = SkippedList(path)
    listed.add("numbers:train", "scene/1", "a.tif:\tcut\nshort")
    listed.add("numbers:train", "scene/1", "another reason")
    listed.add("numbers:train", "scene/10", "begins like the first")
    listed.add("numbers:val", "scene/1", "of another split")
    resumed = SkippedList(path)
    resumed.add("numbers:train", "scene/10", "listed by the run before")
    resumed.add("numbers:train", "scene/2", "new")
    assert path.read_text().splitlines() == [
        "numbers:train\tscene/1\ta.tif: cut short",
        "numbers:train\tscene/10\tbegins like the first",
        "numbers:val\tscene/1\tof another split",
        "numbers:train\tscene/2\tnew",
    ]
    assert count_skipped(path) == 4


def test_threads_and_processes_may_list_the_same_records(tmp_path):
    path = tmp_path / "skipped.txt"
    context = multiprocessing.get_context("spawn")
    several = [context.Process(target=add_many, args=(path, 10))]
    several += [threading.Thread(target=add_many, args=(path, i)) for i in (0, 5)]
    for one in several:
        one.start()
    for one in several:
        one.join(60)
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(
        f"numbers:train\tscene/{i}\tcut short" for i in range(30)
    )


def test_the_file_is_appended_to_and_each_byte_is_read_at_most_once(tmp_path):
    """So the cost of a list is linear in its length."""
    path = tmp_path / "skipped.txt"
    one, other = Counting(path), Counting(path)
    for i in range(200):
        before = path.read_bytes() if i else b""
        (one, other)[i % 2].add("numbers:train", f"scene/{i}", "cut")
        (one, other)[i % 3 == 0].add("numbers:train", f"scene/{i}", "again")
        line = f"numbers:train\tscene/{i}\tcut\n".encode()
        assert path.read_bytes() == before + line
    assert one.count + other.count <= 2 * path.stat().st_size
    alone = Counting(tmp_path / "alone.txt")
    for i in range(200):
        alone.add("numbers:train", f"scene/{i}", "cut")
    assert alone.count == 0


def test_the_lock_s_file_is_opened_for_a_check_once(tmp_path, monkeypatch):
    made, make_open_lock = [], bad_records.make_open_lock

    def counted(path):
        made.append(path)
        return make_open_lock(path)

    monkeypatch.setattr(bad_records, "make_open_lock", counted)
    listed = SkippedList(tmp_path / "patch" / "skipped.txt")
    for i in range(50):
        listed.add("numbers:train", f"scene/{i}", "cut")
    assert made == [tmp_path / "patch" / "skipped.txt.lock"]
    assert count_skipped(listed.path) == 50


def test_a_line_cut_by_a_kill_is_ended_before_the_next(tmp_path):
    path = tmp_path / "skipped.txt"
    path.write_text("a:train\tx\tcut\na:train\ty\tsho")
    SkippedList(path).add("a:train", "z", "missing")
    assert path.read_text().splitlines()[1:] == [
        "a:train\ty\tsho",
        "a:train\tz\tmissing",
    ]
