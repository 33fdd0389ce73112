"""Settings that follow from the dataset that config.data.dataset names.

configs/patch.py and configs/align.py leave splits, sensors and loss terms empty; they
are filled in here before the stages begin.
"""

import copy

from ml_collections import ConfigDict

from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.specs import DatasetSpec
from rsclip_jax.data.types import SPLITS
from rsclip_jax.stages.shared.dataset_checks import LABELLED

# stage -> its settings that the dataset determines
_FILLED = {
    "patch": ("train", "val", "test"),
    "align": ("train", "test", "sensor", "losses"),
}


def fill_in(config: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """(the config with its empty settings filled, a line for each filled one).

    The argument is not changed; a config without empty settings is returned as it is.
    Raises ValueError if no dataset is named, or if it lacks data that a stage needs.
    """
    empty = [
        (stage, key)
        for stage, keys in _FILLED.items()
        for key in keys
        if stage in config and not config[stage][key]
    ]
    name = config.data.get("dataset", "")
    if not empty:
        if name and f"{name}:" not in repr(config.to_dict()):
            raise ValueError(
                f"config.data = {name} has no effect, because this config names its"
                " datasets: use configs/patch.py or configs/align.py"
            )
        return config, []
    if not name:
        raise ValueError(
            "config.data names no dataset: set --config.data to the TOML file of your"
            " dataset, such as mine.toml, or to a name such as eurosat_rgb"
            f" (config.{'.'.join(empty[0])} is empty)"
        )
    values: dict[str, dict] = {}
    if "patch" in config:
        parts = find_parts(config).items()
        values["patch"] = {key: str(DatasetSpec(name, part)) for key, part in parts}
    if "align" in config:
        values["align"] = _align_values(config)
    filled, lines = copy.deepcopy(config), []
    for stage, key in empty:
        filled[stage][key] = values[stage][key]
        lines.append(f"config.{stage}.{key} = {values[stage][key]!r} (from {name})")
    return filled, lines


def find_parts(config: ConfigDict) -> dict[str, str]:
    """{"train": split, "val": split, "test": split} of config.data.dataset.

    A part of another split, such as "train[90%:]", replaces a missing one; the three
    share no record. Raises ValueError if there is no split to train on.
    """
    held = [split for split in SPLITS if _has(config, split)]
    if held == list(SPLITS):
        return {split: split for split in SPLITS}
    if "train" not in held:
        raise ValueError(
            f"config.data = {config.data.dataset}: it has no split 'train', only"
            f" {', '.join(held) or 'none'}; set config.patch.train, val and test"
        )
    if held == ["train"]:
        return {"train": "train[:70%]", "val": "train[70%:85%]", "test": "train[85%:]"}
    return {"train": "train[:90%]", "val": "train[90%:]", "test": held[1]}


def _has(config: ConfigDict, split: str) -> bool:
    try:
        _open(config, split)
    except FileNotFoundError:
        _open(config, "all")  # raises if files are missing, not just the split
        return False
    return True


def _open(config: ConfigDict, split: str):
    data = config.data
    return open_source(
        data.dataset,
        config.data_root,
        split,
        on_error=data.on_error,
        max_nodata=data.max_nodata,
        max_pixels=data.max_pixels,
    )


def _align_values(config: ConfigDict) -> dict:
    """The settings of stage align: splits, sensors and loss terms."""
    name = config.data.dataset
    dataset = get_dataset(name, config.data_root)
    sensors = tuple(key for key in dataset.sensors if key != "rgb")
    if not sensors or "rgb" not in dataset.sensors:
        raise ValueError(
            f"config.data = {name}: it holds {', '.join(dataset.sensors)}, but stage"
            " align needs 'rgb' and another sensor of the same images: name it in the"
            " file's [sensors] and, for a table, [columns], or make it of bands by"
            " [composites]"
        )
    parts = find_parts(config)
    train = parts["train"]
    if parts["test"] in SPLITS:  # align chooses nothing, so it needs no val split
        train = "train"
    elif train != "train":
        train = "train[:85%]"
    losses = [("mse", 1.0)] + [("labels", 0.05)] * (dataset.task in LABELLED)
    return {
        "train": str(DatasetSpec(name, train)),
        "test": (str(DatasetSpec(name, parts["test"])),),
        "sensor": sensors[0] if len(sensors) == 1 else sensors,
        "losses": tuple(losses),
    }
