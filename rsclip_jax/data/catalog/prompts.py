"""Class names by class folder, and sets of prompt templates.

Names are matched to classes by name, never by position, since OpenAI's list of EuroSAT
names is in another order than the folders.
"""

import hashlib
import json
import re
from collections.abc import Collection, Sequence

from rsclip_jax.data.catalog.classes import FMOW_TEMPLATES, IMAGENET_TEMPLATES
from rsclip_jax.data.types import Dataset
from rsclip_jax.io.lookup import look_up
from rsclip_jax.io.texts import shown

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")

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

# RemoteCLIP (Liu et al. 2024): the five that ITRA, which it was trained and tested in,
# has for AID, PatternNet and its other sets of scenes. EuroSAT and RESISC45 have
# OpenAI's there (itra/data/classname_and_prompt).
REMOTECLIP_TEMPLATES = (
    "a centered satellite photo of a {c}.",
    "a centered satellite photo of the {c} taken from above.",
    "an overhead view of the {c}.",
    "an overhead view of a {c}.",
    "an overhead view of {c}.",
)

# SkyCLIP (Wang et al. 2024): SkyScript's prompt_templates.py; the second has no stop.
SKYCLIP_TEMPLATES = ("a satellite photo of {c}.", "a satellite image of {c}")


def _georsclip_templates() -> tuple[str, ...]:
    """GeoRSCLIP's 105 (Zhang et al. 2024; RS5M's inference/classname_and_prompt)."""
    views = "bad cropped bright dark close-up blurry good".split()
    views += ["low resolution", "black and white", "jpeg corrupted"]
    looks = [*"large nice small weird cool".split(), "hard to see"]
    templates = []
    for an, image in (
        ("a", "remote sensing image"),
        ("an", "aerial image"),
        ("a", "satellite image"),
    ):
        templates.append(f"{an} {image} of many {{c}}.")
        for article in ("a", "the"):
            templates.append(f"{an} {image} of {article} {{c}}.")
            templates += [f"{an} {image} of {article} {look} {{c}}." for look in looks]
            templates += [f"a {view} {image} of {article} {{c}}." for view in views]
    return tuple(templates)


GEORSCLIP_TEMPLATES = _georsclip_templates()

DATASET = "dataset"  # the prompt set that stands for a dataset's own templates
# Published sets by name; the class names are always the dataset's.
PROMPT_SETS = {
    "single": ("a photo of a {c}.",),  # of CLIP's paper
    "satellite": ("a satellite photo of a {c}.",),
    "openai80": IMAGENET_TEMPLATES,
    "openai7": IMAGENETTE_TEMPLATES,
    "eurosat": EUROSAT_TEMPLATES,
    "resisc45": RESISC45_TEMPLATES,
    "fmow": FMOW_TEMPLATES,
    "remoteclip": REMOTECLIP_TEMPLATES,
    "georsclip": GEORSCLIP_TEMPLATES,
    "skyclip": SKYCLIP_TEMPLATES,
}


def get_templates(prompt_set: str, templates: Sequence[str]) -> tuple[str, ...]:
    """The templates of a prompt set; "dataset" stands for the dataset's `templates`.

    Raises ValueError naming the known sets for an unknown one.
    """
    sets = {DATASET: tuple(templates), **PROMPT_SETS}
    return look_up(sets, prompt_set, "prompt set")


def fill_templates(
    classnames: Sequence[str], templates: str | Sequence[str]
) -> list[list[str]]:
    """Fills each class name into each template: one list of prompts for each class.

    Raises ValueError for no templates or one without {c}, for no class names, one
    string instead of several, and class names that are empty or appear twice.
    """
    several = isinstance(classnames, Collection) and not isinstance(classnames, str)
    if not several or not len(classnames):
        raise ValueError(
            f"class names {shown(classnames)}: give a list of names, such as ['lake',"
            " 'forest']"
        )
    if other := [name for name in classnames if not isinstance(name, str)]:
        raise ValueError(f"class names must be strings, and not {shown(other, 300)}")
    templates = [templates] if isinstance(templates, str) else templates
    if not templates:
        raise ValueError("no prompt templates: give at least one, such as 'a {c}.'")
    for template in templates:
        if "{c}" not in template:
            raise ValueError(
                f"template {shown(template)} has no placeholder {{c}} for the class"
                " name"
            )
    if blank := [i for i, name in enumerate(classnames) if not name.strip()]:
        raise ValueError(
            f"class(es) {blank} of {shown(list(classnames), 300)} have no name: a"
            " prompt needs one"
        )
    if len(set(classnames)) != len(classnames):
        twice = sorted({n for n in classnames if list(classnames).count(n) > 1})
        raise ValueError(f"class names appear twice: {shown(twice, 300)}")
    return [[t.replace("{c}", name) for t in templates] for name in classnames]


def check_worded(dataset: Dataset) -> None:
    """Raises ValueError for classes whose names in prompts are bare numbers.

    A prompt such as "a satellite photo of 3." says nothing of the class. Names that a
    custom dataset gives itself are kept.
    """
    given = dataset.custom.classnames if dataset.custom else {}
    pairs = zip(dataset.classes, dataset.classnames, strict=True)
    bare = [n for c, n in pairs if _NUMBER.fullmatch(n.strip()) and c not in given]
    if bare:
        way = "write words for them where the dataset names its classes"
        if dataset.custom:
            way = (
                f"name them in a table [classnames] of {dataset.custom.path}, such as"
                f" {bare[0]} = 'forest'"
            )
        raise ValueError(
            f"the classes {', '.join(bare[:5])}{', ...' * bool(bare[5:])} of"
            f" {dataset.name} are bare numbers, which say nothing in a prompt; {way}"
        )


def captions_digest(captions: Sequence[Sequence[str]]) -> str:
    """Digest that pins a retrieval to its texts: each image's captions, in order."""
    text = json.dumps([list(texts) for texts in captions])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prompts_digest(classnames: Sequence[str], templates: Sequence[str]) -> str:
    """Digest that pins a zero-shot number to its names and templates, in order."""
    text = json.dumps([list(classnames), list(templates)], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
