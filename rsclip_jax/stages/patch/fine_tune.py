"""Fine-tuning of the visual tower through frozen zero-shot heads, for stage patch."""

import dataclasses
from collections.abc import Sequence

import jax

from rsclip_jax import api
from rsclip_jax.data.types import Source
from rsclip_jax.stages.patch import recipes
from rsclip_jax.stages.patch.settings import PatchSettings
from rsclip_jax.stages.shared import training
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, optim
from rsclip_jax.train.lora import merge_lora
from rsclip_jax.train.settings import EVERYTHING


def fine_tune(run: Run, c: PatchSettings, clip: api.Model, train: Sequence[Source]):
    """theta_1: the visual tower trained by the settings' recipe and loss.

    With LoRA it is the merged tower, with ema the averaged one; with a trained head it
    also holds "head" [d, k], which recipes.split_head separates. Several sources are
    trained jointly.
    """
    theta_0 = clip.params["visual"]
    tower = theta_0
    loss_fn, frozen, sources = recipes.make_loss(run, c, clip, train)
    sizes = {"rgb": clip.variant.image_size}
    data = training.TrainingData(sources, sizes, weights=c.weights)
    origins = {"theta_0": {"digest": clip.digests["clip"]}}
    if c.recipe == "lp_ft":
        frozen["head"] = train_head(run, c, data, theta_0, loss_fn, frozen, origins)
        origins["head"] = {"digest": checkpoint.params_digest(frozen["head"])}
    params = theta_0
    if c.recipe == "lora":
        params = recipes.start_lora(c, theta_0, run.config.seed)
        loss_fn = recipes.through_lora(loss_fn, c.lora.scale)
        frozen["theta_0"] = theta_0
    rules = recipes.tower_rules(c, theta_0)
    if c.head == "trained":
        head = frozen.pop("head")
        params, tower = {**params, "head": head}, {**theta_0, "head": head}
        loss_fn, rules = recipes.with_head(loss_fn), (("head", True), *rules)
    run.log(
        f"patch: recipe {c.recipe} trains {optim.count_trained(rules, params):,}"
        f" parameters; the tower has {optim.count_trained(EVERYTHING, theta_0):,}"
    )
    theta_1 = training.fit(
        run,
        "patch",
        dataclasses.replace(c.training, trainable=rules),
        data,
        params=params,
        frozen=frozen,
        loss_fn=loss_fn,
        origins=origins,
        tower=tower,
    )
    if c.recipe == "lora":
        theta_1, head = recipes.split_head(theta_1)
        theta_1 = merge_lora(theta_0, theta_1, c.lora.scale)
        theta_1 |= {} if head is None else {"head": head}
    if c.recipe == "lora" or c.training.ema:
        checkpoint.save_trained(run.folder("patch"), theta_1)
    return theta_1


def train_head(
    run: Run,
    c: PatchSettings,
    data: training.TrainingData,
    theta_0,
    loss_fn,
    frozen: dict,
    origins: dict,
):
    """Trains the zero-shot head on the frozen tower's features.

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
    trained = training.fit(
        dataclasses.replace(run, workdir=run.workdir / "patch"),
        "head",
        settings,
        data,
        params={"head": frozen["head"]},
        frozen={**frozen, "theta_0": theta_0},
        loss_fn=recipes.through_head(loss_fn),
        origins=origins,
    )
    return jax.device_get(trained["head"])
