"""The rows of the datasets of photographs from above, and the form of such rows."""

from rsclip_jax.data.catalog import classes, prompts
from rsclip_jax.data.types import Dataset

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


def photos(
    name, folders, names: dict[str, str], templates, kind="class_folders", **fields
) -> Dataset:
    return Dataset(
        name,
        kind,
        "single",
        {"rgb": "rgb"},
        tuple(names),
        tuple(names.values()),
        templates,
        folders,
        **fields,
    )


SCENES = (
    photos(
        "resisc45",
        ("resisc45", "NWPU-RESISC45"),
        {c: c.replace("_", " ") for c in RESISC45_CLASSES},
        prompts.RESISC45_TEMPLATES,
        split_lists="resisc45-{split}.txt",
    ),
    photos(
        "ucmerced",
        ("ucmerced", "UCMerced_LandUse/Images"),
        classes.UCMERCED_NAMES,
        prompts.RESISC45_TEMPLATES,
        split_lists="uc_merced-{split}.txt",
    ),
    photos("aid", ("aid", "AID"), classes.AID_NAMES, prompts.RESISC45_TEMPLATES),
    photos(
        "rsscn7",
        ("rsscn7", "RSSCN7", "RSSCN7-master"),
        classes.RSSCN7_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    photos(
        "patternnet",
        # on a disk that ignores case, "patternnet" is the unpacked folder, too
        ("PatternNet/images", "patternnet"),
        classes.PATTERNNET_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    photos(
        "optimal31",
        ("optimal31", "OPTIMAL-31/Images", "OPTIMAL-31", "Optimal-31"),
        classes.OPTIMAL31_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    photos(
        "rsi_cb256",
        ("rsi_cb256", "RSI-CB256"),
        classes.RSI_CB256_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    photos(
        "whu_rs19",
        ("whu_rs19", "WHU-RS19/RSDataset", "WHU-RS19/Images", "WHU-RS19"),
        classes.WHU_RS19_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    photos(
        "mlrsnet",
        ("MLRSNet/Images", "mlrsnet/Images", "MLRSNet", "mlrsnet"),
        classes.MLRSNET_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    Dataset(
        "mlrsnet_multi",
        "mlrsnet",
        "multi",
        {"rgb": "rgb"},
        classes.MLRSNET_LABELS,
        classes.MLRSNET_LABELS,
        prompts.RESISC45_TEMPLATES,
        ("MLRSNet", "mlrsnet"),
        label_map={label: label for label in classes.MLRSNET_LABELS},
    ),
    photos(
        "m_pv4ger",
        ("m_pv4ger", "m-pv4ger", "classification_v1.0_wds/m-pv4ger"),
        {"no solar pv": "no solar panels", "solar pv": "solar panels"},
        prompts.AERIAL_TEMPLATES,
        "geobench",
        size=320,
    ),
)
