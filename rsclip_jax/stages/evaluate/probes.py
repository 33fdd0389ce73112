"""The probes of stage evaluate: checks and results."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.specs import short_specs
from rsclip_jax.evals.probe import (
    Examples,
    few_shot_records,
    knn_records,
    linear_probe_records,
)
from rsclip_jax.stages.evaluate.encoders import Encoded
from rsclip_jax.stages.evaluate.settings import Probe, Settings
from rsclip_jax.stages.shared import dataset_checks
from rsclip_jax.stages.shared.overlap import shared_ids
from rsclip_jax.stages.shared.run import Run


def check_probes(run: Run, settings: Settings) -> None:
    """Raises ValueError for datasets or settings that do not make a probe."""
    shots = settings.shots
    if not all(count >= 1 for count in shots) or len(set(shots)) < len(shots):
        raise ValueError(
            f"config.evaluate.shots = {shots} must be distinct numbers of examples per"
            " class, from 1; () runs no few-shot probes"
        )
    for name in ("knn_k", "shot_seeds"):
        if (value := getattr(settings, name)) < 1:
            raise ValueError(f"config.evaluate.{name} = {value} is below 1")
    for sets in settings.parts.probes:
        _check_splits(run, sets, settings.knn_k)


def _check_splits(run: Run, sets: Probe, knn_k: int) -> None:
    setting = "config.evaluate.probes"
    opened = [
        dataset_checks.open_as(
            run, setting, spec, dataset_checks.LABELLED, prompted=False
        )
        for spec in sets
    ]
    for spec, source in zip(sets, opened, strict=True):
        if dataset_checks.classes_of(source) != dataset_checks.classes_of(opened[0]):
            raise ValueError(
                f"{setting}: {sets[0]!r} and {spec!r} have different classes"
            )
    for (a, one), (b, other) in itertools.combinations(
        zip(sets, opened, strict=True), 2
    ):
        if ids := shared_ids(one, other):
            raise ValueError(
                f"{setting}: {a!r} and {b!r} share {len(ids)} records, but a probe must"
                " be tested on new records: name disjoint splits, such as train[:90%]"
                " and train[90%:]"
            )
    if knn_k > len(opened[0]):
        raise ValueError(
            f"config.evaluate.knn_k = {knn_k} is more than the {len(opened[0])} records"
            f" of {sets[0]!r}"
        )


def check_sensors(probes: Sequence[Probe], fed: Mapping[str, Mapping]) -> None:
    """Raises ValueError for a probe whose three splits share no sensor.

    fed: {spec: its encoders by sensor}.
    """
    for sets in probes:
        held = {spec: list(fed[spec]) for spec in sets}
        if not set.intersection(*map(set, held.values())):
            raise ValueError(
                "config.evaluate.probes: the model encodes no sensor that all three"
                f" splits have: {held}"
            )


def run_probes(
    run: Run,
    settings: Settings,
    encode: Callable[[str], Encoded],
    pin: Callable[[str], dict[str, Any]],
) -> None:
    """Reports all probes. If one fails, the results of those before it are kept.

    encode: encodes a split. pin: returns the fields that identify a sensor's weights.
    """
    kept: dict[str, Encoded] = {}
    for sets in settings.parts.probes:
        for spec in sets:
            kept[spec] = kept.get(spec) or encode(spec)
        try:
            _probe(run, settings, sets, [kept[spec] for spec in sets], pin)
        except ValueError as error:
            raise ValueError(f"config.evaluate.probes: {sets}: {error}") from error


def _probe(run: Run, settings: Settings, sets: Probe, encoded, pin) -> None:
    train, val, test = encoded
    classnames = test.seen.dataset.classnames
    trained_on, chosen_on = short_specs(sets[:2])
    trained = {"train": trained_on, "train_digest": split_digest(train.seen)}
    chosen = {"val": chosen_on, "val_digest": split_digest(val.seen)}
    for sensor in (s for s in test.z if s in train.z and s in val.z):
        parts = [Examples(one.z[sensor], one.labels) for one in encoded]
        for record in _records(settings, parts, sensor, len(classnames)):
            about = trained if record["task"] == "knn" else {**trained, **chosen}
            if not record.get("converged", True):
                run.log(
                    f"evaluate: the probe of {sensor} on {sets[0]} (C = {record['C']})"
                    " stopped before it converged"
                )
            run.report("evaluate", test.seen, [{**record, **about}], **pin(sensor))


def _records(settings: Settings, parts: list[Examples], sensor: str, classes: int):
    train, _, test = parts
    about: dict[str, Any] = {"sensor": sensor, "classes": classes}
    yield from knn_records(train, test, k=settings.knn_k, **about)
    yield from few_shot_records(
        *parts, shots=settings.shots, seeds=settings.shot_seeds, **about
    )
    yield from linear_probe_records(*parts, **about)
