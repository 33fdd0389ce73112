"""The findings of an inspection, as lines that a person reads."""

from rsclip_jax.report.inspection import _repeats


def test_an_image_that_repeats_many_times_is_listed_by_a_few_names():
    ids = {"train": [f"{i}.png" for i in range(70)], "val": ["x.png"]}
    summary = {
        "duplicate_ids": [],
        "sensors": {"rgb": {}},
        "splits": {"train": {"read": 70}, "val": {"read": 1}},
        "identical_images": [{"key": "rgb", "ids": ids}],
    }
    (line,) = _repeats(summary)
    assert line.endswith("= train:3.png = train:4.png and 66 more")


def test_ids_of_several_records_are_listed():
    ids = [{"id": "a/1", "splits": {"train": 2}}]
    summary = {
        "duplicate_ids": ids,
        "sensors": {},
        "splits": {},
        "identical_images": [],
    }
    assert _repeats(summary) == ["1 id used by more than one record: a/1"]
