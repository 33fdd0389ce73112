"""Stage pretrain: contrastive image-text training from scratch.

Texts are captions, or class names in templates; datasets of both kinds can be mixed.
For runs without pretrained weights: the embedded miniature and small real datasets.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from rsclip_jax import api
from rsclip_jax.data.catalog.prompts import fill_templates
from rsclip_jax.data.pipeline.texts import Tokens, read_captions
from rsclip_jax.data.specs import as_specs
from rsclip_jax.data.tokenizer import count_tokens, tokenize
from rsclip_jax.data.types import Source
from rsclip_jax.models.clip import (
    clip_shapes,
    image_features,
    init_clip,
    text_features,
)
from rsclip_jax.models.inference import last_token
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.stages.shared import clip_init, dataset_checks, scoring, training
from rsclip_jax.stages.shared.job import Job, Needs, fit
from rsclip_jax.stages.shared.overlap import check_apart, check_same_dataset
from rsclip_jax.stages.shared.passes import rgb_pass
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, objectives, sharding
from rsclip_jax.train.settings import TrainSettings


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """config.pretrain; configs/common.py explains each setting."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    weights: tuple[float, ...]
    allow_shared: bool
    allow_other_data: bool
    training: TrainSettings

    @classmethod
    def of(cls, c: ConfigDict) -> "PretrainSettings":
        """Reads the section; errors name the setting."""
        return cls(
            as_specs(c.train),
            as_specs(c.test),
            tuple(c.weights),
            c.allow_shared,
            c.allow_other_data,
            training.train_settings(c, "pretrain"),
        )


def settings_of(run: Run) -> PretrainSettings:
    return PretrainSettings.of(run.config.pretrain)


def check_pretrain(run: Run) -> None:
    """Raises ValueError for anything that would stop this stage or void its results."""
    settings = settings_of(run)
    tasks = {
        "train": (settings.train, ("single", "captions")),
        "test": (settings.test, (*dataset_checks.LABELLED, "captions")),
    }
    training.check_sources(run, "pretrain", tasks, may_be_empty=("test",))
    train = [run.open(spec) for spec in settings.train]
    training.check_weights("pretrain", settings.weights, train)
    augment = settings.training.augment
    training.check_augmentation(run, "pretrain", augment, train, ("rgb",))
    training.check_computing(run, "pretrain", settings.training)
    get_variant(run.config.variant)
    if run.config.init:
        raise ValueError(
            f"config.init = {run.config.init!r}, but stage 'pretrain' starts from"
            " random weights: remove 'pretrain' from config.stages, or leave"
            " config.init empty"
        )
    tested = {"test": settings.test}
    if not settings.allow_other_data:
        check_same_dataset(run, "pretrain", settings.train, tested)
    if not settings.allow_shared:
        check_apart(run, "pretrain", {"train": settings.train}, tested)


def run_pretrain(run: Run) -> None:
    """Trains config.variant on config.pretrain.train; reports on the test datasets."""
    settings = settings_of(run)
    steps = settings.training.steps
    variant = get_variant(run.config.variant)
    sources = [run.open(spec) for spec in settings.train]
    tests = [run.open(spec) for spec in settings.test]
    made = init_clip(variant, jax.random.key(run.config.seed), run.mesh)
    params = sharding.on_host(made)
    report(run, variant, params, tests, step=0)
    params = fit(run, pretrain_job(run, settings, sources, params), origins={})
    report(run, variant, params, tests, step=steps)
    meta = StageMeta(variant=dataclasses.asdict(variant), steps=steps, sources={})
    training.finish(run, "pretrain", params, sources, meta)


def pretrain_job(
    run: Run, settings: PretrainSettings, sources: Sequence[Source], params
) -> Job:
    """The training of a CLIP from these params."""
    variant, compute = get_variant(run.config.variant), run.compute
    return Job(
        "pretrain",
        settings.training,
        training.TrainingData(
            sources,
            {"rgb": variant.image_size},
            tokens=caption_tokens(run, sources, variant),
            weights=settings.weights,
        ),
        params,
        {},
        objectives.make_contrastive_loss(
            lambda p, b: image_features(p["visual"], b["rgb"], variant, compute),
            lambda p, b: text_features(p["text"], b["text"], variant, compute),
            sharding.make_clip_loss(run.mesh, settings.training.negatives),
        ),
    )


def plan_pretrain(run: Run) -> Needs:
    """What the stage will do, from shapes."""
    settings = settings_of(run)
    shapes = clip_shapes(run.config.variant)
    sources = [run.open(spec) for spec in settings.train]
    tests = [(run.open(spec), 2) for spec in settings.test]  # before and after
    variant = get_variant(run.config.variant)
    return Needs(
        jobs=[pretrain_job(run, settings, sources, shapes)],
        passes=[rgb_pass(variant, tests, run.compute)],
        product=shapes,
    )


def report(run: Run, variant: Variant, params, tests, *, step: int) -> None:
    """Reports zero-shot on every test dataset, or retrieval if it has captions."""
    digest = checkpoint.params_digest(params)
    clip = run.bound(api.Model(variant, params, {}, digest, step))
    encode = clip_init.rgb_encoder(run, clip)
    for source in tests:
        z, labels, seen = run.encode(
            "pretrain",
            source,
            {"rgb": encode},
            {"rgb": variant.fit},
        )
        if source.dataset.task == "captions":
            records, prompts = scoring.score_captions(run, clip, seen, z)
        elif not dataset_checks.has_zero_shot(run, "pretrain", source):
            continue
        else:
            head, prompts = scoring.zero_shot_head(clip, source)
            records = scoring.score(source, z["rgb"], labels, head, "rgb")
        run.report(
            "pretrain", seen, records, step=step, checkpoint=digest, prompts=prompts
        )


def caption_tokens(
    run: Run, sources: Sequence[Source], variant: Variant
) -> list[Tokens]:
    """The tokens from which train_batches draws each source's texts.

    All are cut to the longest text's length; the text tower is causal and the rest is
    padding. Captions too long for the tower are truncated, as in CLIP, and counted.
    """
    tables = [
        tokens_of_captions(run, source, variant.context_length)
        if source.dataset.task == "captions"
        else tokens_of_classes(source, variant.context_length)
        for source in sources
    ]
    used = max(last_token(ids) for _, ids in tables) + 1
    return [
        dict(zip(texts, ids[:, :used], strict=True)) if texts else ids[..., :used]
        for texts, ids in tables
    ]


def tokens_of_captions(
    run: Run, source: Source, length: int
) -> tuple[list[str], np.ndarray]:
    """(the distinct captions of a source, their token ids [m, length])."""
    captions = read_captions(source, run.config.data.on_error)
    texts = list(dict.fromkeys(text for of_one in captions for text in of_one))
    scoring.log_truncated(run, source, count_tokens(texts), length)
    return texts, tokenize(texts, length, truncate=True)


def tokens_of_classes(source: Source, length: int) -> tuple[list[str], np.ndarray]:
    """([], token ids [k, templates, length] of a source's class names in templates)."""
    prompts = fill_templates(source.dataset.classnames, source.dataset.templates)
    ids = tokenize([p for of_class in prompts for p in of_class], length)
    return [], ids.reshape(len(prompts), -1, length)
