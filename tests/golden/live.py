"""Models of the torch libraries, made, saved and run anew: nothing of it is kept.

python live.py {CASE|all|tokens} FOLDER: each case gets FOLDER/CASE with weights as its
library saves them (weights, weights.pt, ...), out.npz (inputs and every block's output)
and grads.safetensors, under the names of the weights, of the total in out.npz. What the
committed goldens are too small for is here: 224 pixels, 13 bands, all gradients.
"tokens" is the tokenizer's: texts and open_clip's ids of them.
"""

import importlib.metadata
import json
import pathlib
import sys

import numpy as np
import safetensors.torch
import torch
import torchvision_stub
from fuzz import fuzz_texts
from make_resnet import record_stages, statistics, timm_resnet
from torch_models import as_nchw, normal, randomise, record

torchvision_stub.install()

import open_clip  # noqa: E402  (needs the stub)
import timm  # noqa: E402
import timm.models  # noqa: E402
import tokenizers  # noqa: E402
import transformers  # noqa: E402
from open_clip.push_to_hf_hub import save_for_hf  # noqa: E402

VOCAB = 512
EMBED = 64
RESIZED = (160, 320)
PIXELS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
TOWER = {"width": 128, "layers": 2}
# name: (how it is saved, open_clip's model_cfg but for the text tower)
OPEN_CLIP = {
    "open_clip_224": (
        "folder",
        {"quick_gelu": True},
        TOWER | {"image_size": 224, "patch_size": 32, "head_width": 32},
    ),
    "open_clip_96": (
        "training",
        {},
        TOWER | {"image_size": 96, "patch_size": 16, "mlp_ratio": 3.0},
    ),
    "open_clip_text_112": (
        "folder",
        {"custom_text": True},
        TOWER | {"image_size": 112, "patch_size": 14, "head_width": 16},
    ),
    "open_clip_resnet_224": (
        "folder",
        {"quick_gelu": True},
        {"image_size": 224, "layers": [1, 2, 1, 1], "width": 4, "head_width": 32},
    ),
    "open_clip_resnet_96": (
        "training",
        {},
        {"image_size": 96, "layers": [1, 2, 1, 1], "width": 4},
    ),
}
TRANSFORMERS = {  # (activation, pixels, pixels of a patch, inside the MLP)
    "transformers_224": ("quick_gelu", 224, 32, 512),
    "transformers_96": ("gelu", 96, 16, 320),
}
_SMALL = {"embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 0}
TIMM = {  # (how it is saved, timm's name, its arguments)
    "timm_token_224": (
        *("folder", "vit_base_patch16_224"),
        {"img_size": 224, "in_chans": 13},
    ),
    "timm_token_96": (
        *("folder", "vit_base_patch32_224"),
        {"img_size": 96, "in_chans": 2, "num_heads": 8, "act_layer": "quick_gelu"},
    ),
    "timm_mean_224": (
        *("state", "vit_base_patch16_224"),
        {"img_size": 224, "in_chans": 2, "global_pool": "avg"},
    ),
    "timm_mean_96": (
        *("folder", "vit_base_patch16_224"),
        {"img_size": 96, "in_chans": 13, "global_pool": "avg", "class_token": False},
    ),
    "timm_registers_224": (
        *("bin", "vit_small_patch14_reg4_dinov2"),
        {"img_size": 224, "in_chans": 13},
    ),
    "timm_registers_96": (
        *("folder", "vit_small_patch14_reg4_dinov2"),
        {"img_size": 96, "in_chans": 2, "patch_size": 16},
    ),
}
RESNETS = {"timm_resnet_224": 224, "timm_resnet_96": 96}


def main(case: str, folder: str) -> None:
    if case == "tokens":
        make_tokens(pathlib.Path(folder))
        return
    makers = [
        *((name, make_open_clip) for name in OPEN_CLIP),
        *((name, make_transformers) for name in TRANSFORMERS),
        *((name, make_timm) for name in TIMM),
        *((name, make_timm_resnet) for name in RESNETS),
    ]
    for seed, (name, make) in enumerate(makers, 100):
        if case in ("all", name):
            into = pathlib.Path(folder) / name
            into.mkdir(parents=True, exist_ok=True)
            make(name, into, np.random.default_rng(seed))


# CLIPs


def make_open_clip(name: str, folder: pathlib.Path, rng: np.random.Generator) -> None:
    kind, changes, vision = OPEN_CLIP[name]
    text = {"context_length": 77, "vocab_size": VOCAB, "width": 128, "layers": 2}
    text["heads"] = 4 if kind == "folder" else 2
    config = {"embed_dim": EMBED, "vision_cfg": vision, "text_cfg": text, **changes}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    model = open_clip.create_model(name, force_preprocess_cfg=PIXELS)
    randomise(model, rng)
    image, size = make_image(rng, vision["image_size"], 3), vision["image_size"]
    seen: dict = {}
    if isinstance(vision["layers"], list):
        statistics(model, model.encode_image, image, rng)
        record(model.visual.avgpool, "visual_stem", seen)
        record_stages(model.visual, "visual_", seen)
    else:
        record(model.visual.ln_pre, "visual_pre", seen)
        record_blocks(model.visual.transformer.resblocks, "visual_", seen)
    of_text = model.text if changes.get("custom_text") else model
    record_blocks(of_text.transformer.resblocks, "text_", seen)
    save_open_clip(kind, model, config, folder)
    text = make_text(rng)
    seen["fimg"] = model.double().encode_image(as_nchw(image))
    seen["ftxt"] = model.encode_text(torch.from_numpy(text).long())
    for name in ("img", "txt"):
        f = seen[f"f{name}"]
        seen[f"z{name}"] = f / f.norm(dim=-1, keepdim=True)
    inputs = {"image": image, "text": text, **make_probes(rng)}
    finish_clip(folder, model, inputs, seen)
    if size == 224 and "visual_pre" in seen:
        resize(folder, rng)


def save_open_clip(
    kind: str, model: torch.nn.Module, config: dict, folder: pathlib.Path
) -> None:
    """As open_clip pushes a model to the hub, or as its training saves one."""
    model.float()
    if kind == "folder":
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE())
        )
        save_for_hf(
            model, tokenizer, config, folder / "weights", safe_serialization=True
        )
        return
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters()).state_dict()
    whole = {"epoch": 3, "name": "run", "state_dict": state, "optimizer": optimizer}
    torch.save(whole, folder / "weights.pt")


def resize(folder: pathlib.Path, rng: np.random.Generator) -> None:
    """resized.npz: images of other sizes and their embeddings, positions resized."""
    out = {}
    for size in RESIZED:
        name = f"local-dir:{folder / 'weights'}"
        model = open_clip.create_model(name, force_image_size=size).double().eval()
        image = make_image(rng, size, 3)
        out |= {
            f"image_{size}": image,
            f"fimg_{size}": model.encode_image(as_nchw(image)).detach().numpy(),
        }
    np.savez(folder / "resized.npz", **out)


def make_transformers(
    name: str, folder: pathlib.Path, rng: np.random.Generator
) -> None:
    activation, size, patch, inside = TRANSFORMERS[name]
    tower = {"hidden_size": 128, "num_hidden_layers": 2, "hidden_act": activation}
    vision = {"image_size": size, "patch_size": patch, "intermediate_size": inside}
    ids = {"bos_token_id": VOCAB - 2, "eos_token_id": VOCAB - 1, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        projection_dim=EMBED,
        vision_config=tower | vision | {"num_attention_heads": 4},
        text_config=tower
        | ids
        | {"num_attention_heads": 8, "intermediate_size": 512, "vocab_size": VOCAB},
    )
    model = transformers.CLIPModel(config)
    randomise(model, rng)
    # of several shards, with their index
    model.float().save_pretrained(folder / "weights", max_shard_size="500KB")
    seen: dict = {}
    record(model.vision_model.pre_layrnorm, "visual_pre", seen)
    record_blocks(model.vision_model.encoder.layers, "visual_", seen)
    record_blocks(model.text_model.encoder.layers, "text_", seen)
    record(model.visual_projection, "fimg", seen)
    record(model.text_projection, "ftxt", seen)
    image, text = make_image(rng, size, 3), make_text(rng)
    out = model.double()(torch.from_numpy(text).long(), as_nchw(image))
    seen |= {"zimg": out.image_embeds, "ztxt": out.text_embeds}
    inputs = {"image": image, "text": text, **make_probes(rng)}
    finish_clip(folder, model, inputs, seen)


def make_text(rng: np.random.Generator) -> np.ndarray:
    """Rows that begin with 510 and end with 511, short, long and of full length."""
    text = np.zeros((3, 77), np.int32)
    for row, length in zip(text, (4, 30, 77), strict=True):
        row[:length] = rng.integers(1, VOCAB - 2, length)
        row[0], row[length - 1] = VOCAB - 2, VOCAB - 1
    return text


def make_probes(rng: np.random.Generator) -> dict:
    return {"probe_image": normal(rng, 2, EMBED), "probe_text": normal(rng, 3, EMBED)}


def finish_clip(folder: pathlib.Path, model, inputs: dict, seen: dict) -> None:
    total = (seen["zimg"] * torch.from_numpy(inputs["probe_image"])).sum()
    total = total + (seen["ztxt"] * torch.from_numpy(inputs["probe_text"])).sum()
    total = total * model.logit_scale.exp()
    seen["logit_scale"] = model.logit_scale
    finish(folder, model, inputs, seen, total)


# Sensor encoders


def make_timm(name: str, folder: pathlib.Path, rng: np.random.Generator) -> None:
    kind, architecture, arguments = TIMM[name]
    model = timm.create_model(architecture, **{**_SMALL, **arguments})
    randomise(model, rng)
    model.float()
    if kind == "state":
        torch.save(model.state_dict(), folder / "weights.pth")
    else:
        safe = kind == "folder"
        timm.models.save_for_hf(model, folder / "weights", safe_serialization=safe)
    seen: dict = {}
    record(model.norm_pre, "pre", seen)
    record_blocks(model.blocks, "", seen)
    finish_encoder(
        folder, model, arguments["img_size"], arguments["in_chans"], seen, rng
    )


def make_timm_resnet(name: str, folder: pathlib.Path, rng: np.random.Generator) -> None:
    model = timm_resnet(bands=13, width=12)
    randomise(model, rng)
    statistics(model, model, make_image(rng, RESNETS[name], 13), rng)
    torch.save(model.float().state_dict(), folder / "weights.pth")
    seen: dict = {}
    record(model.maxpool, "stem", seen)
    record_stages(model, "", seen)
    finish_encoder(folder, model, RESNETS[name], 13, seen, rng)


def finish_encoder(
    folder: pathlib.Path, model, size: int, bands: int, seen: dict, rng
) -> None:
    image = make_image(rng, size, bands)
    seen["pooled"] = model.double()(as_nchw(image))
    probe = normal(rng, *seen["pooled"].shape)
    total = (seen["pooled"] * torch.from_numpy(probe)).sum()
    finish(folder, model, {"image": image, "probe": probe}, seen, total)


# Of every model


def make_image(rng: np.random.Generator, size: int, bands: int) -> np.ndarray:
    return normal(rng, 2, size, size, bands)


def record_blocks(blocks, prefix: str, seen: dict) -> None:
    for i, block in enumerate(blocks):
        record(block, f"{prefix}block_{i}", seen)


def finish(
    folder: pathlib.Path, model, inputs: dict, seen: dict, total: torch.Tensor
) -> None:
    """out.npz and grads.safetensors; statistics, which are no parameters, get zeros."""
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(total, list(parameters.values()))
    assert all(grad.any() for grad in found)
    grads = dict(zip(parameters, found, strict=True))
    grads = {
        k: grads.get(k, torch.zeros_like(v)) for k, v in model.state_dict().items()
    }
    grads = {k: v.float().contiguous() for k, v in grads.items()}
    safetensors.torch.save_file(grads, folder / "grads.safetensors")
    arrays = {k: v.detach().numpy().astype(np.float32) for k, v in seen.items()}
    np.savez(folder / "out.npz", **inputs, **arrays)


# Tokenizer


def make_tokens(folder: pathlib.Path) -> None:
    """texts.json, ids.npy and versions.json of what the ids depend on."""
    texts = fuzz_texts(np.random.default_rng(0))
    ids = open_clip.SimpleTokenizer()(texts).numpy().astype(np.int32)
    (folder / "texts.json").write_text(json.dumps(texts))
    np.save(folder / "ids.npy", ids)
    versions = {name: importlib.metadata.version(name) for name in ("ftfy", "regex")}
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main(*sys.argv[1:])
