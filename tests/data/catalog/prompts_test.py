"""Class names and templates: counts, order, filling and digests."""

import hashlib

import pytest

from rsclip_jax.data.catalog import prompts
from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.catalog.prompts import fill_templates, prompts_digest
from rsclip_jax.data.tokenizer import tokenize

LABELLED = [name for name, dataset in DATASETS.items() if dataset.classes]


# The lists.


@pytest.mark.parametrize(
    ("name", "classes", "templates"),
    [
        ("eurosat_rgb", 10, 3),
        ("resisc45", 45, 18),
        ("cifar10", 10, 18),
        ("imagenette", 10, 7),
        ("ucmerced", 21, 18),
        ("aid", 30, 18),
        ("rsscn7", 7, 18),
        ("patternnet", 38, 18),
        ("cifar100", 100, 18),
        ("stl10", 10, 2),
        ("imagenet", 1000, 80),
        ("food101", 101, 1),
        ("fmow_rgb", 62, 14),
        ("miniature", 10, 2),
        ("optimal31", 31, 18),
        ("rsi_cb256", 35, 18),
        ("whu_rs19", 19, 18),
        ("mlrsnet", 46, 18),
        ("mlrsnet_multi", 60, 18),
        ("m_bigearthnet", 43, 2),
        ("m_pv4ger", 2, 2),
        ("miniature_natural", 10, 2),
    ],
)
def test_datasets_have_the_published_number_of_names_and_templates(
    name, classes, templates
):
    dataset = DATASETS[name]
    assert len(dataset.classes) == len(set(dataset.classes)) == classes
    assert len(dataset.classnames) == len(set(dataset.classnames)) == classes
    assert len(dataset.templates) == len(set(dataset.templates)) == templates


@pytest.mark.parametrize("name", LABELLED)
def test_every_prompt_is_one_sentence_that_the_tokenizer_takes(name):
    dataset = DATASETS[name]
    filled = fill_templates(dataset.classnames, dataset.templates)
    for classname, texts in zip(dataset.classnames, filled, strict=True):
        for text in texts:
            assert classname in text
            assert "  " not in text
            assert "{" not in text
            assert text == text.strip()
    longest = [max(texts, key=len) for texts in filled]
    assert tokenize(longest).shape[1] == 77


def sha256(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_imagenet_names_are_openais_except_its_two_duplicates():
    """Digests of timm's imagenet_synsets.txt and open_clip's IMAGENET_CLASSNAMES."""
    dataset = DATASETS["imagenet"]
    synsets = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
    assert sha256(dataset.classes) == synsets
    names = dict(zip(dataset.classes, dataset.classnames, strict=True))
    assert names.pop("n04008634") == "projectile"
    assert names.pop("n04355933") == "sunglass"
    names |= {"n04008634": "missile", "n04355933": "sunglasses"}
    openais = "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60"
    assert sha256(names[synset] for synset in dataset.classes) == openais


def test_imagenet_templates_are_openais_80():
    """Digest of open_clip 3.3's OPENAI_IMAGENET_TEMPLATES with {c}, sorted."""
    openais = "6861574a25b4ae6dea5d76663d7914c835c4e1faee1d0d670f46a538a212e418"
    assert sha256(sorted(DATASETS["imagenet"].templates)) == openais


def test_imagenette_uses_imagenets_names():
    whole = DATASETS["imagenet"]
    names = dict(zip(whole.classes, whole.classnames, strict=True))
    dataset = DATASETS["imagenette"]
    ten = dict(zip(dataset.classes, dataset.classnames, strict=True))
    assert ten == {synset: names[synset] for synset in dataset.classes}
    assert set(dataset.templates) <= set(whole.templates)


@pytest.mark.parametrize(
    "name",
    [
        *("ucmerced", "aid", "rsscn7", "patternnet", "cifar100", "stl10", "imagenet"),
        *("optimal31", "rsi_cb256", "whu_rs19", "mlrsnet", "mlrsnet_multi"),
        *("food101", "fmow_rgb"),
    ],
)
def test_labels_are_in_the_order_of_the_sorted_folders(name):
    assert list(DATASETS[name].classes) == sorted(DATASETS[name].classes)


@pytest.mark.parametrize(
    "name",
    [*("ucmerced", "aid", "patternnet", "cifar100", "stl10", "food101", "fmow_rgb")],
)
def test_a_name_is_its_folder_with_spaces_and_at_most_one_added_word(name):
    dataset = DATASETS[name]
    for folder, classname in zip(dataset.classes, dataset.classnames, strict=True):
        short = classname.removesuffix(" area").removesuffix(" land")
        short = short if folder != "Parking" else classname.removesuffix(" lot")
        joined = {text.replace(" ", "") for text in (short, classname)}
        assert folder.replace("_", "").lower() in joined


def test_eurosat_names_are_matched_by_class():
    names = dict(
        zip(
            DATASETS["eurosat_rgb"].classes,
            DATASETS["eurosat_rgb"].classnames,
            strict=True,
        )
    )
    assert names == {
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


def test_eurosat_templates_are_openais():
    assert prompts.EUROSAT_TEMPLATES == (
        "a centered satellite photo of {c}.",
        "a centered satellite photo of a {c}.",
        "a centered satellite photo of the {c}.",
    )


def test_resisc45_templates_are_openais_18():
    expected = {
        f"{start} of {c}."
        for start in (
            "satellite imagery",
            "aerial imagery",
            "satellite photo",
            "aerial photo",
            "satellite view",
            "aerial view",
        )
        for c in ("{c}", "a {c}", "the {c}")
    }
    assert set(prompts.RESISC45_TEMPLATES) == expected
    assert prompts.RESISC45_TEMPLATES[:2] == (
        "satellite imagery of {c}.",
        "aerial imagery of {c}.",
    )


def test_cifar10_templates_are_openais_18():
    words = "blurry, black and white, low contrast, high contrast, bad, good".split(
        ", "
    )
    for article in ("a", "the"):
        of_article = [t for t in prompts.CIFAR10_TEMPLATES if f"of {article} " in t]
        assert set(of_article) == {
            f"a photo of {article} {{c}}.",
            *(f"a {word} photo of {article} {{c}}." for word in words),
            f"a photo of {article} small {{c}}.",
            f"a photo of {article} big {{c}}.",
        }


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("eurosat_rgb", "eurosat_rgb/train"),
        ("eurosat_rgb", "eurosat_rgb/val"),
        ("resisc45", "resisc45"),
        ("cifar10", "cifar10/train"),
        ("cifar10", "cifar10/val"),
        ("imagenette", "imagenette"),
    ],
)
def test_label_order_is_that_of_the_real_sorted_folders(real_data, name, folder):
    folders = sorted(p.name for p in (real_data / folder).iterdir() if p.is_dir())
    assert list(DATASETS[name].classes) == folders


# Sets by name.


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("single", 1), ("satellite", 1), ("openai80", 80), ("openai7", 7)),
        *(("eurosat", 3), ("resisc45", 18), ("fmow", 14), ("remoteclip", 5)),
        *(("georsclip", 105), ("skyclip", 2)),
    ],
)
def test_a_named_set_has_its_published_number_of_templates(name, count):
    templates = prompts.get_templates(name, ("mine {c}",))
    assert len(templates) == len(set(templates)) == count
    names = DATASETS["fmow_rgb"].classnames
    filled = fill_templates(names, templates)
    assert tokenize([text for texts in filled for text in texts]).shape[1] == 77
    assert not [t for t in templates if "  " in t or t != t.strip()]


def test_every_named_set_is_tested():
    assert len(prompts.PROMPT_SETS) == 10


def test_georsclips_templates_are_rs5ms():
    """Digest of the list of RS5M's inference/classname_and_prompt/RSEuroSAT.py."""
    rs5m = "058f9c8ae565695cea0174b5bec92eb7e14684cc8da4e1f47c74a4e79c902893"
    assert sha256(sorted(prompts.GEORSCLIP_TEMPLATES)) == rs5m


def test_openais_7_templates_are_among_its_80():
    assert set(prompts.PROMPT_SETS["openai7"]) < set(prompts.PROMPT_SETS["openai80"])


def test_the_datasets_templates_are_a_named_set_and_unknown_names_are_refused():
    assert prompts.get_templates("dataset", ["a {c}"]) == ("a {c}",)
    with pytest.raises(ValueError, match=r"unknown prompt set 'openai8'") as error:
        prompts.get_templates("openai8", ())
    for name in ("dataset", *prompts.PROMPT_SETS):
        assert name in str(error.value)


# Filling.


def test_each_class_gets_each_template_in_order():
    filled = fill_templates(["sea ice", "river"], ["a {c}.", "{c} seen as {c}"])
    assert filled == [
        ["a sea ice.", "sea ice seen as sea ice"],
        ["a river.", "river seen as river"],
    ]


def test_braces_in_a_class_name_are_kept():
    assert fill_templates(["{x} {c}"], ["a {c}."]) == [["a {x} {c}."]]


@pytest.mark.parametrize("template", ["a photo.", "a {}.", "a {name}.", "a {C}."])
def test_a_template_without_a_placeholder_is_refused(template):
    with pytest.raises(ValueError, match=r"has no placeholder \{c\}") as error:
        fill_templates(["river"], ["a {c}.", template])
    assert repr(template) in str(error.value)


def test_empty_templates_are_refused_with_an_example():
    with pytest.raises(ValueError, match=r"no prompt templates.*'a \{c\}\.'"):
        fill_templates(["river"], [])


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_an_empty_class_name_is_refused_with_its_index(blank):
    with pytest.raises(ValueError, match=r"class\(es\) \[1\] of .*'sea'.* no name"):
        fill_templates(["river", blank, "sea"], ["a {c}."])


def test_a_repeated_class_name_is_refused():
    with pytest.raises(ValueError, match=r"appear twice: \['lake', 'river'\]"):
        fill_templates(["river", "lake", "sea", "lake", "river"], ["a {c}."])


# The digest.

NAMES, TEMPLATES = ("river", "lake"), ("a {c}.", "the {c}.")


def test_the_digest_depends_on_the_contents_and_not_on_the_container():
    digest = prompts_digest(NAMES, TEMPLATES)
    assert len(digest) == 16
    assert digest == prompts_digest(list(NAMES), list(TEMPLATES))


@pytest.mark.parametrize(
    ("names", "templates"),
    [
        (("rivers", "lake"), TEMPLATES),
        (("lake", "river"), TEMPLATES),
        (("river",), TEMPLATES),
        (("river", "lake", "sea"), TEMPLATES),
        (NAMES, ("a {c}", "the {c}.")),
        (NAMES, ("the {c}.", "a {c}.")),
        (NAMES, ("a {c}.",)),
        # the same words cut elsewhere
        (("river", "lake", "a {c}."), ("the {c}.",)),
        (('river", "lake',), TEMPLATES),
        (("riverlake",), TEMPLATES),
    ],
)
def test_any_change_of_names_templates_or_order_changes_the_digest(names, templates):
    assert prompts_digest(names, templates) != prompts_digest(NAMES, TEMPLATES)


def test_no_two_datasets_share_a_digest():
    datasets = [DATASETS[name] for name in LABELLED]
    prompts = {(dataset.classnames, dataset.templates) for dataset in datasets}
    digests = {
        prompts_digest(dataset.classnames, dataset.templates) for dataset in datasets
    }
    assert len(digests) == len(prompts) > 5


def test_the_digest_is_of_utf8_json():
    raw = b'[["r\xc3\xa9gion"], ["a {c}."]]'
    expected = hashlib.sha256(raw).hexdigest()[:16]
    assert prompts_digest(["région"], ["a {c}."]) == expected


def test_the_captions_digest_depends_on_text_order_and_image():
    a = [("a lake", "blue"), ("a road",)]
    others = [
        [("a lake", "blue."), ("a road",)],
        [("blue", "a lake"), ("a road",)],
        [("a lake",), ("blue", "a road")],
        [("a road",), ("a lake", "blue")],
        a[:1],
    ]
    digests = {prompts.captions_digest(x) for x in (a, *others)}
    assert len(digests) == 6
    assert prompts.captions_digest([list(x) for x in a]) == prompts.captions_digest(a)
