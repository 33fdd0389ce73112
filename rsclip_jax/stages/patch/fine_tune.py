"""Fine-tuning of the visual tower through frozen zero-shot heads, for stage patch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from rsclip_jax import api
from rsclip_jax.data.types import Source
from rsclip_jax.stages.patch import recipes
from rsclip_jax.stages.patch.recipes import EVERYTHING
from rsclip_jax.stages.shared import training
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, optim
from rsclip_jax.train.lora import merge_lora


def fine_tune(run: Run, clip: api.Model, train: Sequence[Source]):
    """theta_1: the visual tower trained by config.patch's recipe and loss.

    Of LoRA the merged tower, with config.patch.ema the averaged one; with
    config.patch.head = "trained" also "head" [d, k], as recipes.split_head takes it
    apart. Several sources are trained on together.
    """
    c, theta_0 = run.config.patch, clip.params["visual"]
    tower = theta_0
    loss_fn, frozen, read = recipes.make_loss(run, clip, train)
    settings: dict[str, Any] = {
        "train": read,
        "sizes": {"rgb": clip.variant.image_size},
        "sources": {"theta_0": {"digest": clip.digests["clip"]}},
    }
    if c.recipe == "lp_ft":
        frozen["head"] = train_head(run, theta_0, loss_fn, frozen, settings)
        digest = checkpoint.params_digest(frozen["head"])
        settings["sources"] |= {"head": {"digest": digest}}
    params = theta_0
    if c.recipe == "lora":
        params = recipes.start_lora(c, theta_0, run.config.seed)
        loss_fn = recipes.through_lora(loss_fn, recipes.lora_scale(c))
        frozen["theta_0"] = theta_0
    rules = recipes.tower_rules(c, theta_0)
    if c.head == "trained":
        head = frozen.pop("head")
        params, tower = {**params, "head": head}, {**theta_0, "head": head}
        loss_fn, rules = recipes.with_head(loss_fn), (("head", True), *rules)
    run.log(
        f"patch: recipe {c.recipe} trains {optim.count_trained(rules, params):,}"
        f" parameters, of a tower of {optim.count_trained(EVERYTHING, theta_0):,}"
    )
    theta_1 = training.fit(
        run,
        "patch",
        params=params,
        frozen=frozen,
        loss_fn=loss_fn,
        trainable=rules,
        tower=tower,
        **settings,
    )
    if c.recipe == "lora":
        theta_1, head = recipes.split_head(theta_1)
        theta_1 = merge_lora(theta_0, theta_1, recipes.lora_scale(c))
        theta_1 |= {} if head is None else {"head": head}
    if c.recipe == "lora" or c.ema:
        checkpoint.save_trained(run.folder("patch"), theta_1)
    return theta_1


def train_head(run: Run, theta_0, loss_fn, frozen: dict, settings: dict):
    """The zero-shot head trained on the frozen tower's features, as LP-FT begins.

    Kumar et al. 2022 (arXiv 2202.10054). The tower is then trained through this head,
    which stays as it is, and what is evaluated is read through the text all the same,
    unless config.patch.head = "trained". It has its own folder, <workdir>/patch/head,
    with its checkpoints and curve.
    """
    c = run.config.patch
    own = {"steps": c.head_steps, "lr": c.head_lr, "ema": 0.0, "layer_decay": 1.0}
    head = ConfigDict({**c.to_dict(), **own, "trainable": EVERYTHING})
    config = ConfigDict({**run.config.to_dict(), "head": head})
    trained = training.fit(
        dataclasses.replace(run, config=config, workdir=run.workdir / "patch"),
        "head",
        params={"head": frozen["head"]},
        frozen={**frozen, "theta_0": theta_0},
        loss_fn=recipes.through_head(loss_fn),
        **settings,
    )
    return jax.device_get(trained["head"])
