"""Products and digests."""

import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from rsclip_jax.records.meta import StageMeta, write_meta
from rsclip_jax.train import checkpoint, resume, sharding
from rsclip_jax.train_step import make_state
from tests.helpers.damage import flip

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


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> tuple[Path, dict]:
    """A finished stage with values of 16 KB that do not compress."""
    rng = np.random.default_rng(0)
    tree = {"a": {"kernel": rng.normal(size=(64, 64)).astype(np.float32)}}
    stage_dir = tmp_path_factory.mktemp("w") / "patch"
    checkpoint.save_product(stage_dir, tree, StageMeta())
    return stage_dir, tree


MORE = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, 112)]


@pytest.mark.parametrize("seed", [*range(12), *MORE])
def test_a_flipped_bit_never_gives_other_weights(product, tmp_path, seed):
    original, tree = product
    stage_dir = tmp_path / "patch"
    shutil.copytree(original, stage_dir)
    flip(stage_dir / "params", seed)
    told, found = "", tree
    try:
        found, _ = checkpoint.load_product(stage_dir)
    except ValueError as error:
        told = str(error)
    if told:
        assert f"{stage_dir}/params" in told
        assert f"restore {stage_dir} from a copy, or remove it" in told
    # without an error, the bit was one that no value depends on
    np.testing.assert_array_equal(found["a"]["kernel"], tree["a"]["kernel"])


def test_most_flips_are_of_values_and_are_noticed(product, tmp_path):
    """The flips of the test above do not just miss."""
    noticed = 0
    for seed in range(12):
        stage_dir = tmp_path / str(seed)
        shutil.copytree(product[0], stage_dir)
        flip(stage_dir / "params", seed)
        try:
            checkpoint.load_product(stage_dir)
        except ValueError:
            noticed += 1
    assert noticed >= 9


def test_a_product_replaced_by_another_is_refused(tmp_path):
    for name, factor in (("pretrain", 1), ("patch", 2)):
        tree = jax.tree.map(lambda x, by=factor: np.float32(by * x), params())
        checkpoint.save_product(tmp_path / name, tree, StageMeta())
    shutil.rmtree(tmp_path / "patch" / "params")
    shutil.copytree(tmp_path / "pretrain" / "params", tmp_path / "patch" / "params")
    with pytest.raises(ValueError, match=r"patch/params has the digest .* replaced"):
        checkpoint.load_product(tmp_path / "patch")


def test_a_product_without_a_digest_is_loaded_with_one_line(tmp_path, capsys):
    checkpoint.save_product(tmp_path / "s", params(), StageMeta())
    write_meta(tmp_path / "s", StageMeta(alpha=0.5))
    found, _ = checkpoint.load_product(tmp_path / "s")
    jax.tree.map(np.testing.assert_array_equal, found, params())
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def headed(tmp_path) -> Path:
    """A stage with a trained head of two classes."""
    ends = tuple(np.full((3, 2), x, np.float32) for x in (0.0, 1.0))
    head = np.arange(6, dtype=np.float32).reshape(3, 2)
    content = checkpoint.save_head(tmp_path / "patch", head, ends, ("a", "b"))
    digest = checkpoint.params_digest(head)
    meta = StageMeta(head={"dataset": "d", "digest": digest, "content": content})
    write_meta(tmp_path / "patch", meta)
    return tmp_path / "patch"


def test_a_head_comes_back_at_its_own_or_another_alpha(headed):
    np.testing.assert_array_equal(checkpoint.load_head(headed)["b"], [1, 3, 5])
    np.testing.assert_array_equal(checkpoint.load_head(headed, 0.25)["a"], [0.25] * 3)


@pytest.mark.parametrize("how", ["flipped", "lost", "other ends", "halved"])
def test_another_head_than_the_metas_is_refused(headed, how):
    path = headed / "head.npz"
    if how == "flipped":
        data = bytearray(path.read_bytes())
        data[data.index(b"NUMPY") + 130] ^= 1
        path.write_bytes(data)
    elif how == "lost":
        path.unlink()
    elif how == "halved":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        head = np.arange(6, dtype=np.float32).reshape(3, 2)
        checkpoint.save_head(headed, head, (head, head), ("a", "b"))
    with pytest.raises(ValueError, match=r"head\.npz (differs|cannot be read)"):
        checkpoint.load_head(headed)


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
