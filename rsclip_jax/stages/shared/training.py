"""Training as a config's stage says it: checks, batches, the loop, the product."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from rsclip_jax.data.pipeline.augment import Augment, check_augment, check_crop
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sources.files import first_record
from rsclip_jax.data.specs import as_specs
from rsclip_jax.data.types import Source
from rsclip_jax.io.commit import git_commit
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.stages.shared.common import data_digests, open_as
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, loop, optim, sharding


def check_training(
    run: Run,
    stage: str,
    datasets: Mapping[str, tuple[str, ...]],
    may_be_empty: Sequence[str] = (),
) -> None:
    """Opens all that a stage will read, so that what is wrong shows before it starts.

    datasets: settings of config.<stage> that name datasets -> the tasks that they can
    be of. Raises ValueError or FileNotFoundError naming the setting and its value.
    """
    if stage not in run.config:
        raise ValueError(
            f"config.stages names {stage!r}, but this config has no section"
            f" config.{stage}; configs/align_sar.py has"
        )
    c = run.config[stage]
    check_ranges(c, stage)
    for name, tasks in datasets.items():
        specs = as_specs(c[name])
        if not any(specs) and name not in may_be_empty:
            raise ValueError(
                f"config.{stage}.{name} is empty: name a dataset, such as"
                " 'eurosat_rgb:val'"
            )
        for spec in filter(None, specs):
            held = open_as(run, f"config.{stage}.{name}", spec, tasks).dataset.sensors
            if "rgb" not in held:
                raise ValueError(
                    f"config.{stage}.{name} = {spec!r} holds {', '.join(held)}, and"
                    f" stage {stage!r} needs 'rgb'"
                )


def check_ranges(c: ConfigDict, stage: str) -> None:
    """Raises ValueError for numbers that no training can be meant by."""
    for name, least in (("batch_size", 1), ("steps", 1), ("warmup", 0), ("lr", 0)):
        if c[name] < least:
            raise ValueError(f"config.{stage}.{name} = {c[name]} is below {least}")
    if not 0 <= c.ema < 1:
        raise ValueError(
            f"config.{stage}.ema = {c.ema} is not in [0, 1); 0 keeps no average"
        )
    if not 0 < c.layer_decay <= 1:
        raise ValueError(
            f"config.{stage}.layer_decay = {c.layer_decay} is not in (0, 1]; 1 gives"
            " every layer the same rate"
        )


def fit(
    run: Run,
    stage: str,
    *,
    params,
    frozen,
    train: Sequence[Source],
    sizes,
    loss_fn,
    sources: dict[str, dict],
    sensors: Mapping[str, Sensor] | None = None,
    optional: Sequence[str] = (),
    tokens=None,
    trainable: optim.Rules | None = None,
    tower=None,
) -> Any:
    """Trains with the settings of config.<stage>; the trained params.

    sources: what the weights come from, {"theta_0": {"path", "digest"}}; a training
    that was begun with others, or on other data, is not gone on with. sensors and
    optional: as in train_batches. trainable: in place of config.<stage>.trainable.
    tower: whose layers layer_decay counts, where params are not all of it.
    """
    c = run.config[stage]
    sharding.check_batch_size(c.batch_size, run.mesh, f"config.{stage}.batch_size")
    batches = make_batches(run, stage, train, sizes, sensors, tokens, optional)
    schedule = optim.make_schedule(c.lr, c.warmup, c.steps)
    tx = make_tx(run, stage, schedule, params, trainable, tower)
    return loop.train(
        params,
        frozen,
        batches,
        loss_fn=loss_fn,
        tx=tx,
        schedule=schedule,
        mesh=run.mesh,
        steps=c.steps,
        batch_size=c.batch_size,
        folder=run.folder(stage),
        meta={
            "stage": stage,
            "config": run.config.to_dict(),
            "git_commit": git_commit(),
            "sources": {**sources, "data": data_digests(train)},
        },
        checkpoint_every=c.checkpoint_every,
        log_every=c.log_every,
        progress=run.config.progress and jax.process_index() == 0,
    )


def make_tx(
    run: Run, stage: str, schedule, params, trainable: optim.Rules | None, tower
):
    """The optimizer of config.<stage>; trainable and tower as in fit.

    Raises ValueError naming the setting that does not fit the params.
    """
    c = run.config[stage]
    trainable = tuple(c.trainable) if trainable is None else trainable
    rates: optim.Rules = ((".*", 1.0),)
    try:
        optim.check_trainable(trainable, params)
        if c.layer_decay < 1:
            rates = optim.layer_rules(tower or params, c.layer_decay)
    except ValueError as error:
        raise ValueError(f"config.{stage}.{error}") from error
    return optim.make_optimizer(
        schedule,
        weight_decay=c.weight_decay,
        clip_norm=c.clip_norm,
        b2=c.b2,
        trainable=trainable,
        rates=rates,
        ema=c.ema,
    )


def make_batches(
    run: Run, stage: str, train, sizes, sensors=None, tokens=None, optional=()
) -> Any:
    """The training batches of config.<stage>, this process's share."""
    # grain is slow to import and evaluation alone does not train
    from rsclip_jax.data.pipeline.batches import train_batches

    c = run.config[stage]
    return train_batches(
        train,
        sizes=sizes,
        options=run.read_options(stage, c.batch_size),
        augment=make_augment(run, stage, train, tuple(sizes)),
        seed=run.config.seed,
        sensors=sensors,
        optional=optional,
        tokens=tokens,
        weights=tuple(c.get("weights", ())) or None,
        process=(jax.process_index(), jax.process_count()),
    )


def check_weights(c: ConfigDict, stage: str) -> None:
    """Raises ValueError unless each training set has a weight above 0, or none has."""
    weights = tuple(c.weights)
    train = (c.train,) if isinstance(c.train, str) else tuple(c.train)
    if weights and len(weights) != len(train):
        raise ValueError(
            f"config.{stage}.weights = {weights} has {len(weights)} numbers, and"
            f" config.{stage}.train {len(train)} dataset(s): give one for each, or"
            " () to mix them by size"
        )
    if not all(0 < weight < math.inf for weight in weights):
        raise ValueError(
            f"config.{stage}.weights = {weights} should all be above 0; take a set"
            f" that has no share out of config.{stage}.train"
        )


def make_augment(
    run: Run, stage: str, train: Sequence[Source], keys: Sequence[str]
) -> Augment:
    """config.<stage>.augment, for the sensors that these keys are in the sources.

    Raises ValueError naming the setting that is out of range, acts on none of them, or
    cuts more than the first image has.
    """
    held = [s.dataset.sensors for s in train]
    names = dict.fromkeys(row[key] for row in held for key in keys if key in row)
    firsts = []
    if run.config[stage].augment.crop_pixels:
        firsts = [first_record(s, run.config.data.on_error) for s in train]
    try:
        augment = Augment(**run.config[stage].augment.to_dict())
        check_augment(augment, map(get_sensor, names))
        for record in firsts:
            check_crop(augment, record[keys[0]].shape, record["id"])
    except ValueError as error:
        raise ValueError(f"config.{stage}.{error}") from error
    return augment


def finish(
    run: Run, stage: str, params, train: Sequence[Source], meta: StageMeta
) -> None:
    """Writes the stage's product, which marks it done."""
    meta = dataclasses.replace(
        meta, stage=stage, config=run.config.to_dict(), data=data_digests(train)
    )
    checkpoint.save_product(run.workdir / stage, params, meta)


def log_changed(run: Run, stage: str) -> None:
    """Says which of the user's own sets a finished stage was not made of as they are.

    What is not there, or cannot be read, has not changed.
    """
    train = run.config.get(stage, {}).get("train", ())
    specs = [train] if isinstance(train, str) else list(train)
    own = [spec for spec in specs if ".toml:" in spec]
    if not own or not checkpoint.has_product(run.workdir / stage):
        return
    made = checkpoint.load_meta(run.workdir / stage).data
    try:
        now = data_digests(map(run.open, own))
    except (ValueError, FileNotFoundError):
        return
    if changed := [name for name in now if made.get(name, "") not in ("", now[name])]:
        run.log(
            f"warning: {stage} was made of other data than now lies there:"
            f" {', '.join(changed)}; to train on that, remove {run.workdir / stage} or"
            " choose another --workdir"
        )
