"""The catalog of datasets: the contents of their files, and their class names."""

import dataclasses

from rsclip_jax.data.catalog import classes, corine, prompts
from rsclip_jax.data.catalog.scene_sets import SCENES, photos
from rsclip_jax.data.miniature import scenes
from rsclip_jax.data.types import Dataset

CIFAR10_CLASSES = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()
)
_MINIATURE_SENSORS = {"rgb": "rgb", "s1": "s1_grd", "s2": "s2_l1c", "ir": "ir_bt"}


def _miniature(name, task, sensors, classes, templates) -> Dataset:
    return Dataset(name, "miniature", task, sensors, classes, classes, templates)


def _bigearthnet(version: int, count: int, with_s1: bool) -> Dataset:
    """BigEarthNet with 43, 19 or 5 classes, with or without Sentinel-1."""
    name = "bigearthnet" if version == 1 else "bigearthnet_v2"
    name += "" if count == 19 else f"_{count}"
    name += "" if with_s1 else "_s2"
    classes = corine.class_names(count)
    sensors = {"rgb": "rgb", "s2": "s2_l2a", **({"s1": "s1_grd"} if with_s1 else {})}
    return Dataset(
        name,
        f"bigearthnet_v{version}",
        "multi",
        sensors,
        classes,
        tuple(c.lower() for c in classes),
        prompts.SATELLITE_TEMPLATES,
        tuple(dict.fromkeys((name, "bigearthnet", "BigEarthNet", ""))),
        composites={"rgb": ("s2", "s2_l2a_rgb")},
        label_map=corine.class_map(count),
        size=120,
        max_shift=1.0,
    )


def _sen12ms(name: str, task: str, without: str = "") -> Dataset:
    """SEN12MS, labelled by the largest class or by all that cover at least a tenth.

    without: a class that is left out.
    """
    names = {c: n for c, n in classes.SEN12MS_NAMES.items() if c != without}
    return Dataset(
        name,
        "sen12ms",
        task,
        {"rgb": "rgb", "s2": "s2_l1c", "s1": "s1_grd"},
        tuple(names),
        tuple(names.values()),
        prompts.SATELLITE_TEMPLATES,
        tuple(dict.fromkeys((name, "sen12ms", "SEN12MS", "m1474000"))),
        composites={"rgb": ("s2", "s2_l1c_rgb")},
        label_map={c: c if c in names else "" for c in classes.SEN12MS_NAMES},
    )


def _so2sat(name: str, *folders: str) -> Dataset:
    return Dataset(
        name,
        "so2sat",
        "single",
        {"rgb": "rgb", "s2": "s2_so2sat", "s1": "s1_so2sat"},
        tuple(classes.SO2SAT_NAMES),
        tuple(classes.SO2SAT_NAMES.values()),
        prompts.SATELLITE_TEMPLATES,
        (name, *folders),
        composites={"rgb": ("s2", "s2_so2sat_rgb")},
    )


def _geobench(name: str, like: Dataset, size: int) -> Dataset:
    """A set of GEO-Bench with the sensors and classes of another dataset."""
    theirs = name.replace("_", "-")
    return dataclasses.replace(
        like,
        name=name,
        kind="geobench",
        folders=(name, theirs, f"classification_v1.0_wds/{theirs}"),
        file_bands={},
        label_map={},
        split_lists="",
        size=size,
    )


EUROSAT_MS_BANDS = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A".split())


def _eurosat(
    name: str, kind: str, sensors: dict[str, str], folders, **lists
) -> Dataset:
    """EuroSAT's patches in other sensors, with the names and templates of its RGB."""
    s2 = "s2" in sensors
    return Dataset(
        name,
        kind,
        "single",
        sensors,
        tuple(prompts.EUROSAT_NAMES),
        tuple(prompts.EUROSAT_NAMES.values()),
        prompts.EUROSAT_TEMPLATES,
        folders,
        file_bands={"s2": EUROSAT_MS_BANDS} if s2 else {},
        composites={"rgb": ("s2", "eurosat_rgb")} if s2 else {},
        size=64,
        **lists,
    )


_DATASETS = (
    *SCENES,
    *(
        photos(
            f"eurosat_rgb{spatial and '_spatial'}",
            ("eurosat_rgb", "EuroSAT_RGB", "2750"),
            prompts.EUROSAT_NAMES,
            prompts.EUROSAT_TEMPLATES,
            split_lists=f"eurosat{spatial}-{{split}}.txt",
            needs_lists=bool(spatial),
            size=64,
        )
        for spatial in ("", "-spatial")
    ),
    photos(
        "cifar10",
        (
            *("cifar10", "CIFAR-10", "CIFAR-10-images"),
            *("cifar-10-batches-py", "cifar-10-batches-bin"),
        ),
        {c: c for c in CIFAR10_CLASSES},
        prompts.CIFAR10_TEMPLATES,
        "arrays",
        size=32,
    ),
    photos(
        "imagenette",
        ("imagenette", "imagenette2", "imagenette2-320", "imagenette2-160"),
        prompts.IMAGENETTE_NAMES,
        prompts.IMAGENETTE_TEMPLATES,
    ),
    photos(
        "cifar100",
        (
            *("cifar100", "CIFAR-100", "CIFAR-100-images"),
            *("cifar-100-python", "cifar-100-binary"),
        ),
        classes.CIFAR100_NAMES,
        prompts.CIFAR10_TEMPLATES,
        "arrays",
        size=32,
    ),
    photos(
        "stl10",
        ("stl10", "STL-10", "stl10_binary"),
        classes.STL10_NAMES,
        classes.STL10_TEMPLATES,
        "arrays",
    ),
    photos(
        "food101",
        ("food-101/images", "food101/food-101/images", "food101/images"),
        classes.FOOD101_NAMES,
        classes.FOOD101_TEMPLATES,
        split_lists="meta/{split}.txt",
        needs_lists=True,
    ),
    photos(
        "fmow_rgb",
        (
            *("fmow_rgb/fmow", "fmow_rgb/fmow-rgb", "fmow_rgb"),
            *("fmow-rgb", "fMoW-rgb", "fmow"),
        ),
        classes.FMOW_NAMES,
        classes.FMOW_TEMPLATES,
        "fmow",
    ),
    photos(
        "imagenet",
        ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"),
        classes.IMAGENET_NAMES,
        classes.IMAGENET_TEMPLATES,
        "imagenet",
    ),
    *(
        _eurosat(
            f"eurosat_ms{spatial and '_spatial'}",
            "class_folders",
            {"rgb": "rgb", "s2": "s2_l1c"},
            (
                *("eurosat_ms", "EuroSAT_MS", "EuroSATallBands", "allBands"),
                "ds/images/remote_sensing/otherDatasets/sentinel_2/tif",
            ),
            split_lists=f"eurosat{spatial}-{{split}}.txt",
            needs_lists=bool(spatial),
        )
        for spatial in ("", "-spatial")
    ),
    _eurosat(
        "eurosat_sar",
        "class_folders",
        {"s1": "s1_grd"},
        (
            "eurosat_sar",
            "EuroSAT-SAR",
            "EuroSAT_SAR",
            "eurosat_s1/all_imgs",
            "l2_eurosat_s1s2/eurosat_s1/all_imgs",
        ),
        split_lists="eurosat-{split}.txt",
    ),
    _eurosat(
        "eurosat_s1_s2",
        "eurosat_s1_s2",
        {"rgb": "rgb", "s2": "s2_l1c", "s1": "s1_grd"},
        ("eurosat_s1_s2", ""),
        split_lists="eurosat-{split}.txt",
    ),
    *(
        _bigearthnet(version, count, with_s1)
        for version, counts in ((1, (19, 5, 43)), (2, (19, 5)))
        for count in counts
        for with_s1 in (True, False)
    ),
    *(
        Dataset(
            name,
            name,
            "captions",
            {"rgb": "rgb", "s2": "s2_l2a", "s1": "s1_grd"},
            folders=(name, "bigearthnet_v2", "bigearthnet", "BigEarthNet", ""),
            composites={"rgb": ("s2", "s2_l2a_rgb")},
            size=120,
            max_shift=1.0,
        )
        for name in ("bigearthnet_txt", "bigearthnet_txt_bench")
    ),
    Dataset(
        "ssl4eo_s12",
        "ssl4eo",
        "none",
        {"rgb": "rgb", "s2": "s2_l1c", "s1": "s1_grd"},
        folders=("ssl4eo_s12", "SSL4EO-S12", "ssl4eo-s12"),
        # no max_shift: its pairs were cut some pixels apart
        composites={"rgb": ("s2", "s2_l1c_rgb")},
    ),
    Dataset(
        "sen1floods11",
        "sen1floods11",
        "none",
        {"rgb": "rgb", "s2": "s2_l1c", "s1": "s1_grd"},
        folders=("sen1floods11", "HandLabeled"),
        composites={"rgb": ("s2", "s2_l1c_rgb")},
        max_shift=1.0,
    ),
    _sen12ms("sen12ms", "single"),
    _sen12ms("sen12ms_multi", "multi"),
    # The code of Zavras et al. (arXiv 2402.09816) has nine of the ten classes without
    # naming them. We assume that snow and ice is left out.
    _sen12ms("sen12ms_multi_9", "multi", without="Snow/Ice"),
    _so2sat("so2sat", "So2Sat-LCZ42/v4", "So2Sat-LCZ42", "m1483140"),
    _so2sat("so2sat_random", "so2sat/random", "m1613658/random"),
    _so2sat("so2sat_block", "so2sat/block", "m1613658/block"),
    _so2sat("so2sat_culture_10", "so2sat/culture_10", "m1613658/culture_10"),
    Dataset(
        "sentinel_pairs",
        "paired_folders",
        "none",
        {"rgb": "rgb", "s1": "s1_vh_8bit"},
        folders=("sentinel_pairs",),
        subfolders={"rgb": "s2_rgb", "s1": "s1_vh"},
    ),
    *(
        Dataset(name, "captions", "captions", {"rgb": "rgb"}, folders=folders)
        for name, folders in (
            ("rsicd", ("rsicd", "RSICD")),
            ("rsitmd", ("rsitmd", "RSITMD")),
            ("ucm_captions", ("ucm_captions", "UCM_captions", "UCM_Captions")),
            ("sydney_captions", ("sydney_captions", "Sydney_captions")),
        )
    ),
    _miniature(
        "miniature",
        "single",
        _MINIATURE_SENSORS,
        scenes.CLASSES,
        prompts.SATELLITE_TEMPLATES,
    ),
    _miniature(
        "miniature_multi",
        "multi",
        _MINIATURE_SENSORS,
        scenes.CLASSES,
        prompts.SATELLITE_TEMPLATES,
    ),
    _miniature(
        "miniature_aerial",
        "single",
        {"rgb": "rgb"},
        scenes.CLASSES,
        prompts.AERIAL_TEMPLATES,
    ),
    _miniature(
        "miniature_natural",
        "single",
        {"rgb": "rgb"},
        scenes.NATURAL_CLASSES,
        prompts.PHOTO_TEMPLATES,
    ),
)
_BY_NAME = {dataset.name: dataset for dataset in _DATASETS}
_GEOBENCH = (
    _geobench("m_eurosat", _BY_NAME["eurosat_ms"], 64),
    _geobench("m_bigearthnet", _BY_NAME["bigearthnet_43_s2"], 120),
    _geobench("m_so2sat", _BY_NAME["so2sat"], 32),
)
DATASETS: dict[str, Dataset] = {d.name: d for d in (*_DATASETS, *_GEOBENCH)}
