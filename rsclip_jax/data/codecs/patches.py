"""Converts patches that other tools stored, in any dtype, to a sensor's arrays."""

import numpy as np

from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.sensors import (
    COMPOSITES,
    Composite,
    Sensor,
    get_sensor,
    select_bands,
)
from rsclip_jax.data.sensors.bands import make_composite
from rsclip_jax.data.types import Dataset


def as_sensor(
    array: np.ndarray,
    sensor: Sensor,
    file_bands: tuple[str, ...],
    where: str,
    max_nodata: float,
) -> np.ndarray:
    """Converts [h, w, file_bands] in a wider dtype to [h, w, bands], and checks it.

    file_bands: the order of the bands in the file; () for the sensor's order.
    max_nodata: see check_array. Raises ValueError naming where.
    """
    if file_bands and array.shape[-1] == len(file_bands):
        array = select_bands(array, file_bands, sensor.bands)
    return check_array(array, sensor, where, max_nodata)


def composite_of(dataset: Dataset, key: str) -> Composite:
    """The composite that a record key of a dataset is."""
    made = dataset.composites[key][1]
    return made if isinstance(made, Composite) else COMPOSITES[made]


def make_picture(dataset: Dataset, key: str, array: np.ndarray) -> np.ndarray:
    """Returns the composite `key`, uint8 [..., 3], of its sensor's array."""
    bands = get_sensor(dataset.sensors[dataset.composites[key][0]]).bands
    return make_composite(array, bands, composite_of(dataset, key))
