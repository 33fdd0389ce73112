"""Pure: how much a supported dataset may lose, and values along alpha."""

import dataclasses
from collections.abc import Mapping, Sequence

# values of one dataset along alpha: {alpha: accuracy or mAP}
Curve = Mapping[float, float]
# A curve's key for the model before any patching, if alpha 0 is a model that was
# already patched on other tasks.
ORIGINAL = -1.0


def value_before(curve: Curve) -> float:
    """The value that a loss is relative to: the original model's, or alpha 0's."""
    return curve.get(ORIGINAL, curve[0.0])


def mean_curve(curves: Sequence[Curve]) -> dict[float, float]:
    """The mean of several tasks' values at each alpha."""
    alphas = [alpha for alpha in curves[0] if alpha >= 0]
    return {a: sum(c[a] for c in curves) / len(curves) for a in alphas}


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much each supported dataset may lose relative to alpha 0.

    max_drop: in units of accuracy or mAP. min_retained: the smallest fraction of the
    value at alpha 0 that must remain.
    """

    max_drop: float = 1.0
    min_retained: float = 0.0

    def share(self, part: float) -> "Budget":
        """A fraction of the budget: 0 is none, 1 all."""
        return Budget(self.max_drop * part, 1 - (1 - self.min_retained) * part)

    def least(self, before: float) -> float:
        """The lowest allowed value, given the value before."""
        return max(before - self.max_drop, before * self.min_retained)

    def allows(self, before: Sequence[float], after: Sequence[float]) -> bool:
        """Whether every dataset has kept enough."""
        # values are fractions of n examples: a rounding error is not a drop
        return all(
            b >= self.least(a) - 1e-9 for a, b in zip(before, after, strict=True)
        )
