"""Goldens of the sensor encoders beside the plain ViT: timm's other ViTs, and DOFA.

DOFA comes from torchgeo's file of it, which needs nothing else of torchgeo.
"""

import importlib.util
import pathlib
import sys
import types

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch_models import as_nchw, normal, randomise, record, save

TIMM = {
    # registers, LayerScale, positions on the patches alone: DINOv2's with registers
    "registers": {"reg_tokens": 2, "no_embed_class": True, "init_values": 1.0},
    # no class token, the mean of the patches, normalised after
    "mean": {"global_pool": "avg", "class_token": False},
    "mean_class": {"global_pool": "avg"},
    # CLIP's tower, as timm has it
    "clip": {
        "pre_norm": True,
        "act_layer": "quick_gelu",
        "norm_layer": lambda width, **kwargs: torch.nn.LayerNorm(width, eps=1e-5),
    },
}
WAVELENGTHS = (0.665, 0.56, 2.19)


def make_timm(name: str, seed: int) -> None:
    """timm_<name>: weights, the input, every block's output and two gradients."""
    fields = {"global_pool": "token", "num_classes": 5, "act_layer": "gelu"}
    model = VisionTransformer(
        img_size=12,
        patch_size=4,
        in_chans=2,
        embed_dim=8,
        depth=2,
        num_heads=2,
        **{**fields, **TIMM[name]},
    )
    rng = np.random.default_rng(seed)
    weights = randomise(model, rng)
    image, probe = normal(rng, 2, 12, 12, 2), normal(rng, 2, 5)
    seen = {}
    record(model.norm_pre, "pre", seen)
    for i in range(2):
        record(model.blocks[i], f"block_{i}", seen)
    record(model.fc_norm, "pooled", seen)
    out = model(as_nchw(image))
    wanted = {
        "grad_patch": model.patch_embed.proj.weight,
        "grad_qkv_1": model.blocks[1].attn.qkv.weight,
    }
    loss = (out * torch.from_numpy(probe)).sum()
    grads = dict(zip(wanted, torch.autograd.grad(loss, wanted.values()), strict=True))
    inputs = {"image": image, "probe": probe}
    save(f"timm_{name}", weights, inputs | seen | {"out": out} | grads)


def make_dofa(seed: int) -> None:
    """dofa_toy: a small DOFA over three bands, in float32, as it computes itself."""
    rng = np.random.default_rng(seed)
    dofa = load_dofa()
    model = dofa.DOFA(
        img_size=24, patch_size=8, embed_dim=8, depth=1, num_heads=2, num_classes=0
    )
    small = dofa.DOFAEmbedding(dynamic_embed_dim=8, kernel_size=8, embed_dim=8)
    layer = small.weight_generator.transformer_encoder.layers[0]
    layer.linear1, layer.linear2 = torch.nn.Linear(8, 12), torch.nn.Linear(12, 8)
    model.patch_embed = small
    weights = randomise(model, rng)
    model.float()
    image = normal(rng, 2, 24, 24, 3)
    seen = {}
    record(model.blocks[0], "block_0", seen)
    pooled = model(as_nchw(image).float(), list(WAVELENGTHS))
    inputs = {"image": image, "wavelengths": np.array(WAVELENGTHS)}
    save("dofa_toy", weights, inputs | seen | {"pooled": pooled})


def load_dofa() -> types.ModuleType:
    """torchgeo's models/dofa.py alone; what it takes of torchvision is never called."""
    transforms = types.ModuleType("torchvision.transforms.v2")
    transforms.CenterCrop = lambda size: torch.nn.Identity()
    api = types.ModuleType("torchvision.models._api")
    api.Weights, api.WeightsEnum = (lambda **kwargs: None), object
    sys.modules["torchvision.models"] = types.ModuleType("torchvision.models")
    for module in (transforms, api):
        sys.modules[module.__name__] = module
    sys.modules["torchvision.transforms"].v2 = transforms
    package = importlib.util.find_spec("torchgeo").submodule_search_locations[0]
    path = pathlib.Path(package) / "models" / "dofa.py"
    spec = importlib.util.spec_from_file_location("torchgeo_dofa", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
