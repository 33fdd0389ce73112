"""Writes rsclip_jax/weights/timm_towers.json from timm's registry, by torch's Python.

timm_table.py FILE. For each plain ViT, what no tensor's shape shows: heads, activation,
LayerNorm's eps, pooling; and the names of the plain bottleneck ResNets. An architecture
with parts that the towers here lack is left out. "siglip" are the ViTs of SigLIP, which
an attention head pools.
"""

import json
import pathlib
import sys

import torchvision_stub

torchvision_stub.install()

import timm  # noqa: E402
import torch  # noqa: E402
from timm.models import deit, resnet, vision_transformer  # noqa: E402

ACTIVATIONS = {"GELU": "gelu", "QuickGELU": "quick_gelu", "GELUTanh": "gelu_tanh"}


def main(path: str) -> None:
    vits, siglips, resnets = {}, {}, []
    for name in timm.list_models():
        module = timm.models.model_entrypoint(name).__module__
        if module not in (x.__name__ for x in (vision_transformer, deit, resnet)):
            continue
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False)
        if (row := vit_row(model)) is not None:
            (siglips if row[3] == "map" else vits)[name] = row
        elif is_plain_resnet(model):
            resnets.append(name)
    text = '{\n  "timm": "%s",\n  "vit": {\n%s\n  },\n  "siglip": {\n%s\n  },\n'
    text += '  "resnet": %s\n}\n'
    tables = listed(vits), listed({n: row[:3] for n, row in siglips.items()})
    whole = (timm.__version__, *tables, json.dumps(sorted(resnets)))
    pathlib.Path(path).write_text(text % whole)


def listed(rows: dict[str, list]) -> str:
    lines = (f"    {json.dumps(n)}: {json.dumps(rows[n])}" for n in sorted(rows))
    return ",\n".join(lines)


def vit_row(model) -> list | None:
    """[heads, activation, eps, pool] of a plain ViT, else None."""
    if type(model) is not vision_transformer.VisionTransformer:
        return None
    block = model.blocks[0]
    if type(block) is not vision_transformer.Block:
        return None
    norms = (block.norm1, block.norm2, model.norm, model.fc_norm, model.norm_pre)
    norms = [norm for norm in norms if not isinstance(norm, torch.nn.Identity)]
    plain = (
        type(block.mlp) is timm.layers.Mlp
        and type(block.mlp.act).__name__ in ACTIVATIONS
        and type(model.patch_embed) is timm.layers.PatchEmbed
        and isinstance(block.attn.q_norm, torch.nn.Identity)
        and isinstance(
            getattr(block.attn, "norm", torch.nn.Identity()), torch.nn.Identity
        )
        and (model.attn_pool is None or is_siglip(model))
        and model.global_pool in ("token", "avg", "map")
        and all(isinstance(norm, torch.nn.LayerNorm) for norm in norms)
        and len({norm.eps for norm in norms}) == 1
    )
    if not plain:
        return None
    activation = ACTIVATIONS[type(block.mlp.act).__name__]
    return [block.attn.num_heads, activation, norms[0].eps, model.global_pool]


def is_siglip(model) -> bool:
    """Whether its attention head is SigLIP's."""
    pool = model.attn_pool
    return (
        type(pool) is timm.layers.AttentionPoolLatent
        and model.cls_token is None
        and model.reg_token is None
        and isinstance(model.norm, torch.nn.LayerNorm)
        and isinstance(model.fc_norm, torch.nn.Identity)
        and isinstance(pool.q, torch.nn.Linear)
        and isinstance(pool.q_norm, torch.nn.Identity)
        and isinstance(pool.norm, torch.nn.LayerNorm)
        and (pool.pool, pool.latent_len, pool.pos_embed) == ("token", 1, None)
        and pool.num_heads == model.blocks[0].attn.num_heads
        and type(pool.mlp.act) is type(model.blocks[0].mlp.act)
        and pool.norm.eps == model.norm.eps
    )


def is_plain_resnet(model) -> bool:
    """Whether it is torchvision's ResNet of bottlenecks, with the stride in the 3x3."""
    if type(model) is not resnet.ResNet:
        return False
    block, second = model.layer1[0], model.layer2[0]
    return (
        type(block) is resnet.Bottleneck
        and isinstance(model.conv1, torch.nn.Conv2d)
        and model.conv1.kernel_size == (7, 7)
        and isinstance(model.bn1, torch.nn.BatchNorm2d)
        and type(model.act1) is torch.nn.ReLU
        and type(model.maxpool) is torch.nn.MaxPool2d
        and type(block.act3) is torch.nn.ReLU
        and block.conv2.groups == 1
        and block.conv2.out_channels == 64
        and block.se is None
        and second.conv2.stride == (2, 2)
        and isinstance(second.aa, torch.nn.Identity | type(None))
        and isinstance(second.downsample[0], torch.nn.Conv2d)
        and second.downsample[0].kernel_size == (1, 1)
    )


if __name__ == "__main__":
    main(sys.argv[1])
