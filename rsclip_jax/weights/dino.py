"""DINOv2 and DINOv3 ViTs of transformers, timm and Meta, in the names of timm's ViT.

Oquab et al. 2023 (arXiv 2304.07193), Darcet et al. 2023 (2309.16588), Siméoni et al.
2025 (2508.10104). What differs between them is how tensors are named and cut, and that
DINOv3 has a rotary embedding in place of position embeddings, of which files say little
or nothing.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsclip_jax.data.sensors import Sensor
from rsclip_jax.models.sensor import SensorSpec, input_fields
from rsclip_jax.weights import layouts, rules
from rsclip_jax.weights.files import WeightFile

KIND = "dino"  # the "kind" of a config that as_timm has read
BASE = 100.0  # of the rotary embedding of all published DINOv3s
# Those of all published DINOs by their width: 64 channels each, in the largest 128.
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 20, 1536: 24, 4096: 32}
# transformers' defaults, which its files of before version 5 leave out, by model_type
_V2 = {"num_attention_heads": 12, "layer_norm_eps": 1e-6}
_V3 = {"num_attention_heads": 6, "layer_norm_eps": 1e-5}
_DEFAULTS = {"dinov2": _V2, "dinov2_with_registers": _V2, "dinov3_vit": _V3}

# (pattern of a name outside the blocks or within one, its name in timm's ViT)
Renames = Sequence[tuple[str, str]]
_HF: Renames = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.(?:projection\.)?(\w+)", r"patch_embed.proj.\1"),
    (r"layernorm\.(\w+)", r"norm.\1"),
)
_HF_BLOCK: Renames = (
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    (r"attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.(\w+)", r"attn.\1.\2"),
    (r"attention\.(?:output\.dense|o_proj)\.(\w+)", r"attn.proj.\1"),
    (r"mlp\.weights_in\.(\w+)", r"mlp.fc1.\1"),
    (r"mlp\.(?:weights_out|down_proj)\.(\w+)", r"mlp.fc2.\1"),
    (r"mlp\.gate_proj\.(\w+)", r"mlp.gate.\1"),
)
_TIMM_BLOCK: Renames = (  # its class for DINOv3, Eva
    (r"gamma_([12])", r"ls\1.gamma"),
    (r"attn\.([qv])_bias", r"attn.\1.bias"),
    (r"mlp\.fc1_g\.(\w+)", r"mlp.gate.\1"),
    (r"mlp\.fc1_x\.(\w+)", r"mlp.up.\1"),
)
_META: Renames = ((r"(?:register|storage)_tokens", "reg_token"),)
_META_BLOCK: Renames = (
    (r"mlp\.w12\.(\w+)", r"mlp.fc1.\1"),
    (r"mlp\.w1\.(\w+)", r"mlp.gate.\1"),
    (r"mlp\.w2\.(\w+)", r"mlp.up.\1"),
    (r"mlp\.w3\.(\w+)", r"mlp.fc2.\1"),
)
# Parts of the pretraining, and buffers of what is computed here.
_UNUSED = (
    r"(embeddings\.)?mask_token|rope_embed\.periods|.*\.bias_mask|local_cls_norm.*"
)
# The parts of a tensor of timm's ViT that files may hold separately.
_QKV = ("attn.qkv", ("attn.q", "attn.k", "attn.v"))
_GATED = ("mlp.fc1", ("mlp.gate", "mlp.up"))


def as_timm(file: WeightFile) -> WeightFile:
    """A DINO of any naming in the names of timm's ViT; another file as it is.

    A key has no bias in DINOv3: a zero stands for each bias of attention that is not
    there. The position of a class token before registers is added to the token. What
    the names or the config tell goes to the file's config, of kind KIND.

    Raises ValueError for a config that names another model.
    """
    if "embeddings.patch_embeddings.projection.weight" in file.shapes:
        told, new = _told_hf(file, "dinov2"), _renamed_hf(file)
    elif "embeddings.patch_embeddings.weight" in file.shapes:
        told, new = _told_hf(file, "dinov3_vit"), _renamed_hf(file)
    elif "blocks.0.gamma_1" in file.shapes and "pos_embed" not in file.shapes:
        told, new = _told_timm(file), _renamed(file, (), _TIMM_BLOCK)
    elif {"storage_tokens", "register_tokens", "blocks.0.mlp.w12.weight"} & set(
        file.shapes
    ):
        told, new = {}, _renamed(file, _META, _META_BLOCK)
        if "pos_embed" not in file.shapes:
            told = {"eps": _V3["layer_norm_eps"]}
            new = new.with_tensors(_without_key_biases(new))
    else:
        return file
    new = new.with_tensors({**_zero_biases(new), **_without_class_position(new)})
    return dataclasses.replace(new, config={"kind": KIND, **told})


def is_dino(file: WeightFile) -> bool:
    """Whether as_timm has renamed a file."""
    return file.config.get("kind") == KIND


def table(file: WeightFile, norm: str) -> list[rules.Rule]:
    """The rules of a file of as_timm; norm: as in layouts.timm_vit."""
    found = layouts.timm_vit(norm)
    for whole, parts in (_QKV, _GATED):
        for kind in ("weight", "bias"):
            if f"blocks.0.{parts[0]}.{kind}" in file.shapes:
                name = f"blocks.{{i}}.{whole}.{kind}"
                names = [f"blocks.{{i}}.{part}.{kind}" for part in parts]
                found = rules.in_parts(found, name, names)
    return found


def read_spec(file: WeightFile, sensor: Sensor) -> SensorSpec:
    """The spec of a file of as_timm; heads is 0 if nothing tells them."""
    told, shapes = dict(file.config), file.shapes
    del told["kind"]
    width, _, patch, _ = shapes["patch_embed.proj.weight"]
    inside = shapes["blocks.0.mlp.fc2.weight"][1]
    first = shapes.get("blocks.0.mlp.fc1.weight", (2 * inside,))[0]
    blocks = {int(m[1]) for n in shapes if (m := re.match(r"blocks\.(\d+)\.", n))}
    registers = shapes.get("reg_token", (1, 0))[1]
    fields: dict[str, Any] = {
        "image_size": 224,
        "patch_size": patch,
        "width": width,
        "layers": max(blocks) + 1,
        "heads": _HEADS.get(width, 0),
        "mlp_width": 0 if inside == 4 * width else inside,
        "registers": registers,
        "gated": first == 2 * inside,
    }
    if "pos_embed" in shapes:
        grid = round((shapes["pos_embed"][1] - (not registers)) ** 0.5)
        fields |= {"image_size": grid * patch, "prefix_positions": not registers}
    else:
        fields["rope"] = BASE
    fields |= {"out_dim": 0, "layer_scale": True, **told}
    return SensorSpec(**input_fields(sensor), **fields)


# What a config tells


def _told_hf(file: WeightFile, usual: str) -> dict[str, Any]:
    """What transformers' config.json tells; usual: the model_type if it has none."""
    config = file.config
    kind = config.get("model_type", usual)
    if kind not in _DEFAULTS:
        raise ValueError(
            f"{file.path}: model_type {kind!r} cannot be read as a sensor encoder; of"
            f" transformers' models {', '.join(_DEFAULTS)} can"
        )
    gated = config.get("use_gated_mlp", False)
    activation, built = config.get("hidden_act", "gelu"), "silu" if gated else "gelu"
    if config and activation != built:
        raise ValueError(
            f"{file.path}: hidden_act = {activation!r} with use_gated_mlp = {gated} is"
            f" not supported, only {built!r}"
        )
    told: dict[str, Any] = {"eps": config.get("layer_norm_eps")}
    told["eps"] = told["eps"] or _DEFAULTS[kind]["layer_norm_eps"]
    if config:
        heads = _DEFAULTS[kind]["num_attention_heads"]
        told["heads"] = config.get("num_attention_heads", heads)
    if kind == "dinov3_vit":
        told["rope"] = float(config.get("rope_theta", BASE))
        told["image_size"] = _side(file, config.get("image_size", 224))
    return told


def _told_timm(file: WeightFile) -> dict[str, Any]:
    """What timm's config.json tells."""
    config = file.config
    name = config.get("architecture", "dinov3")
    if "dinov3" not in name:
        raise ValueError(
            f"{file.path}: architecture {name!r} has no position embeddings and is no"
            " DINOv3: what stands for them is unknown"
        )
    arguments = config.get("model_args", {})
    pools = {"token": "token", "avg": "normed_mean"}
    if "fc_norm.weight" in file.shapes:
        pools = {"avg": "mean"}
    if (pool := config.get("global_pool", "token")) not in pools:
        raise ValueError(
            f"{file.path}: global_pool {pool!r} is not supported, only"
            f" {', '.join(pools)}"
        )
    pixels = config.get("pretrained_cfg", {}).get("input_size", (0, 224, 224))[1:]
    size = _side(file, arguments.get("img_size") or pixels)
    told = {"eps": _V3["layer_norm_eps"], "pool": pools[pool], "image_size": size}
    if heads := arguments.get("num_heads"):
        told["heads"] = heads
    unread = {"rope_temperature", "rope_type", "norm_layer", "act_layer", "mlp_layer"}
    if found := sorted(unread & set(arguments)):
        raise ValueError(
            f"{file.path}: model_args {', '.join(found)} change a DINOv3 and are not"
            " supported; save it without them"
        )
    return told


def _side(file: WeightFile, size: int | Sequence[int]) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ValueError(f"{file.path}: image size {size}: only square images are read")
    return sides.pop()


# Names and tensors


def _renamed(file: WeightFile, outside: Renames, within: Renames) -> WeightFile:
    """The file under new names; a name without a new one stays."""
    names = {}
    for old in file.shapes:
        if re.fullmatch(_UNUSED, old):
            continue
        block = re.match(r"(?:blocks|(?:model\.|encoder\.)?layer)\.(\d+)\.", old)
        if block:
            new = _rename(old[block.end() :], within)
            names[f"blocks.{block[1]}.{new}"] = old
        else:
            names[_rename(old, outside)] = old
    return file.renamed(names)


def _renamed_hf(file: WeightFile) -> WeightFile:
    gated = any(".mlp.gate_proj." in name for name in file.shapes)
    first = (r"mlp\.up_proj\.(\w+)", rf"mlp.{'up' if gated else 'fc1'}.\1")
    return _renamed(file, _HF, (*_HF_BLOCK, first))


def _rename(name: str, renames: Renames) -> str:
    for theirs, ours in renames:
        if match := re.fullmatch(theirs, name):
            return match.expand(ours)
    return name


def _zero_biases(file: WeightFile) -> dict[str, np.ndarray]:
    """Zeros for the biases of query, key and value that a file lacks."""
    width = file.shapes["patch_embed.proj.weight"][0]
    blocks = {m[0] for n in file.shapes if (m := re.match(r"blocks\.\d+\.", n))}
    wholes = [b for b in blocks if f"{b}attn.qkv.bias" not in file.shapes]
    names = [f"{b}{part}.bias" for b in wholes for part in _QKV[1]]
    return {n: np.zeros(width, np.float32) for n in names if n not in file.shapes}


def _without_key_biases(file: WeightFile) -> dict[str, np.ndarray]:
    """Meta's biases of query, key and value, with zeros for the key's, as it masks."""
    out = {}
    for name in (n for n in file.shapes if n.endswith("attn.qkv.bias")):
        query, key, value = np.split(file.read(name), 3)
        out[name] = np.concatenate([query, np.zeros_like(key), value])
    return out


def _without_class_position(file: WeightFile) -> dict[str, np.ndarray]:
    """A class token plus its position, and the patches' positions alone.

    Where registers come between the class token and the patches.
    """
    if not {"reg_token", "pos_embed"} <= file.shapes.keys():
        return {}
    positions = np.asarray(file.read("pos_embed"), np.float32)
    class_token = np.asarray(file.read("cls_token"), np.float32) + positions[:, :1]
    return {"cls_token": class_token, "pos_embed": positions[:, 1:]}
