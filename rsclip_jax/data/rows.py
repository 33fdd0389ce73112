"""The table of datasets: what the files of each hold and how its classes are called."""

from rsclip_jax.data import classes, corine, miniature, prompts
from rsclip_jax.data.sources import Dataset

RESISC45_CLASSES = tuple(
    """airplane airport baseball_diamond basketball_court beach bridge chaparral church
    circular_farmland cloud commercial_area dense_residential desert forest freeway
    golf_course ground_track_field harbor industrial_area intersection island lake
    meadow medium_residential mobile_home_park mountain overpass palace parking_lot
    railway railway_station rectangular_farmland river roundabout runway sea_ice ship
    snowberg sparse_residential stadium storage_tank tennis_court terrace
    thermal_power_station
    wetland""".split()
)
CIFAR10_CLASSES = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()
)
_MINIATURE_SENSORS = {"rgb": "rgb", "s1": "s1_grd", "s2": "s2_l1c", "ir": "ir_bt"}


def _photos(name, folders, names: dict[str, str], templates, size=0) -> Dataset:
    return Dataset(
        name,
        "class_folders",
        "single",
        {"rgb": "rgb"},
        tuple(names),
        tuple(names.values()),
        templates,
        folders,
        size=size,
    )


def _miniature(name, task, sensors, classes, templates) -> Dataset:
    return Dataset(name, "miniature", task, sensors, classes, classes, templates)


def _bigearthnet(version: int, count: int, with_s1: bool) -> Dataset:
    """One of the sets of classes, with Sentinel-1 beside or without."""
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


_EUROSAT_MS_BANDS = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A".split())
_ROWS = (
    _photos(
        "eurosat_rgb",
        ("eurosat_rgb", "EuroSAT_RGB", "2750"),
        prompts.EUROSAT_NAMES,
        prompts.EUROSAT_TEMPLATES,
        size=64,
    ),
    _photos(
        "resisc45",
        ("resisc45", "NWPU-RESISC45"),
        {c: c.replace("_", " ") for c in RESISC45_CLASSES},
        prompts.RESISC45_TEMPLATES,
    ),
    _photos(
        "cifar10",
        ("cifar10", "CIFAR-10", "CIFAR-10-images"),
        {c: c for c in CIFAR10_CLASSES},
        prompts.CIFAR10_TEMPLATES,
        size=32,
    ),
    _photos(
        "imagenette",
        ("imagenette", "imagenette2", "imagenette2-320", "imagenette2-160"),
        prompts.IMAGENETTE_NAMES,
        prompts.IMAGENETTE_TEMPLATES,
    ),
    _photos(
        "ucmerced",
        ("ucmerced", "UCMerced_LandUse/Images"),
        classes.UCMERCED_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    _photos("aid", ("aid", "AID"), classes.AID_NAMES, prompts.RESISC45_TEMPLATES),
    _photos(
        "rsscn7",
        ("rsscn7", "RSSCN7", "RSSCN7-master"),
        classes.RSSCN7_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    _photos(
        "patternnet",
        # where upper and lower case are one, "patternnet" is the unpacked folder too
        ("PatternNet/images", "patternnet"),
        classes.PATTERNNET_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    _photos(
        "cifar100",
        ("cifar100", "CIFAR-100", "CIFAR-100-images"),
        classes.CIFAR100_NAMES,
        prompts.CIFAR10_TEMPLATES,
        size=32,
    ),
    _photos(
        "stl10",
        ("stl10", "STL-10"),
        classes.STL10_NAMES,
        classes.STL10_TEMPLATES,
    ),
    _photos(
        "imagenet",
        ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"),
        classes.IMAGENET_NAMES,
        classes.IMAGENET_TEMPLATES,
    ),
    Dataset(
        "eurosat_ms",
        "class_folders",
        "single",
        {"rgb": "rgb", "s2": "s2_l1c"},
        tuple(prompts.EUROSAT_NAMES),
        tuple(prompts.EUROSAT_NAMES.values()),
        prompts.EUROSAT_TEMPLATES,
        ("eurosat_ms", "EuroSAT_MS", "EuroSATallBands", "allBands"),
        file_bands={"s2": _EUROSAT_MS_BANDS},
        composites={"rgb": ("s2", "eurosat_rgb")},
        size=64,
    ),
    *(
        _bigearthnet(version, count, with_s1)
        for version, counts in ((1, (19, 5, 43)), (2, (19, 5)))
        for count in counts
        for with_s1 in (True, False)
    ),
    Dataset(
        "ssl4eo_s12",
        "ssl4eo",
        "none",
        {"rgb": "rgb", "s2": "s2_l1c", "s1": "s1_grd"},
        folders=("ssl4eo_s12", "SSL4EO-S12", "ssl4eo-s12"),
        # its pairs lie some pixels apart, as they were cut: no max_shift
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
    Dataset(
        "sentinel_pairs",
        "paired_folders",
        "none",
        {"rgb": "rgb", "s1": "s1_vh_8bit"},
        folders=("sentinel_pairs",),
        subfolders={"rgb": "s2_rgb", "s1": "s1_vh"},
    ),
    _miniature(
        "miniature",
        "single",
        _MINIATURE_SENSORS,
        miniature.CLASSES,
        prompts.SATELLITE_TEMPLATES,
    ),
    _miniature(
        "miniature_multi",
        "multi",
        _MINIATURE_SENSORS,
        miniature.CLASSES,
        prompts.SATELLITE_TEMPLATES,
    ),
    _miniature(
        "miniature_aerial",
        "single",
        {"rgb": "rgb"},
        miniature.CLASSES,
        prompts.AERIAL_TEMPLATES,
    ),
    _miniature(
        "miniature_natural",
        "single",
        {"rgb": "rgb"},
        miniature.NATURAL_CLASSES,
        prompts.PHOTO_TEMPLATES,
    ),
)
DATASETS: dict[str, Dataset] = {row.name: row for row in _ROWS}
