"""The goldens of residual networks: CLIP's, by open_clip, and the plain one, by timm.

Their weights are of half precision, as OpenAI's files are; the models run in float64.
"""

import types

import numpy as np
import torch
import torchvision_stub
from numpy_resnets import clip_resnet, plain_resnet
from numpy_towers import QUICK_GELU, check, check_gradient, clip_text, under, units
from torch_models import as_nchw, normal, randomise, record, save

torchvision_stub.install()

import open_clip  # noqa: E402  (needs the stub)
from timm.models.resnet import Bottleneck, ResNet  # noqa: E402

LAYERS = (1, 2, 1, 1)
HEADS = 2
TEXT = np.array(
    [[62, 5, 17, 42, 63, 0, 0, 0], [62, 61, 1, 30, 30, 8, 11, 63]], np.int32
)


def make_resnets(seed: int) -> None:
    make_clip_resnet(np.random.default_rng(seed))
    make_timm_resnet(np.random.default_rng(seed + 1))


def clip_model(image_size: int) -> open_clip.CLIP:
    """The least that open_clip can build: its attention is 32 times as wide as this."""
    return open_clip.CLIP(
        embed_dim=16,
        vision_cfg=open_clip.CLIPVisionCfg(
            layers=LAYERS, width=2, head_width=64 // HEADS, image_size=image_size
        ),
        text_cfg=open_clip.CLIPTextCfg(
            layers=2, width=16, heads=HEADS, context_length=8, vocab_size=64
        ),
        quick_gelu=True,
    )


def make_clip_resnet(rng: np.random.Generator) -> None:
    model = clip_model(64)
    pixels, image = make_image(rng, 2, 64, 64, 3)
    weights = randomise(model, rng, np.float16)
    weights |= statistics(model, model.encode_image, image, rng)
    probe = normal(rng, 2, 16)

    visual, seen = model.visual, {}
    record(visual.avgpool, "visual_stem", seen)
    record_stages(visual, "visual_", seen)
    for i in range(2):
        record(model.transformer.resblocks[i], f"text_block_{i}", seen)
    fimg = model.encode_image(as_nchw(image))
    seen |= {"fimg": fimg, "ftxt": model.encode_text(torch.from_numpy(TEXT).long())}
    want = clip_resnet(under(weights, "visual."), image, HEADS)
    want = {k if k == "fimg" else f"visual_{k}": v for k, v in want.items()}
    want |= clip_text(weights, TEXT, QUICK_GELU)
    out = seen | {f"z{k}": seen[f"f{k}"] for k in ("img", "txt")}
    for name in ("zimg", "ztxt"):
        out[name] = out[name] / out[name].norm(dim=-1, keepdim=True)
    check(out, units(want))

    def fimg_of(moved: dict) -> np.ndarray:
        return clip_resnet(under(moved, "visual."), image, HEADS)["fimg"]

    grads = gradients(visual, fimg, probe)
    for name in ("conv1", "attnpool.q_proj"):
        grad = grads[f"{name}.weight"]
        check_gradient(fimg_of, weights, f"visual.{name}.weight", probe, grad)
        out[f"grad_{name.removeprefix('attnpool.')}"] = grad
    out |= {"fimg_96": larger(model, weights, image)}
    save("clip_rn_toy", weights, {"pixels": pixels, "text": TEXT, "probe": probe} | out)


def make_image(rng: np.random.Generator, *shape: int) -> tuple:
    """(pixels, image): what is kept, in bytes, and its 32nds, which a model gets."""
    pixels = rng.integers(-64, 64, shape, np.int8)
    return pixels, pixels / np.float32(32)


def statistics(model: torch.nn.Module, forward, image, rng) -> dict:
    """Running means and variances near the image's own, put into the model.

    Of any others, some channels would be negative everywhere: ReLU would leave nothing
    of them, and of no mistake in them either.
    """
    norms = {k: m for k, m in model.named_modules() if hasattr(m, "running_var")}
    for norm in norms.values():
        norm.momentum = 1.0
    model.train()
    forward(as_nchw(image))
    model.eval()
    out = {}
    for name, norm in norms.items():
        noise = rng.standard_normal((2, norm.num_features))
        mean = norm.running_mean.numpy() + 0.1 * noise[0]
        var = norm.running_var.numpy() * np.exp(0.2 * noise[1]) + 0.3
        out[f"{name}.running_mean"] = mean.astype(np.float16)
        out[f"{name}.running_var"] = var.astype(np.float16)
        norm.num_batches_tracked.zero_()
    state = {name: torch.from_numpy(array) for name, array in out.items()}
    model.load_state_dict(state, strict=False)
    return out


def larger(model: open_clip.CLIP, weights: dict, image: np.ndarray) -> torch.Tensor:
    """fimg of 96 x 96 pixels, the image and its beginning, with resized positions.

    open_clip resizes a transformer's positions only; these are put in their place.
    """
    name = "visual.attnpool.positional_embedding"
    state = model.state_dict()
    as_vit = {"visual.positional_embedding": state[name]}
    grid = types.SimpleNamespace(visual=types.SimpleNamespace(grid_size=(3, 3)))
    open_clip.model.resize_pos_embed(as_vit, grid)
    state[name] = as_vit["visual.positional_embedding"]
    other = clip_model(96).double().eval()
    other.load_state_dict(state)
    image = np.pad(image, ((0, 0), (0, 32), (0, 32), (0, 0)), mode="wrap")
    got = other.encode_image(as_nchw(image))
    moved = under(weights | {name: state[name].numpy()}, "visual.")
    check({"fimg": got}, {"fimg": clip_resnet(moved, image, HEADS)["fimg"]})
    return got


def timm_resnet(bands: int, width: int) -> ResNet:
    channels = tuple(width * 2**i for i in range(4))
    model = ResNet(Bottleneck, LAYERS, 0, in_chans=bands, channels=channels)
    # timm begins with 64 channels whatever follows; torchvision with the first stage's
    model.conv1 = torch.nn.Conv2d(bands, width, 7, stride=2, padding=3, bias=False)
    model.bn1 = torch.nn.BatchNorm2d(width)
    first = model.layer1[0]
    first.conv1 = torch.nn.Conv2d(width, width, 1, bias=False)
    first.downsample[0] = torch.nn.Conv2d(width, 4 * width, 1, bias=False)
    return model


def make_timm_resnet(rng: np.random.Generator) -> None:
    model = timm_resnet(bands=2, width=3)
    pixels, image = make_image(rng, 2, 32, 32, 2)
    weights = randomise(model, rng, np.float16)
    weights |= statistics(model, model, image, rng)
    probe = normal(rng, 2, 96)

    out = {}
    record(model.maxpool, "stem", out)
    record_stages(model, "", out)
    out["pooled"] = model(as_nchw(image))
    check(out, plain_resnet(weights, image))
    grad = gradients(model, out["pooled"], probe)["conv1.weight"]

    def pooled(moved: dict) -> np.ndarray:
        return plain_resnet(moved, image)["pooled"]

    check_gradient(pooled, weights, "conv1.weight", probe, grad)
    out["grad_conv1"] = grad
    save("timm_resnet_toy", weights, {"pixels": pixels, "probe": probe} | out)


def record_stages(model: torch.nn.Module, prefix: str, seen: dict) -> None:
    for i in range(1, 5):
        for j, block in enumerate(getattr(model, f"layer{i}")):
            record(block, f"{prefix}layer{i}_{j}", seen)


def gradients(model: torch.nn.Module, out: torch.Tensor, probe: np.ndarray) -> dict:
    """By name, of (out * probe).sum(); no part of the model is without influence."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    total = (out * torch.from_numpy(probe)).sum()
    grads = dict(zip(names, torch.autograd.grad(total, parameters), strict=True))
    assert all(grad.any() for grad in grads.values())
    return grads
