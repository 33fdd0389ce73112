"""Resizing keeps values, dtype and bands."""

import numpy as np
import pytest

from rsclip_jax.data.pipeline.geometry import resize
from tests.helpers.augmented import ground


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(12, 12), (6, 6), (48, 48), (12, 30), (30, 12)])
def test_resizing_keeps_dtype_channels_and_mean(channels, dtype, shape):
    smooth = 100 + 20 * np.sin(ground(24).sum(-1) / 5)
    array = np.stack([smooth + 3 * i for i in range(channels)], -1).astype(dtype)
    out = resize(array, *shape)
    assert out.shape == (*shape, channels)
    assert out.dtype == dtype
    mean = out.reshape(-1, channels).astype(float).mean(0)
    expected = array.reshape(-1, channels).astype(float).mean(0)
    np.testing.assert_allclose(mean, expected, atol=1.5)
    assert (np.diff(mean) > 2).all() or channels == 1  # channels keep their order


def test_measurements_shrink_to_the_mean_of_the_area():
    array = np.random.default_rng(1).normal(-12, 4, (12, 8, 2)).astype(np.float32)
    blocks = array.reshape(3, 4, 2, 4, 2).mean((1, 3))
    np.testing.assert_allclose(resize(array, 3, 2), blocks, rtol=1e-5)


def test_shrinking_does_not_alias():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    for array in (board, board.repeat(3, -1), board.repeat(13, -1)):
        out = resize(array, 16)
        assert np.abs(out.astype(float) - 127.5).max() < 8
    out = resize(board.astype(np.float32), 16)
    np.testing.assert_allclose(out, 127.5)


def test_enlarging_clips_at_the_dtype_and_does_not_wrap():
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    out = resize(edge, 32)
    assert (out[:, :12] < 60).all()
    assert (out[:, 20:] > 195).all()
    dn = resize((edge.astype(np.uint16) * 257), 32)
    assert (dn[:, :12] < 15_000).all()
    assert (dn[:, 20:] > 50_000).all()


def test_enlarged_floats_are_not_rounded():
    array = ground(4)[..., :1]
    out = resize(array, 8)
    assert (out != np.rint(out)).mean() > 0.5
    np.testing.assert_allclose(out[2:6, 0, 0], [1.25, 1.75, 2.25, 2.75], atol=0.1)
