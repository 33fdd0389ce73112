"""What of a model encodes which set, fed from its files, and what pins its numbers."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from rsclip_jax import api
from rsclip_jax.data.specs import parse_spec
from rsclip_jax.data.types import Dataset, Source
from rsclip_jax.evals.fuse import add_fused, parts_of
from rsclip_jax.models import inference
from rsclip_jax.stages.shared import common
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import sharding


class Encoded(NamedTuple):
    """What a model made of a split: {sensor: embeddings}, labels, what was read."""

    z: dict[str, np.ndarray]
    labels: np.ndarray
    seen: Source


def feed_each(run: Run, model: api.Model, specs: Iterable[str]) -> dict[str, dict]:
    """{spec: feed_all's encoders} of specs, all before the first is encoded.

    Raises ValueError for a set that the model cannot encode, or where none of them
    would give a number.
    """
    encoders = make_encoders(run, model)
    fed: dict[str, dict] = {}
    rows = {spec: run.open(spec).dataset for spec in specs}
    of_set: dict[str, dict] = {}  # what is left out of a set is said once
    for spec, row in rows.items():
        name = parse_spec(spec)[0]
        try:
            if name not in of_set:
                of_set[name] = feed_all(run, model, encoders, row)
        except ValueError as error:
            among = spec in run.config.datasets
            setting = "config.datasets" if among else "config.evaluate.probes"
            raise ValueError(f"{setting}: {spec!r}: {error}") from error
        fed[spec] = of_set[name]
    if all(rows[spec].task == "none" and len(fed[spec]) < 2 for spec in rows):
        raise ValueError(
            f"config.datasets = {tuple(rows)} give no number: they have no labels, and"
            " this model encodes one of their sensors only"
        )
    return fed


def make_encoders(run: Run, model: api.Model) -> dict:
    """modality -> (encoder of a batch, image size)."""
    visual = sharding.put_params(model.params["visual"], run.mesh)
    variant = model.variant
    encoders = {
        "rgb": (
            lambda b: inference.encode_rgb(visual, b["rgb"], variant=variant),
            variant.image_size,
        )
    }
    for modality, (spec, params) in model.sensors.items():
        encoders[modality] = (common.sensor_encoder(run, spec, params), spec.image_size)
    return encoders


def feed_all(run: Run, model: api.Model, encoders: dict, row: Dataset) -> dict:
    """make_encoders' encoders of the sensors that a set holds, fed from its files.

    One whose bands are not there is left out, and said. Raises ValueError where none is
    left.
    """
    fed, refused = {}, []
    for key in (key for key in row.sensors if key in encoders):
        encoder, size = encoders[key]
        if key != "rgb":
            spec, _ = model.sensors[key]
            try:
                encoder = common.feed(encoder, spec, row)
            except (ValueError, FileNotFoundError) as error:  # or a sensor's file
                refused.append(str(error))
                run.log(f"evaluate: {row.name} as {key} is left out: {error}")
                continue
            common.say_moved(run, "evaluate", row, row.sensors[key], spec.sensor)
        fed[key] = encoder, size
    if not fed:
        raise ValueError(
            f"dataset {row.name} holds {dict(row.sensors)}, and this model encodes"
            f" {', '.join(encoders)} (sensors:"
            f" {[spec.sensor for spec, _ in model.sensors.values()]})"
            + "".join(f"; {text}" for text in refused)
        )
    return fed


def encode(run: Run, fed: dict, source: Source) -> Encoded:
    """A split through feed_all's encoders, and these fused."""
    z, labels, seen = run.encode(
        "evaluate",
        source,
        {key: encoder for key, (encoder, _) in fed.items()},
        {key: size for key, (_, size) in fed.items()},
    )
    return Encoded(add_fused(z), labels, seen)


def pins(model: api.Model, sensor: str) -> dict:
    """What pins a number of a record's sensor to the weights that made it: all of them.

    step is the sensor encoder's where there is one.
    """
    named = ["clip" if m in ("rgb", "text") else m for m in parts_of(sensor)]
    keys = list(dict.fromkeys(named))
    trained = next((k for k in keys if k != "clip"), "clip")
    digests = "+".join(model.digests[k] for k in keys)
    return {"step": model.steps[trained], "checkpoint": digests}
