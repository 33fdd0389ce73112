"""What is kept of a split comes back bit for bit, and a broken file says so."""

import numpy as np
import pytest

from rsclip_jax.records.outcomes import (
    Outcome,
    find_mismatch,
    load_outcome,
    load_outcomes,
    save_outcome,
)


def make_outcome(split="test", **values) -> Outcome:
    rng = np.random.default_rng(0)
    fields = {
        "pins": {"stage": "evaluate", "dataset": "eurosat_rgb", "split": split},
        "ids": ("Forest/Forest_1", "River/Fluß 2"),
        "z": {"rgb": rng.normal(size=(2, 4)).astype(np.float32)},
        "labels": np.array([1, 0]),
        "classnames": ("forest", "river"),
        "head": rng.normal(size=(4, 2)).astype(np.float32),
    }
    return Outcome(**{**fields, **values})


def test_what_is_saved_is_loaded(tmp_path):
    made = make_outcome(z={"rgb": np.eye(2, 4), "s1+s2": -np.eye(2, 4)})
    loaded = load_outcome(save_outcome(tmp_path, made))
    assert loaded.pins == made.pins
    assert (loaded.ids, loaded.classnames) == (made.ids, made.classnames)
    assert list(loaded.z) == ["rgb", "s1+s2"]
    np.testing.assert_array_equal(loaded.z["s1+s2"], made.z["s1+s2"])
    np.testing.assert_array_equal(loaded.labels, made.labels)
    np.testing.assert_array_equal(loaded.logits("rgb"), made.head[:2])


def test_what_is_absent_stays_absent(tmp_path):
    made = make_outcome(labels=None, head=None, classnames=())
    loaded = load_outcome(save_outcome(tmp_path, made))
    assert loaded.labels is None
    assert loaded.ztxt is None
    with pytest.raises(ValueError, match="eurosat_rgb:test has no classes"):
        loaded.logits("rgb")


def test_every_set_has_a_file_of_its_own(tmp_path):
    splits = ("test", "train[95%:]", "train[:95%]")
    for split in splits:
        save_outcome(tmp_path, make_outcome(split))
    tiled = make_outcome(pins={**make_outcome().pins, "tile": 64})
    save_outcome(tmp_path, tiled)
    assert tiled.name == "eurosat_rgb:test:64"
    names = {outcome.name for outcome in load_outcomes(tmp_path)}
    assert names == {tiled.name, *(f"eurosat_rgb:{split}" for split in splits)}
    assert load_outcomes(tmp_path / "absent") == []


@pytest.mark.parametrize("broken", [b"", b"PK\x03\x04", "cut"])
def test_a_broken_file_is_named(tmp_path, broken):
    path = save_outcome(tmp_path, make_outcome())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if broken == "cut" else broken)
    with pytest.raises(ValueError, match=r"eurosat_rgb-test\.npz: not a file of kept"):
        load_outcome(path)


def test_what_tells_two_sets_of_examples_apart_is_named():
    names, one = ("a", "b"), make_outcome(owners=np.array([0, 1]))
    assert find_mismatch(one, make_outcome(owners=np.array([0, 1])), names) == ""
    assert find_mismatch(one, make_outcome(), names) == ""  # without captions
    moved = make_outcome(owners=np.array([0, 0]))
    assert find_mismatch(one, moved, names) == "owners of a differ from those of b"
    asked = make_outcome(pins={**one.pins, "prompts": "x"})
    assert find_mismatch(one, asked, names) == "prompts is None in a and 'x' in b"
    assert find_mismatch(one, asked, names, prompts=False) == ""
