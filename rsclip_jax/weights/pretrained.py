"""Resolves names of pretrained CLIPs and hf: names to local files and variants.

Each entry states the activation, because most of these files do not. Fine-tuning does
not change it, so it is that of the weights that training started from.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from rsclip_jax.data.sensors import SENSORS, Sensor
from rsclip_jax.data.sensors.bands import sensor_part
from rsclip_jax.models.variants import VARIANTS, Variant
from rsclip_jax.weights import hub
from rsclip_jax.weights.encoders import ENCODERS
from rsclip_jax.weights.pins import DIGESTS, PINS


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """One published CLIP. file "" is the repository's usual weight file.

    variant: None where the config beside the weights says all.

    published: where to get a file that is not on the hub; it is then looked for among
    the hand-placed files only. licence: as the model's card on the hub states it, or
    the LICENSE beside its code; "" where we have read neither. sensor: the bands that
    the visual tower takes, their unit and scale; None for RGB.
    """

    name: str
    repository: str
    file: str
    variant: str | Variant | None
    note: str
    published: str = ""
    licence: str = ""
    sensor: Sensor | None = None


_OPENAI = "OpenAI's weights: QuickGELU"
_GIT_RSCLIP = "a SigLIP of transformers trained on Git-10M; its config says all"
_LAION = "trained by open_clip with exact GELU on LAION-2B"
# RemoteCLIP: the README's example builds "ViT-B-32" with exact GELU; the script that
# reproduces the paper's retrieval table builds it from "openai", which is QuickGELU.
# Training started from OpenAI's weights, so we follow the script.
_REMOTE = (
    "fine-tuned from OpenAI's weights, as its retrieval script loads it: QuickGELU"
)
# SkyScript's training command builds L/14 from "openai" and B/32 from "laion2b_e16".
_SKY = "the README of wangzhecheng/SkyScript on GitHub links {}.zip: unpack it"
# Only this model has a mean and std of 0.5 in open_clip's table.
_LAION_L = dataclasses.replace(
    VARIANTS["ViT-L-14"], image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5)
)
# IBM/MS-CLIP: L2A without the bands of 60 m, standardised, not clipped: its values are
# within 100 std for any DN. Its means are of DN with the offset of 1000 that ESA adds
# since 2022; its code takes 1000 off them for DN without, which are reflectance * 10000
# as here.
_TEN = sensor_part(SENSORS["s2_l2a"], [1, 2, 3, 4, 5, 6, 7, 8, 10, 11])
# fmt: off
_MS_CLIP = dataclasses.replace(
    _TEN,
    name="s2_l2a_ms_clip",
    mean=(925.161, 1183.128, 1338.041, 1667.254, 2233.633, 2460.96, 2555.569, 2619.542,
          2406.497, 1841.645),
    std=(1205.586, 1223.713, 1399.638, 1403.298, 1378.513, 1434.924, 1491.141, 1454.089,
         1473.248, 1365.08),
    clip_sigma=100.0,
)
# fmt: on
_ROWS = (
    *(
        Pretrained(f"OpenAI-{name}", f"openai/clip-vit-{size}", "", variant, _OPENAI)
        for name, size, variant in (
            ("ViT-B-32", "base-patch32", "ViT-B/32"),
            ("ViT-B-16", "base-patch16", "ViT-B/16"),
            ("ViT-L-14", "large-patch14", "ViT-L/14"),
            ("ViT-L-14-336", "large-patch14-336", "ViT-L/14@336px"),
        )
    ),
    *(
        Pretrained(
            f"LAION2B-{name}",
            f"laion/CLIP-{name}-{run}",
            "",
            variant,
            _LAION,
            licence=licence,
        )
        for name, run, variant, licence in (
            ("ViT-B-32", "laion2B-s34B-b79K", "ViT-B-32", "MIT"),
            ("ViT-L-14", "laion2B-s32B-b82K", _LAION_L, ""),
            ("ViT-H-14", "laion2B-s32B-b79K", "ViT-H-14", ""),
            ("ViT-bigG-14", "laion2B-39B-b160k", "ViT-bigG-14", ""),
        )
    ),
    *(
        Pretrained(
            f"RemoteCLIP-{name}",
            "chendelong/RemoteCLIP",
            f"RemoteCLIP-{name}.pt",
            f"{name}-quickgelu",
            _REMOTE,
        )
        for name in ("RN50", "ViT-B-32", "ViT-L-14")
    ),
    Pretrained(
        "GeoRSCLIP-ViT-B-32",
        "Zilun/GeoRSCLIP",
        "ckpt/RS5M_ViT-B-32.pt",
        "ViT-B-32-quickgelu",
        "its README builds it from OpenAI's weights: QuickGELU",
        licence="cc",
    ),
    Pretrained(
        "GeoRSCLIP-ViT-H-14",
        "Zilun/GeoRSCLIP",
        "ckpt/RS5M_ViT-H-14.pt",
        "ViT-H-14",
        "its README builds it from LAION-2B's weights: exact GELU",
        licence="cc",
    ),
    Pretrained(
        "SkyCLIP-ViT-B-32",
        "wangzhecheng/SkyScript",
        "SkyCLIP_ViT_B32_top50pct/epoch_20.pt",
        "ViT-B-32",
        "fine-tuned from LAION-2B's weights: exact GELU",
        published=_SKY.format("SkyCLIP_ViT_B32_top50pct"),
        licence="MIT",
    ),
    Pretrained(
        "SkyCLIP-ViT-L-14",
        "wangzhecheng/SkyScript",
        "SkyCLIP_ViT_L14_top30pct/epoch_20.pt",
        "ViT-L-14-quickgelu",
        "fine-tuned from OpenAI's weights: QuickGELU",
        published=_SKY.format("SkyCLIP_ViT_L14_top30pct"),
        licence="MIT",
    ),
    # Stage 1 of its training. Stage 2 has Long-CLIP's text tower, which is not built,
    # and its README says both of stage 1's ViT-B-16.
    Pretrained(
        "FarSLIP-ViT-B-32",
        "ZhenShiL/FarSLIP",
        "FarSLIP1_ViT-B-32.pt",
        "ViT-B-32-quickgelu",
        "its README tests it with --force-quick-gelu and CLIP's own text tower",
        licence="MIT",
    ),
    Pretrained(
        "Llama3-MS-CLIP-base",
        "ibm-esa-geospatial/Llama3-MS-CLIP-base",
        "Llama3_MS_CLIP_weights.pt",
        "ViT-B-16",
        "trained on LAION-2B's weights, exact GELU, over ten bands of Sentinel-2",
        licence="llama3",
        sensor=_MS_CLIP,
    ),
    Pretrained(
        "SigLIP-ViT-B-16-256",
        "google/siglip-base-patch16-256",
        "",
        None,
        "a SigLIP, whose config says all",
        licence="apache-2.0",
    ),
    Pretrained("Git-RSCLIP-base", "lcybuaa/Git-RSCLIP-base", "", None, _GIT_RSCLIP),
    Pretrained("Git-RSCLIP-large", "lcybuaa/Git-RSCLIP", "", None, _GIT_RSCLIP),
)
PRETRAINED: dict[str, Pretrained] = {row.name: row for row in _ROWS}


@dataclasses.dataclass(frozen=True)
class Found:
    """The weights of a name: a file or folder for load_clip, and what is known of them.

    variant, sensor: as in its row, None without one.
    origin: what a run records: "name"; "path", which leads to the same bytes again;
    "revision", the commit, if the weights came from the hub; "licence" if it is known.
    """

    path: Path
    variant: str | Variant | None
    origin: dict[str, str]
    sensor: Sensor | None = None


def is_name(source: str) -> bool:
    """Whether source is a name of weights, not a path."""
    return source in PRETRAINED or source.startswith("hf:")


def find_pretrained(source: str) -> Found | None:
    """Finds a name of PRETRAINED or hf:OWNER/NAME[/PATH][@REVISION]; else None.

    Downloads files that are not cached. Raises FileNotFoundError saying where to put
    the file, ValueError for a malformed hf: name.
    """
    row = PRETRAINED.get(source)
    if row is not None and row.published:
        return _found(source, _placed(row), row)
    if row is not None:
        repository, inside, revision = row.repository, row.file, None
        pin = PINS.get(repository)
    elif source.startswith("hf:"):
        repository, inside, revision = _parse(source)
        pin = None
        files = {(r.repository, r.file): r for r in PRETRAINED.values()}
        row = files.get((repository, inside))
    else:
        return None
    path = hub.fetch_weights(repository, inside, revision, pin)
    return _found(source, path, row, f"hf:{repository}{inside and '/' + inside}")


def _parse(source: str) -> tuple[str, str, str | None]:
    """(repository, path within it, revision) of an hf: name."""
    form = r"hf:([\w.-]+/[\w.-]+)(?:/([^@]+?))?/?(?:@([^@]+))?"
    match = re.fullmatch(form, source)
    if match is None:
        raise ValueError(
            f"{source!r} is not of the form hf:OWNER/NAME, hf:OWNER/NAME/PATH or"
            " hf:OWNER/NAME@REVISION"
        )
    return match[1], match[2] or "", match[3]


def _placed(row: Pretrained) -> Path:
    path = hub.placed_folder(row.repository) / row.file
    if not path.is_file():
        raise FileNotFoundError(
            f"{row.name}: not on the Hugging Face hub; {row.published}, and give the"
            f" path of its {path.name}, or put it at {path}"
        )
    return path


def _found(
    source: str, path: Path, row: Pretrained | None, hub_name: str = ""
) -> Found:
    commit = hub.commit_of(path)
    origin = {"name": source, "path": str(path.absolute())}
    if commit and hub_name:
        origin |= {"path": f"{hub_name}@{commit}", "revision": commit}
    if row and row.licence:
        origin["licence"] = row.licence
    if row is None:
        return Found(path, None, origin)
    return Found(path, row.variant, origin, row.sensor)


def check_digests(source: str, found: Mapping[str, str]) -> None:
    """Raises ValueError if a named file's sha256 is not the published one.

    found: file -> sha256 of the files that a name led to.
    """
    row = PRETRAINED.get(source)
    known = DIGESTS.get(row.repository, {}) if row else {}
    for name in known.keys() & found.keys():
        if found[name] != known[name]:
            raise ValueError(
                f"{source}: {name} has the sha256 {found[name]}, and the published file"
                f" {known[name]}: it is damaged or another; remove it and load the name"
                " again, or load it by its path"
            )


def suggest(source: str) -> str:
    """For an error: names similar to an unknown one."""
    if source in VARIANTS:
        rows = [
            row.name
            for row in PRETRAINED.values()
            if row.variant and _sizes(row.variant) == _sizes(source)
        ]
        named = f": {', '.join(rows)}" if rows else "; none are known by name"
        return f"{source!r} is an architecture; give the name of its weights{named}"
    if source in ENCODERS:
        return f"{source!r} is a sensor encoder, which weights.load_encoder reads"
    lower = {
        row.repository.lower(): f"hf:{row.repository}" for row in PRETRAINED.values()
    }
    lower |= {name.lower(): name for name in PRETRAINED}
    near = difflib.get_close_matches(source.lower(), lower, n=1)
    meant = f": did you mean {lower[near[0]]!r}?" if near else "."
    return (
        f"not the name of pretrained weights either{meant} Known:"
        f" {', '.join(PRETRAINED)}, and hf:OWNER/NAME for a repository of the Hugging"
        " Face hub"
    )


def _sizes(variant: str | Variant) -> Variant:
    """The variant without the fields in which models of one architecture differ."""
    v = VARIANTS[variant] if isinstance(variant, str) else variant
    same = VARIANTS["mini"]
    return dataclasses.replace(
        v,
        name="",
        activation=same.activation,
        image_mean=same.image_mean,
        image_std=same.image_std,
    )
