"""Patching on several tasks: joint, sequential, or in parallel and merged.

PAINT (Ilharco et al. 2022), section 5: joint, sequential and parallel patching.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rsclip_jax import api
from rsclip_jax.data.pipeline.batches import eval_batches
from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sources.wrappers import Subset
from rsclip_jax.data.specs import folder_name
from rsclip_jax.data.types import Source
from rsclip_jax.interpolate import (
    add_tasks,
    fisher_diagonal,
    fisher_merge,
    soup,
)
from rsclip_jax.models import inference
from rsclip_jax.models.clip import image_features, tower_params
from rsclip_jax.stages.patch.fine_tune import fine_tune
from rsclip_jax.stages.patch.settings import PatchSettings
from rsclip_jax.stages.shared import scoring, training
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, objectives

ORDERS = ("joint", "sequential", "parallel")
MERGES = ("mean", "sum", "fisher")


@dataclasses.dataclass(frozen=True)
class Sets:
    """The sources of stage patch; train, val and test have one for each task."""

    train: list[Source]
    val: list[Source]
    test: list[Source]
    supported_val: list[Source]
    supported_test: list[Source]


def open_sets(run: Run, c: PatchSettings) -> Sets:
    """The sources that the settings name."""
    names = [field.name for field in dataclasses.fields(Sets)]
    return Sets(*([run.open(spec) for spec in getattr(c, name)] for name in names))


def check_tasks(c: PatchSettings, sets: Sets) -> None:
    """Raises ValueError for tasks that the settings cannot combine."""
    for name, known in (("tasks", ORDERS), ("merge", MERGES)):
        if (value := getattr(c, name)) not in known:
            raise ValueError(
                f"config.patch.{name} = {value!r} is not known; use one of"
                f" {', '.join(known)}"
            )
    count = len(sets.train)
    for name in ("val", "test"):
        if len(found := getattr(sets, name)) != count:
            raise ValueError(
                f"config.patch.train names {count} task(s), but config.patch.{name}"
                f" {len(found)}: name one dataset per task in each, in order"
            )
    if len(set(c.train)) < count:
        raise ValueError(f"config.patch.train = {c.train} names a dataset twice")
    if c.merge != "mean" and c.tasks != "parallel":
        raise ValueError(
            f"config.patch.merge = {c.merge!r} merges separately fine-tuned models: set"
            f" config.patch.tasks = 'parallel', not {c.tasks!r}"
        )
    if c.fisher_examples < 1:
        raise ValueError(
            f"config.patch.fisher_examples = {c.fisher_examples} is below 1"
        )
    _check_joint(c, sets)


def _check_joint(c: PatchSettings, sets: Sets) -> None:
    if c.weights and c.tasks != "joint":
        raise ValueError(
            f"config.patch.weights = {c.weights} mixes tasks into one training:"
            f" set config.patch.tasks = 'joint', not {c.tasks!r}, or leave it ()"
        )
    training.check_weights("patch", c.weights, sets.train)
    kinds = {s.dataset.task for s in sets.train}
    if c.tasks == "joint" and len(kinds) > 1:
        told = ", ".join(f"{s.dataset.name}: {s.dataset.task}" for s in sets.train)
        raise ValueError(
            "config.patch.tasks = 'joint' trains with one loss, but some tasks have one"
            f" label per image and some several ({told}); use 'parallel' or"
            " 'sequential'"
        )


def task_runs(run: Run, train: Sequence[Source]) -> list[Run]:
    """One run per task for its fine-tuning, in patch/tasks/<dataset>."""
    names = [folder_name(s.dataset.name) for s in train]
    if len(set(names)) < len(names):  # splits of one dataset
        names = [f"{name}_{i + 1}" for i, name in enumerate(names)]
    return [dataclasses.replace(run, part=f"tasks/{name}") for name in names]


def fine_tune_tasks(
    run: Run, c: PatchSettings, clip: api.Model, train: Sequence[Source]
):
    """(theta_1 of all tasks, {"theta_1 of <task>": its origin} if several are merged).

    theta_1 is trained on all tasks jointly, or merged from one model per task.
    """
    if len(train) == 1 or c.tasks == "joint":
        return jax.device_get(fine_tune(run, c, clip, train)), {}
    thetas = []
    for part, source in zip(task_runs(run, train), train, strict=True):
        run.log(f"patch: fine-tuning on {source.dataset.name}, {part.part}")
        thetas.append(jax.device_get(fine_tune(part, c, clip, [source])))
    theta_1 = jax.device_get(merge(run, c, clip, train, thetas))
    checkpoint.save_trained(run.workdir / "patch", theta_1)
    digests = map(checkpoint.params_digest, thetas)
    made = {
        f"theta_1 of {s.spec}": {"digest": d}
        for s, d in zip(train, digests, strict=True)
    }
    return theta_1, made


def merge(run: Run, c: PatchSettings, clip: api.Model, train: Sequence[Source], thetas):
    """theta_1 merged from one model per task, by the setting merge.

    Interpolating to it with alpha adds alpha / n of each of n task vectors for "mean",
    as in PAINT, and alpha of each for "sum", as in task arithmetic (Ilharco et al.
    2023). "fisher" is the mean weighted by each model's Fisher information on its task.
    """
    if c.merge == "mean":
        return soup(thetas)
    if c.merge == "sum":
        return add_tasks(tower_params(clip.params, c.train_text), thetas, 1.0)
    fishers = [
        estimate_fisher(run, c, clip, source, theta)
        for source, theta in zip(train, thetas, strict=True)
    ]
    return fisher_merge(thetas, fishers)


def estimate_fisher(run: Run, c: PatchSettings, clip: api.Model, source: Source, theta):
    """The Fisher diagonal of a tower on fisher_examples of a task.

    Labels are drawn from the model's distribution, with the run's seed. The diagonal is
    scaled to a mean of 1, so that confident models do not count more.
    """
    run.log(f"patch: Fisher information on {source.dataset.name} ...")
    count = min(c.fisher_examples, len(source))
    (batch,) = eval_batches(
        Subset(source, spread_indices(len(source), count)),
        sizes={"rgb": clip.variant.fit},
        options=run.read_options("patch", count),
    )
    rgb = batch["rgb"][batch["mask"]]
    head, _ = scoring.zero_shot_head(clip, source)
    task, variant = source.dataset.task, clip.variant
    z = np.concatenate(
        [
            np.asarray(
                inference.encode_rgb(theta, part, variant=variant, compute=run.compute)
            )
            for part in np.array_split(rgb, max(1, len(rgb) // 64))
        ]
    )
    labels = draw_labels(z @ head, task, np.random.default_rng(run.config.seed))
    loss_fn = objectives.make_patch_loss(
        lambda p, one: image_features(p, one["rgb"], variant, run.compute), task
    )
    find = jax.jit(lambda *args: fisher_diagonal(loss_fn, *args))
    fisher = find(theta, {"head": head}, {"rgb": jnp.asarray(rgb), "label": labels})
    leaves = jax.tree.leaves(fisher)
    mean = sum(float(x.sum()) for x in leaves) / sum(x.size for x in leaves)
    return jax.tree.map(lambda x: x / mean, fisher)


def draw_labels(logits: np.ndarray, task: str, rng: np.random.Generator) -> np.ndarray:
    """Labels drawn from a model's distribution: [n], or [n, k] for task "multi"."""
    if task == "multi":
        # equivalent to a uniform draw below the sigmoid, but cannot overflow
        draws = rng.logistic(size=logits.shape)
        return (draws < logits).astype(np.int32)
    # the argmax of Gumbel-shifted logits follows their softmax
    return (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1).astype(np.int32)
