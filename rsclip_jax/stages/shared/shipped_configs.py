"""Finds the shipped configs by name from any folder."""

import re
from pathlib import Path

import rsclip_jax.configs

FOLDER = Path(rsclip_jax.configs.__path__[0])


def list_shipped() -> list[str]:
    """The names of the configs that can be run."""
    files = sorted(FOLDER.glob("*.py"))
    return [p.stem for p in files if "def get_config" in p.read_text("utf-8")]


def find_shipped(argv: list[str]) -> list[str]:
    """Replaces a shipped config's name on the command line by its path.

    --config=NAME, NAME.py or configs/NAME.py means the file of that path if it exists,
    else the shipped config. A variant after a colon is kept.
    """
    flag = re.compile(r"--?config(=(?P<value>.*))?", re.DOTALL)
    out, is_value = [], False
    for argument in argv:
        found = flag.fullmatch(argument)
        if is_value:
            argument = _resolve(argument)
        elif found and found["value"] is not None:
            argument = f"--config={_resolve(found['value'])}"
        is_value = found is not None and found["value"] is None
        out.append(argument)
    return out


def _resolve(config: str) -> str:
    name, colon, variant = config.partition(":")
    path = Path(name)
    is_name = str(path.parent) in (".", "configs") and path.suffix in ("", ".py")
    if path.is_file() or not is_name or path.stem not in list_shipped():
        return config
    return f"{FOLDER / path.stem}.py{colon}{variant}"
