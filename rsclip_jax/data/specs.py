"""How settings name data: "name:split", or "name:split:tile"."""

import re

# A set that its own files describe, or a name of the table.
_NAME = r"(?:wds|tfds):[^:]+|(?!(?:wds|tfds):)\w+"
_SPEC = re.compile(rf"({_NAME}):(\w+(?:\[[^\]]*\])?)(?::(\d+))?")


def parse_spec(spec: str) -> tuple[str, str, int]:
    """(dataset's name, split, tile in pixels, 0 where there is none) of a spec.

    Raises ValueError naming the spec and the form that it should have; whether name and
    split are known is not looked at.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(
            f"dataset {spec!r} is not of the form name:split, such as"
            " 'eurosat_rgb:val' or 'wds:wds_eurosat:test', or name:split:tile with a"
            " tile size in pixels"
        )
    return match[1], match[2], int(match[3] or 0)
