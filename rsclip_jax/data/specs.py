"""How settings and results write a dataset and its split: "name:split[:tile]"."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

# "wds:", "tfds:" or "skyscript:" and a folder, a name of the catalog, or a TOML file's
# path.
_KINDS = r"(?:wds|tfds|skyscript)"
_NAME = rf"{_KINDS}:[^:]+|(?!{_KINDS}:)(?:\w+|.+?\.toml)"
_SPEC = re.compile(rf"({_NAME}):(\w+(?:\[[^\]]*\])?)(?::(\d+))?")


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A dataset's name, its split, and the side of its tiles in pixels (0: no tiles).

    str() writes it as "name:split" or "name:split:tile".
    """

    name: str
    split: str
    tile: int = 0

    @classmethod
    def parse(cls, spec: str) -> "DatasetSpec":
        """Reads "name:split[:tile]"; whether the name and split exist is not checked.

        Raises ValueError naming the spec and the expected form.
        """
        match = _SPEC.fullmatch(spec)
        if match is None:
            hint = "; a TOML file describes a folder of your own" if "/" in spec else ""
            raise ValueError(
                f"dataset {spec!r} is not of the form name:split, such as"
                " 'eurosat_rgb:val', 'my_set.toml:val' or 'wds:wds_eurosat:test', or"
                f" name:split:tile with a tile size in pixels{hint}"
            )
        return cls(match[1], match[2], int(match[3] or 0))

    def __str__(self) -> str:
        return f"{self.name}:{self.split}" + (f":{self.tile}" if self.tile else "")

    @property
    def short(self) -> "DatasetSpec":
        """The spec as results write it: with the dataset's short name."""
        return dataclasses.replace(self, name=short_name(self.name))


def as_specs(value: str | Sequence[str]) -> tuple[str, ...]:
    """The specs of a setting that holds one or several; () for an empty string."""
    return tuple(filter(None, (value,) if isinstance(value, str) else value))


def short_specs(value: str | Sequence[str]) -> tuple[str, ...]:
    """The specs of a setting that holds one or several, as results write them."""
    return tuple(str(DatasetSpec.parse(spec).short) for spec in as_specs(value))


def short_name(name: str) -> str:
    """A dataset's name in results and packs: the stem of a TOML file's path."""
    return Path(name).stem if name.endswith(".toml") else name


def folder_name(name: str) -> str:
    """A dataset's name as a folder name: "wds:a/b" becomes "wds_a_b"."""
    return re.sub(r"[^\w.-]+", "_", name)
