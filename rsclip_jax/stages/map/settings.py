"""The settings of stage map as frozen values."""

import dataclasses
from typing import Any

from rsclip_jax.data.scenes.scene import Scene
from rsclip_jax.stages.shared.run import Run


@dataclasses.dataclass(frozen=True)
class MapSettings:
    """config.scene, config.sensor, config.classes and config.map."""

    scene: str
    sensor: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    sentences: tuple[str, ...]
    tile: int
    stride: int
    min_valid: float
    clear: bool
    crs: str
    resolution: float
    unit: str
    min_area: float

    @classmethod
    def of(cls, run: Run) -> "MapSettings":
        """Reads the sections."""
        c, m = run.config, run.config.map
        values: dict[str, Any] = {**m, "scene": c.scene, "sensor": c.sensor}
        values["classes"] = tuple(c.classes)
        for name in ("templates", "sentences"):
            values[name] = tuple(m[name])
        return cls(**values)


def check_settings(s: MapSettings) -> None:
    """Raises ValueError naming a setting that cannot be."""
    if not s.scene:
        raise ValueError(
            "config.scene is empty: name a scene, a product's folder or a STAC item"
        )
    if len(set(s.classes)) < len(s.classes) or len(s.classes) in (0, 1):
        raise ValueError(
            f"config.classes = {s.classes}: name at least two classes, each once, such"
            " as \"('river','forest')\"; one thing alone is sought by"
            " config.map.sentences beside them"
        )
    if len(s.classes) > 255:
        raise ValueError(
            f"config.classes names {len(s.classes)} classes; a map has at most 255"
        )
    for template in s.templates:
        if "{c}" not in template:
            raise ValueError(
                f"config.map.templates has {template!r}, without {{c}} for the name"
            )
    if not 0 < s.min_valid <= 1:
        raise ValueError(
            f"config.map.min_valid = {s.min_valid} should be above 0, up to 1"
        )
    for name in ("tile", "stride", "min_area"):
        if (value := getattr(s, name)) < 0:
            raise ValueError(f"config.map.{name} = {value} is below 0")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The tiles of a scene, and the cells of its map.

    A cell is a square of stride pixels; a tile begins at every cell and covers reach x
    reach of them.
    """

    size: int
    stride: int
    height: int
    width: int

    def __post_init__(self):
        if self.size % self.stride:
            raise ValueError(
                f"config.map.stride = {self.stride} does not divide the tile of"
                f" {self.size} pixels (config.map.tile): use one of"
                f" {[n for n in range(1, self.size + 1) if self.size % n == 0]}"
            )

    @classmethod
    def of(cls, scene: Scene, size: int, stride: int) -> "Layout":
        return cls(size, stride or size, scene.height, scene.width)

    @property
    def reach(self) -> int:
        """The cells that a tile covers on each side."""
        return self.size // self.stride

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles; the last ones may leave the scene."""
        rows, columns = (max(n - self.reach + 1, 1) for n in self.cells)
        return rows, columns

    @property
    def shown(self) -> int:
        """Pixels of the quick look on each side of a cell: some 1,000 in all."""
        return min(self.stride, max(1, round(1000 / max(self.cells))))
