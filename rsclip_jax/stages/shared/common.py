"""Helpers of several stages: data, the input CLIP, zero-shot heads, scores."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax import api
from rsclip_jax.data.catalog.prompts import (
    DATASET,
    captions_digest,
    fill_templates,
    get_templates,
    prompts_digest,
)
from rsclip_jax.data.inspect.statistics import count_labels
from rsclip_jax.data.pipeline.texts import read_captions
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sources.digests import labels_digest, split_digest
from rsclip_jax.data.tokenizer import count_tokens
from rsclip_jax.data.types import Dataset, Source
from rsclip_jax.evals.encode import Encoder
from rsclip_jax.evals.fuse import parts_of
from rsclip_jax.evals.modality_gap import gap_records
from rsclip_jax.evals.retrieval import text_retrieval_records
from rsclip_jax.evals.zero_shot import zero_shot_records
from rsclip_jax.models import inference
from rsclip_jax.models.sensor import SensorSpec, input_indices
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.records import outcomes
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, sharding

LABELLED = ("single", "multi")
ANY_TASK = (*LABELLED, "none", "captions")


def open_as(run: Run, setting: str, spec: str, tasks: Sequence[str]) -> Source:
    """Opens a source of one of these tasks; errors name the setting."""
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
            f"{setting} = {spec!r}: its images have {kind[task]} each, but this stage"
            f" needs {' or '.join(kind[t] for t in tasks)}"
        )
    _check_content(f"{setting} = {spec!r}", source, tasks)
    return source


def _check_content(setting: str, source: Source, tasks: Sequence[str]) -> None:
    """Raises ValueError for a source without records or with unusable classes."""
    dataset = source.dataset
    if not len(source):
        raise ValueError(f"{setting} has no records; name another split")
    if dataset.task not in LABELLED:
        return
    try:
        fill_templates(dataset.classnames, dataset.templates)
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from error
    if tuple(tasks) == LABELLED:
        check_classes(setting, dataset)


def check_classes(setting: str, dataset: Dataset) -> None:
    """Raises ValueError for a labelled dataset of one class."""
    if not _can_be_wrong(dataset):
        raise ValueError(
            f"{setting} has one class, {dataset.classnames[0]!r}: at least two classes"
            " are needed to train or measure"
        )


def _can_be_wrong(dataset: Dataset) -> bool:
    """Whether zero-shot answers can be wrong: several classes, or multi-label."""
    return dataset.task == "multi" or (
        dataset.task == "single" and len(dataset.classes) > 1
    )


def warn_of_absent_classes(
    run: Run, stage: str, source: Source, labels, effect: str = "are not measured"
) -> None:
    """Logs the classes without an example in a split's labels, [n] or [n, k].

    effect: the consequence for these classes.
    """
    dataset = source.dataset
    if dataset.task not in LABELLED:
        return
    counts = count_labels(labels, len(dataset.classes))
    absent = [name for name, n in zip(dataset.classnames, counts, strict=True) if not n]
    if absent:
        more = f" and {len(absent) - 20} more" if len(absent) > 20 else ""
        listed = ", ".join(absent[:20]) + more
        run.log(
            f"warning: {stage}: {source.spec} has no example of {len(absent)} of"
            f" {len(counts)} classes ({listed}), which {effect}: use a larger split,"
            " or split lists that give every split some of each class"
        )


def gives_numbers(run: Run, spec: str) -> bool:
    """Whether a split gives numbers even for a model that encodes only one sensor."""
    try:
        dataset = run.open(spec).dataset
    except FileNotFoundError:
        return False
    return dataset.task == "captions" or _can_be_wrong(dataset)


def has_zero_shot(run: Run, stage: str, source: Source) -> bool:
    """Whether zero-shot of a source is measured. Logs if it has only one class."""
    dataset = source.dataset
    if dataset.task in LABELLED and not _can_be_wrong(dataset):
        run.log(
            f"{stage}: {source.spec} has one class, {dataset.classnames[0]!r}: every"
            " answer is right, so zero-shot is skipped"
        )
    return _can_be_wrong(dataset)


def input_clip(
    run: Run, stage: str, earlier: tuple[str, ...]
) -> tuple[api.Model, dict[str, Any]]:
    """(the CLIP that a stage starts from, its source for the stage's meta).

    The CLIP is an earlier stage's or config.init. The source has "path", "digest" and,
    for weight files, the entries of api.Model.source. Raises ValueError without a CLIP.
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
            run.log(f"{stage}: starts from the product of stage {name} in {path}")
            break
    return _with_source(load_init(run), path)


def input_variant(run: Run) -> Variant | None:
    """The variant of the CLIP that a stage will start from; None if it is unknown."""
    c = run.config
    if "pretrain" in c.stages:
        return get_variant(c.variant)
    if not c.init:
        return api.made_variant(run.workdir)
    if not c.overwrite and (here := api.made_variant(run.workdir)):
        return here  # even if config.init no longer exists
    told = {"variant": c.variant or None, "activation": c.activation or None}
    with _naming_settings():
        return api.find_variant(c.init, **told)


def _with_source(clip: api.Model, path: Path) -> tuple[api.Model, dict[str, Any]]:
    where = {"path": str(path.resolve()), **clip.source}
    return clip, {**where, "digest": clip.digests["clip"]}


def load_init(run: Run, alpha: float | None = None) -> api.Model:
    """The model of config.init, loaded with config.variant, activation, image_size."""
    c = run.config
    with _naming_settings():
        return api.load(
            c.init,
            variant=c.variant or None,
            activation=c.activation or None,
            image_size=c.image_size or None,
            alpha=alpha,
        )


@contextlib.contextmanager
def _naming_settings() -> Iterator[None]:
    """Adds the settings to an error that names arguments of api.load."""
    try:
        yield
    except ValueError as error:
        arguments = ("variant", "activation", "image_size")
        named = [a for a in arguments if re.search(rf"\b{a}\b", str(error))]
        if not named:
            raise
        settings = ", ".join(f"--config.{a}" for a in named)
        raise ValueError(f"{error} ({settings})") from error


def data_digests(sources: Iterable[Source]) -> dict[str, str]:
    """{"name:split" or "name:split:tile": split_digest}, which detects changed data.

    Also {"name:split labels": labels_digest} where labels can change without the ids.
    """
    digests = {}
    for source in sources:
        spec = str(source.spec)
        digests[spec] = split_digest(source)
        if labels := labels_digest(source):
            digests[f"{spec} labels"] = labels
    return digests


def zero_shot_head(clip: api.Model, source: Source, prompt_set: str = DATASET):
    """(head [d, k], prompts digest) of a labelled source's class names.

    prompt_set: the name of a set of templates; "dataset" is the dataset's templates.
    """
    dataset = source.dataset
    templates = get_templates(prompt_set, dataset.templates)
    head = clip.zero_shot(dataset.classnames, templates)
    return head, prompts_digest(dataset.classnames, templates)


def classes_of(source: Source) -> tuple:
    """The task, classes and class names, which define the meaning of labels."""
    dataset = source.dataset
    return dataset.task, dataset.classes, dataset.classnames


def sensor_encoder(run: Run, spec: SensorSpec, params) -> Encoder:
    """The encoder of one sensor in a batch."""
    placed = sharding.put_params(params, run.mesh)
    return lambda b: inference.encode_sensor(placed, b[spec.modality], spec=spec)


def feed(encoder: Encoder, spec: SensorSpec, dataset: Dataset) -> Encoder:
    """The encoder for a dataset's files, whose bands are matched by name.

    Raises ValueError with both lists if bands are missing.
    """
    key, held = spec.modality, get_sensor(dataset.sensors[spec.modality])
    indices = list(input_indices(spec, held))
    if indices == list(range(len(held.bands))):
        return encoder
    return lambda batch: encoder({**batch, key: batch[key][..., indices]})


def log_moved(run: Run, stage: str, dataset: Dataset, held: str, wanted: str) -> None:
    """Logs that an encoder gets another sensor product than it was trained on."""
    if held != wanted:
        run.log(
            f"{stage}: {dataset.name} holds {held} and the encoder was trained on"
            f" {wanted}: bands are matched by name"
        )


def score(source: Source, z, labels, head, sensor: str) -> list[dict]:
    """Zero-shot records of embeddings through a head."""
    dataset = source.dataset
    return zero_shot_records(
        z @ head,
        labels,
        task=dataset.task,
        sensor=sensor,
        classnames=dataset.classnames,
    )


def report_gap(
    run: Run,
    stage: str,
    source: Source,
    outcome: outcomes.Outcome,
    pin: Callable[[str], dict[str, Any]],
) -> None:
    """Reports the gap between the modalities in a model's embeddings of a source.

    pin: returns the fields that identify the weights behind a sensor, "rgb->text".
    """
    for record in gap_records(outcome):
        sensor = record["sensor"]
        asked = {}
        if "text" in parts_of(sensor):
            kept = ("prompts", "prompt_set")
            asked = {key: outcome.pins[key] for key in kept if key in outcome.pins}
        run.report(stage, source, [record], **asked, **pin(sensor))


def score_captions(run: Run, clip: api.Model, source: Source, z: dict):
    """(retrieval records of a captioned source, digest of its captions).

    z: modality -> embeddings [n, d] of all images, in order.
    """
    ztxt, owners, digest = encode_captions(run, clip, source)
    return text_retrieval_records(z, ztxt, owners, mesh=run.mesh), digest


def encode_captions(
    run: Run, clip: api.Model, source: Source
) -> tuple[np.ndarray, np.ndarray, str]:
    """(ztxt [m, d], owners [m], digest) of a source's captions, in image order."""
    captions = read_captions(source)
    texts = [text for of_one in captions for text in of_one]
    each = list(dict.fromkeys(texts))  # captions are often repeated
    log_truncated(run, source, each, clip.variant.context_length)
    zeach = clip.encode_text(each, truncate=True)
    indices = {text: i for i, text in enumerate(each)}
    owners = np.repeat(np.arange(len(captions)), [len(x) for x in captions])
    return zeach[[indices[text] for text in texts]], owners, captions_digest(captions)


def log_truncated(run: Run, source: Source, texts: Sequence[str], length: int) -> None:
    """Logs how many distinct captions of a source are too long for a text tower."""
    if cut := int((count_tokens(texts) > length).sum()):
        run.log(
            f"{source.spec}: {cut:,} of {len(texts):,} distinct captions have more than"
            f" {length} tokens and are truncated"
        )
