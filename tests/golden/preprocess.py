"""open_clip's and transformers' preprocessing of pictures, run by a Python with torch.

preprocess.py FOLDER: reads FOLDER/cases.json (name -> library, settings, size, file of
the picture) and writes what each makes of it to FOLDER/<name>.npy, uint8 [h, w, 3].
"""

import json
import pathlib
import sys

import torchvision_stub

# before the stand-ins, which it would take for torchvision itself
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

torchvision_stub.install()

import numpy as np  # noqa: E402
import PIL.Image  # noqa: E402
import PIL.ImageOps  # noqa: E402

PILLOW = {"bicubic": PIL.Image.BICUBIC, "bilinear": PIL.Image.BILINEAR}


def plant_functional() -> None:
    """torchvision.transforms.functional of Pillow's pictures, as far as it is used."""
    functional = sys.modules["torchvision.transforms.functional"]

    def resize(picture, size, interpolation):
        return picture.resize(tuple(size[::-1]), PILLOW[interpolation.value])

    def pad(picture, margins, fill):
        bands = len(picture.getbands())
        value = fill if bands == 1 else (fill,) * bands
        if picture.mode != "P":
            return PIL.ImageOps.expand(picture, tuple(margins), value)
        padded = PIL.ImageOps.expand(picture, tuple(margins), fill)
        padded.putpalette(picture.getpalette())
        return padded

    def crop(picture, top, left, height, width):
        return picture.crop((left, top, left + width, top + height))

    functional.resize, functional.pad, functional.crop = resize, pad, crop
    functional.get_dimensions = lambda p: (len(p.getbands()), p.height, p.width)


def of_open_clip(picture, size: int, mode="shortest", interpolation="bicubic", fill=0):
    """The steps of image_transform(is_train=False) before ToTensor."""
    from open_clip.transform import MaybeConvertMode, ResizeKeepRatio
    from open_clip.transform import center_crop_or_pad as cut

    kind = torchvision_stub.InterpolationMode(interpolation)
    if mode == "longest":
        picture = ResizeKeepRatio(size, interpolation=kind, longest=1)(picture)
        picture = cut(picture, size, fill=fill)
    elif mode == "squash":
        picture = picture.resize((size, size), PILLOW[interpolation])
    else:  # torchvision's Resize of one number, and its CenterCrop
        short = min(picture.size)
        width, height = (int(size * x / short) for x in picture.size)
        picture = cut(picture.resize((width, height), PILLOW[interpolation]), size)
    return np.array(MaybeConvertMode()(picture))


def of_transformers(picture, side: int, **settings):
    """The pixels that CLIPImageProcessorPil would rescale and normalise."""
    settings.setdefault("crop_size", {"height": side, "width": side})
    processor = CLIPImageProcessorPil(**settings, do_rescale=False, do_normalize=False)
    (made,) = processor(images=picture, return_tensors="np")["pixel_values"]
    return np.rint(made.transpose(1, 2, 0)).astype(np.uint8)


LIBRARIES = {"open_clip": of_open_clip, "transformers": of_transformers}


def main(folder: pathlib.Path) -> None:
    plant_functional()
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        picture = PIL.Image.open(folder / case["picture"])
        make = LIBRARIES[case["library"]]
        np.save(folder / f"{name}.npy", make(picture, case["size"], **case["settings"]))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
