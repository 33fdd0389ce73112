"""config.align as frozen settings, with one value per sensor."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rsclip_jax.data.specs import as_specs
from rsclip_jax.stages.shared import training
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import objectives
from rsclip_jax.train.settings import TrainSettings


@dataclasses.dataclass(frozen=True)
class AlignSettings:
    """config.align; configs/common.py explains each setting.

    students, scales: sensor -> its student, and its input's normalisation. losses: as
    given; terms: those with a weight.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    weights: tuple[float, ...]
    sensors: tuple[str, ...]
    students: Mapping[str, str]
    scales: Mapping[str, str]
    normalize_records: int
    normalize_percentiles: tuple[float, ...]
    pretrained: Mapping[str, Any]
    vit: Mapping[str, int]
    losses: tuple[tuple[str, objectives.Weight], ...]
    temperature: float
    cache: str
    cache_dir: str
    classes_of: str
    allow_shared: bool
    allow_other_data: bool
    training: TrainSettings

    @classmethod
    def of(cls, c: ConfigDict) -> "AlignSettings":
        """Reads the section; errors name the setting."""
        sensors = _read_sensors(c)
        return cls(
            train=as_specs(c.train),
            test=as_specs(c.test),
            weights=tuple(c.weights),
            sensors=sensors,
            students=_by_sensor("student", c.student, sensors),
            scales=_by_sensor("normalize", c.normalize, sensors),
            normalize_records=c.normalize_records,
            normalize_percentiles=tuple(c.normalize_percentiles),
            pretrained=c.pretrained.to_dict(),
            vit=c.vit.to_dict(),
            losses=tuple(c.losses),
            temperature=c.temperature,
            cache=c.cache,
            cache_dir=c.cache_dir,
            classes_of=c.classes_of,
            allow_shared=c.allow_shared,
            allow_other_data=c.allow_other_data,
            training=training.train_settings(c, "align"),
        )

    @property
    def several(self) -> bool:
        return len(self.sensors) > 1

    @property
    def sensor(self) -> str:
        """config.align.sensor as messages show it."""
        return repr(self.sensors if self.several else self.sensors[0])

    @property
    def terms(self) -> dict[str, objectives.Weight]:
        """The loss terms whose weight is not 0."""
        return {name: weight for name, weight in self.losses if np.any(weight)}

    def meta_name(self, name: str, sensor: str) -> str:
        """A sensor's key in meta.json, with the sensor's name if there are several."""
        return f"{name}_{sensor}" if self.several else name


def settings_of(run: Run) -> AlignSettings:
    return AlignSettings.of(run.config.align)


def _read_sensors(c: ConfigDict) -> tuple[str, ...]:
    names = (c.sensor,) if isinstance(c.sensor, str) else tuple(c.sensor or ())
    words = [name for name in names if isinstance(name, str) and name]
    if not words or len(set(words)) < len(names):
        raise ValueError(
            f"config.align.sensor = {c.sensor!r}: name a sensor, such as 's1', or"
            " several distinct ones, such as ('s1', 's2')"
        )
    return names


def _by_sensor(name: str, value: Any, sensors: tuple[str, ...]) -> dict[str, str]:
    """{sensor: value} of a setting: one value for all, or ((sensor, value), ...)."""
    if isinstance(value, str):
        return dict.fromkeys(sensors, value)
    try:
        pairs = list(value.items() if isinstance(value, Mapping) else value)
        given = dict(pairs)
    except (TypeError, ValueError):
        pairs, given = [], {}
    if sorted(map(str, given)) != sorted(sensors) or len(pairs) > len(given):
        raise ValueError(
            f"config.align.{name} = {value!r}: give one for all, or one for each of"
            f" {', '.join(sensors)}, as ((sensor, value), ...)"
        )
    return {sensor: given[sensor] for sensor in sensors}
