"""AdamW with warm-up and cosine decay; rates are chosen by parameter name."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rsclip_jax.interpolate import block_names, block_of
from rsclip_jax.io.texts import first_of

PyTree = Any
# (regex on a parameter's name, factor of its learning rate); True is 1, False freezes
Rules = Sequence[tuple[str, bool | float]]


def leaf_names(tree: PyTree) -> PyTree:
    """The tree with each leaf replaced by its path, "blocks_0/mlp/c_fc/kernel"."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), tree
    )


def match_rules(rules: Sequence[tuple[str, Any]], tree: PyTree) -> PyTree:
    """The value of the first (regex, value) that fully matches each leaf's name.

    Raises ValueError naming every leaf that no rule covers.
    """

    def first(name):
        for pattern, value in rules:
            if re.fullmatch(pattern, name):
                return value
        return None

    names = leaf_names(tree)
    uncovered = [n for n in jax.tree.leaves(names) if first(n) is None]
    if uncovered:
        raise ValueError(
            f"no rule covers {first_of(uncovered)}; end the rules with ('.*', value)"
        )
    return jax.tree.map(first, names)


def check_trainable(rules: Rules, params: PyTree) -> None:
    """Raises ValueError if a parameter has no rule, a rule no match, or none trains.

    Only a catch-all ".*" at the end may match nothing.
    """
    for pattern, _ in rules:
        check_pattern(pattern, "trainable")
    match_rules(rules, params)
    names = jax.tree.leaves(leaf_names(params))
    used, trained = set(), False
    for name in names:
        i = next(i for i, rule in enumerate(rules) if re.fullmatch(rule[0], name))
        used.add(i)
        trained |= bool(rules[i][1])
    idle = [r for i, r in enumerate(rules) if i not in used and r[0] != ".*"]
    if idle or not trained:
        problem = f"rules {idle} match no parameter" if idle else "nothing is trained"
        raise ValueError(
            f"trainable = {tuple(rules)}: {problem}; the parameters are"
            f" {', '.join(names[:4])}, ..., {names[-1]}"
        )


def check_pattern(pattern: str, setting: str) -> None:
    """Raises ValueError, naming the setting, for an invalid regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{setting}: {pattern!r} is not a regular expression: {error}"
        ) from error


def count_trained(rules: Rules, params: PyTree) -> int:
    """The number of parameters that the rules train."""
    sizes = jax.tree.map(
        lambda value, x: x.size if value else 0, match_rules(rules, params), params
    )
    return sum(jax.tree.leaves(sizes))


def make_schedule(lr: float, warmup: int, steps: int) -> optax.Schedule:
    """Linear warm-up from 0 over `warmup` steps, then cosine to 0 at `steps`."""
    warmup = min(warmup, max(steps - 1, 0))
    return optax.warmup_cosine_decay_schedule(0.0, lr, warmup, max(steps, 1))


def layer_rules(theta: PyTree, decay: float) -> Rules:
    """Rules of layer-wise rate decay: decay ** (number of blocks after a parameter).

    theta: a visual tower, or {sensor: tower}. The projection has factor 1, the last
    block decay, the stem decay ** (blocks + 1), as in BEiT (Bao et al. 2022). Raises
    ValueError for a tree without blocks.
    """
    blocks = block_names(theta)
    if len(blocks) < 3:
        if all(isinstance(x, dict) and len(block_names(x)) > 2 for x in theta.values()):
            return [
                (f"{re.escape(sensor)}/{pattern}", rate)
                for sensor, tower in theta.items()
                for pattern, rate in layer_rules(tower, decay)
            ]
        raise ValueError(f"layer_decay = {decay}: no blocks in {', '.join(theta)}")
    depth = {block: i for i, block in enumerate(reversed(blocks))}
    return [
        (f"{re.escape(name)}(/.*)?", decay ** depth[block_of(name)]) for name in theta
    ]


def make_optimizer(
    schedule: optax.Schedule,
    *,
    weight_decay: float,
    clip_norm: float,
    b2: float = 0.999,
    trainable: Rules = ((".*", True),),
    rates: Rules = ((".*", 1.0),),
    ema: float = 0.0,
) -> optax.GradientTransformation:
    """Clipped AdamW; leaves that `trainable` freezes get no update and no moments.

    Weight decay applies to matrices only, not to biases, LayerNorm scales and the
    temperature. A leaf's learning rate is the schedule's times its factors in trainable
    and rates. ema: see with_ema; 0 keeps no average.
    """
    tx = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule, b2=b2, weight_decay=weight_decay, mask=_is_matrix),
    )
    if not all(value for _, value in trainable):
        labels = {True: tx, False: optax.set_to_zero()}
        tx = optax.partition(
            labels,
            lambda params: jax.tree.map(bool, match_rules(trainable, params)),
        )
    if any(value not in (0, 1) for _, value in (*trainable, *rates)):
        tx = optax.chain(tx, _scale_by_rules(trainable, rates))
    return with_ema(tx, ema) if ema else tx


def _scale_by_rules(*several: Rules) -> optax.GradientTransformation:
    def scale(updates, params):
        del params
        for rules in several:
            factors = match_rules(rules, updates)
            updates = jax.tree.map(lambda u, f: u * float(f), updates, factors)
        return updates

    return optax.stateless(scale)


class EmaState(NamedTuple):
    """The moving average of the params, and the state of the optimizer inside."""

    mean: PyTree
    steps: jax.Array
    inner: Any


def with_ema(
    tx: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
    """tx that also keeps an exponential moving average (EMA) of the params.

    After step n the average moves by 1 - min(decay, n / (9 + n)) of its distance to the
    params, so that a short run does not end near its start. `averaged` returns it.
    """

    def init(params):
        copy = jax.tree.map(lambda x: jnp.array(x, copy=True), params)
        return EmaState(copy, jnp.zeros((), jnp.int32), tx.init(params))

    def update(updates, state, params=None):
        updates, inner = tx.update(updates, state.inner, params)
        steps = state.steps + 1
        share = 1 - jnp.minimum(decay, steps / (9 + steps))
        # in this form the average of a frozen leaf stays bit-identical to it
        mean = jax.tree.map(
            lambda m, p: m + (share * (p - m)).astype(m.dtype),
            state.mean,
            optax.apply_updates(params, updates),
        )
        return updates, EmaState(mean, steps, inner)

    return optax.GradientTransformation(init, update)


def averaged(params: PyTree, opt_state: PyTree) -> PyTree:
    """Returns the EMA parameters if the optimizer keeps them, else params."""
    return opt_state.mean if isinstance(opt_state, EmaState) else params


def _is_matrix(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.ndim > 1, params)
