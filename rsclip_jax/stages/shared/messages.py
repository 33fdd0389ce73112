"""Adds config keys to messages of functions that know only their arguments."""

import re

# Argument of data.open_source, of reading and of watchdog.watching -> its setting.
_SETTINGS = {
    "root": "config.data_root",
    "mesh": "config.mesh",
    "on_error": "config.data.on_error",
    "max_nodata": "config.data.max_nodata",
    "max_pixels": "config.data.max_pixels",
    "compile_cache": "config.compile_cache",
    "minutes": "config.watchdog_minutes",
}
_NAMED = re.compile(rf"(?<![\w/.-])({'|'.join(_SETTINGS)})(?= ?=| to )")


def name_settings(text: str) -> str:
    """Adds the setting to each argument in a message: "root" -> "root (--config...)".

    >>> name_settings("root = /data is not a folder")
    'root (--config.data_root) = /data is not a folder'
    """
    return _NAMED.sub(lambda match: f"{match[1]} (--{_SETTINGS[match[1]]})", text)
