"""open_clip's CLIP over ten bands, as MS-CLIP saves it, and one of ours read by it.

python sensor_clip.py make FOLDER: weights.pt, a state dict under MS-CLIP's names, x.npy
(DN [b, h, w, 10]), text.npy, and zimg.npy and ztxt.npy.
python sensor_clip.py read FOLDER CARD: runs the snippet of a model card in FOLDER up to
the line about rsclip_jax, and writes zimg.npy of x.npy, an input as the CLIP takes it.
"""

import pathlib
import sys

import numpy as np
import torch
import torchvision_stub

torchvision_stub.install()

import open_clip  # noqa: E402  (needs the stub)

BANDS, SIZE, PATCH, VOCAB = 10, 32, 16, 512
# configs/data_config.yaml of IBM/MS-CLIP; its inference code takes 1000 off the means.
MEANS = (
    *(1925.161, 2183.128, 2338.041, 2667.254, 3233.633),
    *(3460.96, 3555.569, 3619.542, 3406.497, 2841.645),
)
STDS = (
    *(1205.586, 1223.713, 1399.638, 1403.298, 1378.513),
    *(1434.924, 1491.141, 1454.089, 1473.248, 1365.08),
)


class Holder(torch.nn.Module):
    """A module that holds the same CLIP under three names, and a temperature."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        for name in ("clip_base_model", "image_encoder", "text_encoder"):
            part = torch.nn.Module()
            part.model = model
            setattr(self, name, part)
        self.temperature = torch.nn.Parameter(torch.tensor(0.07))


def make(folder: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    tower = {"width": 128, "layers": 2}
    model = open_clip.model.CLIP(
        embed_dim=64,
        vision_cfg={"image_size": SIZE, "patch_size": PATCH, **tower},
        text_cfg={"context_length": 77, "vocab_size": VOCAB, "heads": 2, **tower},
    )
    model.visual.conv1 = torch.nn.Conv2d(BANDS, 128, PATCH, PATCH, bias=False)
    x = rng.integers(1, 20000, (3, SIZE, SIZE, BANDS)).astype(np.uint16)
    scaled = (x - (np.array(MEANS) - 1000)) / np.array(STDS)
    text = rng.integers(1, VOCAB - 1, (2, 77))
    text[:, 20] = VOCAB - 1
    text[:, 21:] = 0
    torch.save(Holder(model).state_dict(), folder / "weights.pt")
    np.save(folder / "x.npy", x)
    np.save(folder / "text.npy", text.astype(np.int32))
    np.save(folder / "zimg.npy", encode(model.eval(), scaled))
    with torch.no_grad():
        ztxt = model.encode_text(torch.from_numpy(text), normalize=True)
    np.save(folder / "ztxt.npy", ztxt.numpy())


def read(folder: pathlib.Path, card: pathlib.Path) -> None:
    snippet = card.read_text().split("```python\nimport json")[1].split("# the same")[0]
    held: dict = {}
    exec(f"import json{snippet}", held)
    np.save(folder / "zimg.npy", encode(held["model"], np.load(folder / "x.npy")))


def encode(model: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        return model.encode_image(image, normalize=True).numpy()


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    {"make": make, "read": read}[what](*map(pathlib.Path, paths))
