"""The sensors: bands, units and scales; selecting and ordering bands by name."""

from rsclip_jax.data.sensors.bands import select_bands
from rsclip_jax.data.sensors.spec import Sensor
from rsclip_jax.data.sensors.table import COMPOSITES, SENSORS, get_sensor
from rsclip_jax.data.types import Composite

__all__ = ["COMPOSITES", "SENSORS", "Composite", "Sensor", "get_sensor", "select_bands"]
