"""Stage pretrain: contrastive image-text training from scratch.

The texts are captions, or class names in templates; sets of both can be mixed. For
where no pretrained file can be had: the embedded miniature and small real sets.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from rsclip_jax import api
from rsclip_jax.data.catalog.prompts import fill_templates
from rsclip_jax.data.pipeline.texts import Tokens
from rsclip_jax.data.sources.files import read_captions
from rsclip_jax.data.tokenizer import tokenize
from rsclip_jax.data.types import Source
from rsclip_jax.models import inference
from rsclip_jax.models.clip import image_features, init_clip, text_features
from rsclip_jax.models.inference import last_token
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.stages.shared import common, training
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, objectives, sharding


def check_pretrain(run: Run) -> None:
    """Raises ValueError for what would stop this stage, or make it pointless."""
    tested = (*common.LABELLED, "captions")
    tasks = {"train": ("single", "captions"), "test": tested}
    training.check_training(run, "pretrain", tasks, may_be_empty=("test",))
    train = [run.open(spec) for spec in run.config.pretrain.train]
    training.check_weights(run.config.pretrain, "pretrain")
    training.make_augment(run, "pretrain", train, ("rgb",))
    get_variant(run.config.variant)
    if run.config.init:
        raise ValueError(
            f"config.init = {run.config.init!r}, but stage 'pretrain' starts from"
            " random weights: leave 'pretrain' out of config.stages, or config.init"
            " empty"
        )


def run_pretrain(run: Run) -> None:
    """Trains config.variant on config.pretrain.train; reports it on the test sets."""
    c = run.config.pretrain
    variant = get_variant(run.config.variant)
    sources = [run.open(spec) for spec in c.train]
    tests = [run.open(spec) for spec in c.test]
    params = init_clip(variant, jax.random.key(run.config.seed))
    report(run, variant, params, tests, step=0)
    params = training.fit(
        run,
        "pretrain",
        params=params,
        frozen={},
        train=sources,
        sizes={"rgb": variant.image_size},
        loss_fn=objectives.make_contrastive_loss(
            lambda p, batch: image_features(p["visual"], batch["rgb"], variant),
            lambda p, batch: text_features(p["text"], batch["text"], variant),
            sharding.make_clip_loss(run.mesh),
        ),
        sources={},
        tokens=caption_tokens(run, sources, variant),
    )
    report(run, variant, params, tests, step=c.steps)
    meta = StageMeta(variant=dataclasses.asdict(variant), steps=c.steps, sources={})
    training.finish(run, "pretrain", params, sources, meta)


def report(run: Run, variant: Variant, params, tests, *, step: int) -> None:
    """Zero-shot of params on every test source; with captions, retrieval."""
    digest = checkpoint.params_digest(params)
    clip = api.Model(variant, params, {}, digest, step)
    visual = sharding.put_params(params["visual"], run.mesh)
    for source in tests:
        z, labels, seen = run.encode(
            "pretrain",
            source,
            {"rgb": lambda b: inference.encode_rgb(visual, b["rgb"], variant=variant)},
            {"rgb": variant.image_size},
        )
        if source.dataset.task == "captions":
            records, prompts = common.score_captions(run, clip, seen, z)
        elif not common.has_zero_shot(run, "pretrain", source):
            continue
        else:
            head, prompts = common.zero_shot_head(clip, source)
            records = common.score(source, z["rgb"], labels, head, "rgb")
        run.report(
            "pretrain", seen, records, step=step, checkpoint=digest, prompts=prompts
        )


def caption_tokens(
    run: Run, sources: Sequence[Source], variant: Variant
) -> list[Tokens]:
    """For each source what train_batches draws texts from.

    All are cut to the longest of all: the text tower is causal and the rest is padding.
    Captions longer than the tower takes are cut, as CLIP does, and counted.
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
    """(the different captions of a source, their token ids [m, length])."""
    captions = read_captions(source, run.config.data.on_error)
    texts = list(dict.fromkeys(text for of_one in captions for text in of_one))
    common.say_cut(run, source, texts, length)
    return texts, tokenize(texts, length, truncate=True)


def tokens_of_classes(source: Source, length: int) -> tuple[list[str], np.ndarray]:
    """(no texts, token ids [k, templates, length] of a source's class captions)."""
    prompts = fill_templates(source.dataset.classnames, source.dataset.templates)
    ids = tokenize([p for row in prompts for p in row], length)
    return [], ids.reshape(len(prompts), -1, length)
