"""FileSource: records read from image files."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from rsclip_jax.data.codecs.checks import check_array, find_missing
from rsclip_jax.data.codecs.described import marked_missing, order_bands
from rsclip_jax.data.codecs.geotiff import SUFFIXES as TIFF_SUFFIXES
from rsclip_jax.data.codecs.geotiff import read_band_files, read_place, read_raster
from rsclip_jax.data.codecs.images import read_image
from rsclip_jax.data.codecs.limits import check_pixels
from rsclip_jax.data.codecs.notes import is_noting, note
from rsclip_jax.data.codecs.patches import composite_of, make_picture
from rsclip_jax.data.codecs.pictures import read_picture
from rsclip_jax.data.codecs.places import Footprint, check_same_location
from rsclip_jax.data.codecs.raster import Raster
from rsclip_jax.data.codecs.scaling import apply_scaling
from rsclip_jax.data.codecs.warp import warp_onto
from rsclip_jax.data.readers import bigearthnet
from rsclip_jax.data.readers.fmow import crop_to_box
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sensors.bands import make_composite, sensor_part
from rsclip_jax.data.types import (
    DEFAULTS,
    MAX_PIXELS,
    Dataset,
    Entry,
    LeftOut,
    OpenOptions,
    Record,
    Scaling,
    Source,
    tail_of,
)


class FileSource(Source):
    """Reads records from image files on access.

    read_labels: reads the labels from an entry's label_file. split_rule, left_out: see
    Source.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        entries: Sequence[Entry],
        options: OpenOptions = DEFAULTS,
        read_labels: Callable[[Path], tuple[str, ...]] = bigearthnet.read_labels,
        split_rule: str = "",
        left_out: Sequence[LeftOut] = (),
    ):
        self.dataset, self.split, self.split_rule = dataset, split, split_rule
        self.left_out, self.max_nodata = list(left_out), options.max_nodata
        self.max_pixels = options.max_pixels
        self._read_labels = read_labels
        self.ids = [entry.id for entry in entries]
        self._entries = entries
        self._labels = {name: i for i, name in enumerate(dataset.classes)}

    @property
    def hash_keys(self) -> list[str]:
        return [entry.hash_key or tail_of(entry.id) for entry in self._entries]

    @property
    def entries(self) -> Sequence[Entry]:
        """The files of each record."""
        return self._entries

    def read(self, index: int, keys: Collection[str]) -> Record:
        entry, dataset = self._entries[index], self.dataset
        record: Record = {"id": entry.id, "label": self._label(entry)}
        if dataset.task == "captions":
            record["captions"] = entry.captions
        found: dict[str, list[Footprint]] = {}
        for key in entry.files:
            if key in keys:
                sensor = get_sensor(dataset.sensors[key])
                record[key] = self._read_sensor(entry, key, sensor, found)
        for key, (source, _) in dataset.composites.items():
            if key in keys and source in entry.files:
                record[key] = self._composite(entry, record, key, found)
        self._check_places(found)
        return record

    def _check_places(self, found: Mapping[str, Sequence[Footprint]]) -> None:
        """Raises ValueError for files of one record that lie at two places.

        found: record key -> the places of its files, which a note lists where one of
        several sensors has none.
        """
        way, custom = "", self.dataset.custom
        if custom and not custom.same_place:
            return
        bare = [k for k, places in found.items() if not places or not places[0].crs]
        if bare and len(found) > 1:
            note("unplaced", self.dataset.sensors[bare[0]])
        if custom:
            way = (
                ", or, in the dataset's file, max_shift allows more pixels, reproject ="
                " true warps later sensors onto the grid of the first, and same_place ="
                f" false in {custom.path} allows it"
            )
        check_same_location(
            [place for places in found.values() for place in places],
            self.dataset.max_shift,
            way,
        )

    def _grid_file(self, entry: Entry, key: str) -> Path | None:
        """The file onto whose grid a sensor's file is warped, if it is."""
        custom = self.dataset.custom
        if not (custom and custom.reproject):
            return None
        first = next(k for k in self.dataset.sensors if k in entry.files)
        file = entry.files[first]
        return None if key == first or isinstance(file, tuple) else file

    def _read_sensor(
        self, entry: Entry, key: str, sensor: Sensor, found: dict[str, list[Footprint]]
    ) -> np.ndarray:
        """Reads a sensor of an entry; adds its files' places to found."""
        dataset, files = self.dataset, entry.files[key]
        found[key] = []
        array = read_sensor(
            files,
            sensor,
            dataset.file_bands.get(key, ()),
            max_nodata=self.max_nodata,
            footprints=found[key],
            onto=self._grid_file(entry, key),
            scaling=dataset.scaling.get(key),
            max_pixels=self.max_pixels,
        )
        if entry.box_file is not None:
            return crop_to_box(array, entry.box_file, entry.label)
        if dataset.size and array.shape[:2] != (dataset.size, dataset.size):
            height, width = array.shape[:2]
            raise ValueError(
                f"{files[0] if isinstance(files, tuple) else files}: {height} x {width}"
                f" pixels, but the images of {dataset.name} have {dataset.size} x"
                f" {dataset.size}: fetch the file again"
            )
        return array

    def _composite(
        self, entry: Entry, record: Record, key: str, found: dict[str, list[Footprint]]
    ) -> np.ndarray:
        dataset = self.dataset
        source, made = dataset.composites[key][0], composite_of(dataset, key)
        if source in record:
            return make_picture(dataset, key, record[source])
        files, sensor = entry.files[source], get_sensor(dataset.sensors[source])
        # With one file a band three are enough, unless missing pixels are filled: they
        # are found in all bands, as is whether a pixel is saturated or missing.
        if isinstance(files, tuple) and not (self.max_nodata or dataset.scaling):
            indices = [sensor.bands.index(band) for band in made.bands]
            some = {source: tuple(files[i] for i in indices)}
            with contextlib.suppress(ValueError):
                part = sensor_part(sensor, indices)
                less = dataclasses.replace(entry, files=some)
                array = self._read_sensor(less, source, part, found)
                return make_composite(array, part.bands, made)
        array = self._read_sensor(entry, source, sensor, found)
        return make_composite(array, sensor.bands, made)

    def _label(self, entry: Entry) -> int | np.ndarray:
        single = self.dataset.task != "multi"
        names = (entry.label,) if single else entry.labels
        if entry.label_file is not None:
            names = self._read_labels(entry.label_file)
        if single:
            return self._labels.get(names[0], -1)
        hot = np.zeros(len(self._labels), np.uint8)
        for name in names:
            if name not in self.dataset.label_map:
                raise ValueError(
                    f"{entry.label_file or entry.id}: label {name!r} is not one of"
                    f" {self.dataset.name}'s"
                )
            if known := self.dataset.label_map[name]:
                hot[self._labels[known]] = 1
        return hot


def read_sensor(
    files: Path | tuple[Path, ...],
    sensor: Sensor,
    file_bands: tuple[str, ...] = (),
    *,
    max_nodata: float = 0.0,
    footprints: list[Footprint] | None = None,
    onto: Path | None = None,
    scaling: Scaling | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads and checks a sensor's array [h, w, bands].

    Args:
        files: an image, a TIFF, or one TIFF for each band.
        sensor: the expected bands, dtype and values.
        file_bands: the order of the bands in the file, if not the sensor's.
        max_nodata: see check_array.
        footprints: the files' footprints are appended to this list.
        onto: the file onto whose grid the image is warped.
        scaling: from the file's numbers to the sensor's unit, where the dataset says
            it; see apply_scaling.
        max_pixels: of a file, and of the grid; see check_pixels.
    """
    raster = read_files(files, sensor, len(file_bands or sensor.bands), max_pixels)
    where = str(files[0].parent if isinstance(files, tuple) else files)
    if onto is not None:
        if grid := read_place(onto):
            check_pixels(grid.height, grid.width, str(onto), max_pixels)
        raster = _warp(raster, sensor, grid, where)
    if footprints is not None:
        footprints += raster.places
    if is_noting():
        sides = [side for place in raster.places if (side := place.metres)]
        if sides:
            note("metres", sensor.name, min(sides))
    path = files[0] if isinstance(files, tuple) else files
    one_each = isinstance(files, tuple)
    raster = order_bands(raster, sensor, file_bands, where, one_each=one_each)
    array = apply_scaling(raster, sensor, scaling, path)
    missing = marked_missing(raster, sensor)
    return check_array(array, sensor, where, max_nodata, missing)


def _warp(raster: Raster, sensor: Sensor, grid: Footprint | None, where: str) -> Raster:
    """Warps a sensor's raster onto a grid; see warp_onto.

    A value that stands for none, such as the sensor's nodata, is not mixed with those
    beside it.
    """
    gone = find_missing(raster.pixels, sensor, marked_missing(raster, sensor))
    warped = warp_onto(dataclasses.replace(raster, missing=gone), grid, where)
    return raster if warped.pixels is raster.pixels else warped


def read_files(
    files: Path | tuple[Path, ...],
    sensor: Sensor,
    bands: int,
    max_pixels: int = MAX_PIXELS,
) -> Raster:
    """Reads the file of a sensor, or its file for each band, of so many bands."""
    if isinstance(files, tuple):
        return read_band_files(files, max_pixels)
    if sensor.unit == "8-bit":
        return read_picture(files, bands, max_pixels)
    if files.suffix.lower() in TIFF_SUFFIXES:
        return read_raster(files, bands, max_pixels=max_pixels)
    if np.dtype(sensor.dtype).itemsize > 1:
        raise ValueError(
            f"{files}: {sensor.name} has {sensor.dtype} values in {sensor.unit}, and a"
            f" {files.suffix} file is read as an 8-bit picture: convert it to GeoTIFF,"
            " or give a sensor in 8-bit"
        )
    return Raster(read_image(files, bands, max_pixels))
