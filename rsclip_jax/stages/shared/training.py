"""Training for the stages: settings, checks, batches, loop and product."""

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rsclip_jax.data import tokenizer_files
from rsclip_jax.data.bad_records import first_record
from rsclip_jax.data.pipeline.augment import Augment, check_augment, check_crop
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.specs import as_specs
from rsclip_jax.data.tokenizer_files import TokenizerFile
from rsclip_jax.data.types import Source
from rsclip_jax.io.commit import git_commit
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.stages.shared.dataset_checks import data_digests, open_as
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, loop, processes, sharding, watchdog
from rsclip_jax.train.settings import TrainSettings, make_tx


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The sources of training batches, and how train_batches reads them.

    sizes: record key -> side in pixels. sensors, optional, tokens, weights: as in
    train_batches.
    """

    sources: Sequence[Source]
    sizes: dict[str, int]
    sensors: Mapping[str, Sensor] | None = None
    optional: Sequence[str] = ()
    tokens: Any = None
    weights: tuple[float, ...] = ()


@contextlib.contextmanager
def named(setting: str) -> Iterator[None]:
    """Prefixes the message of a ValueError raised within with the setting."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{setting}{error}") from error


def train_settings(c: ConfigDict, stage: str) -> TrainSettings:
    """The TrainSettings of the section config.<stage>; errors name the setting."""
    names = [field.name for field in dataclasses.fields(TrainSettings)]
    values = {name: c[name] for name in names if name != "augment"}
    values["trainable"] = tuple(c.trainable)
    with named(f"config.{stage}."):
        return TrainSettings(**values, augment=Augment(**c.augment.to_dict()))


def check_sources(
    run: Run,
    stage: str,
    datasets: Mapping[str, tuple[Sequence[str], tuple[str, ...]]],
    may_be_empty: Sequence[str] = (),
) -> None:
    """Opens all datasets of a stage, so that errors appear before training.

    datasets: setting of config.<stage> -> (its specs, allowed tasks). Raises ValueError
    or FileNotFoundError naming the setting and its value.
    """
    for name, (specs, tasks) in datasets.items():
        if not specs and name not in may_be_empty:
            raise ValueError(
                f"config.{stage}.{name} is empty: name a dataset, such as"
                " 'eurosat_rgb:val'"
            )
        for spec in specs:
            held = open_as(run, f"config.{stage}.{name}", spec, tasks).dataset.sensors
            if "rgb" not in held:
                raise ValueError(
                    f"config.{stage}.{name} = {spec!r} holds {', '.join(held)}, but"
                    f" stage {stage!r} needs 'rgb'"
                )


def check_weights(
    stage: str, weights: Sequence[float], train: Sequence[str] | Sequence[Source]
) -> None:
    """Raises ValueError unless each training dataset has a weight above 0, or none."""
    if weights and len(weights) != len(train):
        raise ValueError(
            f"config.{stage}.weights = {weights} has {len(weights)} numbers for"
            f" {len(train)} dataset(s) in config.{stage}.train: give one for each, or"
            " () to mix them by size"
        )
    if not all(0 < weight < math.inf for weight in weights):
        raise ValueError(
            f"config.{stage}.weights = {weights} must all be above 0; to leave a"
            f" dataset out, remove it from config.{stage}.train"
        )


def check_augmentation(
    run: Run,
    stage: str,
    augment: Augment,
    train: Sequence[Source],
    keys: Sequence[str],
) -> None:
    """Raises ValueError, naming the setting, for augmentation that does not fit.

    Each setting must apply to at least one of these keys, and a crop must fit into the
    first image.
    """
    held = [s.dataset.sensors for s in train]
    names = dict.fromkeys(
        sensors[key] for sensors in held for key in keys if key in sensors
    )
    with named(f"config.{stage}."):
        check_augment(augment, map(get_sensor, names))
        for source in train if augment.crop_pixels else ():
            record = first_record(source, run.config.data.on_error)
            check_crop(augment, record[keys[0]].shape, record["id"])


def fit(
    run: Run,
    stage: str,
    settings: TrainSettings,
    data: TrainingData,
    *,
    params,
    frozen,
    loss_fn,
    origins: dict[str, dict],
    tower=None,
    section: str = "",
) -> Any:
    """Trains params in the stage's folder; returns the trained ones.

    Args:
        origins: the origin of the weights, {"theta_0": {"path", "digest"}}.
        tower: see make_tx.
        section: of the config, which messages name; by default the stage's.

    Raises ValueError if the stage's checkpoint was trained from other weights or data,
    and FloatingPointError for a loss that is not finite.
    """
    section = section or stage
    check_computing(run, section, settings)
    if begun := checkpoint.last_checkpoint(run.folder(stage)):
        run.log(f"{stage}: continues from step {begun.name} of {settings.steps}")
    with named(f"config.{section}."):
        tx = make_tx(settings, params, tower)
    try:
        with watchdog.during(f"training {stage}"):
            trained = loop.train(
                params,
                frozen,
                make_batches(run, stage, settings, data),
                loss_fn=loss_fn,
                tx=tx,
                settings=settings,
                mesh=run.mesh,
                folder=run.folder(stage),
                meta={
                    "stage": stage,
                    "config": run.config.to_dict(),
                    "git_commit": git_commit(),
                    "sources": {
                        **origins,
                        "data": data_digests(data.sources),
                        "compute": {"precision": run.compute.dtype},
                    },
                },
                progress=run.config.progress and processes.is_first(),
                name_records=functools.partial(name_records, data.sources),
                alive=watchdog.beat,
            )
    except FloatingPointError as error:
        here = rf"config.{section}.\1"
        text = re.sub(r"\b(on_nonfinite|max_skipped)\b", here, str(error))
        raise FloatingPointError(text) from error
    return sharding.on_host(trained)


def name_records(sources: Sequence[Source], numbers: np.ndarray) -> list[str]:
    """The ids of records, each after its dataset, by their numbers in train_batches."""
    firsts = np.cumsum([0, *map(len, sources)])
    places = np.searchsorted(firsts, numbers, side="right") - 1
    return [
        f"{sources[i].spec} {sources[i].ids[number - firsts[i]]}"
        for i, number in zip(places, numbers, strict=True)
    ]


def check_computing(run: Run, stage: str, settings: TrainSettings) -> None:
    """Raises ValueError for a batch or a number format that does not fit this run."""
    dtype = run.compute.dtype
    check_share(run, stage, settings)
    if settings.grad_dtype == "bfloat16" != dtype:
        raise ValueError(
            f"config.{stage}.grad_dtype = 'bfloat16' rounds the gradients of a training"
            f" in {dtype}: set config.precision = 'bfloat16', or leave"
            " grad_dtype 'float32'"
        )


def check_share(run: Run, stage: str, settings: TrainSettings) -> None:
    """Raises ValueError if the devices cannot share a batch in its parts evenly."""
    parts, setting = settings.accumulate, f"config.{stage}.batch_size"
    try:
        sharding.check_batch_size(settings.batch_size, run.mesh, setting, parts)
    except ValueError as error:
        if parts == 1:
            raise
        raise ValueError(f"{error} (config.{stage}.accumulate = {parts})") from error


def make_batches(
    run: Run, stage: str, settings: TrainSettings, data: TrainingData
) -> Any:
    """The training batches of a stage: this process's share of them."""
    # imported here because grain is slow to import and not needed for evaluation
    from rsclip_jax.data.pipeline.batches import train_batches

    return train_batches(
        data.sources,
        sizes=data.sizes,
        options=run.read_options(stage, settings.batch_size),
        augment=settings.augment,
        seed=run.config.seed,
        sensors=data.sensors,
        optional=data.optional,
        tokens=data.tokens,
        weights=data.weights or None,
        process=(processes.index(), processes.count()),
    )


def finish(
    run: Run, stage: str, params, train: Sequence[Source], meta: StageMeta
) -> None:
    """Writes the stage's product, which marks it done."""
    meta = dataclasses.replace(
        meta,
        stage=stage,
        config=run.config.to_dict(),
        data=data_digests(train),
        precision=run.compute.dtype,
    )
    told = (meta.variant or {}).get("tokenizer")
    if told and processes.is_first():
        tokenizer_files.save(TokenizerFile.from_json(told), run.workdir / stage)
    checkpoint.save_product(run.workdir / stage, params, meta)


def log_changed(run: Run, stage: str) -> None:
    """Warns if a finished stage was trained on custom datasets that changed since.

    A dataset that is missing or cannot be read counts as unchanged.
    """
    specs = as_specs(run.config.get(stage, {}).get("train", ()))
    custom = [spec for spec in specs if ".toml:" in spec]
    if not custom or not checkpoint.has_product(run.workdir / stage):
        return
    made = checkpoint.load_meta(run.workdir / stage).data
    try:
        now = data_digests(map(run.open, custom))
    except (ValueError, FileNotFoundError):
        return
    if changed := [name for name in now if made.get(name, "") not in ("", now[name])]:
        run.log(
            f"warning: the training data of {stage} has changed since:"
            f" {', '.join(changed)}; to train on it, remove {run.workdir / stage} or"
            " choose another --workdir"
        )
