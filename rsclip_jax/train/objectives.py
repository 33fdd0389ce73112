"""The objective of each stage: how it encodes a batch, and how it scores that."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rsclip_jax.losses import (
    clip_loss,
    cosine_alignment,
    dot,
    joint_loss,
    label_loss,
    mse_alignment,
    normalize,
    relational_alignment,
    sigmoid_contrastive,
    sigmoid_kl,
    smooth_l1_alignment,
    softmax_kl,
)
from rsclip_jax.train_step import Objective

PyTree = Any
# (params, batch) -> un-normalised features [b, d]
Encode = Callable[[PyTree, dict[str, Any]], jax.Array]


def make_contrastive_loss(
    encode_image: Encode, encode_text: Encode, contrastive: Callable[..., jax.Array]
) -> Objective:
    """The objective of stage pretrain.

    params hold logit_scale, the batch text and group. contrastive(zimg, ztxt, t,
    groups): clip_loss, or sharding.make_clip_loss's.
    """

    def encode(params, frozen, batch):
        del frozen
        return {
            "zimg": normalize(encode_image(params, batch)),
            "ztxt": normalize(encode_text(params, batch)),
        }

    def compare(params, frozen, z, batch):
        del frozen
        # CLIP's bound: a temperature above 100 makes training unstable
        t = jnp.exp(jnp.minimum(params["logit_scale"], jnp.log(100.0)))
        loss = contrastive(z["zimg"], z["ztxt"], t, batch["group"])
        return loss, {"logit_scale_exp": t}

    return Objective(encode, compare, separable=False)


def make_patch_loss(
    encode: Encode, task: str, *, one_hot: bool = False, **options: Any
) -> Objective:
    """The objective of stage patch: labels through frozen["head"] [d, k] (scaled).

    frozen["bias"], if present, is added to all logits (SigLIP's); it matters where each
    class has its own sigmoid. frozen["class_weights"] [k], if present, weights the
    classes. one_hot: makes single labels those of task "multi". options: the options of
    label_loss that are not arrays.
    """

    def compare(params, frozen, zimg, batch):
        del params
        logits = dot(zimg, frozen["head"]) + frozen.get("bias", 0.0)
        weights, label = frozen.get("class_weights"), batch["label"]
        if one_hot:
            label = jax.nn.one_hot(label, logits.shape[-1], dtype=jnp.int32)
        loss = label_loss(logits, label, task, class_weights=weights, **options)
        return loss, {}

    return Objective(_unit(encode), compare, separable=True)


def make_prompt_loss(
    encode: Encode,
    contrastive: Callable[..., jax.Array],
    seed: int,
    encode_text: Callable[[PyTree, jax.Array], jax.Array] | None = None,
) -> Objective:
    """The objective of FLYP in stage patch (Goyal et al. 2023): images and prompts.

    Each image gets a random prompt of its class, drawn by seed and step from
    frozen["prompts"] [k, templates, d] (unit norm); images of one class are positives
    of each other. frozen["t"]: the inverse temperature. contrastive: as in
    make_contrastive_loss. encode_text: (params, token ids [b, n]) -> features [b, d] by
    the text tower in training; frozen["prompts"] are then ids [k, templates, n].
    """

    def compare(params, frozen, zimg, batch):
        label = batch["label"]
        rng = jax.random.fold_in(jax.random.key(seed), batch["step"])
        templates = frozen["prompts"].shape[1]
        drawn = jax.random.randint(rng, label.shape, 0, templates)
        ztxt = frozen["prompts"][label, drawn]
        if encode_text is not None:
            ztxt = normalize(encode_text(params, ztxt))
        return contrastive(zimg, ztxt, frozen["t"], label), {}

    return Objective(_unit(encode), compare, separable=False)


def make_joint_loss(encode: Encode, task: str) -> Objective:
    """The objective of several tasks: each example against its task's classes.

    frozen["head"] [d, k] holds the heads of all tasks side by side, frozen["owner"] [k]
    the task of each class; labels are as in joint_loss. frozen["bias"]: as in
    make_patch_loss.
    """

    def compare(params, frozen, zimg, batch):
        del params
        logits = dot(zimg, frozen["head"]) + frozen.get("bias", 0.0)
        return joint_loss(logits, batch["label"], frozen["owner"], task), {}

    return Objective(_unit(encode), compare, separable=True)


def _unit(encode: Encode):
    """(params, frozen, batch) -> embeddings of unit norm."""
    return lambda params, frozen, batch: normalize(encode(params, batch))


# A term's weight: a number, or (first, last), interpolated linearly over training.
Weight = float | tuple[float, float]
FEATURE_TERMS = {
    "mse": mse_alignment,
    "cosine": cosine_alignment,
    "smooth_l1": smooth_l1_alignment,
    "relational": relational_alignment,
}
PAIR_TERMS = ("info_nce", "sigmoid")
LABEL_TERMS = ("labels", "soft_labels")
# The terms that compare the examples of a batch with each other.
BATCH_TERMS = ("relational", *PAIR_TERMS)
ALIGN_TERMS = (*FEATURE_TERMS, *PAIR_TERMS, *LABEL_TERMS)


def make_align_loss(
    encode_student: Encode | Mapping[str, Encode],
    encode_teacher: Encode,
    *,
    terms: Mapping[str, Weight],
    task: str = "none",
    steps: int = 1,
    t: float = 10.0,
    contrastive: Callable[..., jax.Array] = clip_loss,
) -> Objective:
    """The objective of stage align: the weighted sum of terms, each in ALIGN_TERMS.

    mse, cosine, smooth_l1 and relational compare features with those of
    frozen["teacher"]. info_nce (by contrastive, as in make_contrastive_loss) and
    sigmoid take the other scenes of the batch as negatives, at inverse temperature t.
    labels and soft_labels go through frozen["head"]: the batch's labels of the task,
    and the KL divergence from the teacher's zero-shot distribution (a Bernoulli for
    each class of task "multi"), which needs neither labels nor captions. Zavras et al.
    2024 use {"mse": 1, "labels": 0.05}. Weights (first, last) need batch["step"] and
    steps.

    Several students, {sensor: encoder of params[sensor]}, learn the same teacher
    features: the loss is the mean over sensors, each over the examples where
    batch["has_<sensor>"] is True (all examples without that key), and metrics are
    called "<sensor>/<term>". Raises ValueError for an unknown term.
    """
    compare_one = _make_compare(
        terms, task=task, steps=steps, t=t, contrastive=contrastive
    )
    several = isinstance(encode_student, Mapping)
    encoders: dict[str, Encode] = (
        dict(encode_student)
        if isinstance(encode_student, Mapping)
        else {"": encode_student}
    )

    def encode(params, frozen, batch):
        taught = jax.lax.stop_gradient(encode_teacher(frozen["teacher"], batch))
        students = {
            sensor: encode_one(params[sensor] if several else params, batch)
            for sensor, encode_one in encoders.items()
        }
        return {"teacher": taught, "students": students}

    def compare(params, frozen, features, batch):
        del params
        totals = []
        metrics: dict[str, jax.Array] = {}
        for sensor, fstudent in features["students"].items():
            mask = batch.get(f"has_{sensor}") if several else None
            total, values = compare_one(
                fstudent, features["teacher"], frozen, batch, mask
            )
            totals.append(total)
            prefix = f"{sensor}/" if several else ""
            metrics |= {prefix + name: value for name, value in values.items()}
            if mask is not None:
                metrics[f"{sensor}/present"] = jnp.mean(mask)
        return sum(totals) / len(totals), metrics

    # a part of a batch may hold more examples of a sensor than another
    alike = not several and set(terms).isdisjoint(BATCH_TERMS)
    return Objective(encode, compare, separable=alike)


def _make_compare(terms, *, task, steps, t, contrastive):
    """The function (student's and teacher's features, ...) -> (loss, {term: value}).

    mask: the examples that count; None is all.
    """
    if unknown := set(terms) - set(ALIGN_TERMS):
        raise ValueError(f"terms {sorted(unknown)} are unknown; use {ALIGN_TERMS}")

    def term(name, fstudent, fteacher, frozen, batch, mask):
        if name in FEATURE_TERMS:
            return FEATURE_TERMS[name](fstudent, fteacher, mask)
        zstudent, zteacher = normalize(fstudent), normalize(fteacher)
        if name == "info_nce":
            return contrastive(zstudent, zteacher, t, jnp.arange(len(zstudent)), mask)
        if name == "sigmoid":
            return sigmoid_contrastive(zstudent, zteacher, t, mask=mask)
        logits = dot(zstudent, frozen["head"])
        if name == "labels":
            return label_loss(logits, batch["label"], task, mask)
        kl = sigmoid_kl if task == "multi" else softmax_kl
        return kl(logits, dot(zteacher, frozen["head"]), mask)

    def compare(fstudent, fteacher, frozen, batch, mask=None):
        values = {n: term(n, fstudent, fteacher, frozen, batch, mask) for n in terms}
        total = sum(_weight_at(terms[n], batch, steps) * v for n, v in values.items())
        return total, values

    return compare


def _weight_at(weight: Weight, batch: Mapping, steps: int) -> jax.Array | float:
    if not isinstance(weight, tuple):
        return weight
    done = batch["step"] / max(steps - 1, 1)
    return weight[0] + (weight[1] - weight[0]) * done
