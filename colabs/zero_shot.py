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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/colabs/zero_shot.ipynb)
#
# # Zero-shot classification and search with words
#
# A CLIP embeds images and texts in one space, where matching ones are close. So a list
# of class names is a classifier, and a sentence is a search query, without training on
# your archive. This notebook loads a CLIP, classifies scenes with class names and
# templates that you choose, shows which classes are confused, and searches with words.
#
# It runs without a download, in about a minute on two CPU cores: the CLIP and the
# scenes are the package's embedded miniature, synthetic and 32 pixels wide. The same
# steps work with a real CLIP and real scenes.

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
# `SOURCE` is the CLIP: a weight file, a folder, the workdir of a run or a name; if it
# is empty, a small one is trained below. `QUICK` trains for only a few steps, to test
# that all cells run; its numbers mean nothing.

# %%
SOURCE = ""  # @param {type: "string"}
QUICK = bool(os.environ.get("RSCLIP_QUICK"))
workdir = Path("runs/quick" if QUICK else "runs/colab")

# %%
import matplotlib.pyplot as plt
import numpy as np

import rsclip_jax
from rsclip_jax.configs import align_sar
from rsclip_jax.data.datasets import open_source
from rsclip_jax.main import run_stages
from rsclip_jax.metrics import top_k_accuracy

# %% [markdown]
# ## Load a CLIP
#
# Real CLIPs are loaded by name (downloaded once from the Hugging Face hub) or from a
# local file:
#
# ```python
# model = rsclip_jax.load("RemoteCLIP-ViT-B-32")  # or OpenAI-ViT-B-32, ...
# model = rsclip_jax.load("ViT-B-32.pt")  # OpenAI's archive, read without torch
# model = rsclip_jax.load("hf:laion/CLIP-ViT-B-32-laion2B-s34B-b79K")
# ```
#
# Without a network, stage `pretrain` trains a small CLIP (its visual tower has 0.4
# million parameters) on captioned pictures: drawings of everyday things, "a photo of a
# ball.", and aerial photographs, "an aerial photo of river.". Training takes most of
# this notebook's time and happens once: all notebooks share a workdir, and finished
# stages are skipped.

# %%
config = align_sar.get_config()
config.stages = ("pretrain",)
if QUICK:
    config.pretrain.update(batch_size=16, steps=6, warmup=2)
if not SOURCE:
    run_stages(config, workdir)

# %% [markdown]
# The table shows accuracy on test images before training (chance is 10 %) and after it:
# on the drawings, and on satellite scenes, which the CLIP has never seen.

# %%
model = rsclip_jax.load(SOURCE or workdir)
model

# %% [markdown]
# ## Scenes
#
# `open_source` opens any dataset of the table in rsclip_jax/data/README.md, or a custom
# dataset described by a TOML file, as a sequence of records. Two are compared here:
# aerial photographs, like those that the CLIP was trained on, and satellite scenes of
# the same ten classes, seen through the atmosphere, from further away, in other bands.

# %%
aerial = open_source("miniature_aerial", split="test")
satellite = open_source("miniature", split="test")
names = satellite.dataset.classnames


def labels_of(source) -> np.ndarray:
    return np.array([record["label"] for record in source])


def show(ax, picture, title="", colour="lightgrey"):
    """A picture in a coloured frame."""
    ax.imshow(picture)
    ax.set_title(title, fontsize=8)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)


figure, axes = plt.subplots(2, 10, figsize=(15, 3.4), layout="constrained")
for row, source, kind in zip(axes, (aerial, satellite), ("aerial", "satellite")):
    for label, ax in enumerate(row):
        first = int(np.flatnonzero(labels_of(source) == label)[0])
        show(ax, source[first]["rgb"], names[label])
    row[0].set_ylabel(kind)
figure.suptitle("One scene of each class from an aeroplane and from a satellite")
plt.show()

# %% [markdown]
# ## Class names are the classifier
#
# `model.zero_shot(names, templates)` inserts each name into each template, encodes the
# texts and averages them by class: a matrix with a column for each class. An image's
# logits are its embedding times that matrix.

# %%
zaerial = model.encode_image([record["rgb"] for record in aerial])
zsatellite = model.encode_image([record["rgb"] for record in satellite])
head = model.zero_shot(names, "an aerial photo of {c}.")
print("embeddings", zsatellite.shape, "head", head.shape)
for kind, z, source in (
    ("aerial", zaerial, aerial),
    ("satellite", zsatellite, satellite),
):
    accuracy = top_k_accuracy(z @ head, labels_of(source))
    print(f"{kind:9}  zero-shot accuracy {100 * accuracy:.1f} %")

# %% [markdown]
# For a single scene, the softmax of the logits shows how confident the CLIP is. Green
# is the true class, which is not always among the first four.

# %%
picked = [
    int(np.flatnonzero(labels_of(satellite) == names.index(name))[0])
    for name in ("residential buildings", "lake", "highway", "orchard")
]
figure, axes = plt.subplots(
    2, 4, figsize=(13, 4.6), layout="constrained", height_ratios=(1.3, 1)
)
for (top, bottom), i in zip(axes.T, picked):
    record = satellite[i]
    logits = zsatellite[i] @ head
    p = np.exp(logits - logits.max())
    p /= p.sum()
    best = np.argsort(-p)[:4][::-1]
    show(top, record["rgb"], names[record["label"]])
    colours = ["seagreen" if c == record["label"] else "silver" for c in best]
    bottom.barh([names[c] for c in best], 100 * p[best], color=colours)
    bottom.set(xlim=(0, 100), xlabel="probability (%)")
    bottom.tick_params(labelsize=8)
figure.suptitle("The four likeliest classes of four satellite scenes")
plt.show()

# %% [markdown]
# ## Templates
#
# The sentence around the name matters too: it should resemble the captions that the
# CLIP was trained on. The mean over several templates is more robust than any single
# one. Add templates to the list. This CLIP was trained on "an aerial photo of ..." and
# has never read the word "satellite".

# %%
templates = {
    "the name alone": "{c}.",
    "a photo of a {c}.": "a photo of a {c}.",
    "a satellite photo of {c}.": "a satellite photo of {c}.",
    "an aerial photo of {c}.": "an aerial photo of {c}.",
    "the two aerial ones": aerial.dataset.templates,
}
figure, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
for shift, kind, z, source in (
    (-0.2, "aerial", zaerial, aerial),
    (0.2, "satellite", zsatellite, satellite),
):
    values = [
        100 * top_k_accuracy(z @ model.zero_shot(names, t), labels_of(source))
        for t in templates.values()
    ]
    bars = ax.barh(np.arange(len(values)) + shift, values, 0.38, label=kind)
    ax.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
ax.axvline(100 / len(names), color="black", linestyle=":", label="chance")
ax.set_yticks(range(len(templates)), templates)
ax.invert_yaxis()
ax.set(xlim=(0, 100), xlabel="zero-shot accuracy (%)", title="Accuracy by template")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
plt.show()

# %% [markdown]
# ## Custom class names
#
# You choose the classes. Here ten become six, and a class may have several wordings, of
# which the best match counts. The right-hand sides are words that this CLIP has read; a
# CLIP that was trained on the web knows many more.

# %%
custom = {
    "farmland": ("annual crop land", "orchard"),
    "forest": ("forest",),
    "grassland": ("grassland",),
    "built-up": ("industrial buildings", "residential buildings"),
    "water": ("river", "lake"),
    "bare or sealed": ("bare soil", "highway"),
}
wordings = [w for each in custom.values() for w in each]
owner = np.array([i for i, each in enumerate(custom.values()) for _ in each])
to_custom = np.array([owner[wordings.index(name)] for name in names])


def custom_logits(z: np.ndarray) -> np.ndarray:
    """[n, custom classes]: the highest logit among each class's wordings."""
    each = z @ model.zero_shot(wordings, aerial.dataset.templates)
    return np.stack([each[:, owner == i].max(1) for i in range(len(custom))], 1)


for kind, z, source in (
    ("aerial", zaerial, aerial),
    ("satellite", zsatellite, satellite),
):
    truth = to_custom[labels_of(source)]
    several = top_k_accuracy(custom_logits(z), truth)
    bare = top_k_accuracy(
        z @ model.zero_shot(list(custom), aerial.dataset.templates), truth
    )
    print(f"{kind:9}  with several wordings {100 * several:.1f} %", end="")
    print(f"  with the six names alone {100 * bare:.1f} %")

# %% [markdown]
# The names alone are far worse: no caption contained "water" or "farmland".
#
# ## Which classes are confused
#
# A row is a true class and a column a predicted one. On the left, on the kind of images
# that the CLIP was trained on, similar classes are confused: crop land and grassland,
# forest and orchard. On the right, haze makes scenes blue, and many are taken for
# water.

# %%
figure, axes = plt.subplots(
    1, 2, figsize=(13, 6), layout="constrained", sharex=True, sharey=True
)
for ax, kind, z, source in (
    (axes[0], "aerial", zaerial, aerial),
    (axes[1], "satellite", zsatellite, satellite),
):
    labels = labels_of(source)
    confusion = np.zeros((len(names), len(names)))
    np.add.at(confusion, (labels, (z @ head).argmax(1)), 1)
    confusion *= 100 / confusion.sum(1, keepdims=True)
    image = ax.imshow(confusion, cmap="Blues", vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(confusion):
        if value >= 5:
            colour = "white" if value > 60 else "black"
            ax.text(j, i, f"{value:.0f}", ha="center", va="center", color=colour)
    accuracy = 100 * top_k_accuracy(z @ head, labels)
    ax.set(title=f"{kind}: accuracy {accuracy:.1f} %", xlabel="predicted class")
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.set_yticks(range(len(names)), names)
axes[0].set_ylabel("true class")
figure.colorbar(image, ax=axes, label="% of the class", shrink=0.8)
plt.show()

# %% [markdown]
# ## Search with words
#
# A query is one text; its nearest scenes are the results. Green frames mark scenes
# whose class is in the query (the search does not know the classes). Try other queries.

# %%
queries = {
    "an aerial photo of industrial buildings.": "industrial buildings",
    "a photo of forest from above.": "forest",
    "an aerial photo of lake.": "lake",
    "an aerial photo of river.": "river",
}
figure, axes = plt.subplots(len(queries), 8, figsize=(12, 7.2), layout="constrained")
for row, (text, wanted), ztxt in zip(
    axes, queries.items(), model.encode_text(list(queries))
):
    for ax, i in zip(row, np.argsort(-(zsatellite @ ztxt))):
        found = names[satellite[int(i)]["label"]]
        colour = "seagreen" if found == wanted else "lightgrey"
        show(ax, satellite[int(i)]["rgb"], found, colour)
    row[0].set_ylabel(text.replace(" of ", "\nof "), fontsize=9)
figure.suptitle("The eight satellite scenes nearest to each text")
plt.show()

# %% [markdown]
# This CLIP is much worse on images unlike its training data, and so is a real one.
# Stage `patch` improves it there: continue with `patch_and_sweep.ipynb`.
