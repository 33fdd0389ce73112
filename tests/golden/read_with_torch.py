"""Reads what we wrote, by the libraries it was written for.

python read_with_torch.py JOBS.json: a list of [layout, path, inputs, out], with the
layouts open_clip, openai, hf, timm and card; a process for all, since importing the
libraries takes longer than what they do here. inputs (.npz) holds image [b, h, w, 3]
normalised, text [b, n]; out (.npz) gets zimg, ztxt, and for a Hugging Face folder the
token ids of the inputs' texts by its own tokenizer. For timm and a model card see
read_timm and run_card.
"""

import contextlib
import json
import pathlib
import sys

import numpy as np
import safetensors.torch
import torch
import torchvision_stub

torchvision_stub.install()

import open_clip  # noqa: E402  (needs the stub)
import timm  # noqa: E402
import transformers  # noqa: E402


def main(layout: str, path: str, inputs: str, out: str) -> None:
    if layout == "timm":
        read_timm(path, inputs, out)
        return
    if layout == "card":
        run_card(path, inputs, out)
        return
    with np.load(inputs) as given:
        image = torch.from_numpy(given["image"].transpose(0, 3, 1, 2))
        text, texts = torch.from_numpy(given["text"]).long(), given["texts"].tolist()
    extra = {}
    with torch.no_grad():
        if layout == "hf":
            model = transformers.CLIPModel.from_pretrained(path).float().eval()
            got = model(text, image)
            zimg, ztxt = got.image_embeds, got.text_embeds
            tokenizer = transformers.CLIPTokenizer.from_pretrained(path)
            extra["ids"] = tokenizer(texts, padding="max_length").input_ids
        else:
            model = read_open_clip(layout, path).float().eval()
            zimg = model.encode_image(image, normalize=True)
            ztxt = model.encode_text(text, normalize=True)
    np.savez(out, zimg=zimg.numpy(), ztxt=ztxt.numpy(), **extra)


def read_timm(path: str, inputs: str, out: str) -> None:
    """Runs several models: each has a folder in path and an image of its name."""
    got = {}
    with np.load(inputs) as given, torch.no_grad():
        for name, image in given.items():
            model = timm.create_model(f"local-dir:{path}/{name}", pretrained=True)
            nchw = torch.from_numpy(image.transpose(0, 3, 1, 2))
            got[name] = model.eval()(nchw).numpy()
    np.savez(out, **got)


def run_card(path: str, inputs: str, out: str) -> None:
    """Runs the card's lines in its folder; its model and encoder see the inputs."""
    snippet = pathlib.Path(path, "README.md").read_text().split("```python\n")[1]
    lines = snippet.split("```")[0].splitlines()
    names = {"open_clip": open_clip, "timm": timm, "transformers": transformers}
    with contextlib.chdir(path):
        exec("\n".join(line for line in lines if "rsclip_jax" not in line), names)
    with np.load(inputs) as given, torch.no_grad():
        image, s1 = (
            torch.from_numpy(given[key].transpose(0, 3, 1, 2))
            for key in ("image", "s1")
        )
        zimg = names["model"].float().eval().encode_image(image, normalize=True)
        zs1 = names["encoder"].eval()(s1)
    np.savez(out, zimg=zimg.numpy(), s1=zs1.numpy())


def read_open_clip(layout: str, path: str) -> torch.nn.Module:
    if layout == "open_clip":
        return open_clip.create_model(f"local-dir:{path}")
    with safetensors.torch.safe_open(path, framework="pt") as file:
        row = json.loads(file.metadata()["variant"])
    model = open_clip.CLIP(
        embed_dim=row["embed_dim"],
        vision_cfg=open_clip.CLIPVisionCfg(
            layers=row["vision_layers"],
            width=row["vision_width"],
            head_width=64,  # so OpenAI's loader builds every model, with QuickGELU
            patch_size=row["patch_size"],
            image_size=row["image_size"],
        ),
        text_cfg=open_clip.CLIPTextCfg(
            layers=row["text_layers"],
            width=row["text_width"],
            heads=row["text_width"] // 64,
            context_length=row["context_length"],
            vocab_size=row["vocab_size"],
        ),
        quick_gelu=True,
    )
    state = safetensors.torch.load_file(path)
    for name in ("input_resolution", "context_length", "vocab_size"):  # as OpenAI does
        del state[name]
    model.load_state_dict(state)
    return model


if __name__ == "__main__":
    for job in json.loads(pathlib.Path(sys.argv[1]).read_text()):
        main(*job)
