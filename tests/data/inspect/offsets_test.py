"""DN that are 1000 too high: found by the darkest pixels."""

import numpy as np
import pytest

from rsclip_jax.data.inspect.offsets import describe_offset, suspect_offset
from rsclip_jax.data.types import Dataset, Scaling, Source


class Records(Source):
    def __init__(self, darkest, sensor="s2_l1c", **more):
        self.dataset = Dataset("mine", "", "none", {"s2": sensor}, **more)
        self.split, self.ids = "all", [str(i) for i in range(len(darkest))]
        self._darkest = darkest

    def __getitem__(self, index):
        if self._darkest[index] is None:
            raise ValueError("unreadable")
        array = np.full((4, 4, 13), self._darkest[index] + 900, np.uint16)
        array[1, 1, 10] = self._darkest[index]
        array[2, 2] = 0  # missing, and not dark
        return {"id": self.ids[index], "label": -1, "s2": array}


@pytest.mark.parametrize(
    ("darkest", "words"),
    [
        ([1003, 1010, 1040, 1500], "the darkest pixels of all bands are at 1003 DN"),
        ([None, 1003], "are at 1003 DN"),
        ([3, 1003, 8, 12, 1, 2], "at 1000 DN in 1 records and near 0 in 5, so two"),
        ([3, 10, 40, 1500], ""),
        ([150, 420, 640, 1010, 700, 390, 980, 1200], ""),  # haze, without a cirrus band
        ([1500, 2000], ""),  # a desert, without a dark pixel
        ([], ""),
    ],
)
def test_the_darkest_pixels_tell_an_offset(darkest, words):
    found = suspect_offset(Records(darkest))
    assert len(found) == bool(words)
    for line in found:
        assert line.startswith("mine:all: s2: ")
        assert words in line
        assert "[offset] s2 = -1000" in line


def test_a_dataset_with_its_own_offset_and_other_sensors_are_not_suspected():
    assert suspect_offset(Records([1003], scaling={"s2": Scaling()})) == []
    assert suspect_offset(Records([1003], sensor="s1_grd")) == []


def test_one_bright_record_among_many_is_no_mixture():
    assert describe_offset("s2", [5.0] * 20 + [1000.0]) == ""
