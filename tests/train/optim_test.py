"""AdamW against a float64 version by hand; rules, schedule and what is frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rsclip_jax.train.optim import (
    averaged,
    check_trainable,
    count_trained,
    layer_rules,
    leaf_names,
    make_optimizer,
    make_schedule,
    match_rules,
    with_ema,
)

TREE = {
    "visual": {"blocks_0": {"kernel": 1, "bias": 2}, "ln_post": {"scale": 3}},
    "logit_scale": 4,
}


def test_leaf_names_are_paths():
    assert leaf_names(TREE) == {
        "visual": {
            "blocks_0": {
                "kernel": "visual/blocks_0/kernel",
                "bias": "visual/blocks_0/bias",
            },
            "ln_post": {"scale": "visual/ln_post/scale"},
        },
        "logit_scale": "logit_scale",
    }


def test_first_full_match_wins():
    rules = (
        (r"visual/blocks_\d", "only a part of the name"),
        (r"visual/.*/bias", "bias"),
        (r"visual/.*", "visual"),
        (r".*", "rest"),
    )
    assert match_rules(rules, TREE) == {
        "visual": {
            "blocks_0": {"kernel": "visual", "bias": "bias"},
            "ln_post": {"scale": "visual"},
        },
        "logit_scale": "rest",
    }
    turned = match_rules(rules[::-1], TREE)
    assert set(jax.tree.leaves(turned)) == {"rest"}


def test_a_rule_may_say_false():
    frozen = match_rules([(r".*scale", False), (".*", True)], TREE)
    assert frozen["visual"]["ln_post"]["scale"] is False
    assert frozen["visual"]["blocks_0"]["kernel"] is True


def test_every_uncovered_leaf_is_named():
    with pytest.raises(ValueError, match="end the rules with") as error:
        match_rules([("visual/blocks_0/.*", 1)], TREE)
    assert "no rule covers logit_scale, visual/ln_post/scale;" in str(error.value)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ((("visual/.*", True),), r"no rule covers logit_scale"),
        ((("blocks_0/.*", True), (".*", False)), r"'blocks_0/\.\*', True\).* match no"),
        (((".*", False),), r"nothing is trained; .*logit_scale, .*ln_post/scale"),
        (((".*", True), ("visual/.*", False)), r"'visual/\.\*', False\).* match no"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rules, words):
    with pytest.raises(ValueError, match=words):
        check_trainable(rules, TREE)


def test_a_catch_all_with_nothing_left_is_meant():
    check_trainable((("visual/.*", True), ("logit_scale", False), (".*", True)), TREE)


@pytest.mark.parametrize(
    ("step", "want"),
    [(0, 0.0), (5, 0.1), (10, 0.2), (55, 0.1), (100, 0.0), (150, 0.0)],
)
def test_schedule_by_hand(step, want):
    schedule = make_schedule(0.2, warmup=10, steps=100)
    np.testing.assert_allclose(schedule(step), want, atol=1e-7)


def test_cosine_a_quarter_of_the_way_down():
    schedule = make_schedule(1.0, warmup=20, steps=100)
    np.testing.assert_allclose(schedule(40), (1 + np.cos(np.pi / 4)) / 2, rtol=1e-6)


def test_schedule_without_warmup_or_with_too_much():
    np.testing.assert_allclose(make_schedule(0.2, 0, 10)(0), 0.2, rtol=1e-6)
    late = make_schedule(0.2, warmup=50, steps=10)
    np.testing.assert_allclose(late(9), 0.2, rtol=1e-6)
    np.testing.assert_allclose(late(10), 0, atol=1e-7)
    for steps in (0, 1):
        assert np.isfinite(make_schedule(0.2, 5, steps)(0))


def draw(seed: int, scale: float = 1.0):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 4), "bias": (4,), "logit_scale": ()}
    return {
        k: jnp.asarray(scale * rng.normal(size=s), jnp.float32)
        for k, s in shapes.items()
    }


def adamw_by_hand(params, grads, *, lr, weight_decay, clip_norm, b2, decayed):
    """Params after one step for each tree of grads, in float64."""
    p = {k: np.asarray(v, np.float64) for k, v in params.items()}
    m = {k: np.zeros_like(v) for k, v in p.items()}
    v = {k: np.zeros_like(x) for k, x in p.items()}
    for i, tree in enumerate(grads, start=1):
        g = {k: np.asarray(x, np.float64) for k, x in tree.items()}
        norm = np.sqrt(sum((x**2).sum() for x in g.values()))
        for k in p:
            clipped = g[k] * min(1, clip_norm / norm)
            m[k] = 0.9 * m[k] + 0.1 * clipped
            v[k] = b2 * v[k] + (1 - b2) * clipped**2
            step = (m[k] / (1 - 0.9**i)) / (np.sqrt(v[k] / (1 - b2**i)) + 1e-8)
            if k in decayed:
                step = step + weight_decay * p[k]
            p[k] = p[k] - lr(i - 1) * step
    return p


def take_steps(tx, params, grads):
    opt_state = tx.init(params)
    for g in grads:
        updates, opt_state = tx.update(g, opt_state, params)
        params = optax.apply_updates(params, updates)
    return params, opt_state


SETTINGS = {"weight_decay": 0.3, "clip_norm": 1.0, "b2": 0.95}
# below the bound, far above it, below again: clipping cannot hide in Adam's scaling
GRADS = [draw(1, 0.05), draw(2, 50.0), draw(3, 0.05)]


def off_by(got, want) -> float:
    return max(np.abs(np.asarray(got[k]) - want[k]).max() for k in want)


def test_steps_equal_adamw_by_hand():
    schedule = make_schedule(0.1, warmup=2, steps=10)
    tx = make_optimizer(schedule, **SETTINGS)
    got, _ = take_steps(tx, draw(0), GRADS)

    def lr(i):
        return float(schedule(i))

    want = adamw_by_hand(draw(0), GRADS, lr=lr, decayed={"kernel"}, **SETTINGS)
    assert off_by(got, want) < 1e-5
    # each of these mistakes would be seen
    for change in (
        {"decayed": {"kernel", "bias"}},
        {"decayed": {}},
        {"clip_norm": 1e6},
        {"clip_norm": 2.0},
        {"b2": 0.999},
    ):
        wrong = {**SETTINGS, "decayed": {"kernel"}, **change}
        assert off_by(got, adamw_by_hand(draw(0), GRADS, lr=lr, **wrong)) > 1e-4


def test_only_matrices_decay():
    tx = make_optimizer(optax.constant_schedule(0.5), weight_decay=0.1, clip_norm=1.0)
    params = draw(0)
    still = jax.tree.map(jnp.zeros_like, params)
    got, _ = take_steps(tx, params, [still])
    np.testing.assert_allclose(got["kernel"], 0.95 * params["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(got["bias"], params["bias"])
    np.testing.assert_array_equal(got["logit_scale"], params["logit_scale"])


def test_what_is_trained_is_counted():
    assert count_trained(FREEZE_TEXT, towers(0)) == 3 * 4 + 4
    assert count_trained(((".*", 0.1),), towers(0)) == 3 * 4 + 4 + 5 * 6 + 6


def towers(seed: int, scale: float = 1.0):
    rng = np.random.default_rng(seed)
    shapes = {"visual": (3, 4), "text": (5, 6)}  # told apart by shape
    return {
        k: {
            "kernel": jnp.asarray(scale * rng.normal(size=s), jnp.float32),
            "bias": jnp.asarray(scale * rng.normal(size=s[-1]), jnp.float32),
        }
        for k, s in shapes.items()
    }


FREEZE_TEXT = (("visual/.*", True), (".*", False))


def test_frozen_leaves_are_bit_identical():
    schedule = optax.constant_schedule(0.1)
    tx = make_optimizer(schedule, trainable=FREEZE_TEXT, **SETTINGS)
    params = towers(0)
    got, _ = take_steps(tx, params, [towers(1), towers(2)])
    for k in ("kernel", "bias"):
        assert got["text"][k].tobytes() == params["text"][k].tobytes()
        assert np.abs(got["visual"][k] - params["visual"][k]).min() > 0


def test_frozen_leaves_have_no_moments():
    def shapes(trainable):
        tx = make_optimizer(
            optax.constant_schedule(0.1), trainable=trainable, **SETTINGS
        )
        leaves = jax.tree.leaves(tx.init(towers(0)))
        return sorted(x.shape for x in leaves if x.ndim)

    visual, text = [(3, 4), (4,)], [(5, 6), (6,)]
    assert shapes(FREEZE_TEXT) == sorted(2 * visual)
    assert shapes(((".*", True),)) == sorted(2 * (visual + text))


def test_frozen_gradients_do_not_tighten_the_clipping():
    tx = make_optimizer(optax.constant_schedule(0.1), trainable=FREEZE_TEXT, **SETTINGS)
    loud = [{**g, "text": towers(9, 1e4)["text"]} for g in (towers(1), towers(2, 0.01))]
    quiet = [{**g, "text": towers(9, 0.0)["text"]} for g in loud]
    got, _ = take_steps(tx, towers(0), loud)
    want, _ = take_steps(tx, towers(0), quiet)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_freezing_changes_nothing_for_the_rest():
    schedule = optax.constant_schedule(0.1)
    tx = make_optimizer(schedule, trainable=FREEZE_TEXT, **SETTINGS)
    got, _ = take_steps(tx, towers(0), [towers(1), towers(2)])
    alone = make_optimizer(schedule, **SETTINGS)
    visual = [{"visual": towers(i)["visual"]} for i in range(3)]
    want, _ = take_steps(alone, visual[0], visual[1:])
    np.testing.assert_allclose(
        got["visual"]["kernel"], want["visual"]["kernel"], rtol=1e-6
    )


def test_a_leaf_that_no_rule_covers_is_an_error():
    tx = make_optimizer(
        optax.constant_schedule(0.1), trainable=[("visual/.*", False)], **SETTINGS
    )
    with pytest.raises(ValueError, match="no rule covers text/bias, text/kernel"):
        tx.init(towers(0))


def vit_names(layers: int) -> dict:
    leaf = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    blocks = {f"blocks_{i}": {"mlp": leaf} for i in range(layers)}
    ends = {"patch_embed": leaf, "positional_embedding": jnp.ones((2, 2))}
    return {**blocks, **ends, "ln_post": {"scale": jnp.ones(2)}, "proj": leaf}


def rates_of(theta: dict, decay: float) -> dict[str, float]:
    """The rate of each top-level name, which is one for all below it."""
    rates = match_rules(layer_rules(theta, decay), theta)
    each = {name: set(jax.tree.leaves(tree)) for name, tree in rates.items()}
    return {name: values.pop() for name, values in each.items() if len(values) == 1}


def test_layer_decay_by_hand():
    # blocks_1 and blocks_10 are told apart, and 10 lies above 2
    rates = rates_of(vit_names(11), 0.5)
    assert rates == {
        "proj": 1.0,
        "ln_post": 1.0,
        **{f"blocks_{i}": 0.5 ** (11 - i) for i in range(11)},
        "patch_embed": 0.5**12,
        "positional_embedding": 0.5**12,
    }
    conv = {"kernel": jnp.ones((1, 1, 2, 2))}
    resnet = {
        "conv1": conv,
        "bn1": {"scale": jnp.ones(2)},
        "layer1_0": {"conv1": conv},
        "layer2_0": {"conv1": conv},
        "attnpool": {"q_proj": conv},
    }
    assert rates_of(resnet, 0.1) == pytest.approx(
        {
            "attnpool": 1,
            "layer2_0": 0.1,
            "layer1_0": 0.01,
            "conv1": 0.001,
            "bn1": 0.001,
        }
    )


def test_each_sensor_s_layers_are_counted_on_their_own():
    several = {"s1": vit_names(2), "s2": vit_names(4)}
    rates = match_rules(layer_rules(several, 0.5), several)
    for sensor, tower in several.items():
        alone = match_rules(layer_rules(tower, 0.5), tower)
        assert rates[sensor] == alone
    assert rates["s1"]["patch_embed"]["kernel"] == 0.125
    assert rates["s2"]["patch_embed"]["kernel"] == 0.03125


def test_layers_cannot_be_counted_where_there_are_none():
    with pytest.raises(ValueError, match=r"layer_decay = 0\.5: no blocks in visual, l"):
        layer_rules(TREE, 0.5)


@pytest.mark.parametrize("freeze", [False, True])
def test_rates_multiply_the_steps_weight_decay_included(freeze):
    schedule = optax.constant_schedule(0.1)
    rules = FREEZE_TEXT if freeze else ((".*", True),)
    halved = (("visual/kernel", 0.25), (".*", 0.5))
    params, grads = towers(0), [towers(1)]
    plain, _ = take_steps(
        make_optimizer(schedule, trainable=rules, **SETTINGS), params, grads
    )
    scaled, _ = take_steps(
        make_optimizer(schedule, trainable=rules, rates=halved, **SETTINGS),
        params,
        grads,
    )
    # the same as multipliers among the trainable rules
    merged = (("visual/kernel", 0.25), ("visual/.*", 0.5), (".*", 0.5 * (not freeze)))
    other, _ = take_steps(
        make_optimizer(schedule, trainable=merged, **SETTINGS), params, grads
    )
    for tower, leaf, rate in (
        ("visual", "kernel", 0.25),
        ("visual", "bias", 0.5),
        ("text", "kernel", 0.5),
    ):
        before = np.asarray(params[tower][leaf], np.float64)
        want = before + rate * (np.asarray(plain[tower][leaf], np.float64) - before)
        for got in (scaled, other):
            np.testing.assert_allclose(got[tower][leaf], want, rtol=1e-6, atol=1e-7)
        moved = np.abs(want - before).max()
        assert (moved == 0) == (freeze and tower == "text")


def test_the_moving_mean_by_hand():
    tx = make_optimizer(optax.constant_schedule(0.1), ema=0.3, **SETTINGS)
    params, opt_state = draw(0), tx.init(draw(0))
    mean = {k: np.asarray(v, np.float64) for k, v in params.items()}
    for n, g in enumerate(GRADS, start=1):
        updates, opt_state = tx.update(g, opt_state, params)
        params = optax.apply_updates(params, updates)
        decay = min(0.3, n / (9 + n))  # 1/10, 2/11, 1/4: then 4/13 is above 0.3
        mean = {k: decay * m + (1 - decay) * params[k] for k, m in mean.items()}
    assert off_by(averaged(params, opt_state), mean) < 1e-6
    assert off_by(params, mean) > 1e-3
    without, _ = take_steps(
        make_optimizer(optax.constant_schedule(0.1), **SETTINGS), draw(0), GRADS
    )
    jax.tree.map(np.testing.assert_array_equal, params, without)  # only watches


def test_the_moving_mean_reaches_its_decay():
    tx = with_ema(optax.sgd(1.0), 0.5)
    params = {"x": jnp.zeros(())}
    opt_state = tx.init(params)
    for _ in range(20):  # decay n / (9 + n) up to n = 9, then 0.5
        _, opt_state = tx.update({"x": jnp.zeros(())}, opt_state, params)
    _, opt_state = tx.update({"x": -jnp.ones(())}, opt_state, params)
    assert averaged(params, opt_state)["x"] == 0.5


def test_the_mean_of_a_frozen_leaf_is_that_leaf_bit_for_bit():
    schedule = optax.constant_schedule(0.1)
    tx = make_optimizer(schedule, trainable=FREEZE_TEXT, ema=0.9, **SETTINGS)
    params = towers(0)
    _, opt_state = take_steps(tx, params, [towers(1), towers(2)])
    mean = averaged(None, opt_state)
    assert mean["text"]["kernel"].tobytes() == params["text"]["kernel"].tobytes()
    assert np.abs(mean["visual"]["kernel"] - params["visual"]["kernel"]).min() > 0


def test_without_a_mean_the_params_are_the_result():
    params, opt_state = take_steps(optax.sgd(0.1), draw(0), [draw(1)])
    assert averaged(params, opt_state) is params
