"""A source among several tasks: where its classes stand."""

import numpy as np
import pytest

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sources import split_digest
from rsclip_jax.data.views import SharedLabels
from tests.runs import few_scenes


@pytest.mark.parametrize("name", ["miniature", "miniature_multi"])
def test_labels_move_to_their_place_and_the_rest_stays(name):
    with few_scenes():
        source = open_source(name, split="val")
        k = len(source.dataset.classnames)
        shared = SharedLabels(source, 3, k + 5)
        assert len(shared) == len(source)
        assert split_digest(shared) == split_digest(source)
        for i in range(0, len(source), 7):
            want, found = source[i], shared[i]
            np.testing.assert_array_equal(found["rgb"], want["rgb"])
            if name == "miniature":
                assert found["label"] == want["label"] + 3
            else:
                others = np.r_[found["label"][:3], found["label"][k + 3 :]]
                np.testing.assert_array_equal(others, [-1] * 5)
                np.testing.assert_array_equal(found["label"][3 : k + 3], want["label"])
