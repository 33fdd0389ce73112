"""Fine-tuning recipes of stage patch: which parameters train, with which loss."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from rsclip_jax import api, losses
from rsclip_jax.data.catalog.prompts import fill_templates
from rsclip_jax.data.inspect.scan import scan
from rsclip_jax.data.inspect.statistics import count_labels
from rsclip_jax.data.sources.wrappers import SharedLabels
from rsclip_jax.data.types import Source
from rsclip_jax.interpolate import block_names, block_of
from rsclip_jax.models.clip import (
    clip_shapes,
    image_features,
    text_features,
    tower_params,
    visual_params,
)
from rsclip_jax.models.inference import encode_prompts, last_token, tokenize_for
from rsclip_jax.models.variants import Variant
from rsclip_jax.stages.patch.settings import PatchSettings
from rsclip_jax.stages.shared import clip_init, scoring
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.stages.shared.training import named
from rsclip_jax.train import objectives, optim, sharding
from rsclip_jax.train.lora import add_lora, merge_lora
from rsclip_jax.train.settings import EVERYTHING
from rsclip_jax.train_step import Objective

RECIPES = ("full", "last_blocks", "norm", "bias", "lora", "lp_ft")
LOSSES = ("labels", "asymmetric", "flyp", "sigmoid")
HEADS = ("text", "trained")
_BY_NAME = {
    # without a ResNet's batch statistics, which are never trained
    "norm": r"(.*/)?(ln_\w+|(downsample_)?bn\d?)/(scale|bias)",
    "bias": r"(.*/)?bias",
}


def check_recipe(run: Run, c: PatchSettings, train: Sequence[Source]) -> None:
    """Raises ValueError for a recipe or loss that does not fit the data or tower."""
    for name, known in (("recipe", RECIPES), ("loss", LOSSES), ("head", HEADS)):
        if (value := getattr(c, name)) not in known:
            raise ValueError(
                f"config.patch.{name} = {value!r} is not known; use one of"
                f" {', '.join(known)}"
            )
    _check_numbers(c)
    if c.train_text:
        _check_train_text(c)
    for source in train:
        _check_loss(c, source)
    if len(train) > 1 and c.head == "trained":
        raise ValueError(
            "config.patch.head = 'trained' trains the head of one task, but"
            f" config.patch.train names {len(train)}: use 'text', or patch on one task"
        )
    if len(train) > 1 and c.tasks == "joint":
        _check_joint(c)
    variant = clip_init.input_variant(run)
    if variant:
        _check_family(c, variant)
    plain = c.recipe in ("full", "lp_ft") and c.training.trainable == EVERYTHING
    if variant and not (plain and c.training.layer_decay == 1):
        check_tower(c, tower_params(clip_shapes(variant), c.train_text))


def _check_numbers(c: PatchSettings) -> None:
    for name in ("label_smoothing", "class_balanced"):
        value = getattr(c, name)
        if not 0 <= value < 1:
            raise ValueError(
                f"config.patch.{name} = {value} is not in [0, 1); 0 turns it off"
            )
        if value and c.loss == "flyp":
            raise ValueError(
                f"config.patch.{name} = {value} does not apply to config.patch.loss ="
                " 'flyp', which has no class scores: set it to 0"
            )
    for name, least in (("last_blocks", 1), ("head_steps", 1), ("head_lr", 0)):
        _check_finite(name, value := getattr(c, name))
        if value < least:
            raise ValueError(f"config.patch.{name} = {value} is below {least}")
    _check_finite("lora.alpha", c.lora.alpha)
    if c.lora.alpha <= 0:
        raise ValueError(f"config.patch.lora.alpha = {c.lora.alpha} is not above 0")
    for name, value in c.asymmetric.items():
        _check_finite(f"asymmetric.{name}", value)
        if value < 0 or (name == "margin" and value >= 1):
            wanted = "from 0 to below 1" if name == "margin" else "0 or above"
            raise ValueError(
                f"config.patch.asymmetric.{name} = {value} is out of range: {wanted}"
            )


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"config.patch.{name} = {value} is not a finite number")


def _check_family(c: PatchSettings, variant: Variant) -> None:
    """FLYP's loss is CLIP's own, with a softmax; the sigmoid's needs SigLIP's bias."""
    families = {"flyp": "clip", "sigmoid": "siglip"}
    if (family := families.get(c.loss, variant.family)) != variant.family:
        raise ValueError(
            f"config.patch.loss = {c.loss!r} is for models of family {family!r}, but"
            f" {variant.name} is of {variant.family!r}: use 'labels'"
        )


def _check_loss(c: PatchSettings, source: Source) -> None:
    dataset = source.dataset
    wanted = {"asymmetric": "multi", "flyp": "single", "sigmoid": "single"}
    if dataset.task != wanted.get(c.loss, dataset.task):
        labels = {"single": "one label", "multi": "several labels"}
        raise ValueError(
            f"config.patch.loss = {c.loss!r} needs images with"
            f" {labels[wanted[c.loss]]} each, but {dataset.name}'s have"
            f" {labels[dataset.task]}: use 'labels', which accepts both"
        )
    for name, value in (("recipe", "lp_ft"), ("head", "trained")):
        if c.loss == "flyp" and getattr(c, name) == value:
            raise ValueError(
                f"config.patch.{name} = {value!r} trains a head, but config.patch.loss"
                " = 'flyp' has none: use loss 'labels', or recipe 'full' and head"
                " 'text'"
            )


def _check_train_text(c: PatchSettings) -> None:
    plain = {"loss": "flyp", "recipe": "full", "per_block": False}
    found = {name: getattr(c, name) for name in plain}
    found["layer_decay"], plain["layer_decay"] = c.training.layer_decay, 1.0
    if c.merge == "fisher":
        found["merge"], plain["merge"] = "fisher", "mean"
    for name, wanted in plain.items():
        if found[name] != wanted:
            raise ValueError(
                f"config.patch.train_text trains both towers as a whole, but"
                f" config.patch.{name} = {found[name]!r}: set it to {wanted!r}"
            )


def _check_joint(c: PatchSettings) -> None:
    plain = {"loss": "labels", "label_smoothing": 0.0, "class_balanced": 0.0}
    for name, wanted in plain.items():
        if (value := getattr(c, name)) != wanted:
            raise ValueError(
                f"config.patch.{name} = {value!r} is for one task, but"
                f" config.patch.tasks = 'joint' trains on several: leave it {wanted!r},"
                " or use 'parallel' or 'sequential'"
            )


def check_tower(c: PatchSettings, theta: Any) -> None:
    """Raises ValueError for settings that do not fit this tower (or its shapes)."""
    rules = tower_rules(c, theta)
    params = theta
    if c.recipe == "lora":
        params = jax.eval_shape(lambda tree: start_lora(c, tree, 0), theta)
    with named("config.patch."):
        optim.check_trainable(rules, params)
        if c.training.layer_decay < 1:
            optim.layer_rules(theta, c.training.layer_decay)


def tower_rules(c: PatchSettings, theta: Any) -> optim.Rules:
    """The (regex, trained) pairs of the recipe for a visual tower.

    Recipes full and lp_ft take them from the setting trainable; for LoRA, which trains
    only its adapters, they are rules for the adapters. Raises ValueError naming
    settings that contradict each other.
    """
    given = c.training.trainable
    if c.recipe in ("full", "lp_ft"):
        return given
    if given != EVERYTHING:
        raise ValueError(
            f"config.patch.trainable = {given} and config.patch.recipe = {c.recipe!r}"
            " both choose what is trained: leave trainable as it is, or use recipe"
            " 'full'"
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


def start_lora(c: PatchSettings, theta_0: Any, seed: int) -> Any:
    """Adapters of theta_0, or the shapes of those of its shapes."""

    def make(rng: jax.Array) -> Any:
        return add_lora(theta_0, c.lora.targets, c.lora.rank, rng)

    key, first = jax.random.key(seed), jax.tree.leaves(theta_0)[0]
    with named("config.patch.lora."):
        if isinstance(first, jax.ShapeDtypeStruct):
            return jax.eval_shape(make, key)
        return make(key)


def through_lora(objective: Objective, scale: float) -> Objective:
    """A tower's objective as one of adapters; frozen["theta_0"] is the tower."""

    def view(adapters, frozen):
        return merge_lora(frozen["theta_0"], adapters, scale), frozen

    return objective.through(view)


def through_head(objective: Objective) -> Objective:
    """A tower's objective as one of {"head"}; frozen["theta_0"] is the tower."""
    return objective.through(
        lambda params, frozen: (frozen["theta_0"], {**frozen, **params})
    )


def with_head(objective: Objective) -> Objective:
    """A tower's objective as one of the tower and its head, params["head"]."""

    def view(params, frozen):
        theta, head = split_head(params)
        return theta, {**frozen, "head": head}

    return objective.through(view)


def split_head(params):
    """(the tower, its trained head or None), from the result of fine_tune."""
    theta = {name: leaf for name, leaf in params.items() if name != "head"}
    return theta, params.get("head")


def make_loss(run: Run, c: PatchSettings, variant: Variant, train: Sequence[Source]):
    """(loss_fn of the visual tower, the sources to read).

    One source uses the setting's loss; several are trained jointly: their classes are
    concatenated, and each example is classified among its task's classes.
    """

    def encode(params, batch):
        visual = visual_params(params)
        return image_features(visual, batch["rgb"], variant, run.compute)

    def encode_text(params, ids):
        return text_features(params["text"], ids, variant, run.compute)

    if len(train) > 1:
        task = train[0].dataset.task
        return objectives.make_joint_loss(encode, task), share_labels(train)
    (source,) = train
    if c.loss == "flyp":
        contrastive = sharding.make_clip_loss(run.mesh, c.training.negatives)
        text = encode_text if c.train_text else None
        seed = run.config.seed
        return objectives.make_prompt_loss(encode, contrastive, seed, text), train
    options, task = label_options(c), source.dataset.task
    if c.loss == "sigmoid":
        options["one_hot"], task = True, "multi"
    return objectives.make_patch_loss(encode, task, **options), train


def share_labels(train: Sequence[Source]) -> list[SharedLabels]:
    """The sources of several tasks with labels among the classes of all."""
    starts = np.cumsum([0, *(len(source.dataset.classnames) for source in train)])
    return [
        SharedLabels(source, int(start), int(starts[-1]))
        for source, start in zip(train, starts, strict=False)
    ]


def make_frozen(
    run: Run, c: PatchSettings, clip: api.Model, train: Sequence[Source]
) -> dict[str, np.ndarray]:
    """The frozen arrays of make_loss's loss_fn."""
    bias = {k: np.asarray(clip.params[f"logit_{k}"]) for k in _biases(clip.variant)}
    if len(train) > 1:
        heads = [scoring.zero_shot_head(clip, source)[0] for source in train]
        sizes = [head.shape[1] for head in heads]
        return {
            "head": np.concatenate(heads, axis=1),
            "owner": np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            **bias,
        }
    (source,) = train
    if c.loss == "flyp":
        dataset = source.dataset
        if c.train_text:
            prompts = prompt_ids(clip.variant, source)
        else:
            prompts = encode_prompts(
                clip.params,
                clip.variant,
                dataset.classnames,
                dataset.templates,
                run.compute,
            )
        scale = np.exp(np.minimum(clip.params["logit_scale"], np.log(100.0)))
        return {"prompts": prompts, "t": np.asarray(scale, np.float32)}
    frozen = {"head": scoring.zero_shot_head(clip, source)[0], **bias}
    if c.class_balanced:
        frozen["class_weights"] = balance_classes(run, c, source)
    return frozen


def prompt_ids(variant: Variant, source: Source) -> np.ndarray:
    """int32 [k, templates, n]: ids of a source's prompts, cut to the longest."""
    dataset = source.dataset
    prompts = fill_templates(dataset.classnames, dataset.templates)
    ids = tokenize_for(variant, [p for of_class in prompts for p in of_class])
    used = last_token(ids, variant.end_token) + 1
    used = min(-(-used // 8) * 8, variant.context_length)
    return ids[:, :used].reshape(len(prompts), -1, used)


def frozen_shapes(
    c: PatchSettings, variant: Variant, train: Sequence[Source]
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of make_frozen's arrays, without a CLIP's weights."""
    dim, classes = variant.embed_dim, sum(len(s.dataset.classnames) for s in train)
    bias = {k: _struct() for k in _biases(variant)}
    if len(train) > 1:
        owner = _struct(classes, dtype="int32")
        return {"head": _struct(dim, classes), "owner": owner, **bias}
    if c.loss == "flyp":
        prompts = _struct(classes, len(train[0].dataset.templates), dim)
        if c.train_text:
            prompts = _struct(*prompt_ids(variant, train[0]).shape, dtype="int32")
        return {"prompts": prompts, "t": _struct()}
    frozen = {"head": _struct(dim, classes), **bias}
    if c.class_balanced:
        frozen["class_weights"] = _struct(classes)
    return frozen


def _biases(variant: Variant) -> tuple[str, ...]:
    """The names of what is added to all logits: SigLIP's bias."""
    return ("bias",) if variant.family == "siglip" else ()


def _struct(*shape: int, dtype: str = "float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def label_options(c: PatchSettings) -> dict[str, Any]:
    """The options of label_loss in the settings."""
    options: dict[str, Any] = {"smoothing": c.label_smoothing}
    if c.loss == "asymmetric":
        options["asymmetric"] = c.asymmetric
    return options


def balance_classes(run: Run, c: PatchSettings, source: Source) -> np.ndarray:
    """The weight [k] of each class, from the number of its records in the source."""
    labels = scan(source, (), run.read_options("patch")).all_labels
    counts = count_labels(labels, len(source.dataset.classes))
    return losses.class_balanced_weights(counts, c.class_balanced)
