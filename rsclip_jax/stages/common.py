"""What stages need of a config: data, the input CLIP, the loop, reports."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rsclip_jax import api, checkpoint, loop, optim, results, sharding
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.prompts import captions_digest, prompts_digest
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sources import (
    Dataset,
    Source,
    first_record,
    labels_digest,
    read_captions,
    split_digest,
)
from rsclip_jax.data.specs import as_specs, parse_spec, short_name
from rsclip_jax.data.tokenizer import count_tokens
from rsclip_jax.data.transforms import Augment, check_augment, check_crop
from rsclip_jax.data.views import TiledSource
from rsclip_jax.evals.encode import Encoder, encode_source
from rsclip_jax.evals.retrieval import text_retrieval_records
from rsclip_jax.evals.zero_shot import encode_texts, make_head, zero_shot_records
from rsclip_jax.models.sensor import SensorSpec, input_places
from rsclip_jax.models.variants import Variant, get_variant


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of one config in one workdir, on one mesh."""

    config: ConfigDict
    workdir: Path
    mesh: Mesh
    opened: dict[str, Source] = dataclasses.field(default_factory=dict)
    part: str = ""  # of a stage that trains several times: a folder in the stage's

    @property
    def results(self) -> Path:
        """Where every reported number goes."""
        return self.workdir / "results.jsonl"

    def folder(self, stage: str) -> Path:
        """Where a stage's training, or this part of it, keeps its state and curve."""
        return self.workdir / stage / self.part

    def open(self, spec: str) -> Source:
        """A source by "name:split" or "name:split:tile" (parse_spec); opened once."""
        if spec not in self.opened:
            self.opened[spec] = self._open(spec)
        return self.opened[spec]

    def _open(self, spec: str) -> Source:
        name, split, tile = parse_spec(spec)
        self._check_name(name)
        skip = self.config.data.on_error
        source = open_source(
            name,
            self.config.data_root,
            split,
            on_error=skip,
            max_nodata=self.config.data.max_nodata,
        )
        if rule := getattr(source, "split_rule", ""):
            self.say(f"{name}:{split}: {len(source):,} records, split by {rule}")
        if tile:
            return TiledSource(source, tile, on_error=skip)
        return source

    def _check_name(self, name: str) -> None:
        """Raises ValueError for a second set of one short name, as results have it."""
        for other in {parse_spec(spec)[0] for spec in self.opened}:
            same = Path(other).resolve() == Path(name).resolve()
            if short_name(other) == short_name(name) and not same:
                raise ValueError(
                    f"{other} and {name} are both {short_name(name)!r} in results:"
                    " rename one of the files"
                )

    def skipped(self, stage: str) -> Path:
        """The stage's list of what could not be read; see data/skipped.py."""
        return self.workdir / stage / "skipped.txt"

    def encode(self, stage: str, source: Source, encoders: dict, sizes: dict[str, int]):
        """encode_source with this run's mesh, batch and data settings."""
        batch_size = self.config.eval_batch_size
        sharding.check_batch_size(batch_size, self.mesh, "config.eval_batch_size")
        return encode_source(
            source,
            encoders,
            sizes=sizes,
            batch_size=batch_size,
            mesh=self.mesh,
            threads=self.config.data.threads,
            on_error=self.config.data.on_error,
            skipped=self.skipped(stage),
            progress=self.config.progress,
        )

    def report(
        self, stage: str, source: Source, records: Sequence[dict], **pins: Any
    ) -> list[dict]:
        """Writes an evaluation's records with what pins them; returns them whole.

        pins: step, checkpoint, prompts (or None), and alpha where there is one.
        """
        base = {
            "stage": stage,
            "dataset": source.dataset.name,
            "split": source.split,
            "split_digest": split_digest(source),
            "prompts": None,
        }
        if tile := getattr(source, "tile", None):
            base["tile"] = tile
        if rule := getattr(source, "split_rule", ""):
            base["split_rule"] = rule
        whole = [{**base, **record, **pins} for record in records]
        if jax.process_index() == 0:
            results.append_results(self.results, whole)
        return whole

    def say(self, text: str) -> None:
        """One line for the person who watches."""
        if jax.process_index() == 0:
            print(text, flush=True)


LABELLED = ("single", "multi")
ANY_TASK = (*LABELLED, "none", "captions")


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


def open_as(run: Run, setting: str, spec: str, tasks: Sequence[str]) -> Source:
    """A source of one of these tasks; an error names the setting."""
    try:
        source = run.open(spec)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{setting}: {error}") from error
    task = source.dataset.task
    if task not in tasks:
        kind = {
            "single": "one label",
            "multi": "several labels",
            "none": "no labels",
            "captions": "captions",
        }
        raise ValueError(
            f"{setting} = {spec!r}: its images have {kind[task]} each, and this stage"
            f" needs {' or '.join(kind[t] for t in tasks)}"
        )
    return source


def input_clip(
    run: Run, stage: str, earlier: tuple[str, ...]
) -> tuple[api.Model, dict[str, Any]]:
    """(a stage's CLIP to start from, its source): an earlier stage's or config.init.

    The source is what the stage's meta keeps: "path", "digest" and, of weight files,
    what api.Model.source has. Raises ValueError saying how to give one.
    """
    for name in earlier:
        if checkpoint.has_product(run.workdir / name):
            return _with_source(api.load_stage_clip(run.workdir, earlier), run.workdir)
    if not run.config.init:
        raise ValueError(
            f"stage {stage!r} needs a CLIP to start from: set --config.init to a weight"
            " file, a folder that holds one, an earlier workdir, or a name such as"
            " RemoteCLIP-ViT-B-32, or put 'pretrain' first in config.stages"
        )
    path = Path(run.config.init).resolve()
    for name in api.CLIP_STAGES:
        if checkpoint.has_product(path / name):
            run.say(f"{stage}: starts from what stage {name} of {path} made")
            break
    return _with_source(load_init(run), path)


def input_variant(run: Run) -> Variant | None:
    """The variant of the CLIP that a stage will start from; None where none is told."""
    c = run.config
    if "pretrain" in c.stages:
        return get_variant(c.variant)
    if not c.init:
        return api.made_variant(run.workdir)
    if not c.overwrite and (here := api.made_variant(run.workdir)):
        return here  # also where config.init is no longer at hand
    told = {"variant": c.variant or None, "activation": c.activation or None}
    return api.find_variant(c.init, **told)


def _with_source(clip: api.Model, path: Path) -> tuple[api.Model, dict[str, Any]]:
    where = {"path": str(path.resolve()), **clip.source}
    return clip, {**where, "digest": clip.digests["clip"]}


def load_init(run: Run, alpha: float | None = None) -> api.Model:
    """The model that config.init names, as config.variant and its like say."""
    c = run.config
    return api.load(
        c.init,
        variant=c.variant or None,
        activation=c.activation or None,
        image_size=c.image_size or None,
        alpha=alpha,
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
    trainable = tuple(c.trainable) if trainable is None else trainable
    rates: optim.Rules = ((".*", 1.0),)
    try:
        optim.check_trainable(trainable, params)
        if c.layer_decay < 1:
            rates = optim.layer_rules(tower or params, c.layer_decay)
    except ValueError as error:
        raise ValueError(f"config.{stage}.{error}") from error
    schedule = optim.make_schedule(c.lr, c.warmup, c.steps)
    tx = optim.make_optimizer(
        schedule,
        weight_decay=c.weight_decay,
        clip_norm=c.clip_norm,
        b2=c.b2,
        trainable=trainable,
        rates=rates,
        ema=c.ema,
    )
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
            "git_commit": checkpoint.git_commit(),
            "sources": {**sources, "data": data_digests(train)},
        },
        checkpoint_every=c.checkpoint_every,
        log_every=c.log_every,
        progress=run.config.progress and jax.process_index() == 0,
    )


def make_batches(
    run: Run, stage: str, train, sizes, sensors=None, tokens=None, optional=()
) -> Any:
    """The training batches of config.<stage>, this process's share."""
    # grain is slow to import and evaluation alone does not train
    from rsclip_jax.data.pipeline import train_batches

    c = run.config[stage]
    return train_batches(
        train,
        sizes=sizes,
        batch_size=c.batch_size,
        augment=make_augment(run, stage, train, tuple(sizes)),
        seed=run.config.seed,
        sensors=sensors,
        optional=optional,
        tokens=tokens,
        weights=tuple(c.get("weights", ())) or None,
        threads=run.config.data.threads,
        on_error=run.config.data.on_error,
        skipped=run.skipped(stage),
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


def finish(run: Run, stage: str, params, train: Sequence[Source], meta: dict) -> None:
    """Writes the stage's product, which marks it done."""
    made = {
        "stage": stage,
        "config": run.config.to_dict(),
        "data": data_digests(train),
    }
    checkpoint.save_product(run.workdir / stage, params, {**meta, **made})


def data_digests(sources: Iterable[Source]) -> dict[str, str]:
    """{"name:split" or "name:split:tile": split_digest}, which tells other data.

    And {"name:split labels": labels_digest} where other labels can have the same ids.
    """
    digests = {}
    for source in sources:
        tile = getattr(source, "tile", None)
        spec = f"{source.dataset.name}:{source.split}" + (f":{tile}" if tile else "")
        digests[spec] = split_digest(source)
        if labels := labels_digest(source):
            digests[f"{spec} labels"] = labels
    return digests


def say_changed(run: Run, stage: str) -> None:
    """Says which of the user's own sets a finished stage was not made of as they are.

    What is not there, or cannot be read, has not changed.
    """
    train = run.config.get(stage, {}).get("train", ())
    specs = [train] if isinstance(train, str) else list(train)
    own = [spec for spec in specs if ".toml:" in spec]
    if not own or not checkpoint.has_product(run.workdir / stage):
        return
    made = checkpoint.load_meta(run.workdir / stage).get("data", {})
    try:
        now = data_digests(map(run.open, own))
    except (ValueError, FileNotFoundError):
        return
    if changed := [name for name in now if made.get(name, "") not in ("", now[name])]:
        run.say(
            f"warning: {stage} was made of other data than now lies there:"
            f" {', '.join(changed)}; to train on that, remove {run.workdir / stage} or"
            " choose another --workdir"
        )


def zero_shot_head(clip: api.Model, source: Source):
    """(head [d, k], prompts digest) of a labelled source's own names and templates."""
    row = source.dataset
    head = make_head(clip.params, clip.variant, row.classnames, row.templates)
    return head, prompts_digest(row.classnames, row.templates)


def sensor_encoder(run: Run, spec: SensorSpec, params) -> Encoder:
    """Encoder of a batch for one sensor."""
    placed = sharding.put_params(params, run.mesh)
    return lambda b: api.encode_sensor(placed, b[spec.modality], spec=spec)


def feed(encoder: Encoder, spec: SensorSpec, row: Dataset) -> Encoder:
    """The encoder fed from a set's files, whose bands are moved to its own by name.

    Raises ValueError with both lists where they are not all there.
    """
    key, held = spec.modality, get_sensor(row.sensors[spec.modality])
    places = list(input_places(spec, held))
    if places == list(range(len(held.bands))):
        return encoder
    return lambda batch: encoder({**batch, key: batch[key][..., places]})


def say_moved(run: Run, stage: str, row: Dataset, held: str, wanted: str) -> None:
    """Says that an encoder sees another product than it was made for."""
    if held != wanted:
        run.say(
            f"{stage}: {row.name}'s {held} goes by the names of its bands into an"
            f" encoder of {wanted}"
        )


def score(source: Source, z, labels, head, sensor: str) -> list[dict]:
    """Zero-shot records of embeddings through a head."""
    row = source.dataset
    return zero_shot_records(
        z @ head, labels, task=row.task, sensor=sensor, classnames=row.classnames
    )


def score_captions(run: Run, clip: api.Model, source: Source, z: dict):
    """(retrieval records of a captioned source, digest of its captions).

    z: modality -> embeddings [n, d] of all its images, in order.
    """
    captions = read_captions(source)
    texts = [text for of_one in captions for text in of_one]
    each = list(dict.fromkeys(texts))  # captions are often repeated
    say_cut(run, source, each, clip.variant.context_length)
    zeach = encode_texts(clip.params, clip.variant, each, truncate=True)
    places = {text: i for i, text in enumerate(each)}
    owners = [i for i, of_one in enumerate(captions) for _ in of_one]
    records = text_retrieval_records(z, zeach[[places[t] for t in texts]], owners)
    return records, captions_digest(captions)


def say_cut(run: Run, source: Source, texts: Sequence[str], length: int) -> None:
    """Says how many of the different captions of a source are too long for a tower."""
    if cut := int((count_tokens(texts) > length).sum()):
        run.say(
            f"{source.dataset.name}:{source.split}: {cut:,} of {len(texts):,} different"
            f" captions have more than {length} tokens and are cut there"
        )
