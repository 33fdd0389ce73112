"""Sensor encoders, fed from a dataset's files with bands matched by name."""

import functools

from rsclip_jax.data.inspect.ground import (
    compare_ground,
    fitting_tile,
    measure_ground,
)
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.specs import DatasetSpec
from rsclip_jax.data.types import MOST_RATIO, Dataset, Source, size_words
from rsclip_jax.evals.encode import Encoder
from rsclip_jax.models import inference
from rsclip_jax.models.sensor import SensorSpec, input_indices
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import sharding


def sensor_encoder(run: Run, spec: SensorSpec, params) -> Encoder:
    """The encoder of one sensor in a batch."""
    placed = sharding.put_params(params, run.mesh)
    encode = functools.partial(
        inference.encode_sensor, placed, spec=spec, compute=run.compute
    )
    return lambda batch: encode(batch[spec.modality])


def feed(encoder: Encoder, spec: SensorSpec, dataset: Dataset) -> Encoder:
    """The encoder for a dataset's files, whose bands are matched by name.

    Raises ValueError with both lists if bands are missing.
    """
    key, held = spec.modality, get_sensor(dataset.sensors[spec.modality])
    indices = list(input_indices(spec, held))
    if indices == list(range(len(held.bands))):
        return encoder
    return lambda batch: encoder({**batch, key: batch[key][..., indices]})


def warn_of_ground(run: Run, stage: str, spec: SensorSpec, source: Source) -> None:
    """Logs that images cover another ground than those that an encoder was trained on.

    They are resized to its input, so that everything in them has another size there.
    """
    if not spec.pixels:
        return  # an older encoder does not know
    seen = measure_ground(source, spec.modality)
    ratio = compare_ground(spec.ground, seen)
    if 1 / MOST_RATIO <= ratio <= MOST_RATIO:
        return
    way = "use larger images"
    if ratio > 1:
        bare = DatasetSpec(source.spec.name, source.spec.split)
        way = f"{bare}:{fitting_tile(spec.ground, seen)} cuts them into tiles that fit"
    run.log(
        f"warning: {stage}: the images of {source.spec} have {seen}, and the"
        f" {spec.modality} encoder was trained on images of {spec.ground}: resized to"
        f" its input, things are {size_words(ratio)} than in training; {way}"
    )


def log_moved(run: Run, stage: str, dataset: Dataset, held: str, wanted: str) -> None:
    """Logs that an encoder gets another sensor product than it was trained on."""
    if held != wanted:
        run.log(
            f"{stage}: {dataset.name} holds {held} and the encoder was trained on"
            f" {wanted}: bands are matched by name"
        )
