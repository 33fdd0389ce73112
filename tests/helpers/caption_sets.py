"""Captioned sets as their archives hold them, small, for the tests."""

import json

import numpy as np
from PIL import Image

# dataset -> folder, JSON, images, suffix, as published
LAYOUTS = {
    "rsicd": ("RSICD", "dataset_rsicd.json", "RSICD_images", ".jpg"),
    "rsitmd": ("RSITMD", "dataset_RSITMD.json", "images", ".tif"),
    "ucm_captions": ("UCM_captions", "dataset.json", "imgs", ".tif"),
    "sydney_captions": ("Sydney_captions", "dataset.json", "imgs", ".tif"),
}


def listed(stem, split, *texts, suffix=".jpg"):
    """One image as the JSON has it."""
    sentences = [{"raw": t, "tokens": t.split(), "sentid": 0} for t in texts]
    name = f"{stem}{suffix}"
    return {"filename": name, "imgid": 0, "split": split, "sentences": sentences}


def write_set(root, name, images, *, side=8, colours=None):
    """Writes a set under root; its folder. Images are one colour each, by place."""
    folder, file, pictures, _ = LAYOUTS[name]
    base = root / folder
    (base / pictures).mkdir(parents=True)
    (base / file).write_text(json.dumps({"images": images, "dataset": name}))
    for i, image in enumerate(images):
        colour = colours[i] if colours else (3 * i % 256, 40, 200)
        array = np.full((side, side, 3), colour, np.uint8)
        options = {"quality": 100} if image["filename"].endswith("jpg") else {}
        Image.fromarray(array).save(base / pictures / image["filename"], **options)
    return base
