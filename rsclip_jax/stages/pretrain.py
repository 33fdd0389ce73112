"""Stage pretrain: contrastive image-text training from scratch on class-name captions.

For where no pretrained file can be had: the embedded miniature and small real sets.
"""

import dataclasses

import jax
import numpy as np

from rsclip_jax import api, checkpoint, losses, sharding
from rsclip_jax.data.prompts import fill_templates
from rsclip_jax.data.sources import Source
from rsclip_jax.data.tokenizer import tokenize
from rsclip_jax.evals.zero_shot import last_token
from rsclip_jax.models.clip import image_features, init_clip, text_features
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.stages import common


def check_pretrain(run: common.Run) -> None:
    """Raises ValueError for what would stop this stage, or make it pointless."""
    tasks = {"train": ("single",), "test": common.LABELLED}
    common.check_training(run, "pretrain", tasks, may_be_empty=("test",))
    train = [run.open(spec) for spec in run.config.pretrain.train]
    common.make_augment(run, "pretrain", train, ("rgb",))
    get_variant(run.config.variant)
    if run.config.init:
        raise ValueError(
            f"config.init = {run.config.init!r}, but stage 'pretrain' starts from"
            " random weights: leave 'pretrain' out of config.stages, or config.init"
            " empty"
        )


def run_pretrain(run: common.Run) -> None:
    """Trains config.variant on config.pretrain.train; reports its zero-shot."""
    c = run.config.pretrain
    variant = get_variant(run.config.variant)
    sources = [run.open(spec) for spec in c.train]
    tests = [run.open(spec) for spec in c.test]
    params = init_clip(variant, jax.random.key(run.config.seed))
    report(run, variant, params, tests, step=0)
    params = common.fit(
        run,
        "pretrain",
        params=params,
        frozen={},
        train=sources,
        sizes={"rgb": variant.image_size},
        loss_fn=losses.make_contrastive_loss(
            lambda p, batch: image_features(p["visual"], batch["rgb"], variant),
            lambda p, batch: text_features(p["text"], batch["text"], variant),
            sharding.make_clip_loss(run.mesh),
        ),
        sources={},
        tokens=caption_tokens(sources, variant),
    )
    report(run, variant, params, tests, step=c.steps)
    meta = {"variant": dataclasses.asdict(variant), "steps": c.steps, "sources": {}}
    common.finish(run, "pretrain", params, meta)


def report(run: common.Run, variant: Variant, params, tests, *, step: int) -> None:
    """Zero-shot of params on every test source."""
    digest = checkpoint.params_digest(params)
    clip = api.Model(variant, params, {}, {"clip": digest}, {"clip": step})
    visual = sharding.put_params(params["visual"], run.mesh)
    for source in tests:
        head, prompts = common.zero_shot_head(clip, source)
        z, labels, seen = run.encode(
            "pretrain",
            source,
            {"rgb": lambda b: api.encode_rgb(visual, b["rgb"], variant=variant)},
            {"rgb": variant.image_size},
        )
        records = common.score(source, z["rgb"], labels, head, "rgb")
        run.report(
            "pretrain", seen, records, step=step, checkpoint=digest, prompts=prompts
        )


def caption_tokens(sources: list[Source], variant: Variant) -> list[np.ndarray]:
    """For each source the token ids [k, templates, n] of its classes' captions.

    n is cut to the longest caption: the text tower is causal and the rest is padding.
    """
    tables = []
    for source in sources:
        prompts = fill_templates(source.dataset.classnames, source.dataset.templates)
        flat = [p for row in prompts for p in row]
        ids = tokenize(flat, context_length=variant.context_length)
        tables.append(ids.reshape(len(prompts), -1, variant.context_length))
    used = max(last_token(t) for t in tables) + 1
    return [t[..., :used] for t in tables]
