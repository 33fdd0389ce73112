"""Class names and prompt templates, by the dataset's own class (folder) names.

Names are matched to classes by name, never by position: OpenAI's list of EuroSAT names
is in another order than the folders.
"""

import hashlib
import json
from collections.abc import Sequence

# EuroSAT: names as OpenAI's CLIP and PAINT (Ilharco et al. 2022) use them, and OpenAI's
# three templates.
EUROSAT_NAMES = {
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "brushland or shrubland",
    "Highway": "highway or road",
    "Industrial": "industrial buildings or commercial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings or homes or apartments",
    "River": "river",
    "SeaLake": "lake or sea",
}
EUROSAT_TEMPLATES = (
    "a centered satellite photo of {c}.",
    "a centered satellite photo of a {c}.",
    "a centered satellite photo of the {c}.",
)

# RESISC45: the folder names with spaces, and OpenAI's 18 templates.
RESISC45_TEMPLATES = tuple(
    f"{view} {kind} of {article}{{c}}."
    for article in ("", "a ", "the ")
    for kind in ("imagery", "photo", "view")
    for view in ("satellite", "aerial")
)

# CIFAR-10: the class names themselves, and OpenAI's 18 templates.
CIFAR10_TEMPLATES = tuple(
    f"a {kind}photo of {article} {{c}}."
    for article in ("a", "the")
    for kind in (
        "",
        "blurry ",
        "black and white ",
        "low contrast ",
        "high contrast ",
        "bad ",
        "good ",
    )
) + tuple(
    f"a photo of {article} {size} {{c}}."
    for article in ("a", "the")
    for size in ("small", "big")
)

# Imagenette (ten classes of ImageNet): the names and the seven best templates of
# OpenAI's ImageNet notebook.
IMAGENETTE_NAMES = {
    "n01440764": "tench",
    "n02102040": "English Springer Spaniel",
    "n02979186": "cassette player",
    "n03000684": "chainsaw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
IMAGENETTE_TEMPLATES = (
    "itap of a {c}.",
    "a bad photo of the {c}.",
    "a origami {c}.",
    "a photo of the large {c}.",
    "a {c} in a video game.",
    "art of the {c}.",
    "a photo of the small {c}.",
)

SATELLITE_TEMPLATES = ("a satellite photo of {c}.", "a satellite image of {c}.")
AERIAL_TEMPLATES = ("an aerial photo of {c}.", "a photo of {c} from above.")
PHOTO_TEMPLATES = ("a photo of a {c}.", "a picture of the {c}.")


def fill_templates(
    classnames: Sequence[str], templates: str | Sequence[str]
) -> list[list[str]]:
    """One list of prompts a class. Raises ValueError for a template without {c}."""
    templates = [templates] if isinstance(templates, str) else templates
    if not templates:
        raise ValueError("no prompt templates: give at least one, such as 'a {c}.'")
    for template in templates:
        if "{c}" not in template:
            raise ValueError(
                f"template {template!r} has no placeholder {{c}} for the class name"
            )
    if len(set(classnames)) != len(classnames):
        twice = sorted({n for n in classnames if list(classnames).count(n) > 1})
        raise ValueError(f"class names appear twice: {twice}")
    return [[t.replace("{c}", name) for t in templates] for name in classnames]


def captions_digest(captions: Sequence[Sequence[str]]) -> str:
    """Digest that pins a retrieval to its texts: each image's captions, in order."""
    text = json.dumps([list(texts) for texts in captions])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prompts_digest(classnames: Sequence[str], templates: Sequence[str]) -> str:
    """Digest that pins a zero-shot number to its names and templates, in order."""
    text = json.dumps([list(classnames), list(templates)], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
