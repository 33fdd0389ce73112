"""The loop on a toy regression: resume, signals, a loss that is no number."""

import json
import signal

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rsclip_jax.train import checkpoint, loop, optim
from rsclip_jax.train.settings import TrainSettings
from tests.helpers.batches import make_batches

META = {"stage": "toy", "sources": {"theta_0": {"digest": "a"}}}


def loss_fn(params, frozen, batch):
    miss = batch["x"] @ params["w"] - batch["x"] @ frozen["w"]
    return jnp.mean(miss**2), {"largest": jnp.abs(miss).max()}


def train(folder, mesh, batches, steps, *, log_every=1, **changes):
    kwargs = {"meta": META, "tx": optax.adamw(optax.constant_schedule(0.05))}
    return loop.train(
        {"w": np.zeros((4, 2), np.float32)},
        {"w": np.ones((4, 2), np.float32)},
        batches,
        loss_fn=loss_fn,
        settings=TrainSettings(8, steps, 0.05, checkpoint_every=4, log_every=log_every),
        mesh=mesh,
        folder=folder,
        progress=False,
        **{**kwargs, **changes},
    )


def curve(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def losses(folder):
    return [(c["step"], c["loss"]) for c in curve(folder)]


def test_resume_at_k_equals_a_straight_run(tmp_path, mesh):
    straight = train(tmp_path / "straight", mesh, make_batches(), 10)
    train(tmp_path / "twice", mesh, make_batches(), 4)
    seen: list[int] = []
    resumed = train(tmp_path / "twice", mesh, make_batches(seen=seen), 10)
    assert seen == [5, 6, 7, 8, 9, 10]  # the data goes on, too
    same(straight, resumed)
    assert losses(tmp_path / "straight") == losses(tmp_path / "twice")


def test_resume_goes_on_with_the_moving_mean(tmp_path, mesh):
    tx = optim.with_ema(optax.adamw(0.05), 0.9)
    straight = train(tmp_path / "straight", mesh, make_batches(), 10, tx=tx)
    train(tmp_path / "twice", mesh, make_batches(), 4, tx=tx)
    same(straight, train(tmp_path / "twice", mesh, make_batches(), 10, tx=tx))
    last = checkpoint.load_trained(tmp_path / "twice")
    plain = train(tmp_path / "plain", mesh, make_batches(), 10)
    same(last, plain)  # the checkpoint has the params, and the mean beside them
    assert np.abs(last["w"] - straight["w"]).min() > 1e-3


def test_steps_after_the_last_save_are_made_again(tmp_path, mesh):
    straight = train(tmp_path / "straight", mesh, make_batches(), 10)
    with pytest.raises(FloatingPointError):
        train(tmp_path / "broken", mesh, make_batches(poison=7), 10)
    assert [c["step"] for c in curve(tmp_path / "broken")] == [1, 2, 3, 4, 5, 6]
    repaired = train(tmp_path / "broken", mesh, make_batches(), 10)
    same(straight, repaired)
    assert losses(tmp_path / "straight") == losses(tmp_path / "broken")


def test_a_loss_that_is_no_number_stops_there_and_keeps_the_good_save(tmp_path, mesh):
    with pytest.raises(FloatingPointError, match=r"loss nan.*step 8.*last good") as e:
        train(tmp_path, mesh, make_batches(poison=8), 10)
    assert str(tmp_path / "checkpoints") in str(e.value)
    with checkpoint.make_manager(tmp_path / "checkpoints") as manager:
        assert manager.all_steps() == [4]  # step 8 was due, and is not saved


def test_a_signal_saves_the_step_and_stops(tmp_path, mesh, capsys):
    straight = train(tmp_path / "straight", mesh, make_batches(), 10)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(loop.Interrupted, match="step 6 of 10 of killed") as error:
        train(tmp_path / "killed", mesh, make_batches(kill=6), 10)
    assert error.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert "stopping after this step" in capsys.readouterr().err
    with checkpoint.make_manager(tmp_path / "killed" / "checkpoints") as manager:
        assert manager.latest_step() == 6
    same(straight, train(tmp_path / "killed", mesh, make_batches(), 10))


def test_the_callers_arrays_outlive_the_donation(tmp_path, mesh):
    params = {"w": jnp.zeros((4, 2))}
    frozen = {"w": jnp.ones((4, 2))}
    loop.train(
        params, frozen, make_batches(), loss_fn=loss_fn, tx=optax.adam(0.05),
        settings=TrainSettings(8, 2, 0.05), mesh=mesh, folder=tmp_path, meta=META,
        progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(params["w"], 0)
    np.testing.assert_array_equal(frozen["w"], 1)


def test_a_finished_run_makes_no_step(tmp_path, mesh):
    first = train(tmp_path, mesh, make_batches(), 4)
    seen: list[int] = []
    same(first, train(tmp_path, mesh, make_batches(seen=seen), 4))
    assert seen == []


def test_the_curve_is_logged_at_its_interval(tmp_path, mesh):
    train(tmp_path, mesh, make_batches(), 10, log_every=3)
    lines = curve(tmp_path)
    assert [c["step"] for c in lines] == [3, 6, 9]
    assert {"loss", "grad_norm", "lr", "largest", "examples_per_second"} <= set(
        lines[0]
    )


def test_what_was_begun_from_other_weights_is_not_gone_on_with(tmp_path, mesh):
    train(tmp_path, mesh, make_batches(), 4)
    other = {**META, "sources": {"theta_0": {"digest": "b"}}}
    with pytest.raises(
        ValueError, match=r"(?s)step 4 .*theta_0 digest: 'a' then, 'b' now"
    ):
        train(tmp_path, mesh, make_batches(), 10, meta=other)


def test_an_error_in_a_reader_s_thread_ends_training_and_keeps_the_save(tmp_path, mesh):
    error = MemoryError("no memory")

    def draw(i):
        if i == 7:
            raise error
        return {"x": np.random.default_rng(i).normal(size=(8, 4)).astype(np.float32)}

    data = grain.MapDataset.range(1, 100).map(draw)
    threads = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    with pytest.raises(MemoryError, match=r"step 7 of 10: .*\(no memory\)") as caught:
        train(tmp_path, mesh, iter(data.to_iter_dataset(threads)), 10)
    assert caught.value.__cause__ is error
    assert [step for step, _ in losses(tmp_path)] == [1, 2, 3, 4, 5]
    with checkpoint.make_manager(tmp_path / "checkpoints") as manager:
        assert manager.latest_step() == 4
