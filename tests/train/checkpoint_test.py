"""Products and digests."""

import jax
import numpy as np
import optax
import pytest

from rsclip_jax.records.meta import StageMeta
from rsclip_jax.train import checkpoint, resume, sharding
from rsclip_jax.train_step import make_state

PARAMS = {"a": {"kernel": np.arange(8, dtype=np.float32).reshape(2, 4)}, "t": np.e}


def params():
    return {**PARAMS, "t": np.float32(PARAMS["t"])}


def test_a_product_comes_back_bit_for_bit_with_its_meta(tmp_path):
    assert not checkpoint.has_product(tmp_path / "patch")
    checkpoint.save_product(tmp_path / "patch", params(), StageMeta(alpha=0.4))
    assert checkpoint.has_product(tmp_path / "patch")
    found, meta = checkpoint.load_product(tmp_path / "patch")
    jax.tree.map(np.testing.assert_array_equal, found, params())
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(found))
    assert meta.alpha == 0.4
    assert meta.digest == checkpoint.params_digest(found)


def test_a_product_sharded_over_devices_is_whole_on_disk(tmp_path):
    mesh = sharding.make_mesh((2, 4))
    placed = sharding.put_params(params(), mesh)
    checkpoint.save_product(tmp_path / "s", placed, StageMeta())
    found, meta = checkpoint.load_product(tmp_path / "s")
    jax.tree.map(np.testing.assert_array_equal, found, params())
    assert meta.digest == checkpoint.params_digest(params())


def test_a_product_is_never_written_over(tmp_path):
    checkpoint.save_product(tmp_path / "s", params(), StageMeta())
    with pytest.raises(FileExistsError, match="is not overwritten"):
        checkpoint.save_product(tmp_path / "s", {"a": np.zeros(2)}, StageMeta())
    jax.tree.map(
        np.testing.assert_array_equal,
        checkpoint.load_product(tmp_path / "s")[0],
        params(),
    )


def test_an_unfinished_stage_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"stage 'patch' of .* not finished"):
        checkpoint.load_product(tmp_path / "patch")


@pytest.mark.parametrize(
    "other",
    [
        {**PARAMS, "t": np.float32(2)},
        {"a": PARAMS["a"], "u": np.float32(np.e)},
        {"a": {"kernel": PARAMS["a"]["kernel"].reshape(4, 2)}, "t": np.float32(np.e)},
        {"a": {"kernel": PARAMS["a"]["kernel"].astype(np.int32)}, "t": np.float32(1)},
    ],
)
def test_the_digest_tells_values_names_shapes_and_types_apart(other):
    assert checkpoint.params_digest(other) != checkpoint.params_digest(params())


def test_what_was_trained_may_be_kept_apart_from_the_checkpoints(tmp_path):
    tx = optax.sgd(0.1)
    state = sharding.put_params(make_state(params(), tx), sharding.make_mesh())
    with resume.Saves(tmp_path / "s" / "checkpoints") as saves:
        saves.save(state, {}, {"sources": {}})
    for factor in (2, 3):  # a run that was cut off writes it again
        trained = jax.tree.map(lambda x, by=factor: np.float32(by * x), params())
        checkpoint.save_trained(tmp_path / "s", trained)
        found = checkpoint.load_trained(tmp_path / "s")
        jax.tree.map(np.testing.assert_array_equal, found, trained)


def test_a_stage_that_has_not_begun_has_nothing_to_read(tmp_path):
    assert resume.begun_sources(tmp_path / "s") == {}
    with pytest.raises(FileNotFoundError, match="s/checkpoints holds no checkpoint"):
        checkpoint.load_trained(tmp_path / "s")
