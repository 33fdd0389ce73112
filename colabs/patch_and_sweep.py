# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/colabs/patch_and_sweep.ipynb)
#
# # Patching a CLIP: the sweep over alpha, live
#
# Fine-tuning teaches a CLIP satellite images and makes it forget others. Interpolating
# the weights before and after,
#
# theta(alpha) = (1 - alpha) theta_0 + alpha theta_1,
#
# keeps most of both (WiSE-FT, Wortsman et al. 2022; PAINT, Ilharco et al. 2022). This
# notebook fine-tunes a CLIP, evaluates interpolations one by one in a live plot, and
# chooses alpha within a forgetting budget.
#
# It runs without a download, in one to two minutes on two CPU cores, on the package's
# embedded miniature: synthetic scenes, and a small CLIP that is trained first.

# %% [markdown]
# ## Set-up
#
# The next cell makes the package importable and shows the devices. In a clone of the
# repository, and wherever the package and what it needs are installed, it installs
# nothing. On a hosted runtime it clones the repository and installs missing packages,
# but keeps the host's jax if its version fits. Set the repository's address in the
# field, or in the environment variable `RSCLIP_REPOSITORY`.

# %%
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = ""  # @param {type: "string"}


def find_clone() -> Path:
    """The clone around this notebook, or a new one in the working directory."""
    for folder in (Path("rsclip-jax").absolute(), Path.cwd(), *Path.cwd().parents):
        if (folder / "configs" / "common.py").exists():
            return folder
    address = REPOSITORY or os.environ.get("RSCLIP_REPOSITORY", "")
    if not address:
        raise ValueError("set REPOSITORY, above, to the address of the repository")
    subprocess.run(["git", "clone", "--depth=1", address, "rsclip-jax"], check=True)
    return Path("rsclip-jax").absolute()


def is_met(requirement: Requirement) -> bool:
    """Whether the host has the package, in a version within the range."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return False
    return requirement.specifier.contains(found, prereleases=True)


def install(clone: Path) -> None:
    """Installs missing or outdated packages; keeps a jax within the range."""
    project = tomllib.loads((clone / "pyproject.toml").read_text())["project"]
    needed = [Requirement(line) for line in project["dependencies"]]
    missing = [str(r) for r in needed if not is_met(r)]
    if not missing:
        return
    if "jax" in {Requirement(line).name for line in missing}:
        gpu = shutil.which("nvidia-smi")
        tpu = "TPU_NAME" in os.environ or Path("/dev/accel0").exists()
        missing += project["optional-dependencies"]["cuda"] if gpu else []
        missing += project["optional-dependencies"]["tpu"] if tpu else []
    else:
        missing += [f"{name}=={version(name)}" for name in ("jax", "jaxlib")]
    command = [sys.executable, "-m", "pip", "install", "-q", *missing]
    subprocess.run(command, check=True)


if find_spec("rsclip_jax") is None:
    sys.path.insert(0, str(find_clone()))
    install(Path(sys.path[0]))

import jax

print(jax.devices())

# %% [markdown]
# `MAX_DROP` is the forgetting budget: how much accuracy on the supported dataset may
# fall. `QUICK` trains for only a few steps, to test that all cells run; its numbers
# mean nothing.

# %%
MAX_DROP = 0.05  # @param {type: "number"}
QUICK = bool(os.environ.get("RSCLIP_QUICK"))
workdir = Path("runs/quick" if QUICK else "runs/colab")

# %%
import dataclasses
import json

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

import rsclip_jax
from rsclip_jax.configs import align_sar
from rsclip_jax.data.datasets import open_source
from rsclip_jax.interpolate import block_names, block_prefix, interpolate
from rsclip_jax.main import run_stages
from rsclip_jax.metrics import per_class_accuracy, top_k_accuracy
from rsclip_jax.records.budget import Budget
from rsclip_jax.stages.patch.choose_alpha import choose_alpha
from rsclip_jax.train.checkpoint import load_meta

# %% [markdown]
# ## Fine-tune
#
# Stage `pretrain` trains the CLIP, theta_0 (to use other weights, set `config.init` to
# their file or name and remove `pretrain` from `config.stages`). Stage `patch`
# fine-tunes its visual tower on labelled satellite scenes, through the frozen text
# tower: the class names stay the classifier. The dataset to improve on, the task, is
# `miniature`; the dataset not to forget, the supported dataset, is `miniature_natural`,
# drawings of everyday things. `configs/align_sar.py` has all settings of both stages.

# %%
config = align_sar.get_config()
config.stages = ("pretrain", "patch")
if QUICK:
    for stage in config.stages:
        config[stage].update(batch_size=16, steps=6, warmup=2)
run_stages(config, workdir)

# %% [markdown]
# The stage has already chosen an alpha, at the end of its output; the cells below
# repeat the choice by hand. First the training curve:

# %%
curve = [json.loads(line) for line in (workdir / "patch/metrics.jsonl").open()]
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot([x["step"] for x in curve], [x["loss"] for x in curve], "o-", markersize=3)
ax.set(xlabel="step", ylabel="cross-entropy", title="Fine-tuning on satellite scenes")
ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## The two ends
#
# `load` loads a patched workdir at any alpha: 0 is the original CLIP, 1 the fine-tuned
# one. `interpolate` of their visual towers gives all models between; each is as fast as
# either end. Alpha is chosen on validation scenes, not on test scenes.

# %%
theta_0 = rsclip_jax.load(workdir, alpha=0.0)
theta_1 = rsclip_jax.load(workdir, alpha=1.0)


def mix(alpha):
    """The CLIP at this alpha: a float, or one for each part of the tower."""
    visual = interpolate(theta_0.params["visual"], theta_1.params["visual"], alpha)
    return dataclasses.replace(theta_0, params={**theta_0.params, "visual": visual})


class Examples:
    """Images, labels and zero-shot head of a split."""

    def __init__(self, name: str, split: str):
        source = open_source(name, split=split)
        self.names = source.dataset.classnames
        self.images = [record["rgb"] for record in source]
        self.labels = np.array([record["label"] for record in source])
        # The text tower is not patched, so all interpolations share one head.
        self.head = theta_0.zero_shot(self.names, source.dataset.templates)

    def logits(self, model) -> np.ndarray:
        return model.encode_image(self.images) @ self.head

    def accuracy(self, model) -> float:
        return top_k_accuracy(self.logits(model), self.labels)


task = Examples("miniature", "val")
supported = Examples("miniature_natural", "val")

# %% [markdown]
# ## Sweep
#
# The plot grows as the interpolations are evaluated. The supported dataset falls slowly
# at first, while the task gains most of its points early. So the curve on the right
# bulges towards the upper right corner, above the straight line between its ends: for
# most trade-offs between the two datasets, an interpolation is better than either end.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
left.set(xlabel="alpha", ylabel="zero-shot accuracy (%)", title="Along alpha")
left.set(xlim=(-0.03, 1.03), ylim=(0, 100))
right.set(xlabel="task: miniature (%)", ylabel="supported: miniature_natural (%)")
right.set(title="Task against supported")
(task_line,) = left.plot([], [], "o-", color="tab:blue", label="task: miniature")
(kept_line,) = left.plot(
    [], [], "s-", color="tab:orange", label="supported: miniature_natural"
)
left.legend(loc="lower center", frameon=False)
left.grid(alpha=0.3)
right.grid(alpha=0.3)
(trade,) = right.plot([], [], "o-", color="tab:purple")

shown = display(figure, display_id=True)
task_curve: dict[float, float] = {}
supported_curve: dict[float, float] = {}
for alpha in np.linspace(0, 1, 5 if QUICK else 21).round(2).tolist():
    model = mix(alpha)
    task_curve[alpha] = task.accuracy(model)
    supported_curve[alpha] = supported.accuracy(model)
    alphas = list(task_curve)
    x = [100 * value for value in task_curve.values()]
    y = [100 * value for value in supported_curve.values()]
    task_line.set_data(alphas, x)
    kept_line.set_data(alphas, y)
    trade.set_data(x, y)
    right.relim()
    right.autoscale_view()
    if alpha in (0.0, 0.5, 1.0):
        right.annotate(
            f"alpha = {alpha:g}",
            (x[-1], y[-1]),
            textcoords="offset points",
            xytext=(4, 11),
        )
    shown.update(figure)
right.plot(x[:: len(x) - 1], y[:: len(y) - 1], ":", color="grey")
right.margins(x=0.2, y=0.15)
shown.update(figure)
plt.close(figure)

# %% [markdown]
# ## Choose under a budget
#
# The chosen alpha has the best task accuracy among those at which the supported dataset
# loses at most the budget. The table lists it for several budgets, to show how much
# accuracy a larger budget would gain.

# %%
budgets = sorted({0.0, 0.01, 0.02, 0.05, 0.1, 0.2, MAX_DROP})
print("budget  alpha   task   supported   (validation)")
for drop in budgets:
    alpha = choose_alpha(task_curve, [supported_curve], Budget(drop))
    gained, kept = 100 * task_curve[alpha], 100 * supported_curve[alpha]
    print(f"{100 * drop:4.0f}    {alpha:5.2f} {gained:5.1f} %    {kept:5.1f} %")

budget = Budget(MAX_DROP)
chosen = choose_alpha(task_curve, [supported_curve], budget)
least = budget.least(supported_curve[0.0])
figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
ax.plot(alphas, x, "o-", label="task: miniature")
ax.plot(alphas, y, "s-", label="supported: miniature_natural")
ax.axhspan(0, 100 * least, color="tab:orange", alpha=0.12, linewidth=0)
ax.text(1, 3, "below the budget of the supported dataset", fontsize=9, ha="right")
ax.axvline(chosen, color="crimson", linestyle="--", label=f"chosen: {chosen:g}")
ax.set(xlabel="alpha", ylabel="zero-shot accuracy (%)", ylim=(0, 100))
ax.set_title(f"The best alpha that loses at most {100 * MAX_DROP:g} points")
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# The stage did the same with alphas in steps of 0.1 and a budget of 5 points
# (`config.patch.max_supported_drop`). It also reports how certain the choice is: the
# range of alphas chosen in 95 % of bootstrap samples of the validation scenes.

# %%
meta = load_meta(workdir / "patch")
low, high = meta.alpha_ci95
print(f"by hand {chosen:g}; stage patch {meta.alpha:g} ({low:g} to {high:g})")

# %% [markdown]
# ## On the test scenes
#
# The test scenes had no part in the choice. The patched CLIP gains on the task and
# forgets little; the fine-tuned one gains more, and forgets some drawings almost
# completely.

# %%
models = {
    "original": mix(0.0),
    f"patched, {chosen:g}": mix(chosen),
    "fine-tuned": mix(1.0),
}
figure, axes = plt.subplots(1, 2, figsize=(14, 5), layout="constrained", sharey=True)
for ax, name in zip(axes, ("miniature", "miniature_natural")):
    test = Examples(name, "test")
    positions = np.arange(len(test.names))
    for i, (label, model) in enumerate(models.items()):
        logits = test.logits(model)
        mean = 100 * top_k_accuracy(logits, test.labels)
        ax.bar(
            positions + 0.28 * (i - 1),
            100 * per_class_accuracy(logits, test.labels),
            0.26,
            label=f"{label}: {mean:.1f} %",
        )
    ax.set_xticks(positions, test.names, rotation=40, ha="right")
    ax.set(title=f"{name}:test", ylim=(0, 118))
    ax.legend(ncols=3, frameon=False, loc="upper center")
axes[0].set_ylabel("zero-shot accuracy (%)")
plt.show()

# %% [markdown]
# ## An alpha for each block
#
# `interpolate` also accepts a tree of alphas, and `block_prefix` builds one from an
# alpha for each block of the tower. Here one block at a time has its fine-tuned weights
# and the others have the original ones, which shows how much each block gains and
# forgets. With `config.patch.per_block=True` the stage searches the best alpha of each.

# %%
visual = theta_0.params["visual"]
blocks = block_names(visual)
found = [(task.accuracy(theta_0), supported.accuracy(theta_0))]
for block in blocks:
    alphas_of = {name: float(name == block) for name in blocks}
    model = mix(block_prefix(visual, alphas_of))
    found.append((task.accuracy(model), supported.accuracy(model)))
change = 100 * (np.array(found[1:]) - found[0])
figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
for i, label in enumerate(("task: miniature", "supported: miniature_natural")):
    bars = ax.bar(np.arange(len(blocks)) + 0.38 * (i - 0.5), change[:, i], 0.36)
    bars.set_label(label)
    ax.bar_label(bars, fmt="%+.1f", fontsize=8, padding=2)
ax.axhline(0, color="black", linewidth=0.8)
ax.set_xticks(range(len(blocks)), blocks)
ax.set(ylabel="points gained", title="One block fine-tuned, the others original")
ax.margins(y=0.2)
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# `rsclip_jax.load("runs/colab")` now loads the patched CLIP. The next stage aligns a
# radar encoder to it: `align_sar.ipynb`.
