"""The contact sheet: examples of each class in a row, in every sensor of a dataset."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rsclip_jax.data.codecs.checks import find_missing
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.sensors.bands import TRUE_COLOUR, bands_near
from rsclip_jax.io.files import naming, replacing

_TILE = 128  # pixels: the side of a tile, which larger images are shrunk to
_GAP, _BLOCK_GAP, _LABEL = 6, 22, 13
_BROKEN = (255, 0, 255)  # a pixel that is NaN, infinite or missing
# Wavelengths (um) of the bands shown as red, green and blue.
_COMPOSITES = {"true colour": TRUE_COLOUR, "false colour": (0.842, 0.665, 0.56)}


@dataclasses.dataclass(frozen=True)
class View:
    """One way to show a sensor, with the heading that names it.

    channels: [h, w, c] to [h, w, 1 or 3]. stretch: scale linearly between the 2 % and
    98 % quantiles of all shown pixels; otherwise the values are 0 to 255 already.
    sensor: the arrays' sensor, whose missing pixels are left out; None shows all.
    """

    heading: str
    channels: Callable[[np.ndarray], np.ndarray]
    stretch: bool = True
    colormap: str = "grey"
    sensor: Sensor | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A class (or "" in an unlabelled dataset) and records of it."""

    title: str
    records: Sequence[Mapping]


def views_of(sensor: Sensor) -> list[View]:
    """The ways to show a sensor, with bands chosen by name.

    Optical sensors: true colour, and false colour if there is near infrared. Radar of
    two polarisations: VV, VH, VV - VH. Others: each of the first three bands, a
    temperature in matplotlib's inferno.
    """
    stretch = sensor.unit != "8-bit"
    views = []
    for name, wanted in _COMPOSITES.items():
        bands = bands_near(sensor, wanted)
        if bands and bands == ("R", "G", "B") and not stretch:
            views.append(View("as is", _pick(sensor, bands), stretch))
        elif bands:
            heading = f"{name}: {', '.join(bands)}"
            views.append(View(heading, _pick(sensor, bands), stretch))
    if {"VV", "VH"} <= set(sensor.bands):
        views.append(View("VV, VH, VV - VH", _radar(sensor)))
    if views:
        return [dataclasses.replace(view, sensor=sensor) for view in views]
    colours = "inferno" if sensor.unit == "K" else "grey"
    bands = sensor.bands[:3]
    return [View(band, _pick(sensor, (band,)), True, colours, sensor) for band in bands]


def _pick(sensor: Sensor, bands: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
    index = [sensor.bands.index(band) for band in bands]
    return lambda array: array[..., index]


def _radar(sensor: Sensor) -> Callable[[np.ndarray], np.ndarray]:
    pick = _pick(sensor, ("VV", "VH"))

    def channels(array: np.ndarray) -> np.ndarray:
        pair = pick(array).astype(np.float32)
        return np.concatenate([pair, pair[..., :1] - pair[..., 1:]], axis=-1)

    return channels


def render(arrays: Sequence[np.ndarray], view: View) -> tuple[list[np.ndarray], str]:
    """(uint8 [h, w, 3] of each array, the range of each shown channel).

    All arrays share one stretch, so that they can be compared. The range reads "345 to
    2100; 300 to 1900; ..." for red, green and blue, and is "" for pictures shown as
    they are. NaN and missing pixels are magenta, and not in the range.
    """
    if not view.stretch:
        return [np.ascontiguousarray(view.channels(array)) for array in arrays], ""
    images = [view.channels(_hide_missing(array, view.sensor)) for array in arrays]
    values = np.concatenate([x.reshape(-1, x.shape[-1]) for x in images])
    values[~np.isfinite(values)] = np.nan
    if np.isnan(values).all(0).any():  # a band without one number has no quantile
        values = np.zeros((1, values.shape[1]), np.float32)
    low, high = np.nanquantile(values, (0.02, 0.98), axis=0)
    width = np.maximum(high - low, 1e-6)
    pictures = [_paint(image, low, width, view.colormap) for image in images]
    ranges = [f"{a:.4g} to {b:.4g}" for a, b in zip(low, high, strict=True)]
    return pictures, "; ".join(ranges)


def _hide_missing(array: np.ndarray, sensor: Sensor | None) -> np.ndarray:
    """The array as float32, NaN where a value is missing."""
    missing = find_missing(array, sensor) if sensor and array.size else None
    floats = array.astype(np.float32)
    return floats if missing is None else np.where(missing, np.float32(np.nan), floats)


def _paint(image: np.ndarray, low, width, colormap: str) -> np.ndarray:
    good = np.isfinite(image).all(-1)
    scaled = np.clip((np.where(good[..., None], image, low) - low) / width, 0, 1)
    if image.shape[-1] == 1 and colormap != "grey":
        import matplotlib  # as in charts.py

        scaled = matplotlib.colormaps[colormap](scaled[..., 0])[..., :3]
    picture = np.rint(255 * scaled).astype(np.uint8)
    picture = np.repeat(picture, 3 // picture.shape[-1], axis=-1)
    picture[~good] = _BROKEN
    return picture


def fit_tile(picture: np.ndarray, side: int) -> np.ndarray:
    """uint8 [h, w, 3] in a white square: shrunk, or enlarged by an integer factor."""
    picture = shrink(picture, side)
    factor = side // max(picture.shape[:2])
    picture = picture.repeat(factor, 0).repeat(factor, 1)
    h, w = picture.shape[:2]
    tile = np.full((side, side, 3), 255, np.uint8)
    y, x = (side - h) // 2, (side - w) // 2
    tile[y : y + h, x : x + w] = picture
    return tile


def shrink(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture whose longer side is at most so many pixels."""
    h, w = picture.shape[:2]
    if max(h, w) <= side:
        return picture
    scale = side / max(h, w)
    size = max(1, round(w * scale)), max(1, round(h * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def choose_side(arrays: Sequence[np.ndarray]) -> int:
    """The side of all tiles: the largest integer multiple of the largest image that
    fits, or the largest tile."""
    largest = max(max(array.shape[:2]) for array in arrays)
    return largest * max(1, _TILE // largest) if largest < _TILE else _TILE


def draw_contact_sheet(
    rows: Sequence[Row], sensors: Mapping[str, Sensor], title: str
) -> np.ndarray:
    """uint8 [h, w, 3]: a row for each class, a block of columns for each sensor's view.

    sensors: record key -> its sensor. Every block has the same records in the same
    order, each above the end of its id and its first caption. Raises ValueError if no
    row has a record.
    """
    records = [record for row in rows for record in row.records]
    if not records:
        raise ValueError("a contact sheet needs a record")
    side = choose_side([record[key] for record in records for key in sensors])
    blocks = []
    for key, sensor in sensors.items():
        for view in views_of(sensor):
            pictures, shown = render([record[key] for record in records], view)
            words = [f"{key} ({sensor.name})", view.heading]
            if shown:
                words.append(f"{shown} {sensor.unit}")
            blocks.append((words, [fit_tile(picture, side) for picture in pictures]))
    return _Sheet(rows, blocks, side, title).draw()


def save_contact_sheet(path: Path, rows, sensors, title: str) -> None:
    """Writes draw_contact_sheet's picture as a PNG."""
    sheet = draw_contact_sheet(rows, sensors, title)
    with naming(path), replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="png")


class _Sheet:
    """The layout of a sheet, and its drawing."""

    def __init__(self, rows: Sequence[Row], blocks, side: int, title: str):
        self.rows, self.blocks, self.side, self.title = rows, blocks, side, title
        self.fonts = {size: _font(size) for size in (11, 13, 18)}
        self.columns = max(len(row.records) for row in rows)
        self.ids = {
            record["id"]: _id_lines(record["id"], self.fonts[11], side)
            + _caption_lines(record.get("captions", ()), self.fonts[11], side)
            for row in rows
            for record in row.records
        }
        lines = max(map(len, self.ids.values()))
        self.pitch = side + lines * _LABEL + 2 * _GAP
        self.names = [_word_lines(row.title, self.fonts[13], 150) for row in rows]
        words = [line for name in self.names for line in name]
        self.left = 2 * _GAP + max(
            (_width(x, self.fonts[13]) for x in words), default=0
        )
        self.heading = 16 * max(len(words) for words, _ in blocks)
        self.top = 3 * _GAP + 24 + self.heading
        block = self.columns * (side + _GAP)
        self.block = max(block, *(self._heading_width(words) for words, _ in blocks))

    def _heading_width(self, words: Sequence[str]) -> int:
        return max(_width(word, self.fonts[13]) for word in words)

    def draw(self) -> np.ndarray:
        width = self.left + len(self.blocks) * (self.block + _BLOCK_GAP)
        width = max(width, 2 * _GAP + _width(self.title, self.fonts[18]))
        height = self.top + len(self.rows) * self.pitch + _GAP
        image = Image.new("RGB", (width, height), "white")
        pen = ImageDraw.Draw(image)
        pen.text((_GAP, _GAP), self.title, "black", self.fonts[18])
        for i, name in enumerate(self.names):
            corner = (_GAP, self.top + i * self.pitch + self.side // 3)
            pen.text(corner, "\n".join(name), "black", self.fonts[13])
        for b, (words, tiles) in enumerate(self.blocks):
            x = self.left + b * (self.block + _BLOCK_GAP)
            corner = (x, self.top - self.heading - _GAP)
            pen.text(corner, "\n".join(words), "black", self.fonts[13])
            self._draw_block(image, pen, x, tiles)
        return np.array(image)

    def _draw_block(self, image, pen, left: int, tiles) -> None:
        each = iter(tiles)
        for i, row in enumerate(self.rows):
            y = self.top + i * self.pitch
            for j, record in enumerate(row.records):
                x = left + j * (self.side + _GAP)
                image.paste(Image.fromarray(next(each)), (x, y))
                text = "\n".join(self.ids[record["id"]])
                pen.text((x, y + self.side + 1), text, "dimgrey", self.fonts[11])


def _font(size: int):
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size)


def _width(text: str, font) -> int:
    return int(font.getlength(text)) + 1


def _id_lines(name: str, font, width: int) -> list[str]:
    """The id's folders and its last part, or their ends if they do not fit."""
    folders, slash, last = name.rpartition("/")
    lines = [folders + slash, last] if folders else [last]
    return [_end(line, font, width) for line in lines]


def _caption_lines(captions: Sequence[str], font, width: int) -> list[str]:
    """At most five lines of the first caption."""
    lines = _word_lines(captions[0], font, width) if captions else []
    lines = [*lines[:4], "…"] if len(lines) > 5 else lines
    return [_end(line, font, width) for line in lines]


def _end(text: str, font, width: int) -> str:
    if _width(text, font) <= width:
        return text
    while text and _width("…" + text, font) > width:
        text = text[1:]
    return "…" + text


def _word_lines(text: str, font, width: int) -> list[str]:
    """Lines of whole words, no wider than this unless a single word is."""
    lines: list[str] = []
    for word in text.split():
        if lines and _width(f"{lines[-1]} {word}", font) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
