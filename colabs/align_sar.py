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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/colabs/align_sar.ipynb)
#
# # Radar joins CLIP
#
# Radar sees through clouds and at night. But CLIPs are trained on captioned
# photographs, and hardly any radar image has a caption. Radar and optical satellites
# do, however, image the same locations. So a radar encoder is trained to reproduce the
# features that CLIP's visual tower computes from the optical image of the same location
# (Zavras et al. 2024). Then everything that works with CLIP's embeddings works with
# radar: zero-shot classification, and search with words and between sensors.
#
# It runs without a download, in about two minutes on two CPU cores, on the package's
# embedded miniature: synthetic scenes as an optical sensor and a C-band radar see them.

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
# `QUICK` trains for only a few steps, to test that all cells run; its numbers mean
# nothing.

# %%
QUICK = bool(os.environ.get("RSCLIP_QUICK"))
workdir = Path("runs/quick" if QUICK else "runs/colab")

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image

import rsclip_jax
from rsclip_jax.configs import align_sar
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.main import run_stages
from rsclip_jax.metrics import per_class_accuracy, top_k_accuracy
from rsclip_jax.records.outcomes import load_outcomes
from rsclip_jax.records.results import read_results
from rsclip_jax.report.contact_sheet import render, views_of

# %% [markdown]
# ## What the radar sees
#
# A record holds images of one location from several sensors. Radar is VV and VH
# backscatter in dB, shown as red and green with their difference as blue: buildings are
# bright, water and roads dark, trees scatter into VH. Speckle makes single pixels
# unreliable, and no colour means what it means in RGB: CLIP's unchanged tower would see
# noise.

# %%
scenes = open_source("miniature", split="test")
names = scenes.dataset.classnames
labels = np.array([record["label"] for record in scenes])
radar_view = views_of(get_sensor(scenes.dataset.sensors["s1"]))[0]


def show(ax, picture, title="", colour="lightgrey"):
    """A picture in a coloured frame."""
    ax.imshow(picture)
    ax.set_title(title, fontsize=8)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)


picked = [scenes[int(np.flatnonzero(labels == label)[0])] for label in range(10)]
radar, stretch = render([record["s1"] for record in picked], radar_view)
figure, axes = plt.subplots(2, 10, figsize=(15, 3.4), layout="constrained")
for top, bottom, record, picture in zip(*axes, picked, radar):
    show(top, record["rgb"], names[record["label"]])
    show(bottom, picture)
axes[0, 0].set_ylabel("RGB")
axes[1, 0].set_ylabel("radar")
figure.suptitle(f"The same locations; radar is {radar_view.heading} (dB: {stretch})")
plt.show()

# %% [markdown]
# ## Train
#
# Three stages run, unless they are already done: `pretrain` trains a small CLIP,
# `patch` adapts its visual tower to satellite RGB (see `patch_and_sweep.ipynb`), and
# `align` trains the radar encoder. This student starts as a copy of the tower with a
# first layer for two bands instead of three. The teacher, the patched tower, is frozen,
# and so is the text tower. The loss is the squared distance of the features plus 0.05
# times the cross-entropy of the labels through the text head; `config.align.losses` has
# others.
#
# To use another CLIP and other pairs, set `config.init`, `config.data_root` and
# `config.align.train` (rsclip_jax/data/README.md).

# %%
config = align_sar.get_config()
config.stages = ("pretrain", "patch", "align")
if QUICK:
    for stage in config.stages:
        config[stage].update(batch_size=16, steps=6, warmup=2)
run_stages(config, workdir)

# %% [markdown]
# Both terms of the loss during training, from `align/metrics.jsonl`. The distance does
# not reach zero, because radar does not show everything that RGB shows.

# %%
curve = [json.loads(line) for line in (workdir / "align/metrics.jsonl").open()]
steps = [x["step"] for x in curve]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
left.plot(steps, [x["mse"] for x in curve], "o-", markersize=3)
left.set(title="Distance to the teacher's features", ylabel="mean squared error")
right.plot(steps, [x["labels"] for x in curve], "o-", markersize=3, color="tab:orange")
right.set(title="Labels, through the frozen text", ylabel="cross-entropy")
for ax in (left, right):
    ax.set_xlabel("step")
    ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## Results
#
# Every result is a line of `results.jsonl`, with its 95 % interval; step 0 is before
# the stage. Retrieval looks for the one scene among 1,000 that shows the same location,
# so chance is k / 1,000.

# %%
found = [
    r
    for r in read_results(workdir / "results.jsonl")
    if r.stage == "align" and r.metric in ("accuracy", "recall@10", "recall@50")
]
rows = list(dict.fromkeys((r.sensor, r.metric) for r in found))
figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
for shift, when in ((-0.2, "before"), (0.2, "after")):
    here = [r for r in found if (r.step == 0) == (when == "before")]
    values = [100 * r.value for r in here]
    ends = 100 * np.array([r.ci95 for r in here]).T
    spread = np.abs(ends - values)
    bars = ax.barh(np.arange(len(rows)) + shift, values, 0.38, xerr=spread, label=when)
    ax.bar_label(bars, fmt="%.1f", padding=4, fontsize=8)
ax.set_yticks(range(len(rows)), [f"{sensor}: {metric}" for sensor, metric in rows])
ax.invert_yaxis()
ax.set(xlim=(0, 100), xlabel="%", title="Before and after stage align, miniature:test")
ax.legend(loc="lower right", frameon=False)
plt.show()

# %% [markdown]
# ## The two sensors in one space
#
# The stage keeps the embeddings of its test split. The plots show them on the first two
# principal components of RGB: before alignment all radar embeddings are in one cluster,
# after it they are near the RGB embeddings of their class.

# %%
when = {
    name: load_outcomes(workdir / "align/outcomes" / name)[0]
    for name in ("before", "after")
}
centre = when["after"].z["rgb"].mean(0)
_, _, axes_of = np.linalg.svd(when["after"].z["rgb"] - centre, full_matrices=False)
figure, axes = plt.subplots(
    1, 2, figsize=(12, 5), layout="constrained", sharex=True, sharey=True
)
for ax, (name, outcome) in zip(axes, when.items()):
    for i, label in enumerate((1, 3, 4, 7)):
        of_class = outcome.labels == label
        for sensor, marker in (("rgb", "."), ("s1", "x")):
            points = (outcome.z[sensor][of_class] - centre) @ axes_of[:2].T
            style = {"marker": marker, "color": f"C{i}", "alpha": 0.7, "s": 28}
            ax.scatter(*points.T, **style, label=f"{names[label]}, {sensor}")
    ax.set(title=f"{name} alignment", xlabel="first direction")
axes[0].set_ylabel("second direction")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right", frameon=False)
plt.show()

# %% [markdown]
# ## Zero-shot from radar
#
# `load` loads the patched CLIP with its radar encoder; `encode` takes radar in dB. The
# same zero-shot classifier serves both sensors. Radar recognises buildings and water
# well; highways are as dark as rivers, and crop land resembles grassland. It can be
# better than its teacher on some classes, because its loss includes the labels.

# %%
model = rsclip_jax.load(workdir)
zrgb = model.encode_image([record["rgb"] for record in scenes])
zsar = model.encode([record["s1"] for record in scenes], sensor="s1")
head = model.zero_shot(names, "a satellite photo of {c}.")

figure, ax = plt.subplots(figsize=(10, 4), layout="constrained")
for shift, label, z in ((-0.2, "RGB", zrgb), (0.2, "radar", zsar)):
    logits = z @ head
    mean = 100 * top_k_accuracy(logits, labels)
    values = 100 * per_class_accuracy(logits, labels)
    bars = ax.bar(np.arange(10) + shift, values, 0.38, label=f"{label}: {mean:.1f} %")
    ax.bar_label(bars, fmt="%.0f", fontsize=8)
ax.set_xticks(range(10), names, rotation=30, ha="right")
ax.set(ylabel="zero-shot accuracy (%)", ylim=(0, 125), title="By class, miniature:test")
ax.legend(frameon=False, ncols=2, loc="upper center")
plt.show()

# %% [markdown]
# ## Retrieval between the sensors
#
# The stage has drawn radar queries, each with the RGB scene of the same location
# (green), its rank among all scenes, and the five nearest RGB scenes. Many of these
# are of its class even if the location is not among them.

# %%
Image(workdir / "align/retrieval.png")

# %% [markdown]
# ## Words in, radar out
#
# The radar encoder has never seen a caption. It was trained to reproduce image
# features, which are close to those of matching texts. Green frames mark scenes of the
# class in the query.

# %%
queries = ("river", "industrial buildings", "forest", "lake")
ztxt = model.encode_text([f"a satellite photo of {word}." for word in queries])
figure, axes = plt.subplots(len(queries), 8, figsize=(12, 7.2), layout="constrained")
for row, word, z in zip(axes, queries, ztxt):
    order = np.argsort(-(zsar @ z))[:8]
    pictures, _ = render([scenes[int(i)]["s1"] for i in order], radar_view)
    for ax, i, picture in zip(row, order, pictures):
        colour = "seagreen" if names[labels[i]] == word else "lightgrey"
        show(ax, picture, names[labels[i]], colour)
    row[0].set_ylabel(f"a satellite photo\nof {word}.", fontsize=9)
figure.suptitle("The eight radar scenes nearest to each text")
plt.show()

# %% [markdown]
# `search_archive.ipynb` searches a folder of RGB and radar files in this way.
