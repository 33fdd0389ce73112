"""Orbax's folders in object stores: whole or not there, also after a kill."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rsclip_jax.io.files import write_text
from rsclip_jax.io.paths import ObjectPath, as_path
from rsclip_jax.train import checkpoint, processes
from rsclip_jax.train.resume import Saves
from rsclip_jax.train.stores import WRITTEN, check_processes, is_whole, steps_in
from rsclip_jax.train_step import make_state
from tests.helpers.object_store import BUCKET, environment, serving, serving_s3

PARAMS = {"a": jnp.arange(6.0).reshape(2, 3), "b": {"c": jnp.ones(4)}}
META = {"sources": {"data": {"d": "1"}}}


@pytest.fixture(scope="module", params=["gs", "s3"])
def bucket(request, tmp_path_factory):
    serve = {"gs": serving, "s3": serving_s3}[request.param]
    with (
        serve(tmp_path_factory.mktemp("store") / "log") as variables,
        environment(variables),
    ):
        yield as_path(f"{request.param}://{BUCKET}")


def make(step):
    state = make_state(PARAMS, optax.adamw(1e-3))
    params = {"a": PARAMS["a"] + step, "b": PARAMS["b"]}
    return state.replace(step=jnp.asarray(step, jnp.int32), params=params)


def test_a_product_comes_back(bucket):
    folder = bucket / "product" / "patch"
    checkpoint.save_product(folder, PARAMS, checkpoint.StageMeta())
    assert checkpoint.has_product(folder)
    found, meta = checkpoint.load_product(folder)
    np.testing.assert_array_equal(found["a"], PARAMS["a"])
    assert meta.digest == checkpoint.params_digest(PARAMS)
    with pytest.raises(FileExistsError, match="is not overwritten"):
        checkpoint.save_product(folder, PARAMS, checkpoint.StageMeta())
    checkpoint.save_trained(folder, PARAMS)
    checkpoint.save_trained(folder, {"a": PARAMS["a"] + 1})  # replaced as a whole
    assert set(checkpoint.load_trained(folder)) == {"a"}


def test_a_part_that_a_kill_left_is_no_product(bucket):
    folder = bucket / "part" / "patch"
    write_text(folder / "params" / "d" / "0", "a part")
    assert not checkpoint.has_product(folder)
    with pytest.raises(FileNotFoundError, match="has not finished; run it first"):
        checkpoint.load_product(folder)
    checkpoint.save_product(folder, PARAMS, checkpoint.StageMeta())
    np.testing.assert_array_equal(checkpoint.load_product(folder)[0]["a"], PARAMS["a"])
    assert not (folder / "params" / "d" / "0").exists()


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)  # gs:// is up to Orbax
def test_a_product_counts_once_all_its_files_are_there(bucket, monkeypatch):
    """Orbax writes its mark into local folders too, which must not go first."""
    folder, upload, left = bucket / "order" / "patch", ObjectPath.upload, [4]

    def stop(self, local):
        left[0] -= "params" in self.parts
        if left[0] < 0:
            raise KeyboardInterrupt
        upload(self, local)

    monkeypatch.setattr(ObjectPath, "upload", stop)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_product(folder, PARAMS, checkpoint.StageMeta())
    assert len((folder / "params").files()) == 4
    assert not checkpoint.has_product(folder)


def test_training_goes_on_from_the_newest_whole_checkpoint(bucket):
    folder = bucket / "saves" / "checkpoints"
    with Saves(folder) as saves:
        for step in (5, 10, 15):
            saves.save(make(step), {"position": step}, META)
    assert steps_in(folder) == [10, 15]
    write_text(folder / "20" / "params" / "manifest.ocdbt", "a part")
    (folder / "15" / WRITTEN).unlink()  # as a kill just before the mark leaves it
    with Saves(folder) as saves:
        begun = saves.restore(make(0), META)
        assert int(begun.state.step) == 10
        np.testing.assert_array_equal(begun.state.params["a"], PARAMS["a"] + 10)
        assert begun.position == {"position": 10}
        for step in (15, 20):
            saves.save(make(step), {"position": step}, META)
    assert steps_in(folder) == [15, 20]
    with Saves(folder) as saves:
        assert int(saves.restore(make(0), META).state.step) == 20


def test_a_damaged_checkpoint_is_moved_aside(bucket, capsys):
    folder = bucket / "damaged" / "checkpoints"
    with Saves(folder) as saves:
        for step in (5, 10):
            saves.save(make(step), {"position": step}, META)
    write_text(folder / "10" / "meta" / "metadata", '{"step": 1')
    with Saves(folder) as saves:
        assert int(saves.restore(make(0), META).state.step) == 5
    assert f"moved to {folder.parent}/damaged" in capsys.readouterr().err
    assert steps_in(folder) == [5]
    assert is_whole(folder.parent / "damaged" / "10")


def test_several_processes_need_a_store_that_takes_them(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 4)
    check_processes(as_path("gs://bucket/run"))
    check_processes(as_path("runs/a"))
    words = r"s3://bucket/run: .* one process only, and there are 4: use gs://"
    with pytest.raises(ValueError, match=words):
        check_processes(as_path("s3://bucket/run"))
