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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/colabs/search_archive.ipynb)
#
# # Search an archive, with words and across sensors
#
# An archive is a folder of unlabelled scenes: RGB pictures and radar GeoTIFFs of the
# same locations. Its images are encoded once, RGB by the CLIP and radar by the aligned
# encoder, and the embeddings are kept in a small file. After that a search is one
# matrix product, for a sentence or for an example image of either sensor.
#
# It runs without a download, in about two minutes on two CPU cores. Most of the time is
# training, which is skipped if another of these notebooks has trained the models.

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
import time

import matplotlib.pyplot as plt
import numpy as np
import rasterio
from PIL import Image

import rsclip_jax
from rsclip_jax.configs import align_sar
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.main import run_stages
from rsclip_jax.metrics import match_ranks
from rsclip_jax.report.contact_sheet import render, views_of

# %% [markdown]
# ## A CLIP with a radar encoder
#
# `load` accepts the workdir of any run that has aligned a sensor. This one uses the
# miniature; `patch_and_sweep.ipynb` and `align_sar.ipynb` explain its training.

# %%
config = align_sar.get_config()
config.stages = ("pretrain", "patch", "align")
if QUICK:
    for stage in config.stages:
        config[stage].update(batch_size=16, steps=6, warmup=2)
run_stages(config, workdir)
model = rsclip_jax.load(workdir)
model

# %% [markdown]
# ## The archive
#
# Scenes of the miniature are written to `runs/archive/rgb/*.png` and
# `runs/archive/s1/*.tif` (float32, VV and VH in dB), under meaningless names.
# `contents` keeps their classes to choose queries and to judge the results; the search
# does not use it. For another archive, set `archive` to its folder and skip the
# writing.

# %%
archive = Path("runs/quick_archive" if QUICK else "runs/archive")
made = open_source("miniature", split="test")
for sensor in ("rgb", "s1"):
    (archive / sensor).mkdir(parents=True, exist_ok=True)
contents = {}
for i in range(60 if QUICK else len(made)):
    record, name = made[i], f"scene_{i:04d}"
    Image.fromarray(record["rgb"]).save(archive / "rgb" / f"{name}.png")
    radar = np.moveaxis(record["s1"], -1, 0)
    size = dict(zip(("count", "height", "width"), radar.shape))
    path = archive / "s1" / f"{name}.tif"
    with rasterio.open(path, "w", driver="GTiff", dtype=radar.dtype, **size) as file:
        file.write(radar)
    contents[name] = made.dataset.classnames[record["label"]]
size = sum(path.stat().st_size for path in archive.rglob("*.*")) / 1e6
print(f"{len(contents)} locations, {size:.0f} MB")

# %% [markdown]
# A TOML file describes the archive; `open_source` then reads it like a public dataset,
# and refuses files that do not match the description. rsclip_jax/data/README.md
# explains other layouts: plain folders, tables, bands in separate files.

# %%
toml = archive.with_suffix(".toml")
toml.write_text(
    f"""
reader = "paired_folders"
folder = "{archive.name}"  # beside this file

[subfolders]
rgb = "rgb"
s1 = "s1"

[sensors]
rgb = "rgb"
s1 = "s1_grd"
"""
)
scenes = open_source(str(toml))
print(len(scenes), "records, the first:", scenes[0]["id"], end=" ")
print({key: scenes[0][key].shape for key in scenes.dataset.sensors})

# %% [markdown]
# Radar is shown as VV, VH and their difference, with one stretch for all scenes, so
# that their pictures can be compared.

# %%
radar_view = views_of(SENSORS["s1_grd"])[0]
records = [scenes[i] for i in range(len(scenes))]
pictures = {  # radar as VV, VH and their difference, one stretch for all
    "rgb": [record["rgb"] for record in records],
    "s1": render([record["s1"] for record in records], radar_view)[0],
}


def show(ax, picture, title="", colour="lightgrey"):
    """A picture in a coloured frame."""
    ax.imshow(picture)
    ax.set_title(title, fontsize=8)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)


figure, axes = plt.subplots(2, 10, figsize=(15, 3.4), layout="constrained")
for i, (top, bottom) in enumerate(axes.T):
    show(top, pictures["rgb"][i], scenes.ids[i])
    show(bottom, pictures["s1"][i])
axes[0, 0].set_ylabel("RGB")
axes[1, 0].set_ylabel("radar")
figure.suptitle("The first ten locations of the archive")
plt.show()

# %% [markdown]
# ## Encode once, keep the index
#
# The index has two embeddings per location. It also stores the model's digests, because
# an index of other weights would silently give nonsense; it is rebuilt instead.

# %%
INDEX = archive.with_suffix(".npz")


def build_index() -> None:
    """Encodes the archive, 256 locations at a time, and writes INDEX."""
    parts = {"rgb": [], "s1": []}
    for start in range(0, len(scenes), 256):
        stop = min(start + 256, len(scenes))
        block = [scenes[i] for i in range(start, stop)]
        for sensor, z in parts.items():
            z.append(model.encode([r[sensor] for r in block], sensor=sensor))
    arrays = {f"z_{sensor}": np.concatenate(z) for sensor, z in parts.items()}
    np.savez(INDEX, ids=np.array(scenes.ids), model=json.dumps(model.digests), **arrays)


def load_index() -> dict[str, np.ndarray] | None:
    """Reads INDEX; None if it is not of this model and these scenes."""
    if not INDEX.exists():
        return None
    with np.load(INDEX) as file:
        index = dict(file)
    same = json.loads(str(index["model"])) == model.digests
    return index if same and index["ids"].tolist() == scenes.ids else None


started = time.perf_counter()
if load_index() is None:
    build_index()
index = load_index()
z = {"rgb": index["z_rgb"], "s1": index["z_s1"]}
print(f"{len(z['rgb'])} locations, {z['rgb'].shape[1]} numbers per sensor", end=", ")
print(f"{INDEX.stat().st_size / 1e6:.1f} MB: {time.perf_counter() - started:.1f} s")

# %% [markdown]
# ## Search by words
#
# `search` returns the locations nearest to any embedding. Green frames mark results of
# the class in the query.


# %%
def search(query: np.ndarray, sensor: str, k: int = 8) -> np.ndarray:
    """The k locations whose images of this sensor are nearest to query [d]."""
    return np.argsort(-(z[sensor] @ query), kind="stable")[:k]


def show_hits(row, hits, sensor: str, wanted: str) -> None:
    for ax, i in zip(row, hits):
        found = contents.get(scenes.ids[i], "")
        colour = "seagreen" if found == wanted else "lightgrey"
        show(ax, pictures[sensor][i], found, colour)


words = ("industrial buildings", "lake", "forest")
ztxt = model.encode_text([f"a satellite photo of {word}." for word in words])
figure, axes = plt.subplots(6, 8, figsize=(12, 10.2), layout="constrained")
for i, (word, query) in enumerate(zip(words, ztxt)):
    for row, sensor in zip(axes[2 * i : 2 * i + 2], ("rgb", "s1")):
        show_hits(row, search(query, sensor), sensor, word)
        row[0].set_ylabel(f"{word}\nin {sensor}", fontsize=8)
figure.suptitle('The eight nearest to "a satellite photo of ...", in RGB and in radar')
plt.show()

# %% [markdown]
# ## Search by example, across sensors
#
# A radar query finds RGB scenes, and the reverse: radar from a cloudy day finds similar
# optical scenes, and a photograph finds radar images. The query's location is excluded
# here, so all results are other locations.

# %%
examples = ("highway", "residential buildings", "orchard")
queries = [
    scenes.ids.index(next(n for n, c in contents.items() if c == e)) for e in examples
]
figure, axes = plt.subplots(6, 8, figsize=(12, 10.2), layout="constrained")
for i, query in enumerate(queries):
    for row, (sensor, other) in zip(
        axes[2 * i : 2 * i + 2], (("s1", "rgb"), ("rgb", "s1"))
    ):
        hits = [j for j in search(z[sensor][query], other) if j != query][:7]
        show(row[0], pictures[sensor][query], examples[i], "black")
        row[0].set_ylabel(f"{sensor} -> {other}", fontsize=9)
        show_hits(row[1:], hits, other, examples[i])
figure.suptitle("Queries in black frames, and the seven nearest of the other sensor")
plt.show()

# %% [markdown]
# ## How good the search is
#
# On the left, the share of the ten nearest scenes that are of the query's class. There
# are ten queries with words, one per class; with examples every location is a query.
# Chance is 10 %. On the right, how often the query's location is among the ten nearest,
# which is far harder: chance is 1 %.

# %%
truth = np.array([contents[name] for name in scenes.ids])
classes = sorted(set(truth))
ztxt = model.encode_text([f"a satellite photo of {c}." for c in classes])


def precision(queries, sensor, wanted, leave_out=False) -> float:
    """The mean share of the ten nearest scenes that are of the wanted class."""
    similar = queries @ z[sensor].T
    if leave_out:
        np.fill_diagonal(similar, -np.inf)
    nearest = np.argsort(-similar, axis=1)[:, :10]
    return float((truth[nearest] == np.asarray(wanted)[:, None]).mean())


bars = {
    "words -> rgb": precision(ztxt, "rgb", classes),
    "words -> s1": precision(ztxt, "s1", classes),
    "rgb -> s1": precision(z["rgb"], "s1", truth, leave_out=True),
    "s1 -> rgb": precision(z["s1"], "rgb", truth, leave_out=True),
}
same_location = {
    "rgb -> s1": np.mean(match_ranks(z["rgb"], z["s1"]) <= 10),
    "s1 -> rgb": np.mean(match_ranks(z["s1"], z["rgb"]) <= 10),
}
figure, (left, right) = plt.subplots(
    1, 2, figsize=(12, 3.2), layout="constrained", width_ratios=(3, 2)
)
for ax, values, chance, title in (
    (left, bars, 10, "Share of the ten nearest with the query's class"),
    (right, same_location, 1000 / len(truth), "Queries with their location among ten"),
):
    drawn = ax.bar(list(values), [100 * v for v in values.values()], 0.6)
    ax.bar_label(drawn, fmt="%.0f %%", padding=2)
    ax.axhline(chance, color="black", linestyle=":", label="chance")
    ax.set(ylabel="%", title=title, ylim=(0, 105))
    ax.legend(frameon=False, loc="upper right")
plt.show()

# %% [markdown]
# The index is plain numpy: append the embeddings of new scenes, or pass the arrays to a
# library for approximate search if there are millions.
