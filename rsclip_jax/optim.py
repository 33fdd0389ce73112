"""AdamW with warm-up and cosine decay; what is trained is chosen by parameter name."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import optax

PyTree = Any


def leaf_names(tree: PyTree) -> PyTree:
    """The tree with each leaf replaced by its path, "blocks_0/mlp/c_fc/kernel"."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), tree
    )


def match_rules(rules: Sequence[tuple[str, Any]], tree: PyTree) -> PyTree:
    """For each leaf the value of the first (regex, value) whose regex fully matches.

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
            f"no rule covers {', '.join(uncovered)}; end the rules with ('.*', value)"
        )
    return jax.tree.map(first, names)


def check_trainable(rules: Sequence[tuple[str, bool]], params: PyTree) -> None:
    """Raises ValueError for rules that miss a parameter, match none, or train none.

    Only a catch-all ".*" at the end may be left with nothing to match.
    """
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


def make_schedule(lr: float, warmup: int, steps: int) -> optax.Schedule:
    """Linear warm-up from 0 over `warmup` steps, then cosine to 0 at `steps`."""
    warmup = min(warmup, max(steps - 1, 0))
    return optax.warmup_cosine_decay_schedule(0.0, lr, warmup, max(steps, 1))


def make_optimizer(
    schedule: optax.Schedule,
    *,
    weight_decay: float,
    clip_norm: float,
    b2: float = 0.999,
    trainable: Sequence[tuple[str, bool]] = ((".*", True),),
) -> optax.GradientTransformation:
    """Clipped AdamW; leaves that `trainable` rules out get no update and no moments.

    Only matrices decay: biases, LayerNorm scales and the temperature do not.
    """
    adamw = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule, b2=b2, weight_decay=weight_decay, mask=_is_matrix),
    )
    if all(value for _, value in trainable):
        return adamw
    return optax.partition(
        {True: adamw, False: optax.set_to_zero()},
        lambda params: match_rules(trainable, params),
    )


def _is_matrix(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.ndim > 1, params)
