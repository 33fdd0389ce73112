"""The miniature as if its files held a sensor's bands otherwise: planted faults."""

import dataclasses
from pathlib import Path

from rsclip_jax.data.sensors import Sensor, get_sensor, select_bands
from rsclip_jax.data.sources.wrappers import Wrapper


def write_sensor(path: Path, sensor: Sensor, **changes) -> str:
    """The path of a sensor's file that is like a row, but for these fields."""
    old = dataclasses.asdict(sensor)
    bands = changes.get("bands", sensor.bands)
    for key in ("wavelengths", "resolution", "mean", "std"):
        of_band = dict(zip(sensor.bands, old[key], strict=True))
        old[key] = [of_band.get(band, old[key][0]) for band in bands]
    fields = {**old, **changes}
    del fields["name"]
    lines = []
    for key, value in fields.items():
        if isinstance(value, tuple | list):
            lines.append(f"{key} = {list(value)}")
        elif value is not None:
            lines.append(f"{key} = {value!r}")
    path.write_text("\n".join(lines))
    return str(path)


class Moved(Wrapper):
    """A source whose arrays of one key are of another sensor, found by band names."""

    def __init__(self, source, key: str, sensor: str):
        super().__init__(source)
        self.key = key
        self.held = source.dataset.sensors[key]
        self.dataset = dataclasses.replace(
            source.dataset, sensors={**source.dataset.sensors, key: sensor}
        )

    def read(self, index, keys):
        record, sensor = self.source[index], get_sensor(self.dataset.sensors[self.key])
        array = select_bands(
            record[self.key], get_sensor(self.held).bands, sensor.bands, fill="mean"
        )
        return {**record, self.key: array.astype(sensor.dtype)}
