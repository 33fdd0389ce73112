"""A training example: a record read, augmented and paired with a text."""

import functools
import threading
from collections.abc import Callable, Collection, Mapping

import numpy as np

from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.texts import Texts
from rsclip_jax.data.pipeline.tolerant import Tolerant
from rsclip_jax.data.pipeline.transforms import augment_record
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sensors.bands import band_indices

# Makes an example; its argument holds buffers that arrays may be written to, by key.
Make = Callable[[Mapping[str, np.ndarray]], dict]


class ExampleMaker:
    """grain's random map from a record's index to its example, made lazily.

    Args:
      reader: the records.
      sizes: record key -> side in pixels.
      augment: the augmentation's settings.
      sensors: record key -> the sensor that the encoder takes, where it is not the
        dataset's; bands are then moved by name.
      optional: keys that a record may lack, see batches.train_batches.
      with_label: whether examples have "label".
      texts: where examples have "text" and "group".
      first: the number of the source's first record among those of all sources.
    """

    def __init__(
        self,
        reader: Tolerant,
        *,
        sizes: Mapping[str, int],
        augment: Augment,
        sensors: Mapping[str, Sensor],
        optional: Collection[str],
        with_label: bool,
        texts: Texts | None,
        first: int = 0,
    ):
        self.first = first
        self.reader, self.sizes, self.augment = reader, sizes, augment
        self.optional, self.with_label, self.texts = optional, with_label, texts
        self._thread = threading.local()  # each thread has its own generator
        dataset = reader.source.dataset
        held = {key: get_sensor(dataset.sensors[key]) for key in reader.keys}
        self.sensors = {**held, **sensors}
        self._band_indices = {
            key: list(band_indices(sensor, seen.bands, seen.unit, dataset.name))
            for key, sensor in held.items()
            if sensor.bands != (seen := self.sensors[key]).bands
        }

    def __call__(self, index: int, rng: np.random.Generator) -> Make:
        # grain lends this generator for this call only
        return functools.partial(self.make, index, rng.bit_generator.state)

    def make(self, index: int, state: Mapping, out: Mapping[str, np.ndarray]) -> dict:
        """The example of a record, drawn from a generator's state.

        out: buffers that arrays are written to where they fit, by key.
        """
        rng = self._generator(state)
        record = self.reader[index]
        for key in self._band_indices.keys() & record.keys():
            record[key] = record[key][..., self._band_indices[key]]
        lacking = [key for key in self.optional if key not in record]
        made = augment_record(
            record,
            rng,
            sizes={k: size for k, size in self.sizes.items() if k not in lacking},
            sensors=self.sensors,
            augment=self.augment,
            out=out,
        )
        made |= {key: self._blank(key) for key in lacking}
        example = {key: made[key] for key in self.sizes}
        example |= {f"has_{k}": np.bool_(k not in lacking) for k in self.optional}
        if self.with_label:
            example["label"] = np.asarray(record["label"], np.int32)
        if "teacher" in made:
            example["teacher"] = made["teacher"]
        if self.texts is not None:
            example["text"], group = self.texts.draw(record, rng)
            example["group"] = np.int32(group)
        example["records"] = np.int32(self.first + index)
        return example

    def _generator(self, state: Mapping) -> np.random.Generator:
        if not hasattr(self._thread, "rng"):
            self._thread.rng = np.random.Generator(np.random.Philox())
        self._thread.rng.bit_generator.state = state
        return self._thread.rng

    def _blank(self, key: str) -> np.ndarray:
        side, sensor = self.sizes[key], self.sensors[key]
        return np.zeros((side, side, len(sensor.bands)), sensor.dtype)
