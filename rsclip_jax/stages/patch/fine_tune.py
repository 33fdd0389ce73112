"""Fine-tuning of the visual tower through frozen zero-shot heads, for stage patch."""

import dataclasses
from collections.abc import Sequence

import jax

from rsclip_jax import api
from rsclip_jax.data.types import Source
from rsclip_jax.models.clip import tower_params
from rsclip_jax.models.variants import Variant
from rsclip_jax.stages.patch import recipes
from rsclip_jax.stages.patch.settings import PatchSettings
from rsclip_jax.stages.shared import training
from rsclip_jax.stages.shared.job import Job, fit
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, optim
from rsclip_jax.train.lora import merge_lora
from rsclip_jax.train.settings import EVERYTHING


def fine_tune(run: Run, c: PatchSettings, clip: api.Model, train: Sequence[Source]):
    """theta_1: the visual tower trained by the settings' recipe and loss.

    With train_text it also holds "text", the text tower, as models.clip.tower_params.

    With LoRA it is the merged tower, with ema the averaged one; with a trained head it
    also holds "head" [d, k], which recipes.split_head separates. Several sources are
    trained jointly.
    """
    theta_0 = tower_params(clip.params, c.train_text)
    frozen = recipes.make_frozen(run, c, clip, train)
    origins = {"theta_0": {"digest": clip.digests["clip"]}}
    if c.recipe == "lp_ft":
        job = head_job(run, c, clip.variant, theta_0, frozen, train)
        # the stage's folder is patch/head
        part = dataclasses.replace(run, workdir=run.workdir / "patch")
        frozen["head"] = jax.device_get(fit(part, job, origins)["head"])
        origins["head"] = {"digest": checkpoint.params_digest(frozen["head"])}
    job = tower_job(run, c, clip.variant, theta_0, frozen, train)
    count = optim.count_trained(job.settings.trainable, job.params)
    run.log(
        f"patch: recipe {c.recipe} trains {count:,} parameters; the"
        f" {'towers have' if c.train_text else 'tower has'}"
        f" {optim.count_trained(EVERYTHING, theta_0):,}"
    )
    theta_1 = fit(run, job, origins)
    if c.recipe == "lora":
        theta_1, head = recipes.split_head(theta_1)
        theta_1 = merge_lora(theta_0, theta_1, c.lora.scale)
        theta_1 |= {} if head is None else {"head": head}
    if c.recipe == "lora" or c.training.ema:
        checkpoint.save_trained(run.folder("patch"), theta_1)
    return theta_1


def tower_job(
    run: Run, c: PatchSettings, variant: Variant, theta_0, frozen, train
) -> Job:
    """The training of the tower theta_0, of its adapters, or of it and its head.

    frozen: of recipes.make_frozen; with recipe "lp_ft", with the trained head.
    """
    loss_fn, sources = recipes.make_loss(run, c, variant, train)
    params, tower, frozen = theta_0, theta_0, dict(frozen)
    if c.recipe == "lora":
        params = recipes.start_lora(c, theta_0, run.config.seed)
        loss_fn = recipes.through_lora(loss_fn, c.lora.scale)
        frozen["theta_0"] = theta_0
    rules = recipes.tower_rules(c, theta_0)
    if c.head == "trained":
        head = frozen.pop("head")
        params, tower = {**params, "head": head}, {**theta_0, "head": head}
        loss_fn, rules = recipes.with_head(loss_fn), (("head", True), *rules)
    settings = dataclasses.replace(c.training, trainable=rules)
    data = _data(c, variant, sources)
    return Job("patch", settings, data, params, frozen, loss_fn, tower)


def head_job(
    run: Run, c: PatchSettings, variant: Variant, theta_0, frozen, train
) -> Job:
    """The training of the zero-shot head on the frozen tower's features.

    The first step of LP-FT (Kumar et al. 2022, arXiv 2202.10054). The tower then trains
    through this frozen head; evaluation still uses the text head, unless the head is
    trained with the tower. Checkpoints and curve are in <workdir>/patch/head.
    """
    settings = dataclasses.replace(
        c.training,
        steps=c.head_steps,
        lr=c.head_lr,
        trainable=EVERYTHING,
        layer_decay=1.0,
        ema=0.0,
    )
    loss_fn, sources = recipes.make_loss(run, c, variant, train)
    return Job(
        "head",
        settings,
        _data(c, variant, sources),
        {"head": frozen["head"]},
        {**frozen, "theta_0": theta_0},
        recipes.through_head(loss_fn),
        section="patch",
    )


def _data(c: PatchSettings, variant: Variant, sources) -> training.TrainingData:
    return training.TrainingData(
        sources, {"rgb": variant.image_size}, weights=c.weights
    )
