"""A workdir's config.json as a config file: --config=<workdir>/config.json.

main passes it on as --config=<this file>:<workdir>/config.json.
"""

import json
from typing import Any

from ml_collections import ConfigDict, config_dict


def get_config(path: str) -> ConfigDict:
    """The config that a run saved. Raises ValueError for any other file."""
    with open(path) as file:
        try:
            values = json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or "stages" not in values:
        raise ValueError(
            f"{path} is not a saved config: it has no 'stages'; give a config file, or"
            " the config.json of a workdir"
        )
    return ConfigDict(_as_settings(values))


def _as_settings(value: Any) -> Any:
    """Turns JSON's lists into tuples and its nulls into optional numbers."""
    if isinstance(value, dict):
        return {key: _as_settings(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(map(_as_settings, value))
    return config_dict.placeholder(float) if value is None else value
