"""Saves leave nothing behind, in a short form of tests/soak.py."""

from tests import soak


def test_saves_leave_no_threads_and_files(tmp_path):
    uses = soak.soak(tmp_path, steps=80, every=2)
    early, late = uses[10:20], uses[-10:]
    for name in ("threads", "open_files", "files"):  # they vary during a save
        before, after = (max(getattr(u, name) for u in x) for x in (early, late))
        assert after <= before * 1.5, (name, before, after)
    assert soak.slope(uses[10:]) < 1024  # KiB a save, where memory is still settling
