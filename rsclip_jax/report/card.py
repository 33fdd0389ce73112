"""The model card of an export: method, alpha, use, sources with digests, results."""

from collections.abc import Mapping, Sequence

from rsclip_jax.api import Model
from rsclip_jax.data.types import MOST_RATIO
from rsclip_jax.models.sensor import SensorSpec, spec_sensor
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.records.results import Result
from rsclip_jax.report.names import metric_names, split_of
from rsclip_jax.report.numbers import value_text
from rsclip_jax.report.table import describe_alpha

# How the tool of each layout reads the files beside the card.
_USE = {
    "open_clip": """\
model = open_clip.create_model("local-dir:clip")  # Python, open_clip
model = rsclip_jax.load("clip")""",
    "hf": """\
model = transformers.CLIPModel.from_pretrained("clip")
processor = transformers.CLIPProcessor.from_pretrained("clip")
model = rsclip_jax.load("clip")""",
    "openai": """\
state = safetensors.torch.load_file("clip.safetensors")  # OpenAI's state dict
model = rsclip_jax.load("clip.safetensors")""",
}
_USE_OTHER = """\
model = transformers.{kind}Model.from_pretrained("clip")
tokenizer = transformers.AutoTokenizer.from_pretrained("clip")
images = transformers.{processor}ImageProcessor.from_pretrained("clip")
model = rsclip_jax.load("clip")"""
# timm's default is pretrained=False: random weights
_TIMM = 'encoder = timm.create_model("local-dir:{}", pretrained=True)'
_PATCHED = """\
**Patched**: the visual tower was fine-tuned on labelled RGB satellite images through
the frozen zero-shot text head, and interpolated with the original weights,
(1 - alpha) theta_0 + alpha theta_1 (WiSE-FT, Wortsman et al. 2022; PAINT, Ilharco et
al. 2022), {mixture}."""
_PATCHED_BOTH = """\
**Patched**: both towers were fine-tuned on labelled RGB satellite images and prompts of
their classes (FLYP, Goyal et al. 2023), and interpolated with the original weights,
(1 - alpha) theta_0 + alpha theta_1 (WiSE-FT, Wortsman et al. 2022; PAINT, Ilharco et
al. 2022), {mixture}."""
_ALIGNED = """\
**Aligned** ({modality}): an encoder of another sensor was trained to reproduce the
CLIP's image features of the same location (Zavras et al. 2024, arXiv 2402.09816), so
that its images can be classified and searched with words."""


def make_card(
    model: Model,
    *,
    layout: str,
    dtype: str,
    files: Mapping[str, Mapping[str, str]],
    history: Mapping[str, StageMeta],
    records: Sequence[Result],
    alpha: float | None = None,
) -> str:
    """The card as Markdown, with the header that the Hugging Face hub reads.

    files: "clip" and each modality -> {file: sha256}. history: stage -> its meta.json.
    records: all results; the card lists those of exactly these weights. alpha: the
    requested one, or None for the one that the stage chose.
    """
    parts = [
        _HEADER,
        f"# {model.variant.name}, by rsclip_jax",
        _describe(model, dtype),
        *_method(model, history, alpha),
        "## Use",
        _use(model, layout, files),
        *_use_with_text(model, files),
        *_use_programs(model, files),
        "## Sources",
        _sources(model, history),
        "## Results",
        _results(model, records),
        *(["The validation splits chose alpha."] if _chose(history, alpha) else []),
        "## Files",
        _files(files),
    ]
    return "\n\n".join(parts) + "\n"


_HEADER = """\
---
pipeline_tag: zero-shot-image-classification
tags: [clip, remote-sensing]
---"""


def _chose(history: Mapping[str, StageMeta], alpha: float | None) -> bool:
    return "patch" in history and alpha is None


_FAMILIES = {"clip": "CLIP", "siglip": "SigLIP"}


def _describe(model: Model, dtype: str) -> str:
    v = model.variant
    lines = [
        f"A {_FAMILIES[v.family]} with a visual tower of {v.vision_layers} layers and"
        f" width {v.vision_width}, images of {v.image_size} pixels, activation"
        f" {v.activation}, in {dtype}."
    ]
    for modality, (spec, _) in model.sensors.items():
        lines.append(
            f"\n`{modality}` takes {spec.sensor}: the bands {', '.join(spec.bands)}, in"
            f" that order, as clip((x - mean) / std, -{spec.clip_sigma:g},"
            f" {spec.clip_sigma:g}) with mean {list(spec.mean)} and std"
            f" {list(spec.std)}, at {spec.image_size} pixels."
            + (f" {text}" if (text := ground_text(spec)) else "")
        )
    return "\n".join(lines)


def ground_text(spec: SensorSpec) -> str:
    """What ground an encoder was trained on; "" where it is not known."""
    if not spec.pixels:
        return ""
    text = f"It was trained on images of {spec.ground}, resized to {spec.image_size}"
    if is_like_input(spec):
        return f"{text}."
    return (
        f"{text}: cut tiles of {spec.pixels} such pixels and resize them; larger images"
        " show all in another size."
    )


def is_like_input(spec: SensorSpec) -> bool:
    """Whether the training images have about as many pixels as the input."""
    return 1 / MOST_RATIO <= spec.image_size / spec.pixels <= MOST_RATIO


def _method(
    model: Model, history: Mapping[str, StageMeta], alpha: float | None
) -> list[str]:
    out = []
    if "pretrain" in history:
        out.append("**Pretrained** from random weights on images and texts.")
    if "patch" in history:
        mixture = _mixture(history["patch"], alpha)
        told = (history["patch"].config or {}).get("patch", {})
        text = _PATCHED_BOTH if told.get("train_text") else _PATCHED
        out.append(text.format(mixture=mixture))
    out += [_ALIGNED.format(modality=modality) for modality in model.sensors]
    return out or ["Converted, not trained further."]


def _mixture(meta: StageMeta, asked: float | None) -> str:
    if asked is not None:
        return f"at **alpha = {asked:g}**"
    if meta.rounds is not None:
        return f"on one task after the other: {describe_alpha(meta)}"
    if meta.alpha_blocks:
        return f"with {describe_alpha(meta)}"
    return describe_alpha(meta).replace(
        f"alpha {meta.alpha:g}", f"at **alpha = {meta.alpha:g}**"
    )


def _use(model: Model, layout: str, files: Mapping[str, Mapping[str, str]]) -> str:
    use = _USE[layout]
    if model.variant.tokenizer is not None:
        kind = "Siglip" if model.variant.family == "siglip" else "MetaClip2"
        processor = "Siglip" if model.variant.family == "siglip" else "CLIP"
        use = _USE_OTHER.format(kind=kind, processor=processor)
    lines = [use] if model.takes_rgb else []
    for modality in model.sensors:
        one = files[modality]
        if "config.json" in one:
            lines.append(_TIMM.format(modality))
        path = modality if "config.json" in one else next(iter(one))
        lines.append(f'spec, params = rsclip_jax.weights.load_encoder("{path}")')
    text = "\n".join(lines)
    return f"```python\n{text}\n```"


_WITH_TEXT = """\
import json

import open_clip
import safetensors.torch
import torch

config = json.load(open("{folder}/open_clip_config.json"))["model_cfg"]
model = open_clip.model.CLIP(**config)
kernel = torch.nn.Conv2d({bands}, {width}, {patch}, {patch}, bias=False)
model.visual.conv1 = kernel  # open_clip builds one for RGB
state = safetensors.torch.load_file("{folder}/open_clip_model.safetensors")
model.load_state_dict(state)
model = model.eval()

# the same towers, and what gives x [b, h, w, {bands}] of {sensor} its scale
model = rsclip_jax.load("{folder}")
z = model.encode(x, "{modality}")"""


def _use_with_text(model: Model, files: Mapping[str, Mapping[str, str]]) -> list[str]:
    """How open_clip reads a CLIP whose visual tower takes a sensor's bands."""
    snippets = []
    for modality, (spec, _) in model.sensors.items():
        if f"clip of {modality}" in files:
            told = {"width": spec.width, "patch": spec.patch_size}
            told |= {"bands": len(spec.bands), "folder": f"clip_{modality}"}
            told |= {"sensor": spec.sensor, "modality": modality}
            snippets.append(f"```python\n{_WITH_TEXT.format(**told)}\n```")
    return snippets


_PROGRAMS = {
    "stablehlo": """\
from jax import export
import numpy as np

program = export.deserialize(open("programs/{name}.stablehlo", "rb").read())
z = program.call(np.zeros({shape}, np.{dtype}))  # unit norm, [2, {dim}]""",
    "onnx": """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("programs/{name}.onnx")
(z,) = session.run(None, {{"x": np.zeros({shape}, np.{dtype})}})  # [2, {dim}]""",
}
_OUTSIDE = """\
A program holds weights and normalisation and takes any number of examples. Resize
images to its size before. Texts are rows of {length} ids of {tokenizer}."""
_CLIPS_IDS = """\
CLIP's tokenizer, zeros behind the
end token (open_clip.get_tokenizer, transformers.CLIPTokenizer)"""


def _use_programs(model: Model, files: Mapping[str, Mapping[str, str]]) -> list[str]:
    """How to run each program without this package."""
    v, snippets = model.variant, []
    inputs: dict[str, tuple[tuple[int, ...], str]] = {
        "image": ((2, v.image_size, v.image_size, 3), "uint8"),
        "text": ((2, v.context_length), "int32"),
    }
    for modality, (spec, _) in model.sensors.items():
        sides = (2, spec.image_size, spec.image_size, len(spec.bands))
        inputs[modality] = (sides, spec_sensor(spec).dtype)
    for name, kind in (
        key.removeprefix("program ").split(".") for key in files if "program " in key
    ):
        shape, dtype = inputs[name]
        told = {"name": name, "shape": shape, "dtype": dtype, "dim": v.embed_dim}
        snippets.append(f"```python\n{_PROGRAMS[kind].format(**told)}\n```")
    if not snippets:
        return []
    ids = _CLIPS_IDS
    if v.tokenizer is not None:
        ids = f"clip/tokenizer.json, filled up with {v.tokenizer.pad}"
    return [_OUTSIDE.format(length=v.context_length, tokenizer=ids), *snippets]


def _sources(model: Model, history: Mapping[str, StageMeta]) -> str:
    lines = []
    if model.source:
        lines.append(_source("this CLIP", model.source))
    for stage, meta in history.items():
        lines += [
            _source(f"{stage}: {name}", source) for name, source in meta.sources.items()
        ]
    for name, digest in model.digests.items():
        lines.append(f"* exported {name}: digest {digest}")
    commits = {meta.git_commit for meta in history.values() if meta.git_commit}
    for commit in sorted(commits):
        kind = "version" if "." in commit else "commit"
        lines.append(f"* rsclip_jax {kind} {commit}")
    return "\n".join(lines)


def _source(name: str, source: Mapping) -> str:
    """A line; paths are shortened to their last name, for readers elsewhere."""
    parts = [str(source["name"])] if "name" in source else []
    if not parts and "path" in source:
        parts.append(str(source["path"]).rstrip("/").rsplit("/", 1)[-1])
    parts += [
        f"{k} {source[k]}" for k in ("licence", "revision", "digest") if k in source
    ]
    parts += [f"sha256 of {f} {sha}" for f, sha in source.get("files", {}).items()]
    return f"* {name}: {', '.join(parts)}"


def _results(model: Model, records: Sequence[Result]) -> str:
    """The numbers whose digests are those of the exported weights."""
    ours = set(model.digests.values())
    lines = [
        "| dataset | split | task | sensor | metric | value | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for r, name in zip(records, metric_names(records), strict=True):
        if set(r.checkpoint.split("+")) <= ours:
            cells = (r.dataset, split_of(r), r.task, r.sensor)
            value = value_text(r.value, r.metric, r.task)
            lines.append(f"| {' | '.join(cells)} | {name} | {value} | {r.n} |")
    if len(lines) == 2:
        return "No result was measured with exactly these weights."
    return "\n".join(dict.fromkeys(lines))


def _files(files: Mapping[str, Mapping[str, str]]) -> str:
    rows = [
        f"| {name} | {file} | {sha} |"
        for name, one in files.items()
        for file, sha in one.items()
    ]
    return "\n".join(["| what | file | sha256 |", "|---|---|---|", *rows])
