"""A workdir's config.json as a config file: --config=<workdir>/config.json.

main passes it on as --config=<this file>:<workdir>/config.json.
"""

import errno
import json
import os
from typing import Any

from ml_collections import ConfigDict, config_dict

import rsclip_jax.configs.common as common
from rsclip_jax.io.paths import as_path
from rsclip_jax.io.store_errors import naming_store


def get_config(path: str) -> ConfigDict:
    """The config that a run saved.

    Raises ValueError for any other file, and StoreFailed for an object store that does
    not answer.
    """
    try:
        with naming_store(as_path(path)):
            values = json.loads(_read(path))
    except ValueError as error:  # also for bytes that are not UTF-8
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or "stages" not in values:
        raise ValueError(
            f"{path} is not a saved config: it has no 'stages'; give a config file, or"
            " the config.json of a workdir"
        )
    values = _as_settings(values)
    config = common.base(values.pop("stages"))
    config.data.update(values.pop("data", {}))
    for name, value in values.items():
        config[name] = _SECTIONS[name](**value) if name in _SECTIONS else value
    return config


def _read(path: str) -> bytes:
    try:
        return as_path(path).read_bytes()
    except FileNotFoundError as error:  # a store's names the file in its own way
        code = errno.ENOENT
        raise FileNotFoundError(code, os.strerror(code), path) from error


# The functions that give a stage's section the settings that an older run lacks, and
# the settings that take one dataset or several their type.
_SECTIONS = {
    section.__name__: section
    for section in (
        common.pretrain,
        common.patch,
        common.align,
        common.evaluate,
        common.ablate,
        common.export,
        common.inspect,
        common.pack,
    )
}


def _as_settings(value: Any) -> Any:
    """Turns JSON's lists into tuples and its nulls into optional numbers."""
    if isinstance(value, dict):
        return {key: _as_settings(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(map(_as_settings, value))
    return config_dict.placeholder(float) if value is None else value
