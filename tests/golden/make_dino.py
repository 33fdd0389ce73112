"""Goldens of DINOv2 and DINOv3, as transformers and timm save them.

Each is a folder with a config.json and weights of half precision; <name>_out.npz has
the input, every block's output, the pooled features and two gradients.
"""

import copy
import re
from collections.abc import Callable

import numpy as np
import timm
import timm.models
import torch
import transformers
from torch_models import FOLDER, as_nchw, normal, randomise, record

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_channels": 2}
SIZES |= {"hidden_size": 16, "image_size": 12, "patch_size": 4}
# name: a model with random weights
MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "dinov2_hf": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(num_register_tokens=2, **SIZES)
    ),
    "dinov2_swiglu_hf": lambda: transformers.Dinov2Model(
        transformers.Dinov2Config(use_swiglu_ffn=True, mlp_ratio=1, **SIZES)
    ),
    "dinov3_hf": lambda: transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(
            num_register_tokens=2,
            intermediate_size=24,
            use_gated_mlp=True,
            hidden_act="silu",
            rope_theta=50.0,
            **SIZES,
        )
    ),
    "dinov3_timm": lambda: timm_dinov3("vit_small_patch16_dinov3"),
    "dinov3_plus_timm": lambda: timm_dinov3(
        "vit_small_plus_patch16_dinov3_qkvb", global_pool="token", mlp_ratio=2
    ),
}


def timm_dinov3(name: str, **changes) -> torch.nn.Module:
    sizes = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
    pixels = {"img_size": 12, "patch_size": 4, "in_chans": 2}
    return timm.create_model(name, **sizes, **pixels, **changes)


def make_dinos(seed: int) -> None:
    for shift, (name, make) in enumerate(MODELS.items()):
        rng, model = np.random.default_rng(seed + shift), make()
        randomise(model, rng, np.float16)
        save(copy.deepcopy(model).half(), name)  # half() rounds rotary rates for good
        image, probe = normal(rng, 2, 12, 12, 2), normal(rng, 2, 16)
        seen = run(model.double(), as_nchw(image))
        grads = gradients(model, seen["pooled"], torch.from_numpy(probe))
        arrays = {k: v.detach().float().numpy() for k, v in (seen | grads).items()}
        np.savez(FOLDER / f"{name}_out.npz", image=image, probe=probe, **arrays)


def save(model: torch.nn.Module, name: str) -> None:
    if name.endswith("_hf"):
        model.save_pretrained(FOLDER / name)
    else:
        timm.models.save_for_hf(model, FOLDER / name, safe_serialization=True)


def run(model: torch.nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    seen: dict = {}
    for i, block in enumerate(blocks_of(model)):
        record(block, f"block_{i}", seen)
    out = model(image)
    return seen | {"pooled": getattr(out, "pooler_output", out)}


def blocks_of(model: torch.nn.Module) -> torch.nn.ModuleList:
    """A model's blocks, whatever the library calls their list."""
    (found,) = (
        module
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == 2
    )
    return found


def gradients(model, pooled: torch.Tensor, probe: torch.Tensor) -> dict:
    """Those of the patch embedding's kernel and of the second block's queries."""
    named = dict(model.named_parameters())
    patch = next(p for p in named.values() if p.ndim == 4)
    pattern = re.compile(r".*\.1\.att.*\.q\w*\.weight")
    queries = next(p for name, p in named.items() if pattern.fullmatch(name))
    found = torch.autograd.grad((pooled * probe).sum(), (patch, queries))
    return dict(zip(("grad_patch", "grad_queries_1"), found, strict=True))
