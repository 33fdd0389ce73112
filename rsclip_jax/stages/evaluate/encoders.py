"""Matches a model's encoders to datasets, and names the weights behind a result."""

from typing import NamedTuple

import numpy as np

from rsclip_jax import api
from rsclip_jax.data.pipeline.fitting import Fit
from rsclip_jax.data.specs import DatasetSpec
from rsclip_jax.data.types import Dataset, Source
from rsclip_jax.evals.encode import Encoder
from rsclip_jax.evals.fuse import add_fused, parts_of
from rsclip_jax.stages.evaluate.settings import Parts
from rsclip_jax.stages.shared import clip_init, dataset_checks, sensor_feeds
from rsclip_jax.stages.shared.run import Run


class Encoded(NamedTuple):
    """A model's embeddings of a split by sensor, its labels, and the records read."""

    z: dict[str, np.ndarray]
    labels: np.ndarray
    seen: Source


class BatchEncoder(NamedTuple):
    """encode: unit-norm embeddings of a batch on the mesh; size: side of the images."""

    encode: Encoder
    size: int | Fit


Encoders = dict[str, BatchEncoder]  # by modality


def feed_each(run: Run, model: api.Model, parts: Parts) -> dict[str, Encoders]:
    """{spec: feed_all's encoders} for all splits, before the first one is encoded.

    Raises ValueError for a dataset that the model cannot encode, or if no part would
    give a number.
    """
    encoders = make_encoders(run, model)
    fed: dict[str, Encoders] = {}
    datasets = {spec: run.open(spec).dataset for spec in parts.encoded}
    of_name: dict[str, Encoders] = {}  # so that skipped sensors are logged once
    for spec, dataset in datasets.items():
        name = DatasetSpec.parse(spec).name
        try:
            if name not in of_name:
                of_name[name] = feed_all(run, model, encoders, dataset)
        except ValueError as error:
            among = spec in parts.datasets
            setting = "config.datasets" if among else "config.evaluate.probes"
            raise ValueError(f"{setting}: {spec!r}: {error}") from error
        fed[spec] = of_name[name]
        for key in fed[spec]:
            if key in model.sensors:
                encoder = model.sensors[key].spec
                sensor_feeds.warn_of_ground(run, "evaluate", encoder, run.open(spec))
    if datasets and all(
        d.task == "none" and len(fed[s]) < 2 for s, d in datasets.items()
    ):
        raise ValueError(
            f"config.datasets = {tuple(datasets)} give no results: they have no labels,"
            " and this model encodes only one of their sensors"
        )
    return fed


def make_encoders(run: Run, model: api.Model) -> Encoders:
    """{modality: encoder of a batch}, with weights on the devices."""
    encoders = {}
    if model.takes_rgb:
        rgb = clip_init.rgb_encoder(run, model)
        encoders["rgb"] = BatchEncoder(rgb, model.variant.fit)
    for modality, made in model.sensors.items():
        encode = sensor_feeds.sensor_encoder(run, made.spec, made.params)
        encoders[modality] = BatchEncoder(encode, made.spec.image_size)
    return encoders


def feed_all(
    run: Run, model: api.Model, encoders: Encoders, dataset: Dataset
) -> Encoders:
    """The encoders for the sensors that a dataset holds.

    An encoder whose bands are missing is skipped and logged. Raises ValueError if none
    is left.
    """
    fed, refused = {}, []
    for key in (key for key in dataset.sensors if key in encoders):
        encoder = encoders[key]
        if key != "rgb":
            spec = model.sensors[key].spec
            try:
                encode = sensor_feeds.feed(encoder.encode, spec, dataset)
            except (ValueError, FileNotFoundError) as error:  # or no file of the sensor
                refused.append(str(error))
                run.log(f"evaluate: {key} of {dataset.name} is skipped: {error}")
                continue
            encoder = BatchEncoder(encode, encoder.size)
            sensor_feeds.log_moved(
                run, "evaluate", dataset, dataset.sensors[key], spec.sensor
            )
        fed[key] = encoder
    if not fed:
        raise ValueError(
            f"dataset {dataset.name} holds {dict(dataset.sensors)}, but this model"
            f" encodes {', '.join(encoders)} (sensors:"
            f" {[made.spec.sensor for made in model.sensors.values()]})"
            + "".join(f"; {text}" for text in refused)
        )
    return fed


def encode(run: Run, fed: Encoders, source: Source) -> Encoded:
    """Encodes a split by feed_all's encoders, and fuses the sensors."""
    z, labels, seen = run.encode(
        "evaluate",
        source,
        {key: encoder.encode for key, encoder in fed.items()},
        {key: encoder.size for key, encoder in fed.items()},
    )
    dataset_checks.warn_of_absent_classes(run, "evaluate", seen, labels)
    return Encoded(add_fused(z), labels, seen)


def pins(model: api.Model, sensor: str) -> dict:
    """The step and the digests of all weights behind a sensor's results.

    step is the sensor encoder's, if there is one.
    """
    named = ["clip" if m in ("rgb", "text") else m for m in parts_of(sensor)]
    keys = list(dict.fromkeys(named))
    trained = next((k for k in keys if k != "clip"), "clip")
    digests = "+".join(model.digests[k] for k in keys)
    return {"step": model.steps[trained], "checkpoint": digests}
