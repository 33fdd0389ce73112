"""Recipes of fine-tuning for stage patch: what is trained, and by which loss."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rsclip_jax import api, losses
from rsclip_jax.data.inspect.scan import scan
from rsclip_jax.data.inspect.statistics import count_labels
from rsclip_jax.data.sources.wrappers import SharedLabels
from rsclip_jax.data.types import Source
from rsclip_jax.interpolate import block_names, block_of
from rsclip_jax.models.clip import clip_shapes, image_features
from rsclip_jax.models.inference import encode_prompts
from rsclip_jax.stages.shared import common
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import objectives, optim, sharding
from rsclip_jax.train.lora import add_lora, merge_lora

RECIPES = ("full", "last_blocks", "norm", "bias", "lora", "lp_ft")
LOSSES = ("labels", "asymmetric", "flyp")
HEADS = ("text", "trained")
_BY_NAME = {
    # a ResNet's batch statistics are no part of it: nothing trains these
    "norm": r"(.*/)?(ln_\w+|(downsample_)?bn\d?)/(scale|bias)",
    "bias": r"(.*/)?bias",
}
EVERYTHING: optim.Rules = ((".*", True),)


def check_recipe(run: Run, train: Sequence[Source]) -> None:
    """Raises ValueError for a recipe or loss that the data or the tower cannot have."""
    c = run.config.patch
    for name, known in (("recipe", RECIPES), ("loss", LOSSES), ("head", HEADS)):
        if c[name] not in known:
            raise ValueError(
                f"config.patch.{name} = {c[name]!r} is not known; use one of"
                f" {', '.join(known)}"
            )
    _check_numbers(c)
    for source in train:
        _check_loss(c, source)
    if len(train) > 1 and c.head == "trained":
        raise ValueError(
            "config.patch.head = 'trained' is the head of one task, and"
            f" config.patch.train names {len(train)}: use 'text', whose head is every"
            " task's, or patch on one"
        )
    if len(train) > 1 and c.tasks == "joint":
        _check_joint(c)
    plain = c.recipe in ("full", "lp_ft") and tuple(c.trainable) == EVERYTHING
    if plain and c.layer_decay == 1:
        return
    if variant := common.input_variant(run):
        check_tower(c, clip_shapes(variant)["visual"])


def _check_numbers(c: ConfigDict) -> None:
    for name in ("label_smoothing", "class_balanced"):
        if not 0 <= c[name] < 1:
            raise ValueError(
                f"config.patch.{name} = {c[name]} is not in [0, 1); 0 is without it"
            )
        if c[name] and c.loss == "flyp":
            raise ValueError(
                f"config.patch.{name} = {c[name]} has no meaning for config.patch.loss"
                " = 'flyp', which has no class scores: set it to 0"
            )
    for name, least in (("last_blocks", 1), ("head_steps", 1), ("head_lr", 0)):
        if c[name] < least:
            raise ValueError(f"config.patch.{name} = {c[name]} is below {least}")
    if c.lora.alpha <= 0:
        raise ValueError(f"config.patch.lora.alpha = {c.lora.alpha} is not above 0")
    for name, value in c.asymmetric.items():
        if value < 0 or (name == "margin" and value >= 1):
            raise ValueError(
                f"config.patch.asymmetric.{name} = {value} is out of range"
            )


def _check_loss(c: ConfigDict, source: Source) -> None:
    row, wanted = source.dataset, {"asymmetric": "multi", "flyp": "single"}
    if row.task != wanted.get(c.loss, row.task):
        labels = {"single": "one label", "multi": "several labels"}
        raise ValueError(
            f"config.patch.loss = {c.loss!r} is for images of"
            f" {labels[wanted[c.loss]]} each, and {row.name}'s have"
            f" {labels[row.task]}: 'labels' is for both"
        )
    for name, value in (("recipe", "lp_ft"), ("head", "trained")):
        if c.loss == "flyp" and c[name] == value:
            raise ValueError(
                f"config.patch.{name} = {value!r} trains a head, and config.patch.loss"
                " = 'flyp' has none: use loss 'labels', or recipe 'full' and head"
                " 'text'"
            )


def _check_joint(c: ConfigDict) -> None:
    plain = {"loss": "labels", "label_smoothing": 0.0, "class_balanced": 0.0}
    for name, wanted in plain.items():
        if c[name] != wanted:
            raise ValueError(
                f"config.patch.{name} = {c[name]!r} is of one task, and"
                f" config.patch.tasks = 'joint' trains on several: leave it {wanted!r},"
                " or use 'parallel' or 'sequential'"
            )


def check_tower(c: ConfigDict, theta: Any) -> None:
    """Raises ValueError for settings that do not fit this tower (or its shapes)."""
    rules = tower_rules(c, theta)
    params = theta
    if c.recipe == "lora":
        params = jax.eval_shape(lambda tree: start_lora(c, tree, 0), theta)
    try:
        optim.check_trainable(rules, params)
        if c.layer_decay < 1:
            optim.layer_rules(theta, c.layer_decay)
    except ValueError as error:
        raise ValueError(f"config.patch.{error}") from error


def tower_rules(c: ConfigDict, theta: Any) -> optim.Rules:
    """The (regex, trained) pairs of config.patch.recipe for a visual tower.

    Recipes full and lp_ft leave them to config.patch.trainable; of LoRA, whose adapters
    are trained and nothing else, they are about the adapters. Raises ValueError naming
    the settings that contradict each other.
    """
    given = tuple(c.trainable)
    if c.recipe in ("full", "lp_ft"):
        return given
    if given != EVERYTHING:
        raise ValueError(
            f"config.patch.trainable = {given} and config.patch.recipe = {c.recipe!r}"
            " both say what is trained: leave trainable as it is, or use recipe 'full'"
        )
    if c.recipe == "lora":
        return EVERYTHING
    if pattern := _BY_NAME.get(c.recipe):
        return ((pattern, True), (".*", False))
    return _last_blocks(theta, c.last_blocks)


def _last_blocks(theta: Any, count: int) -> optim.Rules:
    blocks = block_names(theta)
    if count > len(blocks) - 2:
        raise ValueError(
            f"config.patch.last_blocks = {count}, but the tower has"
            f" {len(blocks) - 2} blocks"
        )
    last = blocks[-count - 1 :]
    names = [re.escape(name) for name in theta if block_of(name) in last]
    return (*((f"{name}/.*", True) for name in names), (".*", False))


def start_lora(c: ConfigDict, theta_0: Any, seed: int) -> Any:
    """The adapters that config.patch.lora asks for; errors name the setting."""
    rng = jax.random.key(seed)
    try:
        return add_lora(theta_0, c.lora.targets, c.lora.rank, rng)
    except ValueError as error:
        raise ValueError(f"config.patch.lora.{error}") from error


def lora_scale(c: ConfigDict) -> float:
    """What the product of an adapter's factors is multiplied with."""
    return c.lora.alpha / c.lora.rank


def through_lora(loss_fn, scale: float):
    """loss_fn of a tower as one of its adapters; the tower is frozen["theta_0"]."""

    def of_adapters(adapters, frozen, batch):
        theta = merge_lora(frozen["theta_0"], adapters, scale)
        return loss_fn(theta, frozen, batch)

    return of_adapters


def through_head(loss_fn):
    """loss_fn of a tower as one of {"head"}; the tower is frozen["theta_0"]."""

    def of_head(params, frozen, batch):
        return loss_fn(frozen["theta_0"], {**frozen, **params}, batch)

    return of_head


def with_head(loss_fn):
    """loss_fn of a tower as one of a tower and its head, under "head" in params."""

    def of_both(params, frozen, batch):
        theta, head = split_head(params)
        return loss_fn(theta, {**frozen, "head": head}, batch)

    return of_both


def split_head(params):
    """(the tower, the head that was trained with it or None) of fine_tune's theta."""
    theta = {name: leaf for name, leaf in params.items() if name != "head"}
    return theta, params.get("head")


def make_loss(run: Run, clip: api.Model, train: Sequence[Source]):
    """(loss_fn of the visual tower, what it needs frozen, the sources to read).

    One source by config.patch.loss; several are joint: their classes stand side by
    side, and each example goes through its own task's.
    """
    c = run.config.patch

    def encode(params, batch):
        return image_features(params, batch["rgb"], clip.variant)

    if len(train) > 1:
        return join_tasks(clip, train, encode)
    (source,) = train
    if c.loss == "flyp":
        row = source.dataset
        prompts = encode_prompts(
            clip.params, clip.variant, row.classnames, row.templates
        )
        scale = np.exp(np.minimum(clip.params["logit_scale"], np.log(100.0)))
        frozen = {"prompts": prompts, "t": np.asarray(scale, np.float32)}
        contrastive = sharding.make_clip_loss(run.mesh)
        loss_fn = objectives.make_prompt_loss(encode, contrastive, run.config.seed)
        return loss_fn, frozen, train
    head, _ = common.zero_shot_head(clip, source)
    options = label_options(run, source)
    loss_fn = objectives.make_patch_loss(encode, source.dataset.task, **options)
    return loss_fn, {"head": head}, train


def join_tasks(clip: api.Model, train: Sequence[Source], encode: objectives.Encode):
    """make_loss's of several tasks in one training."""
    heads = [common.zero_shot_head(clip, source)[0] for source in train]
    sizes = [head.shape[1] for head in heads]
    starts = np.cumsum([0, *sizes])
    shared = [
        SharedLabels(source, int(start), int(starts[-1]))
        for source, start in zip(train, starts, strict=False)
    ]
    frozen = {
        "head": np.concatenate(heads, axis=1),
        "owner": np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
    }
    return objectives.make_joint_loss(encode, train[0].dataset.task), frozen, shared


def label_options(run: Run, source: Source) -> dict[str, Any]:
    """label_loss's options by config.patch; class weights are of this source."""
    c = run.config.patch
    options: dict[str, Any] = {"smoothing": c.label_smoothing}
    if c.loss == "asymmetric":
        options["asymmetric"] = c.asymmetric.to_dict()
    if c.class_balanced:
        labels = scan(source, (), run.read_options("patch")).all_labels
        counts = count_labels(labels, len(source.dataset.classes))
        options["class_weights"] = losses.class_balanced_weights(
            counts, c.class_balanced
        )
    return options
