"""TrainSettings: what it refuses, and the optimizer that it describes."""

import math

import jax
import numpy as np
import pytest

from rsclip_jax.train.settings import TrainSettings, make_tx


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch_size": 0}, "batch_size = 0 is below 1"),
        ({"steps": 0}, "steps = 0 is below 1"),
        ({"lr": -1.0}, r"lr = -1\.0 is below 0"),
        ({"warmup": -1}, "warmup = -1 is below 0"),
        ({"checkpoint_every": 0}, "checkpoint_every = 0 is below 1"),
        ({"lr": math.nan}, "lr = nan is not a finite number"),
        ({"lr": math.inf}, "lr = inf is not a finite number"),
        ({"weight_decay": math.nan}, "weight_decay = nan is not a finite number"),
        ({"clip_norm": math.nan}, "clip_norm = nan is not above 0"),
        ({"b2": 1.0}, r"b2 = 1.0 is not in \[0, 1\)"),
        ({"ema": math.nan}, "ema = nan is not in"),
        ({"layer_decay": math.nan}, "layer_decay = nan is not in"),
        ({"keep": 0}, "keep = 0 is below 1"),
        ({"on_nonfinite": "go"}, "on_nonfinite = 'go': use one of stop, skip"),
        ({"ema": 1.0}, r"ema = 1\.0 is not in \[0, 1\)"),
        ({"layer_decay": 0.0}, r"layer_decay = 0\.0 is not in \(0, 1\]"),
    ],
)
def test_out_of_range_settings_are_named(values, words):
    with pytest.raises(ValueError, match=rf"^{words}"):
        TrainSettings(**{"batch_size": 8, "steps": 2, "lr": 0.1, **values})


PARAMS = {"a": np.ones((2, 2), np.float32), "b": np.ones((2, 2), np.float32)}


def test_the_optimizer_trains_what_the_rules_say_at_the_schedules_rate():
    rules = (("a", 0.5), (".*", False))
    settings = TrainSettings(8, 10, 0.1, warmup=1, trainable=rules)
    tx = make_tx(settings, PARAMS)
    grads, state = jax.tree.map(np.ones_like, PARAMS), tx.init(PARAMS)
    updates, state = tx.update(grads, state, PARAMS)
    np.testing.assert_array_equal(updates["b"], 0)
    np.testing.assert_array_equal(updates["a"], 0)  # warm-up begins at 0
    updates, _ = tx.update(grads, state, PARAMS)
    # Adam's step is its rate times the gradient's sign
    rate = 0.5 * float(settings.schedule(1))
    np.testing.assert_allclose(updates["a"], -rate, rtol=1e-4)


def test_rules_that_match_nothing_are_refused_by_the_argument_s_name():
    settings = TrainSettings(8, 10, 0.1, trainable=(("c", True), (".*", True)))
    with pytest.raises(ValueError, match=r"^trainable = .*match no parameter"):
        make_tx(settings, PARAMS)
