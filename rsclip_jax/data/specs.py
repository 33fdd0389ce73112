"""How settings name data: "name:split", or "name:split:tile"."""

import re
from pathlib import Path

# A set that its own files describe, a name of the table, or the path of a TOML file.
_NAME = r"(?:wds|tfds):[^:]+|(?!(?:wds|tfds):)(?:\w+|.+?\.toml)"
_SPEC = re.compile(rf"({_NAME}):(\w+(?:\[[^\]]*\])?)(?::(\d+))?")


def parse_spec(spec: str) -> tuple[str, str, int]:
    """(dataset's name, split, tile in pixels, 0 where there is none) of a spec.

    Raises ValueError naming the spec and the form that it should have; whether name and
    split are known is not looked at.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        is_path = "/" in spec
        raise ValueError(
            f"dataset {spec!r} is not of the form name:split, such as"
            " 'eurosat_rgb:val', 'my_set.toml:val' or 'wds:wds_eurosat:test', or"
            " name:split:tile with a tile size in pixels"
            + (
                "; a folder is no name, but a TOML file can say what is in one"
                * is_path
            )
        )
    return match[1], match[2], int(match[3] or 0)


def short_name(name: str) -> str:
    """What results and packs call a dataset: of a TOML file its stem."""
    return Path(name).stem if name.endswith(".toml") else name


def folder_name(name: str) -> str:
    """A dataset's name as a folder's: "wds:a/b" is none, wds_a_b is."""
    return re.sub(r"[^\w.-]+", "_", name)


def reported(spec: str) -> str:
    """A spec as results spell it, with the dataset's short name."""
    name, split, tile = parse_spec(spec)
    return f"{short_name(name)}:{split}" + (f":{tile}" if tile else "")
