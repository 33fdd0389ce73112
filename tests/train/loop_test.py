"""The loop on a toy regression: resume, signals, a loss that is no number."""

import json
import signal
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rsclip_jax.train import checkpoint, loop, optim, stopping
from rsclip_jax.train.settings import TrainSettings
from rsclip_jax.train.stores import steps_in
from tests.helpers.batches import make_batches

META = {"stage": "toy", "sources": {"theta_0": {"digest": "a"}}}


def loss_fn(params, frozen, batch):
    miss = batch["x"] @ params["w"] - batch["x"] @ frozen["w"]
    return jnp.mean(miss**2), {"largest": jnp.abs(miss).max()}


def train(folder, mesh, batches, steps, *, log_every=1, nonfinite=None, **changes):
    kwargs = {"meta": META, "tx": optax.adamw(optax.constant_schedule(0.05))}
    how = {"checkpoint_every": 4, "log_every": log_every, **(nonfinite or {})}
    return loop.train(
        {"w": np.zeros((4, 2), np.float32)},
        {"w": np.ones((4, 2), np.float32)},
        batches,
        loss_fn=loss_fn,
        settings=TrainSettings(8, steps, 0.05, **how),
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
        train(tmp_path / "broken", mesh, make_batches(7), 10)
    assert [c["step"] for c in curve(tmp_path / "broken")] == [1, 2, 3, 4, 5, 6]
    repaired = train(tmp_path / "broken", mesh, make_batches(), 10)
    same(straight, repaired)
    assert losses(tmp_path / "straight") == losses(tmp_path / "broken")


def test_a_loss_that_is_no_number_stops_there_and_keeps_the_good_save(tmp_path, mesh):
    with pytest.raises(FloatingPointError, match=r"loss nan.*step 8.*last good") as e:
        train(tmp_path, mesh, make_batches(8), 10)
    assert str(tmp_path / "checkpoints") in str(e.value)
    # step 8 was due, and is not saved
    assert steps_in(tmp_path / "checkpoints") == [4]


def test_a_signal_saves_the_step_and_stops(tmp_path, mesh, capsys):
    straight = train(tmp_path / "straight", mesh, make_batches(), 10)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(stopping.Interrupted, match="step 6 of 10 of killed") as error:
        train(tmp_path / "killed", mesh, make_batches(kill=7), 10)
    assert error.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert "stopping after this step" in capsys.readouterr().err
    assert steps_in(tmp_path / "killed" / "checkpoints") == [4, 6]
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


def test_the_curve_says_what_share_of_the_time_waited_for_data(tmp_path, mesh):
    def dawdle(batch):
        time.sleep(0.2)
        return batch

    batches = grain.MapDataset.range(1, 100).map(
        lambda i: dawdle({"x": np.full((8, 4), i, np.float32)})
    )
    at_once = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    train(tmp_path, mesh, iter(batches.to_iter_dataset(at_once)), 4)
    shares = [line["input_wait"] for line in curve(tmp_path)]
    assert 0.5 < max(shares) <= 1
    assert shares[-1] == 0  # a batch is drawn during the step before its own


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
    assert steps_in(tmp_path / "checkpoints") == [4]


# Losses that are not finite


def faults(folder):
    lines = (folder / "nonfinite.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def name_records(numbers):
    return [f"record {n}" for n in numbers]


SKIP = {"on_nonfinite": "skip", "max_skipped": 2}


@pytest.mark.parametrize("log_every", [1, 5, 50])
def test_a_stop_names_its_step_and_lists_the_records(tmp_path, mesh, log_every):
    """Metrics are read in groups; the first bad step of a group is the one named."""
    with pytest.raises(FloatingPointError, match="at step 7 ") as error:
        train(
            tmp_path,
            mesh,
            make_batches(7),
            20,
            log_every=log_every,
            nonfinite={"checkpoint_every": 20},
            name_records=name_records,
        )
    (fault,) = faults(tmp_path)
    assert fault["step"] == 7
    assert fault["records"] == [f"record {n}" for n in range(56, 64)]
    assert str(tmp_path / "nonfinite.jsonl") in str(error.value)
    assert "or leave such steps out with on_nonfinite = 'skip'" in str(error.value)


def test_a_skipped_step_changes_nothing_and_is_counted(tmp_path, mesh):
    """It equals a training that never met the batch."""

    def draw(i):  # the same batches without the sixth
        x = np.random.default_rng(i + (i > 5)).normal(size=(8, 4)).astype(np.float32)
        return {"x": x}

    at_once = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    without = iter(grain.MapDataset.range(1, 100).map(draw).to_iter_dataset(at_once))
    never = train(tmp_path / "never", mesh, without, 9)
    skipped = train(tmp_path / "s", mesh, make_batches(6), 10, nonfinite=SKIP)
    same(never, skipped)
    assert [(f["step"], f["loss"]) for f in faults(tmp_path / "s")] == [(6, "nan")]
    lines = curve(tmp_path / "s")
    assert [c["step"] for c in lines] == list(range(1, 11))
    assert [c["skipped"] for c in lines] == [0] * 5 + [1] * 5
    assert "loss" not in lines[5]  # JSON has no NaN


def test_a_skipped_step_is_counted_once_over_a_resume(tmp_path, mesh):
    straight = train(tmp_path / "a", mesh, make_batches(3, 9), 12, nonfinite=SKIP)
    for until in (6, 12):
        twice = train(tmp_path / "b", mesh, make_batches(3, 9), until, nonfinite=SKIP)
    same(straight, twice)
    assert faults(tmp_path / "a") == faults(tmp_path / "b")
    assert curve(tmp_path / "b")[-1]["skipped"] == 2


def test_too_many_skipped_steps_stop_the_training(tmp_path, mesh):
    with pytest.raises(FloatingPointError, match=r"step 9.* step 3 of at most.* = 2"):
        train(tmp_path, mesh, make_batches(3, 6, 9), 12, nonfinite=SKIP)
    assert [f["step"] for f in faults(tmp_path)] == [3, 6, 9]
    assert steps_in(tmp_path / "checkpoints") == [4, 8]


def test_weights_that_are_not_finite_are_named_rather_than_the_rate(tmp_path, mesh):
    with pytest.raises(
        FloatingPointError, match=r"frozen weights .* finite \(w\)"
    ) as e:
        loop.train(
            {"w": np.zeros((4, 2), np.float32)},
            {"w": np.full((4, 2), np.nan, np.float32)},
            make_batches(),
            loss_fn=loss_fn,
            tx=optax.adamw(0.05),
            settings=TrainSettings(8, 4, 0.05),
            mesh=mesh,
            folder=tmp_path,
            meta=META,
            progress=False,
        )
    assert "learning rate" not in str(e.value)


def test_a_training_says_that_it_is_alive(tmp_path, mesh):
    steps: list[int] = []
    train(tmp_path, mesh, make_batches(), 5, alive=steps.append)
    assert steps == [1, 2, 3, 4, 5]
