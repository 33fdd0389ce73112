"""What several stages need: data, the input CLIP, its heads, scores."""

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
from rsclip_jax.models.sensor import SensorSpec, input_places
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.records import outcomes
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, sharding

LABELLED = ("single", "multi")
ANY_TASK = (*LABELLED, "none", "captions")


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
    _check_content(f"{setting} = {spec!r}", source, tasks)
    return source


def _check_content(setting: str, source: Source, tasks: Sequence[str]) -> None:
    """Raises ValueError for a source without records, or classes that say nothing."""
    row = source.dataset
    if not len(source):
        raise ValueError(f"{setting} has no records; name another split")
    if row.task not in LABELLED:
        return
    try:
        fill_templates(row.classnames, row.templates)
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from error
    if tuple(tasks) == LABELLED:
        check_told_apart(setting, row)


def check_told_apart(setting: str, row: Dataset) -> None:
    """Raises ValueError for a labelled set of one class."""
    if not _is_told_apart(row):
        raise ValueError(
            f"{setting} has one class, {row.classnames[0]!r}: at least two classes are"
            " needed to train or measure"
        )


def _is_told_apart(row: Dataset) -> bool:
    """Whether zero-shot can be wrong: several classes, or any of several labels."""
    return row.task == "multi" or (row.task == "single" and len(row.classes) > 1)


def warn_of_absent_classes(
    run: Run, stage: str, source: Source, labels, effect: str = "are not measured"
) -> None:
    """Logs which classes none of a split's labels, [n] or [n, k], is of.

    effect: what follows for these classes.
    """
    row = source.dataset
    if row.task not in LABELLED:
        return
    counts = count_labels(labels, len(row.classes))
    absent = [name for name, n in zip(row.classnames, counts, strict=True) if not n]
    if absent:
        more = f" and {len(absent) - 20} more" if len(absent) > 20 else ""
        listed = ", ".join(absent[:20]) + more
        run.log(
            f"warning: {stage}: {source.spec} has no example of {len(absent)} of"
            f" {len(counts)} classes ({listed}), which {effect}: use a larger split,"
            " or split lists that give every split some of each class"
        )


def gives_numbers(run: Run, spec: str) -> bool:
    """Whether a split gives numbers even to a model that encodes one sensor."""
    try:
        row = run.open(spec).dataset
    except FileNotFoundError:
        return False
    return row.task == "captions" or _is_told_apart(row)


def has_zero_shot(run: Run, stage: str, source: Source) -> bool:
    """Whether zero-shot of a source is measured. Logs that one class forbids it."""
    row = source.dataset
    if row.task in LABELLED and not _is_told_apart(row):
        run.log(
            f"{stage}: {source.spec} has one class, {row.classnames[0]!r}: every answer"
            " is right, so zero-shot is skipped"
        )
    return _is_told_apart(row)


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
            run.log(f"{stage}: starts from what stage {name} of {path} made")
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
    with _naming_settings():
        return api.find_variant(c.init, **told)


def _with_source(clip: api.Model, path: Path) -> tuple[api.Model, dict[str, Any]]:
    where = {"path": str(path.resolve()), **clip.source}
    return clip, {**where, "digest": clip.digests["clip"]}


def load_init(run: Run, alpha: float | None = None) -> api.Model:
    """The model that config.init names, as config.variant and its like say."""
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
    """Adds the settings that set them to an error that names arguments of api.load."""
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
    """{"name:split" or "name:split:tile": split_digest}, which tells other data.

    And {"name:split labels": labels_digest} where other labels can have the same ids.
    """
    digests = {}
    for source in sources:
        spec = str(source.spec)
        digests[spec] = split_digest(source)
        if labels := labels_digest(source):
            digests[f"{spec} labels"] = labels
    return digests


def zero_shot_head(clip: api.Model, source: Source, prompt_set: str = DATASET):
    """(head [d, k], prompts digest) of a labelled source's names.

    In the templates of a named prompt set; "dataset" is the source's own.
    """
    row = source.dataset
    templates = get_templates(prompt_set, row.templates)
    head = clip.zero_shot(row.classnames, templates)
    return head, prompts_digest(row.classnames, templates)


def classes_of(source: Source) -> tuple:
    """What the labels of a dataset mean."""
    row = source.dataset
    return row.task, row.classes, row.classnames


def sensor_encoder(run: Run, spec: SensorSpec, params) -> Encoder:
    """Encoder of a batch for one sensor."""
    placed = sharding.put_params(params, run.mesh)
    return lambda b: inference.encode_sensor(placed, b[spec.modality], spec=spec)


def feed(encoder: Encoder, spec: SensorSpec, row: Dataset) -> Encoder:
    """The encoder fed from a set's files, whose bands are moved to its own by name.

    Raises ValueError with both lists where they are not all there.
    """
    key, held = spec.modality, get_sensor(row.sensors[spec.modality])
    indices = list(input_places(spec, held))
    if indices == list(range(len(held.bands))):
        return encoder
    return lambda batch: encoder({**batch, key: batch[key][..., indices]})


def say_moved(run: Run, stage: str, row: Dataset, held: str, wanted: str) -> None:
    """Logs that an encoder gets another product than it was trained on."""
    if held != wanted:
        run.log(
            f"{stage}: {row.name}'s {held} goes by the names of its bands into an"
            f" encoder trained on {wanted}"
        )


def score(source: Source, z, labels, head, sensor: str) -> list[dict]:
    """Zero-shot records of embeddings through a head."""
    row = source.dataset
    return zero_shot_records(
        z @ head, labels, task=row.task, sensor=sensor, classnames=row.classnames
    )


def report_gap(
    run: Run,
    stage: str,
    source: Source,
    outcome: outcomes.Outcome,
    pin: Callable[[str], dict[str, Any]],
) -> None:
    """Reports the gap between the modalities of what a model made of a source.

    pin: what pins a number of a record's sensor, "rgb->text", to the weights.
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

    z: modality -> embeddings [n, d] of all its images, in order.
    """
    ztxt, owners, digest = encode_captions(run, clip, source)
    return text_retrieval_records(z, ztxt, owners, mesh=run.mesh), digest


def encode_captions(
    run: Run, clip: api.Model, source: Source
) -> tuple[np.ndarray, np.ndarray, str]:
    """(ztxt [m, d], owners [m], digest) of a source's captions, image by image."""
    captions = read_captions(source)
    texts = [text for of_one in captions for text in of_one]
    each = list(dict.fromkeys(texts))  # captions are often repeated
    say_cut(run, source, each, clip.variant.context_length)
    zeach = clip.encode_text(each, truncate=True)
    indices = {text: i for i, text in enumerate(each)}
    owners = np.repeat(np.arange(len(captions)), [len(x) for x in captions])
    return zeach[[indices[text] for text in texts]], owners, captions_digest(captions)


def say_cut(run: Run, source: Source, texts: Sequence[str], length: int) -> None:
    """Logs how many different captions of a source are too long for a tower."""
    if cut := int((count_tokens(texts) > length).sum()):
        run.log(
            f"{source.spec}: {cut:,} of {len(texts):,} different"
            f" captions have more than {length} tokens and are cut there"
        )
