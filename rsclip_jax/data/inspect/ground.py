"""The ground that the images of a source cover."""

import numpy as np

from rsclip_jax.data.codecs.notes import noting
from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.types import Ground, Source

_RECORDS = 3
_LARGE = 2**24  # values; one such record is enough


def measure_ground(source: Source, key: str) -> Ground:
    """The usual ground of one sensor's images, by a few evenly spread records.

    Records that cannot be read are left out; Ground() without any.
    """
    sides, metres = [], []
    for index in spread_indices(len(source), _RECORDS) if len(source) else []:
        try:
            with noting() as notes:
                array = source.read(index, (key,))[key]
        except (ValueError, OSError, KeyError):  # or the record lacks the sensor
            continue
        sides.append(min(array.shape[:2]))
        name = source.dataset.sensors[key]
        metres += [n.amount for n in notes if (n.kind, n.sensor) == ("metres", name)]
        if array.size > _LARGE:
            break
    if not sides:
        return Ground()
    return Ground(int(np.median(sides)), float(np.median(metres)) if metres else 0.0)


def compare_ground(trained: Ground, seen: Ground) -> float:
    """How many times as wide the ground that is seen is; 1 where it is not known.

    By metres, or by pixels where one of the two is not known in metres.
    """
    if not trained.pixels or not seen.pixels:
        return 1.0
    if trained.metres and seen.metres:
        return seen.extent / trained.extent
    return seen.pixels / trained.pixels


def fitting_tile(trained: Ground, seen: Ground) -> int:
    """The side of a tile of the images seen that covers the ground trained on."""
    return max(1, round(seen.pixels / compare_ground(trained, seen)))
