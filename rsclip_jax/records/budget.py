"""Pure: what a supported dataset may lose, and values along alpha."""

import dataclasses
from collections.abc import Mapping, Sequence

# values of one set along alpha: {alpha: accuracy or mAP}
Curve = Mapping[float, float]


# In a supported set's curve the model before any patching, where alpha 0 is a model
# that was patched on other tasks before.
ORIGINAL = -1.0


def value_before(curve: Curve) -> float:
    """What a loss is counted from: the original model's value, or alpha 0's."""
    return curve.get(ORIGINAL, curve[0.0])


def mean_curve(curves: Sequence[Curve]) -> dict[float, float]:
    """The mean of several tasks' values at each alpha."""
    alphas = [alpha for alpha in curves[0] if alpha >= 0]
    return {a: sum(c[a] for c in curves) / len(curves) for a in alphas}


@dataclasses.dataclass(frozen=True)
class Budget:
    """What each supported set may lose against alpha 0.

    max_drop: in units of accuracy or mAP. min_retained: the least fraction of the value
    at alpha 0 that must be left.
    """

    max_drop: float = 1.0
    min_retained: float = 0.0

    def share(self, part: float) -> "Budget":
        """The part of it that may be spent: 0 is none, 1 all."""
        return Budget(self.max_drop * part, 1 - (1 - self.min_retained) * part)

    def least(self, before: float) -> float:
        """The lowest value that may be left of one."""
        return max(before - self.max_drop, before * self.min_retained)

    def allows(self, before: Sequence[float], after: Sequence[float]) -> bool:
        """Whether every set has kept enough."""
        # values are shares of n examples: a rounding error is no drop
        return all(
            b >= self.least(a) - 1e-9 for a, b in zip(before, after, strict=True)
        )
